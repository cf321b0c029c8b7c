//! The derivations of a task as rows with columns that line up.

use jiff::Timestamp;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

use super::columns::{about, brief, fit, left, right, width};
use super::fold::{Shown, around, fold};
use crate::console::model::derivation::{Derivation, State};
use crate::console::model::task::TaskModel;
use crate::console::model::tree::Row;
use crate::console::theme::{Role, Sign, Theme};
use crate::event::Outcome;

/// Columns between two columns.
const GAP: usize = 2;
/// Widest host and phase.
const WIDEST: usize = 18;

/// How the tree is drawn.
#[derive(Debug, Clone, Copy)]
pub struct Look<'a> {
    /// Colours and signs.
    pub theme: &'a Theme,
    /// The time.
    pub now: Timestamp,
    /// The derivation under the cursor.
    pub cursor: Option<usize>,
    /// Whether the cursor is where the keys go.
    pub focused: bool,
}

/// Draws as much of a task's tree as fits: folded, or the part that is around the cursor.
pub fn draw(task: &TaskModel, look: Look<'_>, area: Rect, buffer: &mut Buffer) {
    let room = usize::from(area.height);
    let shown = match look.cursor {
        Some(at) => Shown { rows: around(&task.tree, at, room), ..Shown::default() },
        None => fold(&task.tree, room),
    };
    let items: Vec<(&Row, &Derivation)> =
        shown.rows.iter().filter_map(|row| Some((row, task.tree.get(row.at)?))).collect();
    let columns = Columns::of(&items, look, usize::from(area.width));
    let mut lines = Vec::new();
    let over = match task.outcome {
        None | Some(Outcome::Ok) => (Sign::Done, Role::Ok, "done"),
        Some(_) => (Sign::Ended, Role::Dim, "ended"),
    };
    if shown.ended > 0 {
        let last = items.is_empty() && shown.running + shown.failed == 0;
        lines.push(sum(look, over, shown.ended, last));
    }
    lines.extend(items.iter().map(|(row, it)| columns.line(row, it, look)));
    if shown.running > 0 {
        let last = shown.failed == 0;
        lines.push(sum(look, (Sign::Busy, Role::Busy, "more running"), shown.running, last));
    }
    if shown.failed > 0 {
        lines.push(sum(look, (Sign::Failed, Role::Error, "more failed"), shown.failed, true));
    }
    for (line, row) in lines.into_iter().zip(area.rows()) {
        line.render(row, buffer);
    }
    if let Some(at) = look.cursor.filter(|_| look.focused)
        && let Some(row) = shown.rows.iter().position(|row| row.at == at)
        && let Some(row) = area.rows().nth(row)
    {
        buffer.set_style(row, look.theme.style(Role::Selected));
    }
}

