//! The first and the last line of the screen.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Widget};

use super::{LEAST, Scene};
use crate::console::command::{COMMANDS, Command};
use crate::console::theme::Role;
use crate::console::ui::page::Page;
use crate::event::text::strip;

/// The pages with their numbers.
pub fn header(scene: Scene<'_>, area: Rect, buffer: &mut Buffer) {
    let theme = scene.theme;
    let mut spans = vec![Span::styled(" mvm ", theme.style(Role::Title))];
    for (index, page) in Page::ALL.into_iter().enumerate() {
        let role = if page == scene.ui.page { Role::Selected } else { Role::Text };
        spans.push(Span::raw(" "));
        spans.push(Span::styled(format!("{} {}", index + 1, page.title()), theme.style(role)));
    }
    let pages = Line::from(spans);
    let machine = strip(&scene.model.machine);
    let machine = if theme.ascii { machine.replace('·', "-") } else { machine };
    let machine = Line::styled(machine + " ", theme.style(Role::Dim));
    if pages.width() + machine.width() + 2 <= usize::from(area.width) {
        machine.right_aligned().render(area, buffer);
    }
    pages.render(area, buffer);
}

/// What can be done here, or a word about the last key.
pub fn footer(scene: Scene<'_>, area: Rect, buffer: &mut Buffer) {
    let theme = scene.theme;
    if let Some(word) = &scene.ui.word {
        return Line::styled(format!(" {word}"), theme.style(Role::Warning)).render(area, buffer);
    }
    let mut shown: Vec<&Command> = COMMANDS
        .iter()
        .filter(|c| c.rank > 0 && c.is_here(scene.ui) && (c.when)(scene.model, scene.ui).is_ok())
        .collect();
    shown.sort_by_key(|command| command.rank);
    let mut spans = Vec::new();
    for command in shown {
        spans.push(Span::styled(format!(" {}", command.keys[0]), theme.style(Role::Key)));
        spans.push(Span::styled(format!(" {} ", command.name), theme.style(Role::Dim)));
    }
    Line::from(spans).render(area, buffer);
}

/// What is shown instead of everything when there is no room.
pub fn too_small(area: Rect, buffer: &mut Buffer) {
    let text = format!("{}x{} is too small: mvm needs {}x{}", area.width, area.height, LEAST.0, LEAST.1);
    Paragraph::new(text).wrap(ratatui::widgets::Wrap { trim: true }).render(area, buffer);
}
