//! A program behind a PTY and the terminal it believes to have; knows no UI.
//!
//! ```text
//! program ──► pty ──► osc ──► vte ──► guard ──► alacritty's Term ──► grid (borrowed, to be drawn)
//!    ▲                                              │ replies
//!    └──── pty ◄──── keys, mouse, pasted text ◄─────┘
//! ```
//!
//! What the program sends is hostile until shown otherwise: memory, time and what reaches the
//! cells are bounded in `osc`, `guard` and `screen`.

pub mod grid;
mod guard;
pub mod keys;
pub mod mouse;
mod osc;
pub mod pty;
pub mod screen;
pub mod search;
pub mod select;
pub mod session;
#[cfg(test)]
mod tests;

/// Size of a terminal in cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Cells in a line.
    columns: u16,
    /// Lines.
    rows: u16,
}

impl Size {
    /// A size within what the emulator can do: 2 to 1000 columns (a wide character must fit), 1 to
    /// 1000 rows.
    pub fn new(columns: u16, rows: u16) -> Self {
        Self { columns: columns.clamp(2, 1000), rows: rows.clamp(1, 1000) }
    }

    /// Cells in a line.
    pub fn columns(self) -> u16 {
        self.columns
    }

    /// Lines.
    pub fn rows(self) -> u16 {
        self.rows
    }
}

/// What the program has asked of the keyboard and the mouse.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Modes {
    /// Arrows, Home and End in their application form.
    pub app_cursor: bool,
    /// Enter sends a line feed too.
    pub newline: bool,
    /// Pasted text is to be bracketed.
    pub bracketed_paste: bool,
    /// What of the mouse is to be reported.
    pub mouse: MouseMode,
    /// Mouse reports in SGR form, the only one that is sent.
    pub sgr_mouse: bool,
    /// The alternate screen is on: there is no scrollback.
    pub alternate_screen: bool,
    /// On the alternate screen the wheel is to send arrows.
    pub alternate_scroll: bool,
    /// Gaining and losing focus is to be reported.
    pub focus: bool,
}

/// What of the mouse a program wants to know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MouseMode {
    /// Nothing.
    #[default]
    Off,
    /// Buttons and the wheel.
    Clicks,
    /// Movement with a button held, too.
    Drags,
    /// Every movement.
    Moves,
}
