//! A search: its words, the lines that have them, and a jump that waits until these are known.

use super::buffer::LogBuffer;
use super::index::Index;
use super::line::plain;
use super::pattern::Pattern;
use super::place::Place;
use super::shown::Filter;

/// A search under way or settled.
#[derive(Debug, Clone)]
pub struct Search {
    /// What is looked for; none while nothing is typed.
    pub pattern: Option<Pattern>,
    /// The shown lines that have it.
    pub index: Index,
    /// A jump that could not be made yet.
    pub seek: Option<Seek>,
    /// Where the pane was, while the words are still being typed.
    pub origin: Option<Origin>,
}

/// What a pane goes back to when a search is given up.
#[derive(Debug, Clone, Copy)]
pub struct Origin {
    /// The line under the cursor.
    pub cursor: u64,
    /// The top of the pane.
    pub top: Place,
    /// Whether it followed.
    pub follow: bool,
}

/// A jump to the nearest match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seek {
    /// From this line on.
    pub from: u64,
    /// Upwards.
    pub back: bool,
    /// The line itself counts.
    pub here: bool,
}

/// How a jump went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sought {
    /// To this line.
    Found(u64),
    /// To this line, round the end.
    Wrapped(u64),
    /// Nowhere: no line matches.
    Nothing,
    /// Not all lines it depends on have been looked at.
    Unknown,
}

impl Search {
    /// Looks at some more lines.
    pub fn step(&mut self, buffer: &LogBuffer, filter: &Filter) {
        let Some(pattern) = &self.pattern else { return };
        let has = |text: &str| pattern.find(&plain(text), 0).is_some();
        self.index.step(buffer, |line| has(line.text) && filter.passes(line));
    }

    /// Where `seek` leads to, as far as one can say.
    pub fn resolve(&self, buffer: &LogBuffer, seek: Seek) -> Sought {
        let Seek { from, back, here } = seek;
        let index = &self.index;
        let after = index.rank(from.saturating_add(u64::from(here == back)));
        let rank = if back { after.checked_sub(1) } else { Some(after) };
        let complete = index.is_complete(buffer);
        if let Some(line) = rank.and_then(|rank| index.get(rank))
            && (complete || index.covers(buffer, from))
        {
            return Sought::Found(line);
        }
        let round = if back { index.len().checked_sub(1) } else { Some(0) };
        match round.and_then(|rank| index.get(rank)) {
            _ if !complete => Sought::Unknown,
            Some(line) => Sought::Wrapped(line),
            None => Sought::Nothing,
        }
    }
}