/// One row for many derivations.
fn sum(look: Look<'_>, (sign, role, text): (Sign, Role, &str), count: usize, last: bool) -> Line<'static> {
    let theme = look.theme;
    let branch = theme.sign(if last { Sign::LastBranch } else { Sign::Branch });
    Line::from(vec![
        Span::styled(format!("{branch} "), theme.style(Role::Border)),
        Span::styled(theme.sign(sign), theme.style(role)),
        Span::styled(format!(" {count} {text}"), theme.style(Role::Dim)),
    ])
}

/// The sign of a state, and its role.
pub fn sign(state: State) -> (Sign, Role) {
    match state {
        State::Running => (Sign::Busy, Role::Busy),
        State::Done => (Sign::Done, Role::Ok),
        State::Failed => (Sign::Failed, Role::Error),
        State::Ended => (Sign::Ended, Role::Dim),
    }
}

/// Columns' widths; nought for one that is left out.
#[derive(Debug, Default, Clone, Copy)]
struct Columns {
    name: usize,
    host: usize,
    phase: usize,
    elapsed: usize,
    usual: usize,
}

impl Columns {
    fn of(items: &[(&Row, &Derivation)], look: Look<'_>, all: usize) -> Self {
        let widest = |of: &dyn Fn(&Row, &Derivation) -> usize| {
            items.iter().map(|(row, it)| of(row, it)).max().unwrap_or(0)
        };
        let named = widest(&|row, it| 2 * row.trunks.len() + 4 + width(&it.name));
        let mut columns = Self {
            name: 0,
            host: widest(&|_, it| width(&it.host)).min(WIDEST),
            phase: widest(&|_, it| width(phase(it))).min(WIDEST),
            // Steady while a clock goes from 9.9s to 59m59s.
            elapsed: widest(&|_, it| width(&brief(it.elapsed(look.now)))).max(6),
            usual: widest(&|_, it| width(&usual(it))),
        };
        let least = named.min(20);
        for drop in [
            |columns: &mut Self| columns.host = 0,
            |columns: &mut Self| columns.phase = 0,
            |columns: &mut Self| columns.usual = 0,
            |columns: &mut Self| columns.elapsed = 0,
        ] {
            if columns.others() + least > all {
                drop(&mut columns);
            }
        }
        let room = all.saturating_sub(columns.others());
        columns.name = named.max(24).min(room);
        columns
    }

    fn others(&self) -> usize {
        [self.host, self.phase, self.elapsed, self.usual].iter().filter(|w| **w > 0).map(|w| w + GAP).sum()
    }

    fn line(&self, row: &Row, it: &Derivation, look: Look<'_>) -> Line<'static> {
        let theme = look.theme;
        let cut = theme.sign(Sign::Cut);
        let (mark, role) = sign(it.state);
        let branches = branches(row, theme, self.name / 3);
        let room = self.name.saturating_sub(width(&branches) + 2);
        let text = if it.state == State::Running { Role::Text } else { Role::Dim };
        let name = if it.state == State::Failed { Role::Error } else { text };
        let mut spans = vec![
            Span::styled(branches, theme.style(Role::Border)),
            Span::styled(format!("{} ", theme.sign(mark)), theme.style(role)),
            Span::styled(left(&it.name, room, cut), theme.style(name)),
        ];
        let gap = " ".repeat(GAP);
        let mut cell = |room: usize, text: String, role: Role| {
            if room > 0 {
                spans.push(Span::styled(format!("{gap}{text}"), theme.style(role)));
            }
        };
        cell(self.host, left(&it.host, self.host, cut), Role::Dim);
        cell(self.phase, left(phase(it), self.phase, cut), Role::Accent);
        cell(self.elapsed, right(&brief(it.elapsed(look.now)), self.elapsed, cut), text);
        cell(self.usual, right(&usual(it), self.usual, cut), Role::Dim);
        Line::from(spans)
    }
}

fn phase(it: &Derivation) -> &str {
    if it.state == State::Running { &it.phase } else { "" }
}

fn usual(it: &Derivation) -> String {
    it.usual().filter(|_| it.state == State::Running).map(about).unwrap_or_default()
}

/// The branches before a row; of a deep one only the lowest.
fn branches(row: &Row, theme: &Theme, room: usize) -> String {
    let most = (room / 2).max(1);
    let from = row.trunks.len().saturating_sub(most);
    let mut text = String::new();
    for (index, goes_on) in row.trunks[from..].iter().enumerate() {
        text.push_str(match goes_on {
            _ if from > 0 && index == 0 => theme.sign(Sign::Cut),
            true => theme.sign(Sign::Trunk),
            false => " ",
        });
        text.push(' ');
    }
    let branch = if row.last { Sign::LastBranch } else { Sign::Branch };
    text.push_str(theme.sign(branch));
    text.push(' ');
    text
}

/// What a task downloads and copies, one a row.
pub fn transfers(task: &TaskModel, look: Look<'_>, area: Rect, buffer: &mut Buffer) {
    let theme = look.theme;
    let cut = theme.sign(Sign::Cut);
    for (transfer, row) in task.transfers.running().zip(area.rows()) {
        let there = progress(transfer.done, transfer.expected);
        let speed = speed(transfer.speed(look.now));
        let all = usize::from(row.width);
        let mut cells = format!("  {there:>18}  {speed:>11}");
        if all < 24 + cells.len() {
            cells = format!("  {there}");
        }
        if all < 12 + cells.len() {
            cells.clear();
        }
        let verb = if transfer.copy { "copy" } else { "fetch" };
        let name = fit(&transfer.name, all.saturating_sub(cells.len() + 5 + verb.len()), cut).into_owned();
        Line::from(vec![
            Span::styled(format!("  {} ", theme.sign(Sign::Busy)), theme.style(Role::Busy)),
            Span::styled(format!("{verb} "), theme.style(Role::Dim)),
            Span::raw(name),
            Span::styled(cells, theme.style(Role::Dim)),
        ])
        .render(row, buffer);
    }
}

/// `3.1 MiB/8.0 MiB`, or what is there alone.
pub fn progress(done: u64, expected: u64) -> String {
    use crate::event::words::bytes;
    if expected == 0 { bytes(done) } else { format!("{}/{}", bytes(done), bytes(expected)) }
}

/// `1.2 MiB/s`; nothing when nothing moves.
pub fn speed(bps: u64) -> String {
    if bps == 0 { String::new() } else { format!("{}/s", crate::event::words::bytes(bps)) }
}
