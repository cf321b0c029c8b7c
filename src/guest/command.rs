//! One command that the host runs: its process, its pipes or terminal, its credit.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command as Process, Stdio};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, geteuid, setsid};

use super::channel::{is_transient, set_nonblocking};
use super::frames::{Exec, FrameKind, TermSize, WINDOW};
use super::hook::pidfd;
use super::pty::{self, Pty};
use super::user::User;

/// Bytes of output taken at a time, so that many commands share the channel.
const CHUNK: usize = 16 * 1024;
/// How long output may be silent after the command ended, when someone else holds it open.
const LINGER: Duration = Duration::from_millis(200);
/// How much output is taken after the command ended: a full pipe and then some.
const LINGER_BYTES: usize = 4 * 1024 * 1024;
/// Time a command has between SIGHUP and SIGKILL.
const HANG_UP_GRACE: Duration = Duration::from_secs(1);

/// Why a command did not start, as a shell would say it.
pub struct NotStarted {
    /// 127 or 126.
    pub code: u32,
    /// A line for stderr.
    pub line: String,
}

/// A command and what connects it to the host.
pub struct Command {
    child: Child,
    /// Readable once the process has ended.
    pub pidfd: OwnedFd,
    /// Set once it has ended; the process stays unreaped, so that its group's id is still ours.
    pub exit: Option<u32>,
    stdin: Option<File>,
    input: Vec<u8>,
    /// Bytes of the host's in `input`: all but the ^D of ours.
    owed: usize,
    input_ends: bool,
    tty: Option<File>,
    stdout: Option<File>,
    stderr: Option<File>,
    credit: usize,
    linger_until: Instant,
    linger_bytes: usize,
    kill_at: Option<Instant>,
}

