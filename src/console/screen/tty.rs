//! What is switched on in the terminal, and off again.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossterm::terminal::{disable_raw_mode, enable_raw_mode};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::Notify;

use super::Options;
use crate::event::text::{cut, strip};

/// The alternate screen; it comes back cleared, with the cursor where it was.
const ALTERNATE_SCREEN: u16 = 1049;
/// Buttons and the wheel, drags, and positions beyond column 223. Not every movement: that would
/// wake mvm for nothing.
const MOUSE: [u16; 3] = [1000, 1002, 1006];
/// Gain and loss of focus, and pasted text told from typed text.
const INPUT: [u16; 2] = [1004, 2004];

const SAVE_TITLE: &str = "\x1b[22;2t";
const RESTORE_TITLE: &str = "\x1b[23;2t";
const HIDE_CURSOR: &str = "\x1b[?25l";
const SHOW_CURSOR: &str = "\x1b[?25h";
/// A frame cut short must not hold the screen; its colours, link and cursor end with it.
const END_OF_FRAME: &str = "\x1b[?2026l\x1b[0m\x1b]8;;\x1b\\\x1b[0 q";
/// Longest title, in bytes.
const MOST_TITLE: usize = 200;

/// Whose the terminal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Ours.
    On,
    /// The shell's, until it continues us.
    Suspended,
    /// The shell's, for good.
    Left,
}

/// The terminal, shared with the panic hook. The lock keeps a frame and the farewell apart when a
/// panic comes from another thread.
pub(super) struct Tty {
    out: File,
    modes: Vec<u16>,
    title: String,
    mode: Mutex<Mode>,
    given_back: Notify,
}

