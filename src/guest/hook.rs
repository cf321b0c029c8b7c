//! The image's own programs: `/etc/mvm/start`, `drain` and `stop`.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, setsid};

use super::user::PATH;

/// Why a hook did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// It could not be run.
    #[error("cannot run /etc/mvm/{0}: {1}")]
    Spawn(&'static str, #[source] io::Error),
    /// It ended with a failure.
    #[error("/etc/mvm/{0} failed: {1}")]
    Failed(&'static str, std::process::ExitStatus),
    /// It was killed at its deadline.
    #[error("/etc/mvm/{0} did not finish within {1} ms and was killed")]
    Deadline(&'static str, u128),
}

/// Starts `/etc/mvm/<name>` in a session of its own, its output on the console; `None` when the
/// image has none.
pub fn start(root: &Path, name: &'static str) -> Result<Option<Child>, HookError> {
    let path = root.join("etc/mvm").join(name);
    if !path.exists() {
        return Ok(None);
    }
    let console = || match OpenOptions::new().write(true).open(root.join("dev/console")) {
        Ok(console) => Stdio::from(console),
        Err(_) => Stdio::null(),
    };
    let mut command = Command::new(&path);
    command.env("PATH", PATH).current_dir("/");
    command.stdin(Stdio::null()).stdout(console()).stderr(console());
    // SAFETY: setsid is async-signal-safe.
    unsafe { command.pre_exec(|| Ok(setsid().map(drop)?)) };
    command.spawn().map(Some).map_err(|error| HookError::Spawn(name, error))
}

/// Runs `/etc/mvm/<name>` to its end, or kills it and what it started after `limit`.
pub fn run(root: &Path, name: &'static str, limit: Duration) -> Result<(), HookError> {
    let Some(mut child) = start(root, name)? else {
        return Ok(());
    };
    let wait = |child: &mut Child| child.wait().map_err(|error| HookError::Spawn(name, error));
    let ended = pidfd(&child).and_then(|pidfd| ends_within(&pidfd, limit));
    if matches!(ended, Ok(true)) {
        let status = wait(&mut child)?;
        return if status.success() { Ok(()) } else { Err(HookError::Failed(name, status)) };
    }
    let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
    wait(&mut child)?;
    Err(HookError::Deadline(name, limit.as_millis()))
}

/// A descriptor that becomes readable when `child` ends.
pub fn pidfd(child: &Child) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes no pointers; the pid is an unreaped child's.
    match unsafe { libc::syscall(libc::SYS_pidfd_open, child.id(), 0) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: the kernel just made this descriptor for us.
        fd => Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }),
    }
}

fn ends_within(pidfd: &OwnedFd, limit: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) if Instant::now() >= deadline => return Ok(false),
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by a child, lest another test's fork hold it open for writing when it is run.
    fn root_with(name: &str, script: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let write = "mkdir -p etc/mvm && printf %s \"$2\" > etc/mvm/$1 && chmod 755 etc/mvm/$1";
        let mut shell = Command::new("sh");
        shell.args(["-c", write, "sh", name, script]).current_dir(root.path());
        assert!(shell.status().unwrap().success());
        root
    }

    #[test]
    fn a_missing_hook_is_done_at_once() {
        let root = tempfile::tempdir().unwrap();
        assert!(run(root.path(), "drain", Duration::ZERO).is_ok());
    }

    #[test]
    fn a_hook_that_fails_says_so() {
        let root = root_with("drain", "#!/bin/sh\nexit 3\n");
        let error = run(root.path(), "drain", Duration::from_secs(10)).unwrap_err();
        assert!(matches!(error, HookError::Failed("drain", status) if status.code() == Some(3)));
    }

    #[test]
    fn a_hook_that_hangs_is_killed_at_its_deadline() {
        let root = root_with("stop", "#!/bin/sh\nsleep 1000\n");
        let error = run(root.path(), "stop", Duration::from_millis(30)).unwrap_err();
        assert!(matches!(error, HookError::Deadline("stop", 30)), "{error}");
    }
}
