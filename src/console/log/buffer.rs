//! The lines themselves: a ring of bounded size.

use std::collections::VecDeque;
use std::mem::size_of;
use std::ops::Range;

use jiff::Timestamp;

use super::line;
use crate::event::text::{MAX_LINE, cut};

/// Most memory one buffer takes, in bytes, unless told otherwise: texts, 24 bytes a line for when,
/// who and how grave, and what is allocated but not yet used.
pub const DEFAULT_LIMIT: usize = 32 * 1024 * 1024;

/// Text in one chunk, in bytes. Lines are dropped by the chunk.
const CHUNK_TEXT: usize = 64 * 1024;
/// Lines in one chunk.
const CHUNK_LINES: usize = 1024;
/// Longest name of a source, in bytes.
const MAX_NAME: usize = 64;

/// Names who wrote a line, within one buffer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct SourceId(pub u32);

impl SourceId {
    /// Nobody in particular: such lines bear no name.
    pub const UNNAMED: SourceId = SourceId(0);
}

/// How grave a line is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As good as any other.
    #[default]
    Plain,
    /// For information.
    Info,
    /// Something to know.
    Warning,
    /// Something to mend.
    Error,
}

/// One line of a buffer.
#[derive(Debug, Clone, Copy)]
pub struct LogLine<'a> {
    /// Its number, from 0; it never changes.
    pub number: u64,
    /// When it was written.
    pub time: Timestamp,
    /// Who wrote it.
    pub source: SourceId,
    /// How grave it is.
    pub severity: Severity,
    /// The text, SGR colours included.
    pub text: &'a str,
}

/// The last lines of a log. When they need more than the limit the oldest go, and are counted.
#[derive(Debug, Clone)]
pub struct LogBuffer {
    chunks: VecDeque<Chunk>,
    names: Vec<String>,
    limit: usize,
    bytes: usize,
    first: u64,
    end: u64,
    lost: u64,
}

/// Lines that come and go together.
#[derive(Debug, Clone, Default)]
struct Chunk {
    first: u64,
    text: String,
    entries: Vec<Entry>,
    errors: u32,
}

/// All of a line but its text.
#[derive(Debug, Clone, Copy)]
struct Entry {
    micros: i64,
    /// Where its text ends in the chunk's.
    end: u32,
    source: SourceId,
    severity: Severity,
}

impl Chunk {
    /// What it takes in memory, in bytes.
    fn bytes(&self) -> usize {
        size_of::<Chunk>() + self.text.capacity() + self.entries.capacity() * size_of::<Entry>()
    }

    fn line(&self, index: usize) -> Option<LogLine<'_>> {
        let entry = self.entries.get(index)?;
        let begin = index.checked_sub(1).map_or(0, |before| self.entries[before].end);
        Some(LogLine {
            number: self.first + index as u64,
            time: Timestamp::from_microsecond(entry.micros).unwrap_or_default(),
            source: entry.source,
            severity: entry.severity,
            text: self.text.get(begin as usize..entry.end as usize)?,
        })
    }
}

impl Default for LogBuffer {
    fn default() -> Self {
        Self::with_limit(DEFAULT_LIMIT)
    }
}

impl LogBuffer {
    /// An empty buffer that takes at most `limit` bytes; its newest line is always kept.
    pub fn with_limit(limit: usize) -> Self {
        Self {
            chunks: VecDeque::new(),
            names: vec![String::new()],
            limit,
            bytes: 0,
            first: 0,
            end: 0,
            lost: 0,
        }
    }

    /// Makes a source known. Its name is shown before its lines: `name> text`.
    pub fn add_source(&mut self, name: &str) -> SourceId {
        self.names.push(cut(name, MAX_NAME).to_string());
        SourceId(self.names.len() as u32 - 1)
    }

    /// The name of a source; empty when it has none.
    pub fn name(&self, source: SourceId) -> &str {
        self.names.get(source.0 as usize).map_or("", String::as_str)
    }

    /// Appends a line. A text that begins like an error is one, whatever `severity` says.
    pub fn push(&mut self, time: Timestamp, source: SourceId, severity: Severity, text: &str) {
        let text = cut(text, MAX_LINE);
        let severity = if line::begins_like_an_error(text) { Severity::Error } else { severity };
        let before = self.open_chunk(text.len());
        let Some(chunk) = self.chunks.back_mut() else { return };
        chunk.text.push_str(text);
        let end = chunk.text.len() as u32;
        chunk.entries.push(Entry { micros: time.as_microsecond(), end, source, severity });
        chunk.errors += u32::from(severity == Severity::Error);
        self.bytes += chunk.bytes() - before;
        self.end += 1;
        while self.bytes > self.limit && self.chunks.len() > 1 {
            self.drop_oldest();
        }
    }

    /// Makes room for a text of `len` bytes in the last chunk; returns what that takes so far.
    fn open_chunk(&mut self, len: usize) -> usize {
        // Small buffers drop in small steps.
        let most = CHUNK_TEXT.min(self.limit / 16);
        if let Some(last) = self.chunks.back_mut() {
            if last.text.len() + len <= most && last.entries.len() < CHUNK_LINES {
                return last.bytes();
            }
            self.bytes -= last.bytes();
            last.text.shrink_to_fit();
            last.entries.shrink_to_fit();
            self.bytes += last.bytes();
        }
        self.chunks.push_back(Chunk { first: self.end, ..Chunk::default() });
        0
    }

