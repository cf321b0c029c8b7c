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
            bytes += line.text.len();
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
