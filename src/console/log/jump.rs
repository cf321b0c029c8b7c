//! Jumps: to what a search finds, to marks, to errors.

use std::ops::Range;

use super::buffer::LogBuffer;
use super::index::Index;
use super::pattern::Pattern;
use super::search::{Origin, Search, Seek, Sought};
use super::shown::Shown;
use super::state::LogState;
use crate::event::text::strip;

impl LogState {
    /// Looks for words while they are typed, from where the typing began: while following from
    /// the end upwards, otherwise downwards.
    pub(super) fn type_search(&mut self, buffer: &LogBuffer, words: &str) {
        let here = Origin { cursor: self.cursor, top: self.top, follow: self.follow };
        let origin = self.search.take().and_then(|search| search.origin).unwrap_or(here);
        self.go_back(origin);
        let pattern = Pattern::new(words);
        let seek = Seek { from: origin.cursor, back: origin.follow, here: true };
        let seek = pattern.is_some().then_some(seek);
        self.search = Some(Search { pattern, index: Index::new(buffer), seek, origin: Some(origin) });
        self.look_for(buffer);
    }

    /// Keeps what was typed, and the place it led to.
    pub(super) fn settle_search(&mut self) {
        if let Some(search) = &mut self.search {
            search.origin = None;
        }
        if self.search.as_ref().is_some_and(|search| search.pattern.is_none()) {
            self.search = None;
        }
    }

    /// Gives the search up. While it is still typed, the pane goes back to where it was.
    pub(super) fn clear_search(&mut self) {
        if let Some(origin) = self.search.take().and_then(|search| search.origin) {
            self.go_back(origin);
        }
    }

    fn go_back(&mut self, origin: Origin) {
        self.cursor = origin.cursor;
        self.top = origin.top;
        self.follow = origin.follow;
        self.reveal = false;
    }

    /// Goes to the next match below, or above.
    pub(super) fn seek(&mut self, buffer: &LogBuffer, back: bool) {
        self.settle_search();
        match &mut self.search {
            Some(search) => search.seek = Some(Seek { from: self.cursor, back, here: false }),
            None => self.notice = Some("nothing to search for".into()),
        }
        self.look_for(buffer);
    }

    fn look_for(&mut self, buffer: &LogBuffer) {
        if let Some(search) = &mut self.search {
            search.step(buffer, &self.filter);
        }
        self.make_jump(buffer);
    }

    /// Makes the jump that is waited for, if it is known where to.
    pub(super) fn make_jump(&mut self, buffer: &LogBuffer) {
        let Some(search) = &mut self.search else { return };
        let Some(seek) = search.seek else { return };
        let sought = search.resolve(buffer, seek);
        if sought == Sought::Unknown {
            return;
        }
        search.seek = None;
        match sought {
            Sought::Found(line) => self.go_to(line),
            Sought::Wrapped(line) => {
                let end = if seek.back { "end" } else { "start" };
                self.notice = Some(format!("search went on from the {end}"));
                self.go_to(line);
            }
            Sought::Nothing => {
                let words = search.pattern.as_ref().map_or("", Pattern::words);
                self.notice = Some(format!("not found: {}", strip(words)));
            }
            Sought::Unknown => {}
        }
    }

    /// Goes to the next mark below, or above.
    pub(super) fn seek_mark(&mut self, buffer: &LogBuffer, back: bool) {
        let shown = Shown { buffer, index: self.index.as_ref() };
        let marks = |numbers: Range<u64>| {
            let mut marks = self.marks.range(numbers).copied().filter(|line| shown.contains(*line));
            if back { marks.next_back() } else { marks.next() }
        };
        let found = round(buffer, self.cursor, back, marks);
        self.take("mark", found, back);
    }

    /// Goes to the next error below, or above.
    pub(super) fn seek_error(&mut self, buffer: &LogBuffer, back: bool) {
        let shown = Shown { buffer, index: self.index.as_ref() };
        let errors = |numbers: Range<u64>| {
            let mut errors = buffer.errors(numbers).filter(|line| shown.contains(*line));
            if back { errors.next_back() } else { errors.next() }
        };
        let found = round(buffer, self.cursor, back, errors);
        self.take("error", found, back);
    }

    fn take(&mut self, what: &str, found: Option<(u64, bool)>, back: bool) {
        match found {
            None => self.notice = Some(format!("no {what}")),
            Some((line, wrapped)) => {
                if wrapped {
                    let which = if back { "last" } else { "first" };
                    self.notice = Some(format!("the {which} {what} again"));
                }
                self.go_to(line);
            }
        }
    }

    /// Puts the cursor on a line and stays there.
    pub(super) fn go_to(&mut self, line: u64) {
        self.cursor = line;
        self.follow = false;
        self.reveal = true;
    }
}

/// The nearest line beyond `from`, or else the first from the other end, and whether it was that.
fn round(
    buffer: &LogBuffer,
    from: u64,
    back: bool,
    find: impl Fn(Range<u64>) -> Option<u64>,
) -> Option<(u64, bool)> {
    let Range { start, end } = buffer.range();
    let after = from.saturating_add(1).clamp(start, end);
    let from = from.clamp(start, end);
    let (beyond, rest) = if back { (start..from, from..end) } else { (after..end, start..after) };
    find(beyond).map(|line| (line, false)).or_else(|| find(rest).map(|line| (line, true)))
}
