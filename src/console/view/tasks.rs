//! The list of tasks.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

use super::Scene;
use super::columns::{brief, fit, left, right, short_title, width};
use super::spot::{Spot, Spots};
use crate::console::model::clock::since;
use crate::console::model::task::TaskModel;
use crate::console::theme::{Role, Sign};
use crate::event::Outcome;
use crate::event::text::strip;
use crate::event::words::bytes;

/// Fewest columns that say what a task is at.
const LEAST_STATE: usize = 8;

/// Draws the tasks around the selected one.
pub fn draw(
    scene: Scene<'_>,
    selected: &TaskModel,
    focused: bool,
    area: Rect,
    buffer: &mut Buffer,
    spots: &mut Spots,
) {
    let (tasks, room) = (&scene.model.tasks, usize::from(area.height));
    let at = tasks.iter().position(|task| task.id == selected.id).unwrap_or(0);
    let from = at.saturating_sub(room / 2).min(tasks.len().saturating_sub(room));
    let shown = &tasks[from..tasks.len().min(from + room)];
    let columns = Columns::of(scene, shown, usize::from(area.width));
    for ((index, task), row) in shown.iter().enumerate().zip(area.rows()) {
        columns.line(scene, task).render(row, buffer);
        spots.add(row, Spot::Task(task.id.clone()));
        if from + index == at {
            let role = if focused { Role::Selected } else { Role::Title };
            buffer.set_style(row, scene.theme.style(role));
        }
    }
}

/// The sign of how a task ended, or that it goes on, and its role.
pub fn sign(outcome: Option<&Outcome>) -> (Sign, Role) {
    match outcome {
        None => (Sign::Busy, Role::Busy),
        Some(Outcome::Ok) => (Sign::Done, Role::Ok),
        Some(Outcome::Failed { .. }) => (Sign::Failed, Role::Error),
        Some(Outcome::Cancelled) => (Sign::Ended, Role::Dim),
    }
}

/// How long a task took, or has been going on.
pub fn elapsed(scene: Scene<'_>, task: &TaskModel) -> String {
    task.started.map(|started| brief(since(started, task.ended.unwrap_or(scene.now)))).unwrap_or_default()
}

/// What a task is at, or how it ended.
fn state(task: &TaskModel) -> (String, Role) {
    match &task.outcome {
        None => (task.phase().into(), Role::Accent),
        Some(Outcome::Failed { error, .. }) => {
            let mut failed = task.tree.failed().iter().filter_map(|at| task.tree.get(*at));
            let text = match (failed.next(), failed.count()) {
                (Some(it), 0) => format!("{} failed", it.name),
                (Some(it), more) => format!("{} and {more} more failed", it.name),
                (None, _) => strip(error.lines().next().unwrap_or_default()),
            };
            (text, Role::Error)
        }
        Some(Outcome::Cancelled) => ("cancelled".into(), Role::Dim),
        Some(Outcome::Ok) => {
            let text = match (&task.vm, &task.saved, &task.artifacts) {
                (Some(vm), _, _) => vm.how.clone(),
                (None, Some(saved), _) => format!("saved {}", bytes(saved.bytes)),
                (None, None, Some(artifacts)) => artifacts.how.clone(),
                (None, None, None) => "done".into(),
            };
            (text, Role::Dim)
        }
    }
}

/// `2/3`, while something is to be built.
fn counts(task: &TaskModel) -> String {
    let builds = task.totals.builds();
    if builds.expected == 0 { String::new() } else { format!("{}/{}", builds.done, builds.expected) }
}

/// Whose task it is, unless it is this process's.
fn owner(task: &TaskModel) -> String {
    match task.pid() {
        _ if task.own => String::new(),
        Some(pid) => format!("pid {pid}"),
        None => "elsewhere".into(),
    }
}

/// Columns' widths; nought for one that is left out.
#[derive(Debug, Clone, Copy)]
struct Columns {
    title: usize,
    short: bool,
    state: usize,
    counts: usize,
    elapsed: usize,
    owner: usize,
}

impl Columns {
    fn of(scene: Scene<'_>, tasks: &[TaskModel], all: usize) -> Self {
        let widest = |of: &dyn Fn(&TaskModel) -> usize| tasks.iter().map(of).max().unwrap_or(0);
        let full = widest(&|task| width(&task.title));
        let short = full > all / 3;
        let title = if short { widest(&|task| width(&short_title(&task.title))) } else { full };
        let mut columns = Self {
            title,
            short,
            state: 0,
            counts: widest(&|task| counts(task).len()),
            elapsed: widest(&|task| elapsed(scene, task).len()).max(5),
            owner: widest(&|task| owner(task).len()),
        };
        // Whose it is gives way to what it is at; the others only to its name.
        for (least, drop) in [
            (title.min(20) + 2 + LEAST_STATE, (|columns| columns.owner = 0) as fn(&mut Self)),
            (title.min(12), |columns| columns.counts = 0),
            (title.min(12), |columns| columns.elapsed = 0),
        ] {
            if columns.fixed() + least > all {
                drop(&mut columns);
            }
        }
        let room = all.saturating_sub(columns.fixed());
        // What a task is at is worth more than the end of a long title.
        columns.title = title.min(room.saturating_sub(2 + LEAST_STATE).max(12)).min(room);
        let state = room.saturating_sub(columns.title + 2);
        if state < LEAST_STATE {
            columns.title = title.min(room);
        } else {
            columns.state = state;
        }
        columns
    }

    /// What the sign and the columns to the right take.
    fn fixed(&self) -> usize {
        let right: usize =
            [self.counts, self.elapsed, self.owner].iter().filter(|w| **w > 0).map(|w| w + 2).sum();
        2 + right
    }

    fn line(&self, scene: Scene<'_>, task: &TaskModel) -> Line<'static> {
        let theme = scene.theme;
        let cut = theme.sign(Sign::Cut);
        let (mark, role) = sign(task.outcome.as_ref());
        let title = if self.short { short_title(&task.title) } else { task.title.as_str().into() };
        let mut spans = vec![
            Span::styled(format!("{} ", theme.sign(mark)), theme.style(role)),
            Span::raw(left(&title, self.title, cut)),
        ];
        if self.state > 0 {
            let (text, role) = state(task);
            let text = left(&fit(&text, self.state, cut), self.state, cut);
            spans.push(Span::styled(format!("  {text}"), theme.style(role)));
        }
        for (room, text) in
            [(self.counts, counts(task)), (self.elapsed, elapsed(scene, task)), (self.owner, owner(task))]
        {
            if room > 0 {
                spans.push(Span::styled(format!("  {}", right(&text, room, cut)), theme.style(Role::Dim)));
            }
        }
        Line::from(spans)
    }
}
