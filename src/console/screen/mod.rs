//! The terminal mvm itself runs in: taken over, drawn on, and given back as it was.

mod copy;
mod frames;
mod job;
mod signals;
mod tty;

use std::io::{self, Write};
use std::sync::Arc;

use crossterm::cursor::SetCursorStyle;
use crossterm::{Command, queue};
use ratatui::backend::CrosstermBackend;
use ratatui::layout::Rect;
use ratatui::{Frame, Terminal};

pub use copy::{CopyError, MOST_COPIED};
pub use signals::{Signal, Signals};

use crate::terminal::screen::is_parsing;
use frames::{BEGIN, END, Frames};
use tty::{Mode, Tty};

/// What is asked of the terminal.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether clicks, drags and the wheel are mvm's; else the terminal keeps them.
    pub mouse: bool,
    /// The window's title.
    pub title: String,
}

/// The terminal while mvm has it; dropping it gives it back.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Frames>>,
    tty: Arc<Tty>,
    /// The next frame must not rely on what is on the screen.
    whole: bool,
    cursor: SetCursorStyle,
}

impl Screen {
    /// Takes the terminal over. A panic, in whatever thread, gives it back before it is reported.
    pub fn enter(options: &Options) -> io::Result<Self> {
        let tty = Arc::new(Tty::open(options)?);
        let backend = CrosstermBackend::new(Frames::new(tty.clone()));
        let terminal = Terminal::new(backend)?;
        tty.enter()?;
        restore_on_panic(tty.clone());
        Ok(Self { terminal, tty, whole: true, cursor: SetCursorStyle::DefaultUserShape })
    }

    /// Draws a frame, in one write that the terminal shows at once. While mvm is in the background
    /// of its shell nothing is drawn; after a panic, or once the terminal is gone, it fails.
    pub fn draw(&mut self, render: impl FnOnce(&mut Frame)) -> io::Result<()> {
        if self.tty.mode() == Mode::Suspended {
            self.resume()?;
        }
        match self.tty.mode() {
            Mode::On => {}
            Mode::Suspended => return Ok(()),
            Mode::Left => return Err(tty::left()),
        }
        self.terminal.backend_mut().write_all(BEGIN)?;
        if std::mem::take(&mut self.whole) {
            // Not `Terminal::clear`: it asks the terminal for the cursor and waits for the answer.
            let size = self.terminal.size()?;
            self.terminal.resize(Rect::from(size))?;
        }
        self.terminal.draw(render)?;
        self.terminal.backend_mut().write_all(END)?;
        Write::flush(self.terminal.backend_mut())
    }

    /// Waits until a panic somewhere gave the terminal back: nothing can be shown any more.
    pub async fn given_back(&self) {
        self.tty.given_back().await;
    }

    /// Gives the cursor another shape.
    pub fn set_cursor(&mut self, cursor: SetCursorStyle) -> io::Result<()> {
        if cursor == self.cursor {
            return Ok(());
        }
        self.cursor = cursor;
        self.tty.send(&sequence(cursor))
    }

    /// Rings the bell.
    pub fn bell(&mut self) -> io::Result<()> {
        self.tty.send(b"\x07")
    }

    /// Puts text into the clipboard of the machine the terminal runs on, by OSC 52. Whether the
    /// terminal allows it, it does not say.
    pub fn copy(&mut self, text: &str) -> Result<(), CopyError> {
        let bytes = copy::sequence(text)?;
        self.tty.send(&bytes).map_err(CopyError::Write)
    }

    /// What `^Z` does elsewhere: gives the terminal back and stops mvm's job until the shell
    /// continues it. Where nobody could continue it, it goes on at once.
    pub fn suspend(&mut self) -> io::Result<()> {
        self.tty.leave(Mode::Suspended);
        job::stop()?;
        self.resume()
    }

    /// Takes the terminal over again, to be called when mvm was continued; not from the background.
    pub fn resume(&mut self) -> io::Result<()> {
        self.whole = true;
        if !job::is_in_foreground() {
            self.tty.forsake();
            return Ok(());
        }
        self.tty.enter()?;
        self.tty.send(&sequence(self.cursor))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.tty.leave(Mode::Left);
    }
}

fn restore_on_panic(tty: Arc<Tty>) {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        // One inside of the emulator is caught: only its session starts anew.
        if is_parsing() {
            return;
        }
        tty.leave(Mode::Left);
        report(info);
    }));
}

fn sequence(command: impl Command) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A vector takes whatever is written.
    let _ = queue!(bytes, command);
    bytes
}
