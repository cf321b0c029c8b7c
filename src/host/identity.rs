//! Who a process is, beyond its recycled number.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::{fs, io};

use nix::libc;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use super::process;

/// A process that cannot be mistaken for a later one of the same number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Process number.
    pub pid: u32,
    /// Start time in clock ticks since boot (`/proc/PID/stat`, field 22).
    pub start: u64,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot: String,
}

impl ProcessId {
    /// The identity of the process that has `pid` now.
    pub fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, start: start_time(pid)?, boot: boot_id() })
    }

    /// Whether this very process still exists (zombies count as gone).
    pub fn is_alive(&self) -> bool {
        self.boot == boot_id() && start_time(self.pid) == Some(self.start)
    }

    /// Signals this very process through a pidfd, never a stranger with its number.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        // SAFETY: pidfd_open returns a new descriptor or -1; nothing else has it.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, self.pid, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, and owned here alone.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        // The descriptor holds the number: who has it now is who is signalled.
        if !self.is_alive() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let null = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: the descriptor is open; no siginfo is given.
        match unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), signal as i32, null, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// This boot of the machine.
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_string()).unwrap_or_default()
}

fn start_time(pid: u32) -> Option<u64> {
    process::stat(pid).filter(|stat| !stat.zombie).map(|stat| stat.start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_another_start_or_boot_is_not_this_one() {
        let me = ProcessId::of(std::process::id()).unwrap();
        assert!(me.is_alive());
        assert!(!ProcessId { start: me.start + 1, ..me.clone() }.is_alive());
        assert!(!ProcessId { boot: "other".into(), ..me }.is_alive());
    }
}
