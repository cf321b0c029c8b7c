//! All commands with their keys, from the one list.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Widget};

use super::Scene;
use super::dialog::open;
use crate::console::command::{COMMANDS, Place};
use crate::console::theme::Role;

/// Draws the list from line `top` on.
pub fn draw(scene: Scene<'_>, top: u16, area: Rect, buffer: &mut Buffer) {
    let lines = lines(scene);
    let height = (lines.len() as u16).min(area.height.saturating_sub(2));
    let inner = open(scene, "Help: j and k scroll, `:` runs a command by its name", height, area, buffer);
    let top = top.min((lines.len() as u16).saturating_sub(inner.height));
    Paragraph::new(lines).scroll((top, 0)).render(inner, buffer);
}

/// The first line shown after moving by so many lines.
pub fn scrolled(top: u16, by: isize) -> u16 {
    let most = COMMANDS.len() + 2 * Place::ALL.len();
    (top as usize).saturating_add_signed(by).min(most) as u16
}

fn lines<'a>(scene: Scene<'a>) -> Vec<Line<'a>> {
    let theme = scene.theme;
    let mut lines = Vec::new();
    // What belongs to the page comes first.
    let mut places = Place::ALL.to_vec();
    places.sort_by_key(|place| !(*place != Place::Everywhere && place.is_here(scene.ui)));
    for place in places {
        lines.push(Line::styled(place.title(), theme.style(Role::Title)));
        for command in COMMANDS.iter().filter(|command| command.place == place) {
            lines.push(Line::from(vec![
                Span::styled(
                    format!("  {:<14} ", scene.keymap.shown(command, theme.ascii)),
                    theme.style(Role::Key),
                ),
                Span::raw(format!("{:<15} ", command.name)),
                Span::styled(command.help, theme.style(Role::Dim)),
            ]));
        }
    }
    lines
}
