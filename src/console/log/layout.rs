//! Which row of which line is where on the screen. Only what is visible is ever wrapped.

use std::collections::HashMap;

use ratatui::style::Style;

use super::buffer::{LogBuffer, LogLine};
use super::glyph::{Glyph, glyphs};
use super::line::Styled;
use super::place::Place;
use super::shown::Shown;

/// Most lines whose height is remembered.
const MOST_KNOWN: usize = 4096;
/// Columns of a mark before a line.
const MARK: u16 = 1;
/// Columns of `HH:MM:SS.mmm` and a blank.
const TIME: u16 = 13;
/// Narrower panes show no timestamps.
const NARROW: u16 = 30;

/// What decides how many rows a line takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shape {
    /// Columns of the pane.
    pub width: u16,
    /// Rows of the pane.
    pub height: u16,
    /// Whether long lines are wrapped.
    pub wrap: bool,
    /// Whether lines say when they were written.
    pub timestamps: bool,
    /// Whether lines say who wrote them.
    pub names: bool,
}

impl Shape {
    /// Columns before the text, for marks.
    pub fn mark_width(self) -> u16 {
        if self.width > MARK { MARK } else { 0 }
    }

    /// Columns before the text, for timestamps.
    pub fn time_width(self) -> u16 {
        if self.timestamps && self.width >= NARROW { TIME } else { 0 }
    }

    /// Columns for the text.
    pub fn text_width(self) -> usize {
        usize::from(self.width.saturating_sub(self.mark_width() + self.time_width()).max(1))
    }

    /// A line as it is shown: with the name of its source, in a style of its own.
    pub fn text<'a>(self, buffer: &LogBuffer, line: &LogLine<'a>, names: Style) -> Styled<'a> {
        self.text_within(buffer, line, names, usize::MAX)
    }

    /// As much of a line as `columns` columns can show; what has no width may take from that.
    pub fn text_within<'a>(
        self,
        buffer: &LogBuffer,
        line: &LogLine<'a>,
        names: Style,
        columns: usize,
    ) -> Styled<'a> {
        let name = if self.names { buffer.name(line.source) } else { "" };
        let prefix = if name.is_empty() { String::new() } else { format!("{name}> ") };
        // No character has more than four bytes.
        Styled::new(&prefix, names, line.text, columns.saturating_mul(4))
    }
}

/// How many rows lines take, remembered for those seen lately.
#[derive(Debug, Clone, Default)]
pub struct Rows {
    shape: Shape,
    known: HashMap<u64, u32>,
}

impl Rows {
    /// Takes a new shape. Returns whether it is another one.
    pub fn reshape(&mut self, shape: Shape) -> bool {
        let before = std::mem::replace(&mut self.shape, shape);
        let changes = |shape: Shape| (shape.text_width(), shape.wrap, shape.names);
        if changes(before) != changes(shape) {
            self.known.clear();
        }
        before != shape
    }

    /// The shape all is measured for.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// How many rows a line takes; at least one.
    pub fn of(&mut self, buffer: &LogBuffer, number: u64) -> u32 {
        if !self.shape.wrap {
            return 1;
        }
        if let Some(rows) = self.known.get(&number) {
            return *rows;
        }
        let Some(line) = buffer.line(number) else { return 1 };
        if self.known.len() >= MOST_KNOWN {
            self.known.clear();
        }
        let text = self.shape.text(buffer, &line, Style::new()).text;
        let rows = count_rows(&text, self.shape.text_width());
        self.known.insert(number, rows);
        rows
    }
}

/// How many rows of `width` columns a text takes.
pub fn count_rows(text: &str, width: usize) -> u32 {
    row_of(text, usize::MAX, width).0 + 1
}

/// The row and the column of the character at byte `at` when a text is wrapped at `width`.
pub fn row_of(text: &str, at: usize, width: usize) -> (u32, usize) {
    if text.is_ascii() {
        let at = at.min(text.len().saturating_sub(1));
        return ((at / width) as u32, at % width);
    }
    let mut last = (0, 0);
    for cell in cells(text, 0, width) {
        last = (cell.row, cell.column);
        if cell.glyph.at >= at {
            break;
        }
    }
    last
}

/// A glyph and where it stands in its wrapped line.
pub struct Cell<'a> {
    /// The row.
    pub row: u32,
    /// The column in it.
    pub column: usize,
    /// The glyph.
    pub glyph: Glyph<'a>,
}

/// The cells of a text wrapped at `width`, from row `from` on.
pub fn cells(text: &str, from: u32, width: usize) -> impl Iterator<Item = Cell<'_>> {
    // Every ASCII character takes one column: no need to read what is above.
    let (mut row, begin) = if text.is_ascii() { (from, from as usize * width) } else { (0, 0) };
    let mut end = 0;
    glyphs(text, begin, if width > 1 { 2 } else { 1 })
        .map(move |glyph| {
            if end + usize::from(glyph.width) > width {
                row += 1;
                end = 0;
            }
            let column = end;
            end += usize::from(glyph.width);
            Cell { row, column, glyph }
        })
        .skip_while(move |cell| cell.row < from)
}

/// The places of a pane's rows, from its top.
pub fn fill(top: Place, shown: Shown, rows: &mut Rows) -> Vec<Place> {
    let height = usize::from(rows.shape().height);
    let mut places = Vec::with_capacity(height);
    let mut next = Some(top);
    while let Some(place) = next
        && places.len() < height
    {
        places.push(place);
        next = if place.row + 1 < rows.of(shown.buffer, place.line) {
            Some(Place { row: place.row + 1, ..place })
        } else {
            shown.after(place.line).map(|line| Place { line, row: 0 })
        };
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_wrapped_line_loses_nothing_and_fits(text in "[ab漢é\u{301}👍]{0,60}|[ -~]{0,60}", width in 1usize..12, from in 0u32..4) {
            let all: Vec<Cell> = cells(&text, 0, width).collect();
            prop_assert_eq!(all.len(), glyphs(&text, 0, width.min(2) as u16).count());
            prop_assert_eq!(count_rows(&text, width), all.last().map_or(1, |cell| cell.row + 1));
            for pair in all.windows(2) {
                let end = pair[0].column + usize::from(pair[0].glyph.width);
                let next = (pair[1].row, pair[1].column);
                let fits = end + usize::from(pair[1].glyph.width) <= width;
                prop_assert_eq!(next, if fits { (pair[0].row, end) } else { (pair[0].row + 1, 0) });
                prop_assert_eq!(row_of(&text, pair[1].glyph.at, width), next);
            }
            let below = cells(&text, from, width).map(|cell| (cell.row, cell.column, cell.glyph));
            let wanted = all.iter().filter(|cell| cell.row >= from).map(|cell| (cell.row, cell.column, cell.glyph));
            prop_assert!(below.eq(wanted));
        }
    }
}
