//! What the agent does with each frame of the host.

use std::time::Duration;

use super::agent::{Agent, MAX_SESSIONS, Seal};
use super::command::Command;
use super::frames::{Answer, Exec, Frame, FrameKind, Personalise, Reply, Request};
use super::{hook, personalise, probe};

/// Time the services have to stop before power off.
const STOP_LIMIT: Duration = Duration::from_secs(3);
/// Time the answer to `poweroff` has to get out.
const FAREWELL_LIMIT: Duration = Duration::from_millis(500);

impl Agent {
    /// Does what a frame asks. False when no honest host sends it.
    pub(super) fn handle(&mut self, frame: Frame) -> bool {
        let id = frame.session;
        match frame.kind {
            FrameKind::Hello => {
                let Some(number) = frame.as_number().filter(|_| id == 0) else { return false };
                self.hang_up_all();
                self.hello(Some(number));
                true
            }
            FrameKind::Request => self.request(id, &frame.payload),
            FrameKind::Close => {
                if let Some(command) = self.commands.remove(&id) {
                    self.hang_up(command);
                }
                true
            }
            FrameKind::Reply | FrameKind::Stdout | FrameKind::Stderr | FrameKind::Exit => false,
            FrameKind::Stdin | FrameKind::Resize | FrameKind::Signal | FrameKind::Credit => {
                // A session may have ended while the frame was under way.
                self.commands.get_mut(&id).is_none_or(|command| adjust(command, &frame))
                    && (frame.kind != FrameKind::Stdin || {
                        self.feed(id);
                        true
                    })
            }
        }
    }

    fn request(&mut self, id: u32, payload: &[u8]) -> bool {
        if id == 0 || self.commands.contains_key(&id) {
            return false;
        }
        if self.commands.len() + self.dying.len() + self.jobs.running() >= MAX_SESSIONS {
            self.refuse(id, format!("{MAX_SESSIONS} sessions are under way already"));
            return true;
        }
        match serde_json::from_slice(payload) {
            // A newer host may ask for what this agent does not know.
            Err(error) => self.refuse(id, format!("request not understood: {error}")),
            Ok(Request::Personalise(what)) => self.personalise(id, *what),
            Ok(Request::Wake { time_ns, entropy }) => {
                let woken = personalise::wake(&*self.system, time_ns, &entropy);
                self.reply(
                    id,
                    woken.map_or_else(|error| Reply::Error(error.to_string()), |()| Reply::Ok(Answer::Done)),
                );
            }
            Ok(Request::Exec(exec)) => self.exec(id, &exec),
            Ok(Request::Ready) => {
                let sealed = self.seal != Seal::Open;
                self.reply(id, Reply::Ok(Answer::Ready { sealed, ports: probe::ports(&self.root) }));
            }
            Ok(Request::Stats) => match probe::stats(&self.root) {
                Ok(answer) => self.reply(id, Reply::Ok(answer)),
                Err(error) => self.refuse(id, format!("cannot read /proc: {error}")),
            },
            Ok(Request::Drain { deadline_ms }) => {
                let root = self.root.clone();
                self.job(id, move || match hook::run(&root, "drain", Duration::from_millis(deadline_ms)) {
                    Ok(()) => Reply::Ok(Answer::Done),
                    Err(error) => Reply::Error(error.to_string()),
                });
            }
            Ok(Request::Poweroff) => self.power_off(id),
        }
        true
    }

    fn personalise(&mut self, id: u32, what: Personalise) {
        if self.seal != Seal::Sealed {
            return self.refuse(id, "this guest was personalised before".into());
        }
        self.seal = Seal::Opening(id, self.epoch);
        let (root, system) = (self.root.clone(), self.system.clone());
        self.job(id, move || {
            if let Err(error) = personalise::apply(&root, &*system, &what) {
                return Reply::Error(error.to_string());
            }
            match hook::start(&root, "start") {
                Err(error) => return Reply::Error(error.to_string()),
                Ok(None) => {}
                // Somebody has to reap it; a thread costs nothing while it waits.
                Ok(Some(mut child)) => drop(std::thread::spawn(move || child.wait())),
            }
            Reply::Ok(Answer::Done)
        });
    }

    fn power_off(&mut self, id: u32) {
        self.reply(id, Reply::Ok(Answer::Done));
        if let Some(channel) = &mut self.channel {
            channel.flush_within(FAREWELL_LIMIT);
        }
        let (root, system) = (self.root.clone(), self.system.clone());
        // The session is over; what the job says afterwards is for nobody.
        let nobody = self.epoch.wrapping_sub(1);
        let _ = self.jobs.start(id, nobody, move || {
            let _ = hook::run(&root, "stop", STOP_LIMIT);
            let _ = system.power_off();
            Reply::Ok(Answer::Done)
        });
    }

    fn exec(&mut self, id: u32, exec: &Exec) {
        match Command::start(&self.root, exec) {
            Ok(command) => drop(self.commands.insert(id, command)),
            Err(failure) => {
                self.send(&Frame::new(id, FrameKind::Stderr, failure.line));
                self.send(&Frame::number(id, FrameKind::Exit, failure.code));
            }
        }
    }

    fn job(&mut self, id: u32, work: impl FnOnce() -> Reply + Send + 'static) {
        if let Err(error) = self.jobs.start(id, self.epoch, work) {
            if self.seal == Seal::Opening(id, self.epoch) {
                self.seal = Seal::Sealed;
            }
            self.refuse(id, format!("cannot start a thread: {error}"));
        }
    }
}

/// Applies a frame to a running command. False when it breaks the rules.
fn adjust(command: &mut Command, frame: &Frame) -> bool {
    match frame.kind {
        FrameKind::Stdin => command.push_input(&frame.payload),
        FrameKind::Credit => frame.as_number().is_some_and(|count| command.add_credit(count)),
        FrameKind::Signal => frame.as_number().map(|number| command.signal(number)).is_some(),
        _ => serde_json::from_slice(&frame.payload).map(|size| command.resize(size)).is_ok(),
    }
}
