//! The agent's loop: one thread, one `poll`, many sessions.
//!
//! A host that goes away, or takes up the channel anew, starts an epoch: what ran for the one
//! before is hung up, and what its jobs answer later is dropped.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::channel::{Absence, Channel, ChannelError, Line, accept};
use super::command::{Command, Output};
use super::frames::{Frame, FrameKind, Hello, Reply};
use super::jobs::Jobs;
use super::personalise;
use super::system::System;
use crate::artifacts::GUEST_CONTRACT;

/// Sessions at a time; further ones are refused.
pub const MAX_SESSIONS: usize = 64;
/// Pause between two looks at ports that somebody waits for: under software emulation a look takes
/// milliseconds, of which those it waits for have need.
const LOOK: Duration = Duration::from_millis(20);
/// How often a host that is away is looked for, should the edge have been missed.
const ABSENCE_CHECK: Duration = Duration::from_secs(1);

/// The agent.
pub(super) struct Agent {
    pub(super) root: PathBuf,
    pub(super) system: Arc<dyn System>,
    listener: Option<OwnedFd>,
    pub(super) channel: Option<Channel>,
    /// The channel outlives the host at its other end.
    serial: bool,
    absence: Option<Absence>,
    pub(super) commands: BTreeMap<u32, Command>,
    /// Hung up, not yet ended.
    pub(super) dying: Vec<Command>,
    pub(super) jobs: Jobs,
    pub(super) epoch: u64,
    /// Until it was personalised.
    pub(super) sealed: bool,
    /// Who wants to know when ports listen.
    pub(super) waiting: Vec<Waiting>,
    /// Moves on so that every command comes first at times, when room is scarce.
    turns: usize,
}

/// Somebody who wants to know when ports listen.
pub(super) struct Waiting {
    pub(super) id: u32,
    pub(super) ports: Vec<u16>,
    pub(super) until: Instant,
}

/// What a polled descriptor stands for.
#[derive(Debug, Clone, Copy)]
enum Source {
    Listener,
    Channel,
    Absence,
    Jobs,
    Exit(u32),
    Stdin(u32),
    Output(u32, Output),
    Dying(usize),
}

/// Serves the host on `line`; `root` stands before every path of the guest. Returns when a
/// [`Line::Stream`] has ended.
pub fn serve(line: Line, root: PathBuf, system: Arc<dyn System>) -> io::Result<()> {
    let (listener, channel, serial) = match line {
        Line::Listener(listener) => (Some(listener), None, false),
        Line::Stream(stream) => (None, Some(Channel::new(stream)?), false),
        Line::Serial(file) => (None, Some(Channel::new(file)?), true),
    };
    let sealed = !personalise::is_personalised(&root);
    let mut agent = Agent {
        root,
        system,
        listener,
        channel,
        serial,
        absence: None,
        commands: BTreeMap::new(),
        dying: Vec::new(),
        jobs: Jobs::new()?,
        epoch: 0,
        sealed,
        waiting: Vec::new(),
        turns: 0,
    };
    if serial && agent.channel.as_ref().is_some_and(Channel::is_hung_up) {
        agent.host_left()?;
    } else {
        agent.hello(None);
    }
    while agent.channel.is_some() || agent.listener.is_some() || !agent.dying.is_empty() {
        agent.turn()?;
    }
    Ok(())
}

impl Agent {
    /// Waits until something is to be done and does it.
    fn turn(&mut self) -> io::Result<()> {
        if self.absence.is_none()
            && let Some(Err(_)) = self.channel.as_mut().map(Channel::flush)
        {
            self.host_left()?;
        }
        let mut ready = self.wait()?;
        if !ready.is_empty() {
            self.turns = self.turns.wrapping_add(1);
            let first = self.turns % ready.len();
            ready.rotate_left(first);
        }
        for source in ready {
            self.attend(source)?;
        }
        self.finish_commands();
        self.answer_waiting();
        Ok(())
    }

    fn wait(&self) -> io::Result<Vec<Source>> {
        let mut fds = Vec::new();
        let mut sources = Vec::new();
        let mut watch = |fd, flags, source| {
            fds.push(PollFd::new(fd, flags));
            sources.push(source);
        };
        let input = PollFlags::POLLIN;
        watch(self.jobs.as_fd(), input, Source::Jobs);
        match (&self.channel, &self.absence, &self.listener) {
            (Some(_), Some(absence), _) => watch(absence.as_fd(), input, Source::Absence),
            (Some(channel), None, _) => watch(channel.as_fd(), channel.interest(), Source::Channel),
            (None, _, Some(listener)) => watch(listener.as_fd(), input, Source::Listener),
            (None, _, None) => {}
        }
        for (id, command) in &self.commands {
            if command.exit.is_none() {
                watch(command.pidfd.as_fd(), input, Source::Exit(*id));
            }
            if let Some(stdin) = command.stdin_waiting() {
                watch(stdin.as_fd(), PollFlags::POLLOUT, Source::Stdin(*id));
            }
            for output in [Output::Stdout, Output::Stderr] {
                if let Some(file) = command.readable(output).filter(|_| self.has_room()) {
                    watch(file.as_fd(), input, Source::Output(*id, output));
                }
            }
        }
        for (index, command) in self.dying.iter().enumerate().rev() {
            if command.exit.is_none() {
                watch(command.pidfd.as_fd(), input, Source::Dying(index));
            }
        }
        match poll(&mut fds, self.timeout()) {
            Err(Errno::EINTR) => return Ok(Vec::new()),
            result => result?,
        };
        let polled = fds.iter().zip(sources);
        let ready = polled.filter(|(fd, _)| fd.any() == Some(true));
        Ok(ready.map(|(_, source)| source).collect())
    }

