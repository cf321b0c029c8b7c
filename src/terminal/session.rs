//! A program and the screen it draws on.

use std::time::{Duration, Instant};

use tokio::process::Command;

use super::pty::{Exit, Input, Pty, PtyError};
use super::screen::{Effects, Screen};
use super::{Modes, Size};

/// Bytes read at once. The kernel gives no more than 4 KiB.
const BUFFER: usize = 16 * 1024;
/// Longest time a pump takes, beyond that of its last read.
const MOST_TIME: Duration = Duration::from_millis(8);
/// Replies to a program that asks and does not listen are dropped beyond this.
const MOST_REPLIES: usize = 64 * 1024;
/// How long output is waited for after the program has ended, when the terminal stays open.
const LINGER: Duration = Duration::from_millis(500);

/// What a pump did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Pumped {
    /// What the program did besides changing cells. Its replies are sent already.
    pub effects: Effects,
    /// There may be more to read: the budget or the time was used up.
    pub more: bool,
    /// The program has ended, and everything it wrote is on the screen.
    pub exit: Option<Exit>,
}

/// A program on a terminal. Dropping it ends the program.
pub struct Session {
    pty: Pty,
    screen: Screen,
    buffer: Box<[u8]>,
    /// Nothing more can be read.
    at_end: bool,
    /// When reading is over, even if the terminal stays open.
    linger: Option<Instant>,
    /// How the program ended, once everything it wrote has been read.
    exit: Option<Exit>,
}

impl Session {
    /// Starts a program on a terminal of this size, which keeps so many lines of scrollback. It is hung up
    /// should the calling thread end. Has to be called within a tokio runtime.
    pub fn spawn(command: Command, size: Size, scrollback: usize) -> Result<Self, PtyError> {
        let pty = Pty::spawn(command, size)?;
        let buffer = vec![0; BUFFER].into_boxed_slice();
        Ok(Self {
            pty,
            screen: Screen::new(size, scrollback),
            buffer,
            at_end: false,
            linger: None,
            exit: None,
        })
    }

    /// Waits until [`Self::pump`] has something to do; for ever once the program has ended and all is
    /// read. Cancelling it is safe.
    pub async fn ready(&self) {
        if self.exit.is_some() {
            return std::future::pending().await;
        }
        let deadline = [self.screen.sync_deadline(), self.linger].into_iter().flatten().min();
        let deadline_passed = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.pty.ready(), if !self.at_end => {}
            () = self.pty.ended(), if self.linger.is_none() => {}
            () = deadline_passed => {}
            else => std::future::pending().await,
        }
    }

    /// Takes in what the program has sent, up to `budget` bytes, and answers its questions. Never blocks.
    pub fn pump(&mut self, budget: usize) -> Pumped {
        let mut pumped = Pumped::default();
        let began = Instant::now();
        let mut now = began;
        let mut left = budget;
        self.screen.tick(now, &mut pumped.effects);
        self.pty.flush();
        let mut idle = self.at_end;
        while !idle && left > 0 && now < began + MOST_TIME {
            let most = left.min(self.buffer.len());
            match self.pty.read(&mut self.buffer[..most]) {
                Input::Bytes(bytes) => {
                    self.screen.feed(&self.buffer[..bytes], now, &mut pumped.effects);
                    self.reply(&mut pumped.effects);
                    left -= bytes;
                    now = Instant::now();
                }
                Input::Nothing => idle = true,
                Input::End => (self.at_end, idle) = (true, true),
            }
        }
        pumped.more = !idle;
        self.settle(now, idle);
        pumped.exit = self.exit;
        pumped
    }

    fn reply(&mut self, effects: &mut Effects) {
        let replies = std::mem::take(&mut effects.replies);
        if !replies.is_empty() && self.pty.queued() + replies.len() <= MOST_REPLIES {
            self.pty.write(&replies);
        }
    }

    /// Notes how the program ended, once nothing more is to be expected from it.
    fn settle(&mut self, now: Instant, idle: bool) {
        let Some(exit) = self.pty.exit() else { return };
        // Usually the end of the terminal follows that of the program.
        let until = *self.linger.get_or_insert(now + LINGER);
        self.at_end |= idle && until <= now;
        self.exit = self.at_end.then_some(exit);
    }

    /// Sends bytes to the program. False when it has not read for so long that they were dropped.
    pub fn write(&mut self, bytes: &[u8]) -> bool {
        self.pty.write(bytes)
    }

    /// Gives the terminal another size and tells the program.
    pub fn resize(&mut self, size: Size) {
        if size != self.screen.size() {
            self.screen.resize(size);
            // It fails only when the terminal is gone, which the next read finds out.
            let _ = self.pty.resize(size);
        }
    }

    /// How the program ended, once it has and everything it wrote has been read.
    pub fn exit(&self) -> Option<Exit> {
        self.exit
    }

    /// Asks the program to end. Before several sessions are dropped this saves waiting for each in turn.
    pub fn hang_up(&mut self) {
        self.pty.hang_up();
    }

    /// The program's process id.
    pub fn id(&self) -> u32 {
        self.pty.id()
    }

    /// What the program has asked of the keyboard and the mouse; nothing once it has ended, however it
    /// left them.
    pub fn modes(&self) -> Modes {
        if self.at_end { Modes::default() } else { self.screen.modes() }
    }

    /// The screen, to be drawn.
    pub fn screen(&self) -> &Screen {
        &self.screen
    }

    /// The screen, to scroll, select and search in. Its size is changed by [`Self::resize`] only.
    pub fn screen_mut(&mut self) -> &mut Screen {
        &mut self.screen
    }
}
