//! The visible cells, borrowed: what a renderer draws.

use alacritty_terminal::Term;
use alacritty_terminal::grid::Dimensions;
use alacritty_terminal::index::{Column, Line, Point};
use alacritty_terminal::selection::SelectionRange;
use alacritty_terminal::term::cell::{self, Flags};
use alacritty_terminal::term::{TermMode, color::Colors};
use alacritty_terminal::vte::ansi::{self, NamedColor};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::Size;
use super::screen::{Outlet, Screen};

/// A colour as the program asked for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Colour {
    /// The terminal's own foreground or background.
    #[default]
    Default,
    /// Of the palette of 256.
    Indexed(u8),
    /// Red, green, blue.
    Rgb(u8, u8, u8),
}

/// How a cell's character is drawn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Style {
    /// Colour of the character.
    pub foreground: Colour,
    /// Colour behind it.
    pub background: Colour,
    /// Bold.
    pub bold: bool,
    /// Dim.
    pub dim: bool,
    /// Italic.
    pub italic: bool,
    /// Underlined, in whatever way.
    pub underline: bool,
    /// Foreground and background are to be swapped.
    pub reverse: bool,
    /// Not to be shown.
    pub hidden: bool,
    /// Struck out.
    pub strike: bool,
}

/// What a cell is to its character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// All of it.
    Narrow,
    /// The left half of a wide one.
    Wide,
    /// The right half of a wide one, or left free because a wide one did not fit.
    Spacer,
}

/// One visible cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell<'a> {
    /// Its character; a space where there is none.
    pub c: char,
    /// Combining marks and other characters without a width, as the program sent them.
    pub marks: &'a [char],
    /// How it is drawn.
    pub style: Style,
    /// Whether it is a half of something.
    pub width: Width,
    /// Part of the selection.
    pub selected: bool,
    /// Part of something searched for.
    pub found: bool,
}

impl Cell<'_> {
    /// Writes what fills the cell: the character with its marks, or without where they would make
    /// it take up another width on the screen than it has here. Nothing for a spacer.
    pub fn write_symbol(&self, out: &mut String) {
        if self.width == Width::Spacer {
            return;
        }
        let from = out.len();
        out.push(self.c);
        let bare = out.len();
        out.extend(self.marks);
        if bare < out.len() && out[from..].width() != self.c.width().unwrap_or(1) {
            out.truncate(bare);
        }
        // The next cell stands for itself here, but the screen would draw the two as one.
        out.truncate(out.trim_end_matches('\u{200d}').len());
    }
}

/// Shape of the cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// The whole cell.
    Block,
    /// A line below.
    Underline,
    /// A line to the left.
    Bar,
}

/// A cursor to be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// Column, from 0.
    pub column: u16,
    /// Row, from 0.
    pub row: u16,
    /// Its shape.
    pub shape: Shape,
    /// Whether it is to blink.
    pub blinking: bool,
}

/// The visible part of a screen.
pub struct Grid<'a> {
    term: &'a Term<Outlet>,
    size: Size,
    top: Line,
    selection: Option<SelectionRange>,
    /// Cells that are part of something searched for; empty when nothing is.
    found: Vec<bool>,
}

impl<'a> Grid<'a> {
    pub(super) fn new(screen: &'a Screen) -> Self {
        let term = &screen.term;
        Self {
            term,
            size: screen.size(),
            top: Line(-(screen.scrolled() as i32)),
            selection: term.selection.as_ref().and_then(|selection| selection.to_range(term)),
            found: screen.found(),
        }
    }

    /// The size in cells.
    pub fn size(&self) -> Size {
        self.size
    }

    /// The cells of a row from left to right; none below the last row.
    pub fn row(&self, row: u16) -> impl Iterator<Item = Cell<'a>> + '_ {
        let columns = if row < self.size.rows() { self.size.columns() } else { 0 };
        let line = self.top + usize::from(row);
        (0..columns).map(move |column| {
            let point = Point::new(line, Column(column.into()));
            let index = usize::from(row) * self.term.columns() + point.column.0;
            let (c, marks, style, width) = look(&self.term.grid()[point], self.term.colors());
            Cell {
                c,
                marks,
                style,
                width,
                selected: self.selection.is_some_and(|range| range.contains(point)),
                found: self.found.get(index).copied().unwrap_or(false),
            }
        })
    }

    /// The cursor, unless it is hidden or scrolled out of view.
    pub fn cursor(&self) -> Option<Cursor> {
        let point = self.term.grid().cursor.point;
        let row = u16::try_from((point.line - self.top.0).0).ok().filter(|row| *row < self.size.rows())?;
        let style = self.term.cursor_style();
        let shape = match style.shape {
            ansi::CursorShape::Block | ansi::CursorShape::HollowBlock => Shape::Block,
            ansi::CursorShape::Underline => Shape::Underline,
            ansi::CursorShape::Beam => Shape::Bar,
            ansi::CursorShape::Hidden => return None,
        };
        let column = u16::try_from(point.column.0).ok()?;
        let shown = self.term.mode().contains(TermMode::SHOW_CURSOR);
        shown.then_some(Cursor { column, row, shape, blinking: style.blinking })
    }
}

fn look<'a>(cell: &'a cell::Cell, colours: &Colors) -> (char, &'a [char], Style, Width) {
    let flags = cell.flags;
    let style = Style {
        foreground: colour(cell.fg, colours),
        background: colour(cell.bg, colours),
        bold: flags.contains(Flags::BOLD),
        dim: flags.contains(Flags::DIM),
        italic: flags.contains(Flags::ITALIC),
        underline: flags.intersects(Flags::ALL_UNDERLINES),
        reverse: flags.contains(Flags::INVERSE),
        hidden: flags.contains(Flags::HIDDEN),
        strike: flags.contains(Flags::STRIKEOUT),
    };
    let width = if flags.contains(Flags::WIDE_CHAR) {
        Width::Wide
    } else if flags.intersects(Flags::WIDE_CHAR_SPACER | Flags::LEADING_WIDE_CHAR_SPACER) {
        Width::Spacer
    } else {
        Width::Narrow
    };
    // The emulator leaves a tab in the first of the cells it jumped over.
    let c = if cell.c == '\t' { ' ' } else { cell.c };
    (c, cell.zerowidth().unwrap_or_default(), style, width)
}

fn colour(colour: ansi::Color, colours: &Colors) -> Colour {
    let (index, otherwise) = match colour {
        ansi::Color::Spec(rgb) => return Colour::Rgb(rgb.r, rgb.g, rgb.b),
        ansi::Color::Indexed(index) => (index.into(), Colour::Indexed(index)),
        ansi::Color::Named(name) => (name as usize, named(name)),
    };
    // The program may have changed the palette.
    colours[index].map_or(otherwise, |rgb| Colour::Rgb(rgb.r, rgb.g, rgb.b))
}

fn named(name: NamedColor) -> Colour {
    u8::try_from(name as usize).map_or(Colour::Default, Colour::Indexed)
}
