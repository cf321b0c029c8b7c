//! mvm's own log.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::widgets::Widget;
use tui_logger::{TuiLoggerLevelOutput, TuiLoggerWidget};

use super::Scene;
use super::pane::pane;
use crate::console::theme::Role;

/// Draws the page.
pub fn draw(scene: Scene<'_>, area: Rect, buffer: &mut Buffer) {
    let theme = scene.theme;
    let inner = pane(theme, "Log of mvm itself", true, area, buffer);
    TuiLoggerWidget::default()
        .style_error(theme.style(Role::Error))
        .style_warn(theme.style(Role::Warning))
        .style_info(theme.style(Role::Text))
        .style_debug(theme.style(Role::Dim))
        .output_separator(' ')
        .output_timestamp(Some("%H:%M:%S".into()))
        .output_level(Some(TuiLoggerLevelOutput::Long))
        .output_target(false)
        .output_file(false)
        .output_line(false)
        .state(&scene.ui.own_log.state)
        .render(inner, buffer);
}
