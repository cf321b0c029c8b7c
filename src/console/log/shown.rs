//! The lines a pane shows: all, or those that pass its filter.

use super::buffer::{LogBuffer, LogLine, SourceId};
use super::index::Index;
use super::line::plain;
use super::pattern::Pattern;

/// What lets lines through.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only lines of this source.
    pub source: Option<SourceId>,
    /// Only lines with these words.
    pub pattern: Option<Pattern>,
}

impl Filter {
    /// Whether it lets everything through.
    pub fn is_open(&self) -> bool {
        self.source.is_none() && self.pattern.is_none()
    }

    /// Whether it lets a line through.
    pub fn passes(&self, line: &LogLine) -> bool {
        self.source.is_none_or(|source| source == line.source)
            && self.pattern.as_ref().is_none_or(|pattern| pattern.find(&plain(line.text), 0).is_some())
    }
}

/// The lines of a buffer that are shown, by number.
#[derive(Clone, Copy)]
pub struct Shown<'a> {
    /// The buffer.
    pub buffer: &'a LogBuffer,
    /// Those that pass the filter, when there is one.
    pub index: Option<&'a Index>,
}

impl Shown<'_> {
    /// The first one at or after `number`.
    pub fn at_or_after(self, number: u64) -> Option<u64> {
        let range = self.buffer.range();
        let number = number.max(range.start);
        match self.index {
            Some(index) => index.get(index.rank(number)),
            None => range.contains(&number).then_some(number),
        }
    }

    /// The last one before `number`.
    pub fn before(self, number: u64) -> Option<u64> {
        let range = self.buffer.range();
        let found = match self.index {
            Some(index) => index.get(index.rank(number).checked_sub(1)?)?,
            None => number.min(range.end).checked_sub(1)?,
        };
        range.contains(&found).then_some(found)
    }

    /// The first one after `number`.
    pub fn after(self, number: u64) -> Option<u64> {
        self.at_or_after(number.saturating_add(1))
    }

    /// The last one.
    pub fn last(self) -> Option<u64> {
        self.before(u64::MAX)
    }

    /// The one at `number`, or the nearest after it, or else before it.
    pub fn near(self, number: u64) -> Option<u64> {
        self.at_or_after(number).or_else(|| self.before(number))
    }

    /// Whether that line is shown.
    pub fn contains(self, number: u64) -> bool {
        self.at_or_after(number) == Some(number)
    }

    /// The one `count` lines after `number` (before it when `back`), or the last there is that way.
    pub fn stepped(self, number: u64, count: usize, back: bool) -> Option<u64> {
        let count = count as u64;
        match (self.index, back) {
            (None, false) => self.near(number.saturating_add(count)),
            (None, true) => self.near(number.saturating_sub(count)),
            (Some(index), _) => {
                let rank = index.rank(number) as u64;
                let to = if back { rank.saturating_sub(count) } else { rank.saturating_add(count) };
                index.get(to.min((index.len() as u64).checked_sub(1)?) as usize)
            }
        }
    }
}
