//! One task in detail: its phases, its error, its downloads, its derivations, what came of it.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

use super::Scene;
use super::columns::{brief, fit, short_title, width, wrap};
use super::tasks;
use super::tree::{self, Look, progress, speed};
use crate::console::model::task::TaskModel;
use crate::console::theme::{Role, Sign};
use crate::console::ui::builds::Cursor;
use crate::event::text::{cut, strip};

/// Draws as much as fits. `head` is whether the task itself has a row.
pub fn draw(scene: Scene<'_>, task: &TaskModel, head: bool, focused: bool, area: Rect, buffer: &mut Buffer) {
    let cursor = scene.ui.builds.cursor(task);
    let room = usize::from(area.height);
    let results = results(task);
    let head_rows = usize::from(head).min(room);
    let spare = (room - head_rows).saturating_sub(task.tree.len() + task.transfers.running().count());
    let result_rows = results.len().min(spare.max((room - head_rows) / 4));
    let rest = room - head_rows - result_rows;
    let error_rows = error_rows(task, usize::from(area.width), rest);
    let left = rest - error_rows;
    let transfer_rows = task.transfers.running().count().min(left.div_ceil(4));
    let [head_area, error, transfers, derivations, below] = Layout::vertical([
        Constraint::Length(head_rows as u16),
        Constraint::Length(error_rows as u16),
        Constraint::Length(transfer_rows as u16),
        Constraint::Length((left - transfer_rows).min(task.tree.len().max(1)) as u16),
        Constraint::Length(result_rows as u16),
    ])
    .areas(area);
    if head_rows > 0 {
        title(scene, task, usize::from(area.width)).render(head_area, buffer);
        if focused && *cursor == Cursor::Task {
            buffer.set_style(head_area, scene.theme.style(Role::Selected));
        }
    }
    errors(scene, task, cursor, focused, error, buffer);
    let look = Look {
        theme: scene.theme,
        now: scene.now,
        cursor: match cursor {
            Cursor::Derivation(drv) => task.tree.find(drv),
            Cursor::Task | Cursor::Error(_) => None,
        },
        focused,
    };
    tree::transfers(task, look, transfers, buffer);
    tree::draw(task, look, derivations, buffer);
    for (line, row) in results.iter().zip(below.rows()) {
        result(scene, line, usize::from(row.width)).render(row, buffer);
    }
}

/// The rows that would show all of a task, but for its error.
pub fn wanted(task: &TaskModel) -> usize {
    task.tree.len() + task.transfers.running().count() + results(task).len()
}

/// The task with the times of its phases, of the last ones where not all fit.
fn title(scene: Scene<'_>, task: &TaskModel, room: usize) -> Line<'static> {
    let theme = scene.theme;
    let (mark, role) = tasks::sign(task.outcome.as_ref());
    let title = short_title(&task.title);
    let title = fit(&title, room.saturating_sub(2), theme.sign(Sign::Cut));
    let phases: Vec<(&str, String)> =
        task.phase_times(scene.now).map(|(name, time)| (name, brief(time))).collect();
    let mut left = room.saturating_sub(2 + width(&title));
    let fits = |(name, time): &&(&str, String)| {
        let taken = 3 + width(name) + time.len();
        let fits = taken <= left;
        left = left.saturating_sub(taken);
        fits
    };
    let shown = phases.iter().rev().take_while(fits).count();
    let mut spans = vec![
        Span::styled(format!("{} ", theme.sign(mark)), theme.style(role)),
        Span::styled(title.into_owned(), theme.style(Role::Title)),
    ];
    for (name, time) in &phases[phases.len() - shown..] {
        spans.push(Span::styled(format!("  {name}"), theme.style(Role::Accent)));
        spans.push(Span::styled(format!(" {time}"), theme.style(Role::Dim)));
    }
    Line::from(spans)
}

/// Counts of a task, the most telling first, as many as fit.
pub fn totals(scene: Scene<'_>, task: &TaskModel, room: usize) -> String {
    let builds = task.totals.builds();
    let copies = task.totals.copies();
    let mut parts = Vec::new();
    if builds.expected > 0 {
        parts.push(format!("{}/{} builds", builds.done, builds.expected));
    }
    let failed = builds.failed.max(task.tree.failed().len() as u64);
    let running = builds.running.max(task.tree.running().len() as u64);
    // What is left when a task ends waits for nothing.
    let waiting = if task.ended.is_none() { builds.waiting() } else { 0 };
    for (count, word) in [(failed, "failed"), (running, "running"), (waiting, "waiting")] {
        if count > 0 {
            parts.push(format!("{count} {word}"));
        }
    }
    if copies.expected > 0 {
        parts.push(format!("{}/{} copies", copies.done, copies.expected));
    }
    let downloads = task.transfers.downloads.saturating_add(task.transfers.downloading());
    if downloads > 0 {
        parts.push(format!("{}/{downloads} downloads", task.transfers.downloads));
    }
    let (done, expected) = task.transfers.bytes();
    if expected > 0 {
        parts.push(progress(done, expected));
    }
    parts.push(speed(task.transfers.speed(scene.now)));
    let mut text = String::new();
    for part in parts.iter().filter(|part| !part.is_empty()) {
        let gap = if text.is_empty() { "" } else { ", " };
        if width(&text) + gap.len() + part.len() > room {
            break;
        }
        text.push_str(gap);
        text.push_str(part);
    }
    text
}

/// What came of a task, a word and a text each.
fn results(task: &TaskModel) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    if let Some(vm) = &task.vm {
        let whole = vm.steps.iter().fold(Duration::ZERO, |sum, (_, time)| sum.saturating_add(*time));
        let steps: Vec<String> =
            vm.steps.iter().map(|(step, time)| format!("{step} {}", brief(*time))).collect();
        let why = vm.why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
        lines.push((vm.name.clone(), format!("{} in {}{why}: {}", vm.how, brief(whole), steps.join(", "))));
    }
    if let Some(saved) = &task.saved {
        lines.push((saved.name.clone(), format!("saved {}", saved.words())));
    }
    if let Some(artifacts) = &task.artifacts {
        let word = if artifacts.cached { "cached" } else { "built" };
        let path = strip(&artifacts.path.display().to_string());
        lines.push((word.into(), format!("{path} ({})", artifacts.how)));
    }
    if task.lost > 0 {
        lines.push(("lost".into(), format!("{} log lines came faster than they could be shown", task.lost)));
    }
    lines
}

