//! Selecting text on the screen and in the scrollback.

use alacritty_terminal::grid::Dimensions;
use alacritty_terminal::index::{Column, Line, Point, Side};
use alacritty_terminal::selection::{Selection, SelectionType};
use alacritty_terminal::term::cell::{Flags, LineLength};
use alacritty_terminal::term::viewport_to_point;

use super::screen::Screen;

/// What a selection grows by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Single characters.
    Characters,
    /// Words: what no space, quote or bracket interrupts.
    Words,
    /// Lines, wrapped ones as one.
    Lines,
}

impl Screen {
    /// Begins a selection at a visible cell. One by characters is empty until it is extended.
    pub fn select(&mut self, unit: Unit, column: u16, row: u16) {
        let kind = match unit {
            Unit::Characters => SelectionType::Simple,
            Unit::Words => SelectionType::Semantic,
            Unit::Lines => SelectionType::Lines,
        };
        self.term.selection = Some(Selection::new(kind, self.point(column, row), Side::Left));
        self.revision += 1;
    }

    /// Extends the selection up to and with a visible cell.
    pub fn select_to(&mut self, column: u16, row: u16) {
        let point = self.point(column, row);
        if let Some(selection) = &mut self.term.selection {
            selection.update(point, Side::Right);
            selection.include_all();
            self.revision += 1;
        }
    }

    /// Ends the selection.
    pub fn clear_selection(&mut self) {
        self.revision += u64::from(self.term.selection.take().is_some());
    }

    /// The text selected, wrapped lines in one piece.
    pub fn selected_text(&self) -> Option<String> {
        // Not by the emulator, which can look for a wrapped wide character in a line that is not there.
        let selection = self.term.selection.as_ref()?;
        let range = selection.to_range(&self.term)?;
        let mut text = self.text(range.start, range.end);
        if selection.ty != SelectionType::Lines && text.ends_with('\n') {
            text.pop();
        }
        Some(text).filter(|text| !text.is_empty())
    }

    /// The text in view, wrapped lines in one piece.
    pub fn visible_text(&self) -> String {
        let (top, bottom) = self.view();
        let mut text = self.text(Point::new(top, Column(0)), Point::new(bottom, self.term.last_column()));
        text.truncate(text.trim_end().len());
        text
    }

    /// The text from one cell up to and with another.
    fn text(&self, start: Point, end: Point) -> String {
        let last = self.term.last_column();
        let mut text = String::new();
        for line in (start.line.0..=end.line.0).map(Line) {
            let row = &self.term.grid()[line];
            let mut from = if line == start.line { start.column } else { Column(0) };
            let to = if line == end.line { end.column } else { last };
            if row[from].flags.contains(Flags::WIDE_CHAR_SPACER) {
                from.0 = from.0.saturating_sub(1);
            }
            let length = row.line_length().0.min(to.0 + 1);
            for cell in (from.0..length).map(|column| &row[Column(column)]) {
                if !cell.flags.intersects(Flags::WIDE_CHAR_SPACER | Flags::LEADING_WIDE_CHAR_SPACER) {
                    text.push(if cell.c == '\t' { ' ' } else { cell.c });
                    text.extend(cell.zerowidth().unwrap_or_default());
                }
            }
            if to == last && !row[last].flags.contains(Flags::WRAPLINE) {
                text.push('\n');
            }
        }
        text
    }

    /// The place of a visible cell, the nearest one for what lies outside.
    fn point(&self, column: u16, row: u16) -> Point {
        let size = self.size();
        let column = Column(column.min(size.columns() - 1).into());
        viewport_to_point(self.scrolled(), Point::new(row.min(size.rows() - 1).into(), column))
    }
}
