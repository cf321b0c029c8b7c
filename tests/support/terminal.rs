//! A program on a terminal, whose screen a test reads and whose keys it presses.

use std::process::Command;
use std::time::{Duration, Instant};

use mvm::terminal::grid::{Colour, Style};
use mvm::terminal::pty::{Exit, Input, Pty};
use mvm::terminal::screen::{Effects, SCROLLBACK, Screen};
use mvm::terminal::{Modes, Size};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::POLL;

/// How long anything on a screen may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// A program, and the terminal it believes to have.
pub struct Terminal {
    runtime: Runtime,
    pty: Pty,
    screen: Screen,
    raw: Vec<u8>,
    clipboard: Vec<String>,
    bells: usize,
    exit: Option<Exit>,
}

impl Terminal {
    /// Starts a program on a terminal of this size.
    pub fn start(command: Command, (columns, rows): (u16, u16)) -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let size = Size::new(columns, rows);
        let pty = runtime.block_on(async { Pty::spawn(command.into(), size).unwrap() });
        let screen = Screen::new(size, SCROLLBACK);
        Self { runtime, pty, screen, raw: Vec::new(), clipboard: Vec::new(), bells: 0, exit: None }
    }

    /// Takes in what the program wrote; waits a moment for it if there is nothing yet.
    fn pump(&mut self) {
        let Self { runtime, pty, screen, .. } = self;
        let _guard = runtime.enter();
        // Nothing new is fine: whoever calls looks at the clock.
        let _ = runtime.block_on(timeout(POLL, pty.ready()));
        pty.flush();
        let mut effects = Effects::default();
        let mut buffer = vec![0; 64 * 1024];
        while let Input::Bytes(bytes) = pty.read(&mut buffer) {
            screen.feed(&buffer[..bytes], Instant::now(), &mut effects);
            self.raw.extend(&buffer[..bytes]);
        }
        screen.tick(Instant::now(), &mut effects);
        pty.write(&effects.replies);
        self.clipboard.extend(effects.clipboard);
        self.bells += usize::from(effects.bell);
        self.exit = pty.exit();
    }

    /// Waits until `is` holds; panics with `what` and the screen when it does not in time.
    pub fn wait(&mut self, what: &str, mut is: impl FnMut(&Self) -> bool) {
        let end = Instant::now() + DEADLINE;
        while !is(self) {
            assert!(Instant::now() < end, "not within {DEADLINE:?}: {what}\n{}", self.text());
            self.pump();
        }
    }

    /// Waits until the screen shows `text`.
    pub fn see(&mut self, text: &str) {
        self.wait(&format!("`{text}` on the screen"), |terminal| terminal.shows(text));
    }

    /// Waits until the screen shows `text` no more.
    pub fn miss(&mut self, text: &str) {
        self.wait(&format!("no `{text}` on the screen"), |terminal| !terminal.shows(text));
    }

    /// Types.
    pub fn keys(&mut self, keys: &str) {
        let _guard = self.runtime.enter();
        assert!(self.pty.write(keys.as_bytes()), "the program does not read its keys\n{}", self.text());
    }

    /// Gives the terminal another size.
    pub fn resize(&mut self, (columns, rows): (u16, u16)) {
        let size = Size::new(columns, rows);
        self.screen.resize(size);
        self.pty.resize(size).unwrap();
    }

    /// Takes in what the program writes for so long; returns how many bytes that were. For silence,
    /// which no event tells of.
    pub fn listen(&mut self, time: Duration) -> usize {
        let (before, end) = (self.raw.len(), Instant::now() + time);
        while Instant::now() < end {
            self.pump();
        }
        self.raw.len() - before
    }

    /// Waits for the program's end, and until all it wrote is on the screen.
    pub fn end(&mut self) -> Exit {
        self.wait("the end of the program", |terminal| terminal.exit.is_some());
        self.pump();
        self.exit.unwrap()
    }

    /// The visible lines.
    pub fn text(&self) -> String {
        (0..self.screen.size().rows()).map(|row| self.line(row) + "\n").collect()
    }

    /// A visible line, the first being 0.
    pub fn line(&self, row: u16) -> String {
        let mut text = String::new();
        self.screen.grid().row(row).for_each(|cell| cell.write_symbol(&mut text));
        text.trim_end().to_owned()
    }

    /// Whether `text` is in a visible line.
    pub fn shows(&self, text: &str) -> bool {
        self.text().contains(text)
    }

    /// The styles of all visible cells.
    pub fn styles(&self) -> Vec<Style> {
        let grid = self.screen.grid();
        (0..grid.size().rows())
            .flat_map(|row| grid.row(row).map(|cell| cell.style).collect::<Vec<_>>())
            .collect()
    }

    /// The colours of all visible cells.
    pub fn colours(&self) -> Vec<Colour> {
        self.styles().into_iter().flat_map(|style| [style.foreground, style.background]).collect()
    }

    /// What the program has asked of the terminal.
    pub fn modes(&self) -> Modes {
        self.screen.modes()
    }

    /// Whether the cursor is to be seen.
    pub fn has_cursor(&self) -> bool {
        self.screen.grid().cursor().is_some()
    }

    /// The window's title.
    pub fn title(&self) -> Option<&str> {
        self.screen.title()
    }

    /// What the program put into the clipboard.
    pub fn clipboard(&self) -> &[String] {
        &self.clipboard
    }

    /// How often the bell rang.
    pub fn bells(&self) -> usize {
        self.bells
    }

    /// All bytes the program wrote.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Processes of the program's session whose name is this.
    pub fn children(&self, name: &str) -> Vec<Pid> {
        let shell = self.pty.id();
        let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap();
        let is = |id: &&str| {
            let comm = std::fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
            comm.trim_end() == name
        };
        children.split_whitespace().filter(is).map(|id| Pid::from_raw(id.parse().unwrap())).collect()
    }

    /// Signals the only child of the program that has this name.
    pub fn signal(&self, name: &str, signal: Signal) {
        let children = self.children(name);
        assert_eq!(children.len(), 1, "{name}: {children:?}");
        kill(children[0], signal).unwrap();
    }
}
