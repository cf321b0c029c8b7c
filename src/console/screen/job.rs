//! mvm as a job of a shell.

use std::io;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::unistd::{Pid, getpgrp, tcgetpgrp};

/// Stops mvm's whole job as the terminal's own `^Z` does, and returns once it was continued.
///
/// SIGTSTP, not SIGSTOP: in a window without a shell nobody would continue mvm, and there the kernel
/// ignores SIGTSTP. To be called on the main thread: there it stops before `kill` returns.
pub(super) fn stop() -> io::Result<()> {
    let stops = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: no new handler runs; the former one is put back as it was.
    let former = unsafe { sigaction(Signal::SIGTSTP, &stops)? };
    let stopped = kill(Pid::from_raw(0), Signal::SIGTSTP);
    // SAFETY: as above.
    unsafe { sigaction(Signal::SIGTSTP, &former)? };
    Ok(stopped?)
}

/// Whether the terminal's keys come to mvm. From the background, changing the terminal's modes would
/// stop mvm at once.
pub(super) fn is_in_foreground() -> bool {
    // On a terminal that controls no job there is no background.
    tcgetpgrp(io::stdout()).map_or(true, |group| group == getpgrp())
}
