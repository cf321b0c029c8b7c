//! Selecting text on the screen and in the scrollback.

use alacritty_terminal::index::{Column, Point, Side};
use alacritty_terminal::selection::{Selection, SelectionType};
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
        self.term.selection_to_string().filter(|text| !text.is_empty())
    }

    /// The place of a visible cell, the nearest one for what lies outside.
    fn point(&self, column: u16, row: u16) -> Point {
        let size = self.size();
        let column = Column(column.min(size.columns() - 1).into());
        viewport_to_point(self.scrolled(), Point::new(row.min(size.rows() - 1).into(), column))
    }
}
