//! A place in a log: a line, and a row of it when it is wrapped.

use super::layout::Rows;
use super::shown::Shown;

/// A row on which a pane can begin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line's number.
    pub line: u64,
    /// The row within it.
    pub row: u32,
}

impl Place {
    /// The nearest place that is shown.
    pub fn shown(self, shown: Shown, rows: &mut Rows) -> Option<Place> {
        let line = shown.near(self.line)?;
        let row = if line == self.line { self.row.min(rows.of(shown.buffer, line) - 1) } else { 0 };
        Some(Place { line, row })
    }

    /// The last row of all.
    pub fn last(shown: Shown, rows: &mut Rows) -> Option<Place> {
        let line = shown.last()?;
        Some(Place { line, row: rows.of(shown.buffer, line) - 1 })
    }

    /// So many rows up, or the first.
    pub fn up(mut self, count: usize, shown: Shown, rows: &mut Rows) -> Place {
        let mut count = u32::try_from(count).unwrap_or(u32::MAX);
        while count > self.row {
            let Some(line) = shown.before(self.line) else { return Place { row: 0, ..self } };
            count -= self.row + 1;
            self = Place { line, row: rows.of(shown.buffer, line) - 1 };
        }
        Place { row: self.row - count, ..self }
    }

    /// So many rows down, or the last.
    pub fn down(mut self, count: usize, shown: Shown, rows: &mut Rows) -> Place {
        let mut count = u32::try_from(count).unwrap_or(u32::MAX);
        loop {
            let last = rows.of(shown.buffer, self.line) - 1;
            let left = last.saturating_sub(self.row);
            if count <= left {
                return Place { row: self.row + count, ..self };
            }
            let Some(line) = shown.after(self.line) else { return Place { row: last, ..self } };
            count -= left + 1;
            self = Place { line, row: 0 };
        }
    }
}
