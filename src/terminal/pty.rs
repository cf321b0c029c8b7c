//! A program on a pseudo-terminal of its own: reads and writes that never block, and an end that
//! leaves nothing behind.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, Signal, killpg, signal};
use nix::unistd::{Pid, setsid, tcgetpgrp};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::process::Command;

use super::Size;
use crate::guest::frames::TermSize;
use crate::guest::pty::{self, Pty as Pair};
use crate::host::child::leash;

/// Most bytes kept for a program that does not read.
const MOST_QUEUED: usize = 4 << 20;
/// How long a program has between SIGHUP and SIGKILL when its terminal is dropped.
const GRACE: Duration = Duration::from_millis(200);
/// What the terminal around mvm says of itself, which is not true of this one.
const FOREIGN: [&str; 8] =
    ["COLUMNS", "LINES", "TERM_PROGRAM", "TERM_PROGRAM_VERSION", "VTE_VERSION", "TMUX", "TMUX_PANE", "STY"];

/// Why there is no terminal.
#[derive(Debug, thiserror::Error)]
pub enum PtyError {
    /// The system gives no pseudo-terminal.
    #[error(
        "cannot open a pseudo-terminal: {0}\n\
         help: close some terminals, or raise the limit in /proc/sys/kernel/pty/max"
    )]
    Open(#[source] io::Error),
    /// The program did not start.
    #[error(
        "cannot start {program} in a terminal: {source}\nhelp: check that {program} is installed and can be run"
    )]
    Spawn {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With this code.
    Code(i32),
    /// By the signal of this number.
    Signal(i32),
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, signal) => Self::Signal(signal.unwrap_or_default()),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(number) => match Signal::try_from(*number) {
                Ok(signal) => write!(f, "killed by {signal}"),
                Err(_) => write!(f, "killed by signal {number}"),
            },
        }
    }
}

/// What a read found.
#[derive(Debug, PartialEq, Eq)]
pub enum Input {
    /// So many bytes.
    Bytes(usize),
    /// Nothing for now.
    Nothing,
    /// The end: nobody has the terminal open any more.
    End,
}

/// A program and the master of its pseudo-terminal.
#[derive(Debug)]
pub struct Pty {
    master: AsyncFd<File>,
    child: Child,
    /// Readable once the program has ended.
    pidfd: AsyncFd<OwnedFd>,
    queue: VecDeque<u8>,
    exit: Option<Exit>,
}

impl Pty {
    /// Starts a program as the leader of a session on a new pseudo-terminal. It gets SIGHUP should the
    /// calling thread end. Has to be called within a tokio runtime.
    pub fn spawn(mut command: Command, size: Size) -> Result<Self, PtyError> {
        let pair = Pair::open(size.into()).map_err(PtyError::Open)?;
        let master = nonblocking(pair.master).map_err(PtyError::Open)?;
        let stdio = || pair.terminal.try_clone().map(Stdio::from).map_err(PtyError::Open);
        command.stdin(stdio()?).stdout(stdio()?).stderr(stdio()?);
        for name in FOREIGN {
            command.env_remove(name);
        }
        command.env("TERM", "xterm-256color").env("COLORTERM", "truecolor");
        leash(&mut command);
        // SAFETY: both calls are async-signal-safe and touch nothing of the parent's.
        unsafe { command.pre_exec(take_terminal) };
        let program = command.as_std().get_program().to_string_lossy().into_owned();
        // Not by tokio, which would wait for it behind our back.
        let mut child = command.as_std_mut().spawn().map_err(|source| PtyError::Spawn { program, source })?;
        match watched(&child) {
            Ok(pidfd) => Ok(Self { master, child, pidfd, queue: VecDeque::new(), exit: None }),
            Err(error) => {
                // It has just been started and is nobody else's.
                let _ = child.kill();
                let _ = child.wait();
                Err(PtyError::Open(error))
            }
        }
    }

    /// The program's process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until there may be something to read, or room for what is queued. Cancelling it is safe.
    pub async fn ready(&self) {
        tokio::select! {
            // An error is met again, and handled, by whoever reads or writes.
            _ = self.master.readable() => {}
            _ = self.master.writable(), if !self.queue.is_empty() => {}
        }
    }

    /// Waits until the program has ended. Cancelling it is safe.
    pub async fn ended(&self) {
        let _ = self.pidfd.readable().await;
    }

    /// Reads what is there.
    pub fn read(&mut self, buffer: &mut [u8]) -> Input {
        loop {
            return match self.master.try_io(Interest::READABLE, |mut master| master.read(buffer)) {
                Ok(0) => Input::End,
                Ok(bytes) => Input::Bytes(bytes),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => Input::Nothing,
                // EIO is how Linux says that the other side was closed.
                Err(_) => Input::End,
            };
        }
    }

