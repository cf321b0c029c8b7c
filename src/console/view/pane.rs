//! Borders and titles.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::symbols::border;
use ratatui::text::Line;
use ratatui::widgets::{Block, Widget};

use crate::console::theme::{Role, Theme};

const ASCII: border::Set<'static> = border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

/// Draws a border with a title, and returns what is inside.
pub fn pane(theme: &Theme, title: &str, focused: bool, area: Rect, buffer: &mut Buffer) -> Rect {
    let role = if focused { Role::Focus } else { Role::Border };
    let set = if theme.ascii { ASCII } else { border::PLAIN };
    let title =
        Line::styled(format!(" {title} "), theme.style(if focused { Role::Focus } else { Role::Title }));
    let block = Block::bordered().border_set(set).border_style(theme.style(role)).title(title);
    let inner = block.inner(area);
    block.render(area, buffer);
    inner
}
