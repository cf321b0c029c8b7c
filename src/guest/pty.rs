//! A pseudo-terminal for a command.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::fcntl::OFlag;
use nix::libc;
use nix::pty;

use super::frames::TermSize;

/// The two ends of a new pseudo-terminal.
pub struct Pty {
    /// The agent's end.
    pub master: File,
    /// The command's end.
    pub terminal: File,
}

impl Pty {
    /// A pseudo-terminal of `size`, closed on exec at both ends.
    pub fn open(size: TermSize) -> io::Result<Self> {
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let master = pty::posix_openpt(flags)?;
        pty::grantpt(&master)?;
        pty::unlockpt(&master)?;
        let name = pty::ptsname_r(&master)?;
        let terminal = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open(name)?;
        // SAFETY: the descriptor was just given up by its only owner.
        let master = File::from(unsafe { OwnedFd::from_raw_fd(master.into_raw_fd()) });
        resize(&master, size)?;
        Ok(Self { master, terminal })
    }
}

/// Gives the terminal behind `master` another size.
pub fn resize(master: &File, size: TermSize) -> io::Result<()> {
    let size = libc::winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize.
    match unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &size) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