    fn timeout(&self) -> PollTimeout {
        let blocked = !self.has_room();
        let commands = self.commands.values().chain(&self.dying);
        let absence = self.absence.as_ref().map(|_| Instant::now() + ABSENCE_CHECK);
        let look = self.waiting.first().map(|_| Instant::now() + LOOK);
        let deadlines = commands.filter_map(|command| command.deadline(blocked));
        let next = deadlines.chain(absence).chain(look).min();
        let Some(next) = next else {
            return PollTimeout::NONE;
        };
        // Rounded up, or the last millisecond would be spent turning.
        let left = next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
    }

    fn has_room(&self) -> bool {
        self.channel.as_ref().is_some_and(Channel::has_room)
    }

    fn attend(&mut self, source: Source) -> io::Result<()> {
        match source {
            Source::Listener => self.welcome(),
            Source::Channel => return self.receive(),
            Source::Absence => self.look_for_host(),
            Source::Jobs => self.finish_jobs(),
            Source::Exit(id) => {
                if let Some(command) = self.commands.get_mut(&id) {
                    command.check_exit();
                }
            }
            Source::Stdin(id) => self.feed(id),
            Source::Output(..) if !self.has_room() => {}
            Source::Output(id, output) => {
                let read = self.commands.get_mut(&id).and_then(|command| command.read(output));
                if let Some((kind, bytes)) = read {
                    self.send(&Frame::new(id, kind, bytes));
                }
            }
            Source::Dying(index) => {
                if let Some(command) = self.dying.get_mut(index) {
                    command.check_exit();
                }
            }
        }
        Ok(())
    }

    fn welcome(&mut self) {
        let connection = self.listener.as_ref().and_then(|listener| accept(listener).ok());
        if let Some(channel) = connection.and_then(|connection| Channel::new(connection).ok()) {
            self.channel = Some(channel);
            self.hello(None);
        }
    }

    fn look_for_host(&mut self) {
        if let (Some(channel), Some(absence)) = (&self.channel, &self.absence)
            && absence.is_over(channel)
        {
            self.absence = None;
            self.hello(None);
        }
    }

    fn receive(&mut self) -> io::Result<()> {
        let mut frames = Vec::new();
        let Some(channel) = &mut self.channel else { return Ok(()) };
        if !channel.has_room() {
            // Only reported so that a host that left is noticed.
            return if channel.is_hung_up() { self.host_left() } else { Ok(()) };
        }
        let received = channel.receive(&mut frames);
        for frame in frames {
            if !self.handle(frame) {
                return self.start_over();
            }
        }
        match received {
            Ok(()) => Ok(()),
            Err(ChannelError::HungUp) => self.host_left(),
            Err(ChannelError::Malformed(_)) => self.start_over(),
        }
    }

    /// The host is gone: a serial port waits for the next one, a stream is closed.
    fn host_left(&mut self) -> io::Result<()> {
        self.hang_up_all();
        match &mut self.channel {
            Some(channel) if self.serial => {
                channel.discard();
                self.absence = Some(Absence::new(channel)?);
            }
            _ => self.channel = None,
        }
        Ok(())
    }

    /// The host does not make sense: a connection is closed, else both sides begin anew.
    fn start_over(&mut self) -> io::Result<()> {
        if self.listener.is_some() {
            return self.host_left();
        }
        self.hang_up_all();
        if let Some(channel) = &mut self.channel {
            channel.discard_input();
        }
        self.hello(None);
        Ok(())
    }

    pub(super) fn hang_up_all(&mut self) {
        self.epoch += 1;
        self.waiting.clear();
        for (_, command) in std::mem::take(&mut self.commands) {
            self.hang_up(command);
        }
    }

    pub(super) fn hang_up(&mut self, mut command: Command) {
        command.hang_up();
        self.dying.push(command);
    }

    fn finish_jobs(&mut self) {
        while let Some(done) = self.jobs.take() {
            if done.epoch == self.epoch {
                self.reply(done.session, done.reply);
            }
        }
    }

    pub(super) fn feed(&mut self, id: u32) {
        let used = self.commands.get_mut(&id).map_or(0, Command::write_input);
        if used > 0 {
            self.send(&Frame::number(id, FrameKind::Credit, used as u32));
        }
    }

    fn finish_commands(&mut self) {
        let (blocked, now) = (!self.has_room(), Instant::now());
        let finished = |(id, command): (&u32, &mut Command)| Some((*id, command.finished(blocked, now)?));
        let finished: Vec<_> = self.commands.iter_mut().filter_map(finished).collect();
        for (id, code) in finished {
            self.commands.remove(&id);
            self.send(&Frame::number(id, FrameKind::Exit, code));
        }
        self.dying.retain_mut(|command| !command.bury(now));
    }

    pub(super) fn hello(&mut self, answers: Option<u32>) {
        let hello = Hello {
            contract: GUEST_CONTRACT,
            version: env!("CARGO_PKG_VERSION").into(),
            sealed: self.sealed,
            answers,
        };
        self.send_json(0, FrameKind::Hello, &hello);
    }

    pub(super) fn refuse(&mut self, id: u32, why: String) {
        self.reply(id, Reply::Error(why));
    }

    pub(super) fn reply(&mut self, id: u32, reply: Reply) {
        self.send_json(id, FrameKind::Reply, &reply);
    }

    fn send_json(&mut self, id: u32, kind: FrameKind, value: &impl serde::Serialize) {
        // These types always serialise: no maps with odd keys, no failing implementations.
        if let Ok(frame) = Frame::json(id, kind, value) {
            self.send(&frame);
        }
    }

    pub(super) fn send(&mut self, frame: &Frame) {
        if let (Some(channel), None) = (&mut self.channel, &self.absence) {
            channel.send(frame);
        }
    }
}