fn result(scene: Scene<'_>, (word, text): &(String, String), room: usize) -> Line<'static> {
    let (theme, cut) = (scene.theme, scene.theme.sign(Sign::Cut));
    let word = fit(word, room, cut).into_owned();
    let text = fit(text, room.saturating_sub(width(&word) + 1), cut).into_owned();
    Line::from(vec![
        Span::styled(word, theme.style(Role::Accent)),
        Span::raw(" "),
        Span::styled(text, theme.style(Role::Dim)),
    ])
}

/// Rows for the error: all it needs, but a third is left for derivations.
fn error_rows(task: &TaskModel, columns: usize, room: usize) -> usize {
    let most = room - task.tree.len().min(room / 3);
    let mut rows = 0;
    for line in task.error_lines() {
        rows += block(line, columns, most).len();
        if rows >= most {
            return most;
        }
    }
    rows
}

/// A line of the error as rows.
fn block(line: &str, columns: usize, most: usize) -> Vec<String> {
    // No more of a line is looked at than the rows could hold.
    let text = strip(cut(line, columns.saturating_mul(most).saturating_mul(8)));
    wrap(&text, columns, most).into_iter().map(str::to_owned).collect()
}

fn errors(
    scene: Scene<'_>,
    task: &TaskModel,
    cursor: &Cursor,
    focused: bool,
    area: Rect,
    buffer: &mut Buffer,
) {
    let (theme, columns, room) = (scene.theme, usize::from(area.width), usize::from(area.height));
    let count = task.error_lines().take(room + 1).count();
    let from = match cursor {
        Cursor::Error(line) if count > 1 => *line,
        _ => 0,
    };
    let mut top = 0;
    for (index, line) in task.error_lines().enumerate().skip(from) {
        let rows = block(line, columns, room);
        for (row, text) in area.rows().skip(top).zip(&rows) {
            let role = if line.starts_with("help:") { Role::Text } else { Role::Error };
            Line::styled(text.clone(), theme.style(role)).render(row, buffer);
            if focused && *cursor == Cursor::Error(index) {
                buffer.set_style(row, theme.style(Role::Selected));
            }
        }
        top += rows.len();
        if top >= room {
            // There is more: the last row says so.
            let more = task.error_lines().nth(index + 1).is_some() || top > room;
            if let Some(row) = area.rows().next_back().filter(|_| more) {
                let sign = fit(theme.sign(Sign::Cut), columns, "").into_owned();
                let x = row.right().saturating_sub(1);
                // Half of a wide character would be left of it.
                if let Some(before) = buffer.cell_mut((x.saturating_sub(1), row.y))
                    && width(before.symbol()) > 1
                {
                    before.set_symbol(" ");
                }
                Line::styled(sign, theme.style(Role::Error))
                    .render(Rect { x, width: row.right() - x, ..row }, buffer);
            }
            break;
        }
    }
}
