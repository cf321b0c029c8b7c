//! Tasks, the derivations of one, and its log.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Widget};

use super::Scene;
use super::pane::pane;
use super::task::{self, Look};
use crate::console::model::task::{TaskModel, since};
use crate::console::theme::{Role, Sign};
use crate::console::ui::page::Page;
use crate::event::Outcome;
use crate::event::text::strip;
use crate::event::words::duration;

/// Draws the page or the tile.
pub fn draw(scene: Scene<'_>, area: Rect, buffer: &mut Buffer) {
    let inner = pane(scene.theme, "Builds", scene.ui.pane() == Page::Builds, area, buffer);
    let Some(selected) = scene.ui.builds.task(scene.model) else {
        let text = "No task yet: `b` builds a flake, `r` builds and boots it.";
        return Paragraph::new(text).style(scene.theme.style(Role::Dim)).render(inner, buffer);
    };
    let rows = (scene.model.tasks.len() as u16).min(inner.height / 3);
    let [tasks, tree, log] =
        Layout::vertical([Constraint::Length(rows), Constraint::Length(6), Constraint::Fill(1)]).areas(inner);
    for (task, row) in scene.model.tasks.iter().zip(tasks.rows()) {
        line(scene, task, task.id == selected.id).render(row, buffer);
    }
    task::draw(
        selected,
        Look { colour: scene.theme.depth != crate::console::theme::Depth::None },
        scene.now,
        tree,
        buffer,
    );
    let lines = selected.lines.iter().rev().take(log.height as usize).rev();
    Paragraph::new(lines.map(|line| Line::raw(strip(line))).collect::<Vec<_>>()).render(log, buffer);
}

fn line(scene: Scene<'_>, task: &TaskModel, selected: bool) -> Line<'static> {
    let (sign, role) = match &task.outcome {
        None => (Sign::Busy, Role::Busy),
        Some(Outcome::Ok) => (Sign::Done, Role::Ok),
        Some(Outcome::Failed { .. }) => (Sign::Failed, Role::Error),
        Some(Outcome::Cancelled) => (Sign::Ended, Role::Dim),
    };
    let took = task.started.map(|started| duration(since(started, task.ended.unwrap_or(scene.now))));
    let line = Line::from(vec![
        Span::styled(scene.theme.sign(sign), scene.theme.style(role)),
        Span::raw(format!(" {}  {}  {}", task.title, task.phase, took.unwrap_or_default())),
    ]);
    if selected { line.style(scene.theme.style(Role::Selected)) } else { line }
}