impl Tty {
    pub(super) fn open(options: &Options) -> io::Result<Self> {
        let out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Self {
            out,
            modes: modes(options),
            title: options.title.clone(),
            mode: Mutex::new(Mode::Suspended),
            given_back: Notify::new(),
        })
    }

    pub(super) fn mode(&self) -> Mode {
        *self.lock()
    }

    /// Switches everything on; again, if something may have switched it off.
    pub(super) fn enter(&self) -> io::Result<()> {
        let mut mode = self.lock();
        if *mode == Mode::Left {
            return Err(left());
        }
        // crossterm believes itself in raw mode even when a shell has changed that.
        disable_raw_mode()?;
        enable_raw_mode()?;
        let mut bytes = switch_on(&self.modes);
        if *mode == Mode::Suspended {
            bytes.splice(0..0, SAVE_TITLE.bytes());
            bytes.extend(title(&self.title));
        }
        *mode = Mode::On;
        let written = write_all(&self.out, &bytes);
        if written.is_err() {
            self.restore(&mut mode, Mode::Left);
        }
        written
    }

    /// Switches everything off, once. It cannot fail: a terminal that is gone needs nothing.
    pub(super) fn leave(&self, to: Mode) {
        let mut mode = self.lock();
        self.restore(&mut mode, to);
        if *mode == Mode::Left {
            self.given_back.notify_one();
        }
    }

    /// Waits until the terminal was given back for good.
    pub(super) async fn given_back(&self) {
        self.given_back.notified().await;
    }

    /// Takes note that the terminal is the shell's already, with nothing written to it.
    pub(super) fn forsake(&self) {
        let mut mode = self.lock();
        if *mode == Mode::On {
            *mode = Mode::Suspended;
        }
    }

    /// Writes to the terminal while it is ours.
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let mode = self.lock();
        match *mode {
            Mode::On => write_all(&self.out, bytes),
            Mode::Suspended => Ok(()),
            Mode::Left => Err(left()),
        }
    }

    fn restore(&self, mode: &mut Mode, to: Mode) {
        if *mode == Mode::On {
            let _ = write_all(&self.out, &switch_off(&self.modes));
            let _ = disable_raw_mode();
        }
        if *mode != Mode::Left {
            *mode = to;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Mode> {
        self.mode.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What drawing fails with once the terminal was given back.
pub(super) fn left() -> io::Error {
    io::Error::new(ErrorKind::BrokenPipe, "the terminal was given back")
}

/// The sequence that sets the window's title.
fn title(title: &str) -> Vec<u8> {
    let title = strip(cut(title, MOST_TITLE)).replace('\n', " ");
    format!("\x1b]2;{title}\x1b\\").into_bytes()
}

fn modes(options: &Options) -> Vec<u16> {
    let mouse = if options.mouse { MOUSE.as_slice() } else { &[] };
    [&[ALTERNATE_SCREEN], INPUT.as_slice(), mouse].concat()
}

fn switch_on(modes: &[u16]) -> Vec<u8> {
    let mut text: String = modes.iter().map(|mode| format!("\x1b[?{mode}h")).collect();
    text.push_str(HIDE_CURSOR);
    text.into_bytes()
}

fn switch_off(modes: &[u16]) -> Vec<u8> {
    let mut text = END_OF_FRAME.to_string();
    text.extend(modes.iter().rev().map(|mode| format!("\x1b[?{mode}l")));
    text.push_str(SHOW_CURSOR);
    text.push_str(RESTORE_TITLE);
    text.into_bytes()
}

fn write_all(mut out: &File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Another program on the same terminal can have made it non-blocking.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let _ = poll(&mut [PollFd::new(out.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn options(mouse: bool) -> Options {
        Options { mouse, title: "mvm".into() }
    }

    #[test]
    fn every_mode_that_is_set_is_reset_in_the_opposite_order() {
        for mouse in [true, false] {
            let modes = modes(&options(mouse));
            let on = String::from_utf8(switch_on(&modes)).unwrap();
            let off = String::from_utf8(switch_off(&modes)).unwrap();
            let mut set: Vec<&str> = on.split_terminator('h').filter(|mode| !mode.ends_with('l')).collect();
            set.reverse();
            let mut rest = off.as_str();
            for mode in set {
                let at = rest.find(&format!("{mode}l")).unwrap_or_else(|| panic!("{mode:?} stays set"));
                rest = &rest[at + 1..];
            }
            assert_eq!(on.contains("?1002h"), mouse);
            assert!(on.ends_with(HIDE_CURSOR) && off.contains(SHOW_CURSOR));
            assert!(off.ends_with(RESTORE_TITLE));
        }
    }

    #[test]
    fn the_farewell_goes_out_once() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let tty = Tty {
            out: file.reopen().unwrap(),
            modes: modes(&options(true)),
            title: "mvm".into(),
            mode: Mutex::new(Mode::On),
            given_back: Notify::new(),
        };
        tty.send(b"frame").unwrap();
        assert!(tty.given_back().now_or_never().is_none());
        tty.leave(Mode::Left);
        tty.leave(Mode::Suspended);
        assert!(tty.send(b"late frame").is_err());
        assert_eq!(tty.mode(), Mode::Left);
        assert!(tty.given_back().now_or_never().is_some());
        let written = std::fs::read(file.path()).unwrap();
        assert_eq!(written, [b"frame".as_slice(), &switch_off(&tty.modes)].concat());
    }

    #[test]
    fn a_terminal_that_is_gone_is_an_error_and_no_panic() {
        let tty = Tty {
            out: File::options().write(true).open("/dev/full").unwrap(),
            modes: modes(&options(false)),
            title: String::new(),
            mode: Mutex::new(Mode::On),
            given_back: Notify::new(),
        };
        assert!(tty.send(b"frame").is_err());
        tty.leave(Mode::Left);
        assert_eq!(tty.mode(), Mode::Left);
    }

    #[test]
    fn a_title_cannot_hold_a_control_sequence() {
        assert_eq!(title("a\x1b]52;c;AAAA\x07b\nc"), b"\x1b]2;ab c\x1b\\");
        assert!(title(&"x".repeat(5000)).len() < 300);
    }
}
