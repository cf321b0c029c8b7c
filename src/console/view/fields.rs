//! Labels and what belongs to them.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Widget};

use super::text::wrapped;
use crate::console::theme::{Role, Theme};

/// Width of the labels.
const LABEL: u16 = 11;

/// Draws lines from line `top` on, but never past their end.
pub fn draw(lines: Vec<Line<'_>>, top: usize, area: Rect, buffer: &mut Buffer) {
    let most = lines.len().saturating_sub(usize::from(area.height));
    let shown = lines.into_iter().skip(top.min(most)).take(usize::from(area.height));
    Paragraph::new(shown.collect::<Vec<_>>()).render(area, buffer);
}

/// Labels and what belongs to them, wrapped beside the label.
pub struct Fields<'a> {
    theme: &'a Theme,
    width: u16,
    /// What there is so far.
    pub lines: Vec<Line<'static>>,
}

impl<'a> Fields<'a> {
    /// None yet; lines are to have this width.
    pub fn new(theme: &'a Theme, width: u16) -> Self {
        Self { theme, width, lines: Vec::new() }
    }

    /// Adds one.
    pub fn add(&mut self, label: &'static str, text: &str, role: Role) {
        for (index, line) in wrapped(text, self.width.saturating_sub(LABEL)).into_iter().enumerate() {
            let label = if index == 0 { label } else { "" };
            let label = format!("{label:<0$}", usize::from(LABEL));
            self.lines.push(Line::from(vec![
                Span::styled(label, self.theme.style(Role::Dim)),
                Span::styled(line, self.theme.style(role)),
            ]));
        }
    }

    /// Adds several in a row.
    pub fn list(&mut self, label: &'static str, items: &[String]) {
        match items {
            [] => self.add(label, "none", Role::Dim),
            items => self.add(label, &items.join("  "), Role::Text),
        }
    }
}
