//! Dialogs over the page.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Rect};
use ratatui::text::Line;
use ratatui::widgets::{Clear, Paragraph, Widget};

use super::Scene;
use super::pane::pane;
use crate::console::command::COMMANDS;
use crate::console::ui::dialog::Dialog;

/// Draws the open dialog in the middle of the page.
pub fn draw(scene: Scene<'_>, dialog: &Dialog, area: Rect, buffer: &mut Buffer) {
    let (title, lines): (&str, Vec<Line<'_>>) = match dialog {
        Dialog::Confirm { question, .. } => ("Sure?", vec![Line::raw(question), Line::raw("y yes   n no")]),
        Dialog::Prompt { title, input, .. } => (title, vec![Line::raw(format!("{}_", input.value()))]),
        Dialog::Palette { input, .. } => (":", vec![Line::raw(format!("{}_", input.value()))]),
        Dialog::Help { .. } => (
            "Help",
            COMMANDS
                .iter()
                .map(|c| Line::raw(format!("{:<12} {:<16} {}", c.keys.join(" "), c.name, c.help)))
                .collect(),
        ),
    };
    let height = (lines.len() as u16 + 2).min(area.height);
    let area = area.centered(Constraint::Max(70), Constraint::Length(height));
    Clear.render(area, buffer);
    let inner = pane(scene.theme, title, true, area, buffer);
    Paragraph::new(lines).render(inner, buffer);
}
