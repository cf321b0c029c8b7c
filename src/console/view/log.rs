//! The log of the page.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;
use ratatui::widgets::Widget;

use super::Scene;
use super::spot::{Spot, Spots};
use crate::console::log::{LogBuffer, SourceId, view};
use crate::console::theme::Role;
use crate::event::text::strip;

/// Lines looked at for the end of a log that is but hinted at.
const MOST_HINTED: u64 = 2000;

/// Draws the log of the page, with a line that tells how it is looked at below it.
pub fn draw(scene: Scene<'_>, log: &LogBuffer, area: Rect, buffer: &mut Buffer, spots: &mut Spots) {
    let Some(pane) = scene.ui.log_pane() else { return };
    let status = Rect { y: area.bottom().saturating_sub(1), height: 1.min(area.height), ..area };
    let area = Rect { height: area.height.saturating_sub(1), ..area };
    spots.add(area, Spot::Log);
    view::draw(log, &pane.state, scene.theme, area, buffer);
    let text = pane.state.status(log, scene.theme, status.width);
    Line::styled(text, scene.theme.style(Role::Dim)).right_aligned().render(status, buffer);
}

/// Draws the last lines of a log, of one source or of all.
pub fn end(scene: Scene<'_>, log: &LogBuffer, only: Option<SourceId>, area: Rect, buffer: &mut Buffer) {
    let all = log.range();
    let near = all.end.saturating_sub(MOST_HINTED).max(all.start)..all.end;
    let lines = log.lines(near).rev().filter(|line| only.is_none_or(|source| line.source == source));
    let shown: Vec<_> = lines.take(usize::from(area.height)).collect();
    for (line, row) in shown.into_iter().rev().zip(area.rows()) {
        let name = Some(log.name(line.source)).filter(|name| only.is_none() && !name.is_empty());
        let name = name.map(|name| format!("{name}> ")).unwrap_or_default();
        let text = super::text::fitted(scene.theme, &format!("{name}{}", strip(line.text)), row.width);
        Line::styled(text, scene.theme.style(Role::Dim)).render(row, buffer);
    }
}
