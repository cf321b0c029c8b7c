//! Tasks, the derivations of one, and its log.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Widget, Wrap};

use super::columns::{fit, width};
use super::pane::pane;
use super::spot::Spots;
use super::{Scene, detail, log, tasks};
use crate::console::command::{Action, COMMANDS};
use crate::console::model::task::TaskModel;
use crate::console::theme::{Role, Sign};
use crate::console::ui::builds::Part;
use crate::console::ui::page::Page;
use crate::event::words::drv_name;

/// Columns from which the log stands beside the tree.
const WIDE: u16 = 150;
/// Most tasks listed above a tree.
const MOST_TASKS: usize = 8;

/// Draws the page or the tile.
pub fn draw(scene: Scene<'_>, area: Rect, buffer: &mut Buffer, spots: &mut Spots) {
    let inner = pane(scene.theme, "Builds", scene.ui.pane() == Page::Builds, area, buffer);
    let Some(task) = scene.ui.builds.task(scene.model) else {
        let text = format!("No task yet. Press {}.", ways(scene));
        let text = Paragraph::new(text).wrap(Wrap { trim: true });
        return text.style(scene.theme.style(Role::Dim)).render(inner, buffer);
    };
    if scene.ui.page == Page::Overview {
        return tile(scene, task, inner, buffer, spots);
    }
    let part = scene.ui.builds.part;
    if scene.ui.zoomed {
        return match part {
            Part::Tasks => tasks::draw(scene, task, true, inner, buffer, spots),
            Part::Tree => detail::draw(scene, task, true, true, inner, buffer),
            Part::Log => log::draw(scene, &task.log, inner, buffer, spots),
        };
    }
    let listed = scene.model.tasks.len().min(MOST_TASKS).min(usize::from(inner.height / 4)).max(1) as u16;
    let beside = inner.width >= WIDE;
    let [above, tree, below] = if beside {
        let [one, gap, two] =
            Layout::horizontal([Constraint::Fill(1), Constraint::Length(1), Constraint::Fill(1)])
                .areas(inner);
        divide(scene, gap, buffer);
        let [tasks, tree] = Layout::vertical([Constraint::Length(listed), Constraint::Fill(1)]).areas(one);
        [tasks, tree, two]
    } else {
        Layout::vertical([Constraint::Length(listed), Constraint::Fill(1), Constraint::Fill(1)]).areas(inner)
    };
    tasks::draw(scene, task, part == Part::Tasks, above, buffer, spots);
    let totals = detail::totals(scene, task, usize::from(tree.width).saturating_sub(16));
    let tree = rule(scene, "Derivations", &totals, part == Part::Tree, tree, buffer);
    detail::draw(scene, task, true, part == Part::Tree, tree, buffer);
    let source = match scene.ui.builds.source(scene.model) {
        Some(drv) if task.source(drv).is_some() => drv_name(drv).to_owned(),
        Some(drv) => format!("{} has no lines: whole task", drv_name(drv)),
        None => "whole task".to_owned(),
    };
    let below = rule(scene, "Log", &source, part == Part::Log, below, buffer);
    log::draw(scene, &task.log, below, buffer, spots);
}

/// The commands that make a task, with their keys.
fn ways(scene: Scene<'_>) -> String {
    let key = |name| scene.keymap.first_of(name, scene.theme.ascii);
    let ways = COMMANDS.iter().filter(|c| matches!(c.action, Action::Build | Action::Run));
    ways.map(|c| format!("`{}` to {}", key(c.name), c.help)).collect::<Vec<_>>().join("; ")
}

/// The tile: no room for headings.
fn tile(scene: Scene<'_>, task: &TaskModel, area: Rect, buffer: &mut Buffer, spots: &mut Spots) {
    let height = usize::from(area.height);
    let listed = scene.model.tasks.len().min((height / 3).max(1));
    let focused = scene.ui.pane() == Page::Builds;
    // A failed task's error is worth more than its log.
    let failed = task.error_lines().next().is_some();
    let log_rows = if failed { 0 } else { (height - listed.min(height)).div_ceil(4) };
    let most = height.saturating_sub(listed + log_rows);
    let rows = if failed { most } else { (detail::wanted(task) + usize::from(listed > 1)).min(most) };
    let [list, tree, below] = Layout::vertical([
        Constraint::Length(listed as u16),
        Constraint::Length(rows as u16),
        Constraint::Fill(1),
    ])
    .areas(area);
    tasks::draw(scene, task, focused && scene.ui.builds.part == Part::Tasks, list, buffer, spots);
    // Where several are listed, the tree says whose it is.
    detail::draw(scene, task, listed > 1, focused && scene.ui.builds.part == Part::Tree, tree, buffer);
    let only = scene.ui.builds.source(scene.model).and_then(|drv| task.source(drv));
    log::end(scene, &task.log, only, below, buffer);
}

/// Draws a line with a title and a word at its end, and returns what is below it.
fn rule(scene: Scene<'_>, title: &str, word: &str, focused: bool, area: Rect, buffer: &mut Buffer) -> Rect {
    let theme = scene.theme;
    let [line, below] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
    let role = if focused { Role::Focus } else { Role::Border };
    let dash = if theme.ascii { "-" } else { "─" };
    Line::styled(dash.repeat(usize::from(line.width)), theme.style(role)).render(line, buffer);
    let all = usize::from(line.width);
    let cut = theme.sign(Sign::Cut);
    let mut put = |x: usize, text: &str, role: Role| {
        let x = line.x.saturating_add(x as u16).min(line.right());
        let area = Rect { x, width: line.right() - x, ..line };
        Line::styled(text.to_owned(), theme.style(role)).render(area, buffer);
    };
    let title = format!(" {title} ");
    put(1, &fit(&title, all.saturating_sub(2), cut), if focused { Role::Focus } else { Role::Title });
    let room = all.saturating_sub(title.len() + 5);
    if !word.is_empty() && room > 4 {
        let word = fit(word, room, cut);
        put(all.saturating_sub(width(&word) + 3), &format!(" {word} "), Role::Accent);
    }
    below
}

fn divide(scene: Scene<'_>, area: Rect, buffer: &mut Buffer) {
    for row in area.rows() {
        Line::styled(scene.theme.sign(Sign::Trunk), scene.theme.style(Role::Border)).render(row, buffer);
    }
}

#[cfg(test)]
mod tests;
