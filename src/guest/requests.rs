//! What the agent does with each frame of the host.

use std::time::{Duration, Instant};

use super::agent::{Agent, MAX_SESSIONS, Waiting};
use super::command::Command;
use super::frames::{Answer, Exec, Frame, FrameKind, Personalise, Reply, Request};
use super::{hook, personalise, probe, rehearse};

/// Time the services have to stop before power off.
const STOP_LIMIT: Duration = Duration::from_secs(3);
/// Longest time a host may have its question about ports wait.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
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
        if self.commands.len() + self.dying.len() + self.jobs.running() + self.waiting.len() >= MAX_SESSIONS {
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
            Ok(Request::Rehearse { deadline_ms }) => {
                self.rehearse(id, deadline_ms.map_or(rehearse::LIMIT, Duration::from_millis));
            }
            Ok(Request::Ready { ports, wait_ms }) => {
                let until = Instant::now() + Duration::from_millis(wait_ms).min(LONGEST_WAIT);
                self.waiting.push(Waiting { id, ports, until });
                self.answer_waiting();
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
        if !self.sealed {
            return self.refuse(id, "this guest was personalised before".into());
        }
        // Not in a thread of its own: nobody else is to be served yet, and making one takes a restored
        // guest longer than all of this.
        let applied = personalise::apply(&self.root, &*self.system, &what);
        if personalise::is_personalised(&self.root) {
            self.sealed = false;
        }
        if let Err(error) = applied {
            return self.refuse(id, error.to_string());
        }
        if rehearse::go_on(&self.root) {
            return self.reply(id, Reply::Ok(Answer::Done));
        }
        match hook::start(&self.root, "start") {
            Err(error) => return self.refuse(id, error.to_string()),
            Ok(None) => {}
            // Somebody has to reap it; a thread costs nothing while it waits.
            Ok(Some(mut child)) => drop(std::thread::spawn(move || child.wait())),
        }
        self.reply(id, Reply::Ok(Answer::Done));
    }

    /// Answers those whose ports listen, or who waited long enough.
    pub(super) fn answer_waiting(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let (open, now) = (probe::ports(&self.root), Instant::now());
        let is_over = |waiting: &mut Waiting| {
            now >= waiting.until || waiting.ports.iter().all(|port| open.contains(port))
        };
        for over in self.waiting.extract_if(.., is_over).collect::<Vec<_>>() {
            let answer = Answer::Ready { sealed: self.sealed, ports: open.clone() };
            self.reply(over.id, Reply::Ok(answer));
        }
    }

    fn rehearse(&mut self, id: u32, limit: Duration) {
        if !self.sealed {
            return self.refuse(id, "this guest was personalised before".into());
        }
        let (root, system) = (self.root.clone(), self.system.clone());
        self.job(id, move || match rehearse::rehearse(&root, &*system, limit) {
            Ok(()) => Reply::Ok(Answer::Done),
            Err(error) => Reply::Error(error.to_string()),
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
