//! The emulator by itself, against alacritty's recordings, and with real programs.

mod emulation;
mod hostile;
mod programs;
mod recordings;

use std::time::Instant;

use super::Size;
use super::screen::{Effects, Screen};

/// A screen that has been fed `bytes`, and what they did.
fn fed(columns: u16, rows: u16, bytes: impl AsRef<[u8]>) -> (Screen, Effects) {
    let mut screen = Screen::new(Size::new(columns, rows), 1000);
    let effects = feed(&mut screen, bytes);
    (screen, effects)
}

fn feed(screen: &mut Screen, bytes: impl AsRef<[u8]>) -> Effects {
    let mut effects = Effects::default();
    screen.feed(bytes.as_ref(), Instant::now(), &mut effects);
    effects
}

/// The visible text, with its marks, without spaces at the ends of lines.
fn text(screen: &Screen) -> String {
    let grid = screen.grid();
    let mut text = String::new();
    for row in 0..grid.size().rows() {
        grid.row(row).for_each(|cell| cell.write_symbol(&mut text));
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text.trim_end_matches('\n').to_string()
}