    /// Queues bytes for the program and writes what it takes. False when it has not read for so long
    /// that they were dropped, all of them.
    pub fn write(&mut self, bytes: &[u8]) -> bool {
        if self.queue.len() + bytes.len() > MOST_QUEUED {
            return false;
        }
        self.queue.extend(bytes);
        self.flush();
        true
    }

    /// Bytes the program has not read yet.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Writes what is queued, as far as the program takes it.
    pub fn flush(&mut self) {
        while !self.queue.is_empty() {
            let (bytes, _) = self.queue.as_slices();
            match self.master.try_io(Interest::WRITABLE, |mut master| master.write(bytes)) {
                Ok(written) => drop(self.queue.drain(..written)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // Nobody is there to read it.
                Err(_) => self.queue.clear(),
            }
        }
    }

    /// Tells the program the size of its terminal.
    pub fn resize(&self, size: Size) -> io::Result<()> {
        pty::resize(self.master.get_ref(), size.into())
    }

    /// How the program ended, once it has.
    pub fn exit(&mut self) -> Option<Exit> {
        if self.exit.is_none() {
            // It can be waited for: it is our child, and nobody else waits for it.
            self.exit = self.child.try_wait().ok().flatten().map(Exit::from);
        }
        self.exit
    }

    /// Asks the program to end, as a terminal that goes away does.
    pub fn hang_up(&mut self) {
        for group in self.groups() {
            // It may just have ended by itself.
            let _ = killpg(group, Signal::SIGHUP);
        }
    }

    /// The program's process group, and that in the foreground of its terminal if it is another; none
    /// once the program was waited for, as its number may be another's by then.
    fn groups(&mut self) -> Vec<Pid> {
        if self.exit().is_some() {
            return Vec::new();
        }
        let leader = Pid::from_raw(self.child.id() as i32);
        let foreground = foreground(self.master.get_ref()).filter(|group| *group != leader);
        [Some(leader), foreground].into_iter().flatten().collect()
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let groups = self.groups();
        self.hang_up();
        let deadline = Instant::now() + GRACE;
        for group in &groups {
            if let Ok(pidfd) = pidfd(*group) {
                let left = deadline.saturating_duration_since(Instant::now());
                let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
                // Whatever it says, the next step is right.
                let _ = poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], left);
            }
            let _ = killpg(*group, Signal::SIGKILL);
        }
        if !groups.is_empty() {
            let _ = self.child.wait();
        }
    }
}

impl From<Size> for TermSize {
    fn from(size: Size) -> Self {
        Self { cols: size.columns(), rows: size.rows() }
    }
}

/// The process group in the foreground of a terminal, while there is one. Of a terminal without a
/// session the kernel says 0, by which a signal would be meant for mvm's own group.
fn foreground(master: &File) -> Option<Pid> {
    tcgetpgrp(master).ok().filter(|group| group.as_raw() > 0)
}

/// Makes the standard input the controlling terminal of a new session.
fn take_terminal() -> io::Result<()> {
    setsid()?;
    // What mvm was started with, by nohup or in the background, is not for who has a terminal of his own.
    for ignored in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM, Signal::SIGTSTP] {
        // SAFETY: no handler is installed.
        unsafe { signal(ignored, SigHandler::SigDfl) }?;
    }
    // SAFETY: the request takes no pointer.
    match unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn nonblocking(master: File) -> io::Result<AsyncFd<File>> {
    let flags = nix::fcntl::OFlag::O_RDWR | nix::fcntl::OFlag::O_NONBLOCK;
    nix::fcntl::fcntl(&master, nix::fcntl::FcntlArg::F_SETFL(flags))?;
    // SAFETY: a file keeps its descriptor until it is dropped.
    Ok(unsafe { AsyncFd::register(master) }?)
}

/// A descriptor that becomes readable when the process ends.
fn pidfd(process: Pid) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open returns a new descriptor or -1; nothing else has it.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, process.as_raw(), 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, and owned here alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn watched(child: &Child) -> io::Result<AsyncFd<OwnedFd>> {
    let pidfd = pidfd(Pid::from_raw(child.id() as i32))?;
    // SAFETY: it keeps its descriptor until it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_without_a_session_has_no_group_to_be_signalled() {
        let pair = Pair::open(Size::new(80, 24).into()).unwrap();
        assert_eq!(tcgetpgrp(&pair.master), Ok(Pid::from_raw(0)));
        assert_eq!(foreground(&pair.master), None);
    }
}