    fn drop_oldest(&mut self) {
        if let Some(chunk) = self.chunks.pop_front() {
            self.bytes -= chunk.bytes();
            self.first = chunk.first + chunk.entries.len() as u64;
        }
    }

    /// Drops all lines, and counts them as dropped.
    pub fn clear(&mut self) {
        self.chunks.clear();
        (self.bytes, self.first) = (0, self.end);
    }

    /// Counts lines that never came, because a channel was full.
    pub fn lost(&mut self, lines: u64) {
        self.lost = self.lost.saturating_add(lines);
    }

    /// How many lines are not here any more, or never came.
    pub fn dropped(&self) -> u64 {
        self.first.saturating_add(self.lost)
    }

    /// What it takes in memory, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The numbers of the lines that are here.
    pub fn range(&self) -> Range<u64> {
        self.first..self.end
    }

    /// The line of that number, if it is here.
    pub fn line(&self, number: u64) -> Option<LogLine<'_>> {
        let chunk = &self.chunks[self.chunk_of(number)?];
        chunk.line((number - chunk.first) as usize)
    }

    /// The lines of those numbers that are here.
    pub fn lines(&self, numbers: Range<u64>) -> impl DoubleEndedIterator<Item = LogLine<'_>> {
        let here = numbers.start.max(self.first)..numbers.end.min(self.end);
        here.filter_map(|number| self.line(number))
    }

    /// The numbers of those lines that are errors.
    pub fn errors(&self, numbers: Range<u64>) -> impl DoubleEndedIterator<Item = u64> {
        let begin = self.chunks.partition_point(|chunk| chunk.first <= numbers.start).saturating_sub(1);
        let end = self.chunks.partition_point(|chunk| chunk.first < numbers.end).max(begin);
        self.chunks.range(begin..end).filter(|chunk| chunk.errors > 0).flat_map(move |chunk| {
            let numbers = numbers.clone();
            (0..chunk.entries.len())
                .filter(|index| chunk.entries[*index].severity == Severity::Error)
                .map(|index| chunk.first + index as u64)
                .filter(move |number| numbers.contains(number))
        })
    }

    fn chunk_of(&self, number: u64) -> Option<usize> {
        let after = self.chunks.partition_point(|chunk| chunk.first <= number);
        if self.range().contains(&number) { after.checked_sub(1) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(buffer: &mut LogBuffer, text: &str) {
        buffer.push(Timestamp::UNIX_EPOCH, SourceId::UNNAMED, Severity::Plain, text);
    }

    #[test]
    fn the_oldest_lines_go_and_are_counted_and_numbers_stay() {
        let mut buffer = LogBuffer::with_limit(16 * 1024);
        for number in 0..5_000 {
            push(&mut buffer, &format!("line {number}"));
            assert!(buffer.bytes() <= 16 * 1024, "{}", buffer.bytes());
        }
        let range = buffer.range();
        assert!(range.start > 4_000 && range.end == 5_000, "{range:?}");
        assert_eq!(buffer.dropped(), range.start);
        for line in buffer.lines(0..u64::MAX) {
            assert_eq!(line.text, format!("line {}", line.number));
        }
        assert!(buffer.line(range.start - 1).is_none() && buffer.line(range.end).is_none());
        buffer.lost(7);
        assert_eq!(buffer.dropped(), range.start + 7);
    }

    #[test]
    fn a_buffer_smaller_than_a_line_keeps_the_newest() {
        let mut buffer = LogBuffer::with_limit(0);
        push(&mut buffer, "one");
        push(&mut buffer, &"ü".repeat(MAX_LINE));
        assert_eq!(buffer.range(), 1..2);
        assert_eq!(buffer.line(1).unwrap().text.len(), MAX_LINE);
    }

    #[test]
    fn a_million_empty_lines_stay_within_the_limit() {
        let mut buffer = LogBuffer::with_limit(1024 * 1024);
        (0..1_000_000).for_each(|_| push(&mut buffer, ""));
        let size = buffer.chunks.iter().map(Chunk::bytes).sum::<usize>();
        assert_eq!(buffer.bytes(), size);
        assert!(size <= 1024 * 1024);
    }

    #[test]
    fn errors_are_found_in_both_directions_also_by_how_they_begin() {
        let mut buffer = LogBuffer::with_limit(4096);
        for number in 0..100 {
            let error = number == 80 || number == 90;
            push(&mut buffer, if error { "\x1b[31;1merror:\x1b[0m no" } else { "fine, error: none" });
        }
        buffer.push(Timestamp::UNIX_EPOCH, SourceId::UNNAMED, Severity::Error, "told");
        assert!(buffer.range().start > 0);
        let errors = |numbers| buffer.errors(numbers).collect::<Vec<_>>();
        assert_eq!(errors(0..u64::MAX), [80, 90, 100]);
        assert_eq!(errors(81..100), [90]);
        assert_eq!(buffer.errors(0..90).next_back(), Some(80));
        assert!(errors(81..90).is_empty() && errors(200..300).is_empty() && errors(0..0).is_empty());
    }
}
