//! `mvm tui` on a terminal of our own, watched as a user sees it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use memchr::memmem;
use mvm::terminal::Size;
use mvm::terminal::pty::{Input, Pty};
use mvm::terminal::screen::{Effects, Screen};
use tokio::process::Command;

/// Longest time anything waited for here may take.
const DEADLINE: Duration = Duration::from_secs(60);
/// The kernel gives no more at once.
const BUFFER: usize = 4096;
/// A frame begins.
const BEGIN: &[u8] = b"\x1b[?2026h";
/// A frame is whole.
const END: &[u8] = b"\x1b[?2026l";

/// The console, the terminal it draws on, and what it wrote there.
pub struct Console {
    pty: Pty,
    screen: Screen,
    began: Instant,
    begins: Counter,
    ends: Counter,
    /// When each frame began to come.
    pub frames: Vec<Instant>,
    /// Bytes it wrote.
    pub bytes: u64,
}

impl Console {
    /// Starts it. Has to be called within a tokio runtime.
    pub fn open(command: Command, columns: u16, rows: u16) -> Result<Self> {
        let size = Size::new(columns, rows);
        let began = Instant::now();
        Ok(Self {
            pty: Pty::spawn(command, size)?,
            screen: Screen::new(size, 0),
            began,
            begins: Counter::of(BEGIN),
            ends: Counter::of(END),
            frames: Vec::new(),
            bytes: 0,
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.pty.id()
    }

    /// Types.
    pub fn type_in(&mut self, keys: &[u8]) -> Result<()> {
        ensure!(self.pty.write(keys), "the console does not read its keys");
        Ok(())
    }

    /// Waits for the first whole frame; how long it took from the start of the program.
    pub async fn first_frame(&mut self) -> Result<Duration> {
        while self.ends.seen == 0 {
            self.take_in(self.began + DEADLINE).await.context("no frame came")?;
        }
        Ok(self.began.elapsed())
    }

    /// Waits until the screen is as wished; how long that took.
    pub async fn until(&mut self, what: &str, is_so: impl Fn(&str) -> bool) -> Result<Duration> {
        let since = Instant::now();
        let mut looked = None;
        loop {
            if looked != Some(self.screen.revision()) {
                looked = Some(self.screen.revision());
                if is_so(&self.text()) {
                    return Ok(since.elapsed());
                }
            }
            let taken = self.take_in(since + DEADLINE).await;
            taken.with_context(|| format!("waiting for {what}; the screen:\n{}", self.text()))?;
        }
    }

    /// Takes in what comes for so long.
    pub async fn watch(&mut self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.take_in_until(until).await?;
        }
        Ok(())
    }

    /// What is on the screen.
    pub fn text(&self) -> String {
        let grid = self.screen.grid();
        let mut text = String::new();
        for row in 0..grid.size().rows() {
            grid.row(row).for_each(|cell| cell.write_symbol(&mut text));
            text.push('\n');
        }
        text
    }

    /// Leaves it as a user does.
    pub async fn leave(mut self) -> Result<()> {
        self.type_in(b"q")?;
        let deadline = Instant::now() + DEADLINE;
        // What it still writes has to be read, or it would wait for that.
        while self.take_in(deadline).await.is_ok() {}
        let ended = tokio::time::timeout_at(deadline.into(), self.pty.ended()).await;
        ended.context("the console does not end")
    }

    async fn take_in(&mut self, deadline: Instant) -> Result<()> {
        ensure!(Instant::now() < deadline, "nothing for {} s", DEADLINE.as_secs());
        self.take_in_until(deadline).await
    }

    /// Takes in what is there, or waits for something until then.
    async fn take_in_until(&mut self, until: Instant) -> Result<()> {
        let mut buffer = [0; BUFFER];
        match self.pty.read(&mut buffer) {
            Input::Bytes(bytes) => {
                let (now, bytes) = (Instant::now(), &buffer[..bytes]);
                self.screen.feed(bytes, now, &mut Effects::default());
                self.bytes += bytes.len() as u64;
                self.ends.count(bytes);
                for _ in 0..self.begins.count(bytes) {
                    self.frames.push(now);
                }
            }
            Input::Nothing => {
                self.pty.flush();
                let ready = async {
                    tokio::select! {
                        () = self.pty.ready() => {}
                        () = self.pty.ended() => {}
                    }
                };
                // When nothing comes the caller knows.
                let _ = tokio::time::timeout_at(until.into(), ready).await;
            }
            Input::End => bail!("the console ended"),
        }
        Ok(())
    }
}

/// Counts a sequence in bytes that come in pieces.
struct Counter {
    sequence: &'static [u8],
    /// The end of what came, which may be the beginning of one.
    rest: Vec<u8>,
    seen: usize,
}

impl Counter {
    fn of(sequence: &'static [u8]) -> Self {
        Self { sequence, rest: Vec::new(), seen: 0 }
    }

    /// Counts those that end in these bytes.
    fn count(&mut self, bytes: &[u8]) -> usize {
        self.rest.extend_from_slice(bytes);
        let found = memmem::find_iter(&self.rest, self.sequence).count();
        let done = self.rest.len().saturating_sub(self.sequence.len() - 1);
        self.rest.drain(..done);
        self.seen += found;
        found
    }
}