/// Output of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Standard output, or all output of a terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Command {
    /// Starts what the host asked for.
    pub fn start(root: &Path, exec: &Exec) -> Result<Self, NotStarted> {
        let cannot =
            |code, what: &str, why: &str| NotStarted { code, line: format!("mvm-guest: {what}: {why}\n") };
        let [program, arguments @ ..] = exec.argv.as_slice() else {
            return Err(cannot(127, "exec", "no command given"));
        };
        let wanted = exec.user.as_deref();
        let user = User::of_command(root, wanted)
            .ok_or_else(|| cannot(126, wanted.unwrap_or_default(), "no such user"))?;
        let home_or_root = || if user.home.is_dir() { user.home.clone() } else { "/".into() };
        let cwd = exec.cwd.as_ref().map_or_else(home_or_root, Into::into);
        if !cwd.is_dir() {
            return Err(cannot(126, &cwd.to_string_lossy(), "no such directory"));
        }
        let mut process = Process::new(program);
        process.args(arguments).current_dir(cwd).env_clear().envs(user.environment());
        process.env("TERM", if exec.tty.is_some() { "xterm-256color" } else { "dumb" });
        process.envs(exec.env.iter().map(|(name, value)| (name, value)));
        Self::spawn(process, &user, exec.tty).map_err(|error| match error.kind() {
            ErrorKind::NotFound => cannot(127, program, "not found"),
            ErrorKind::PermissionDenied => cannot(126, program, "not executable"),
            _ => cannot(126, program, &error.to_string()),
        })
    }

    fn spawn(mut process: Process, user: &User, tty: Option<TermSize>) -> io::Result<Self> {
        let pty = tty.map(Pty::open).transpose()?;
        let switch = geteuid().as_raw() != user.uid;
        match &pty {
            Some(Pty { terminal, .. }) => {
                if switch {
                    std::os::unix::fs::fchown(terminal, Some(user.uid), None)?;
                }
                process
                    .stdin(terminal.try_clone()?)
                    .stdout(terminal.try_clone()?)
                    .stderr(terminal.try_clone()?)
            }
            None => process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()),
        };
        let (uid, gid, groups, has_tty) = (user.uid, user.gid, user.groups.clone(), pty.is_some());
        // SAFETY: only system calls, on values made before the fork.
        unsafe {
            process.pre_exec(move || {
                setsid()?;
                if has_tty {
                    check(libc::ioctl(0, libc::TIOCSCTTY as _, 0))?;
                }
                if switch {
                    check(libc::setgroups(groups.len() as _, groups.as_ptr()))?;
                    check(libc::setgid(gid))?;
                    check(libc::setuid(uid))?;
                }
                Ok(())
            })
        };
        let mut child = process.spawn()?;
        // The copies of the terminal go with `process`, or its hang-up would never be seen.
        drop(process);
        let tty = pty.map(|pty| pty.master);
        let files = Self::connect(&mut child, &tty).and_then(|files| Ok((files, pidfd(&child)?)));
        let ([stdin, stdout, stderr], pidfd) = match files {
            Ok(files) => files,
            Err(error) => {
                let _ = child.kill().and_then(|()| child.wait());
                return Err(error);
            }
        };
        Ok(Self {
            child,
            pidfd,
            exit: None,
            stdin,
            input: Vec::new(),
            owed: 0,
            input_ends: false,
            tty,
            stdout,
            stderr,
            credit: WINDOW,
            linger_until: Instant::now(),
            linger_bytes: LINGER_BYTES,
            kill_at: None,
        })
    }

    /// The agent's ends of stdin, stdout and stderr.
    fn connect(child: &mut Child, tty: &Option<File>) -> io::Result<[Option<File>; 3]> {
        let files = match tty {
            Some(master) => [Some(master.try_clone()?), Some(master.try_clone()?), None],
            None => [
                child.stdin.take().map(|pipe: ChildStdin| OwnedFd::from(pipe).into()),
                child.stdout.take().map(|pipe: ChildStdout| OwnedFd::from(pipe).into()),
                child.stderr.take().map(|pipe: ChildStderr| OwnedFd::from(pipe).into()),
            ],
        };
        for file in files.iter().flatten() {
            set_nonblocking(file)?;
        }
        Ok(files)
    }

    /// The descriptor to poll for writing, while input waits.
    pub fn stdin_waiting(&self) -> Option<&File> {
        self.stdin.as_ref().filter(|_| !self.input.is_empty())
    }

    /// The descriptor to poll for reading, while the host takes output.
    pub fn readable(&self, output: Output) -> Option<&File> {
        let file = match output {
            Output::Stdout => &self.stdout,
            Output::Stderr => &self.stderr,
        };
        file.as_ref().filter(|_| self.credit > 0)
    }

    /// Takes input from the host; empty is its end. False when it is more than the window allows.
    pub fn push_input(&mut self, bytes: &[u8]) -> bool {
        if bytes.is_empty() {
            if self.tty.is_some() {
                self.input.push(4); // ^D, the end of input of a terminal
            }
            self.input_ends = true;
        }
        self.input.extend(bytes);
        self.owed += bytes.len();
        self.owed <= WINDOW
    }

    /// Passes input on; how many bytes were used up. A command that reads no more uses up all.
    pub fn write_input(&mut self) -> usize {
        let result = match &mut self.stdin {
            Some(stdin) if !self.input.is_empty() => stdin.write(&self.input),
            _ => Ok(0),
        };
        let used = match result {
            Ok(count) => count,
            Err(error) if is_transient(&error) => 0,
            Err(_) => {
                self.stdin = None;
                0
            }
        };
        self.input.drain(..used);
        let dropped = if self.stdin.is_none() { std::mem::take(&mut self.input).len() } else { 0 };
        if self.input_ends && self.input.is_empty() && self.tty.is_none() {
            self.stdin = None;
        }
        let used = self.owed.min(used + dropped);
        self.owed -= used;
        used
    }

    /// Takes back credit for output. False when it is more than was lent.
    pub fn add_credit(&mut self, count: u32) -> bool {
        self.credit += count as usize;
        self.credit <= WINDOW
    }

    /// Reads a chunk of output, if there is some.
    pub fn read(&mut self, output: Output) -> Option<(FrameKind, Vec<u8>)> {
        let (file, kind) = match output {
            Output::Stdout => (&mut self.stdout, FrameKind::Stdout),
            Output::Stderr => (&mut self.stderr, FrameKind::Stderr),
        };
        let mut chunk = vec![0; CHUNK.min(self.credit)];
        match file.as_mut()?.read(&mut chunk) {
            Err(error) if is_transient(&error) => None,
            // A terminal that nobody holds any more is EIO.
            Ok(0) | Err(_) => {
                *file = None;
                None
            }
            Ok(count) => {
                chunk.truncate(count);
                self.credit -= count;
                if self.exit.is_some() {
                    self.linger_bytes = self.linger_bytes.saturating_sub(count);
                    self.linger_until = Instant::now() + LINGER;
                }
                Some((kind, chunk))
            }
        }
    }

    /// Notes the process's end, without reaping it.
    pub fn check_exit(&mut self) {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
        self.exit = match waitid(Id::Pid(self.group()), flags) {
            Ok(WaitStatus::Exited(_, code)) => Some(code as u32),
            Ok(WaitStatus::Signaled(_, signal, _)) => Some(128 + signal as u32),
            Ok(_) => None,
            // Real-time signals have no name in nix; the reaped status has the number.
            Err(_) => self
                .child
                .try_wait()
                .ok()
                .flatten()
                .map(|status| status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)) as u32),
        };
        self.linger_until = Instant::now() + LINGER;
    }

    /// The exit code, once all output was read or nobody is going to write more. `blocked` tells
    /// that output was not read for want of room, so that silence means nothing.
    pub fn finished(&mut self, blocked: bool, now: Instant) -> Option<u32> {
        let code = self.exit?;
        if self.stdout.is_none() && self.stderr.is_none() {
            return Some(code);
        }
        if blocked || self.credit == 0 {
            self.linger_until = now + LINGER;
            return None;
        }
        (now >= self.linger_until || self.linger_bytes == 0).then_some(code)
    }

    /// When something is to be done without any event.
    pub fn deadline(&self, blocked: bool) -> Option<Instant> {
        let lingers = self.exit.is_some() && !blocked && self.credit > 0;
        self.kill_at.or(lingers.then_some(self.linger_until))
    }

    /// Gives the terminal another size.
    pub fn resize(&self, size: TermSize) {
        if let Some(tty) = &self.tty {
            let _ = pty::resize(tty, size);
        }
    }

    /// Sends a signal to the command's process group.
    pub fn signal(&self, number: u32) {
        if self.exit.is_none() && (1..=64).contains(&number) {
            // SAFETY: no pointers; the group is that of an unreaped child.
            unsafe { libc::killpg(self.group().as_raw(), number as i32) };
        }
    }

    /// Hangs up: closes everything and lets the process group end.
    pub fn hang_up(&mut self) {
        (self.stdin, self.stdout, self.stderr, self.tty) = (None, None, None, None);
        self.input.clear();
        self.kill_at = Some(Instant::now() + HANG_UP_GRACE);
        let _ = killpg(self.group(), Signal::SIGHUP);
        let _ = killpg(self.group(), Signal::SIGCONT);
    }

    /// After [`Self::hang_up`]: kills what is left, once it had its time. True when it is over.
    pub fn bury(&mut self, now: Instant) -> bool {
        let due = self.kill_at.is_some_and(|at| now >= at);
        if due || self.exit.is_some() {
            let _ = killpg(self.group(), Signal::SIGKILL);
            self.kill_at = Some(now + HANG_UP_GRACE);
        }
        self.exit.is_some()
    }

    fn group(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        if self.exit.is_none() {
            let _ = killpg(self.group(), Signal::SIGKILL);
        }
        // At most moments away: it has ended, or was just killed.
        let _ = self.child.wait();
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(argv: &[&str]) -> Result<Command, NotStarted> {
        let argv = argv.iter().map(ToString::to_string).collect();
        Command::start(Path::new("/"), &Exec { argv, user: Some("root".into()), ..Exec::default() })
    }

    #[test]
    fn what_cannot_start_is_told_apart_as_a_shell_does() {
        let failure = |argv: &[&str]| run(argv).err().map(|f| (f.code, f.line)).unwrap();
        assert_eq!(failure(&["no-such-thing"]), (127, "mvm-guest: no-such-thing: not found\n".into()));
        assert_eq!(failure(&["/etc/passwd"]).0, 126);
        assert_eq!(failure(&[]).0, 127);
    }

    #[test]
    fn more_input_than_the_window_is_noticed() {
        let mut command = run(&["sleep", "1000"]).ok().unwrap();
        assert!(command.push_input(&vec![0; WINDOW]));
        assert!(!command.push_input(&[0]));
        assert!(!command.add_credit(1));
    }
}
