//! The last lines of each build, for what is to be said of one that failed.

use std::collections::VecDeque;

use crate::event::text::cut;

/// Builds whose last lines are kept.
pub const MAX_TAILS: usize = 64;
/// Lines kept of a build.
pub const TAIL_LINES: usize = 40;
/// Bytes kept of a line.
const TAIL_LINE: usize = 1024;

/// The last lines of a derivation's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tail {
    /// The derivation.
    pub drv: String,
    /// The machine that built it; empty for this one.
    pub host: String,
    /// The lines.
    pub lines: VecDeque<String>,
    running: bool,
}

/// Those of the builds that ended last.
#[derive(Debug, Default)]
pub struct Tails(Vec<Tail>);

impl Tails {
    /// A place for the lines of `drv`: a new one, or that of the build that ended first.
    pub fn begin(&mut self, drv: &str, host: &str) -> Option<usize> {
        let tail = Tail { drv: drv.into(), host: host.into(), lines: VecDeque::new(), running: true };
        if self.0.len() < MAX_TAILS {
            self.0.push(tail);
            return Some(self.0.len() - 1);
        }
        let free = self.0.iter().position(|tail| !tail.running)?;
        self.0[free] = tail;
        Some(free)
    }

    /// Adds a line to the one at `place`.
    pub fn add(&mut self, place: Option<usize>, text: &str) {
        let Some(tail) = place.and_then(|place| self.0.get_mut(place)) else { return };
        // The buffer of the line that falls out serves the one that comes in.
        let oldest = if tail.lines.len() >= TAIL_LINES { tail.lines.pop_front() } else { None };
        let mut line = oldest.unwrap_or_default();
        line.clear();
        line.push_str(cut(text, TAIL_LINE));
        tail.lines.push_back(line);
    }

    /// The build at `place` is over.
    pub fn end(&mut self, place: Option<usize>) {
        if let Some(tail) = place.and_then(|place| self.0.get_mut(place)) {
            tail.running = false;
        }
    }

    /// All of them.
    pub fn all(self) -> Vec<Tail> {
        self.0
    }
}
