//! Which lines match: found a bounded number at a time, then kept up to date.

use std::collections::VecDeque;

use super::buffer::{LogBuffer, LogLine};

/// Most lines looked at in one step.
const STEP_LINES: usize = 8 * 1024;
/// Most text looked at in one step, in bytes.
const STEP_BYTES: usize = 512 * 1024;

/// The numbers of the lines that match, in order. New lines are looked at first, then older ones,
/// from the newest back: what is wanted is mostly near the end.
#[derive(Debug, Clone)]
pub struct Index {
    lines: VecDeque<u64>,
    /// Lines from here …
    low: u64,
    /// … up to here have been looked at.
    high: u64,
}

impl Index {
    /// An index that begins at the end of the buffer.
    pub fn new(buffer: &LogBuffer) -> Self {
        let end = buffer.range().end;
        Self { lines: VecDeque::new(), low: end, high: end }
    }

    /// Forgets lines that are gone and looks at some it has not seen.
    pub fn step(&mut self, buffer: &LogBuffer, matches: impl Fn(&LogLine) -> bool) {
        let range = buffer.range();
        if self.high < range.start {
            *self = Self { lines: VecDeque::new(), low: range.start, high: range.start };
        }
        self.low = self.low.max(range.start);
        while self.lines.front().is_some_and(|first| *first < range.start) {
            self.lines.pop_front();
        }
        let mut bytes = 0;
        let mut affords = |line: &LogLine| {
            // Colours have to be taken out before a line can be looked at.
            let cost = if line.text.contains('\x1b') { 4 } else { 1 };
            bytes += cost * line.text.len();
            bytes <= STEP_BYTES
        };
        let mut lines = STEP_LINES;
        for line in buffer.lines(self.high..range.end).take(lines).take_while(&mut affords) {
            if matches(&line) {
                self.lines.push_back(line.number);
            }
            self.high = line.number + 1;
            lines -= 1;
        }
        for line in buffer.lines(range.start..self.low).rev().take(lines).take_while(&mut affords) {
            if matches(&line) {
                self.lines.push_front(line.number);
            }
            self.low = line.number;
        }
    }

    /// Whether every line of the buffer has been looked at.
    pub fn is_complete(&self, buffer: &LogBuffer) -> bool {
        self.low <= buffer.range().start && self.high == buffer.range().end
    }

    /// Whether what is nearest to line `number` can be told: those around it have been looked at.
    pub fn covers(&self, buffer: &LogBuffer, number: u64) -> bool {
        let range = buffer.range();
        self.low <= number.max(range.start) && number.min(range.end) <= self.high
    }

    /// How many lines were found.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// How many of them are before line `number`.
    pub fn rank(&self, number: u64) -> usize {
        self.lines.partition_point(|line| *line < number)
    }

    /// The found line of that rank.
    pub fn get(&self, rank: usize) -> Option<u64> {
        self.lines.get(rank).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Severity, SourceId};
    use super::*;
    use jiff::Timestamp;

    fn push(buffer: &mut LogBuffer, count: usize) {
        for _ in 0..count {
            let text = if buffer.range().end.is_multiple_of(10) { "ten" } else { "" };
            buffer.push(Timestamp::UNIX_EPOCH, SourceId::UNNAMED, Severity::Plain, text);
        }
    }

    fn found(index: &Index) -> Vec<u64> {
        index.lines.iter().copied().collect()
    }

    #[test]
    fn a_step_looks_at_so_many_lines_and_no_more() {
        let mut buffer = LogBuffer::default();
        push(&mut buffer, 2 * STEP_LINES + 1);
        let mut index = Index::new(&buffer);
        for steps in 1..=3 {
            assert!(!index.is_complete(&buffer));
            let looked = std::cell::Cell::new(0);
            index.step(&buffer, |line| {
                looked.set(looked.get() + 1);
                line.text == "ten"
            });
            assert_eq!(looked.get(), if steps < 3 { STEP_LINES } else { 1 });
        }
        assert!(index.is_complete(&buffer));
        assert_eq!(found(&index), (0..buffer.range().end).step_by(10).collect::<Vec<_>>());
    }

    #[test]
    fn lines_that_came_and_went_between_two_steps_are_not_missed_nor_kept() {
        let mut buffer = LogBuffer::with_limit(64 * 1024);
        push(&mut buffer, 100);
        let mut index = Index::new(&buffer);
        index.step(&buffer, |line| line.text == "ten");
        assert_eq!(index.len(), 10);
        push(&mut buffer, 50_000);
        let range = buffer.range();
        assert!(range.start > 100);
        index.step(&buffer, |line| line.text == "ten");
        assert!(index.is_complete(&buffer));
        assert_eq!(found(&index), range.filter(|line| line % 10 == 0).collect::<Vec<_>>());
    }
}
