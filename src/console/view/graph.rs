//! Graphs of block characters: the newest value at the right.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::symbols::bar;
use ratatui::widgets::{RenderDirection, Sparkline, Widget};

use crate::console::theme::{Role, Theme};

const ASCII: bar::Set<'static> = bar::Set {
    full: "#",
    seven_eighths: "#",
    three_quarters: "*",
    five_eighths: "+",
    half: "=",
    three_eighths: "-",
    one_quarter: ":",
    one_eighth: ".",
    empty: " ",
};

/// Draws values, the newest first, against `full`.
pub fn draw(theme: &Theme, newest: impl Iterator<Item = u64>, full: u64, area: Rect, buffer: &mut Buffer) {
    let mut set = if theme.ascii { ASCII } else { bar::NINE_LEVELS };
    if area.height == 1 && !theme.ascii {
        // A base line: nought differs from nothing known.
        set.empty = bar::ONE_EIGHTH;
    }
    let full = full.max(1);
    Sparkline::default()
        .data(newest.take(usize::from(area.width)).map(|value| value.min(full)))
        .max(full)
        .bar_set(set)
        .direction(RenderDirection::RightToLeft)
        .style(theme.style(Role::Graph))
        .render(area, buffer);
}
