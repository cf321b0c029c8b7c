//! What a watch did: what set it off, the rebuild, the new VM, and how long it took.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Widget;

use super::Scene;
use super::columns::brief;
use super::pane::pane;
use super::tasks;
use super::text::fitted;
use crate::console::model::clock::since;
use crate::console::model::watch::Cycle;
use crate::console::theme::Role;
use crate::event::Outcome;

/// Rows of the pane, border included.
pub const ROWS: u16 = 5;

/// Draws the last cycles, the newest first.
pub fn draw(scene: Scene<'_>, area: Rect, buffer: &mut Buffer) {
    let flake = scene.ui.flake.as_deref().unwrap_or_default();
    let title = fitted(scene.theme, &format!("Watch {flake}"), area.width.saturating_sub(4));
    let inner = pane(scene.theme, &title, false, area, buffer);
    if scene.model.watch.last().is_none() {
        return Line::styled("nothing was built yet", scene.theme.style(Role::Dim)).render(inner, buffer);
    }
    for (cycle, row) in scene.model.watch.newest().zip(inner.rows()) {
        line(scene, cycle, row.width).render(row, buffer);
    }
}

fn line(scene: Scene<'_>, cycle: &Cycle, width: u16) -> Line<'static> {
    let theme = scene.theme;
    let (sign, role) = tasks::sign(cycle.outcome.as_ref());
    let so_far = since(cycle.time, scene.now);
    let times = match (cycle.build_time(), cycle.boot_time(), cycle.whole_time()) {
        (Some(build), Some(boot), Some(whole)) => {
            format!("build {}  boot {}  ready after {}", brief(build), brief(boot), brief(whole))
        }
        _ if cycle.outcome == Some(Outcome::Ok) => "nothing new".into(),
        _ if cycle.outcome == Some(Outcome::Cancelled) => "cancelled".into(),
        _ if cycle.outcome.is_some() => "failed: no new VM".into(),
        (Some(build), ..) => {
            format!("build {}  booting for {}", brief(build), brief(so_far.saturating_sub(build)))
        }
        _ => format!("building for {}", brief(so_far)),
    };
    let what = match (cycle.paths.is_empty(), cycle.more) {
        (true, _) => "by hand".into(),
        (false, 0) => cycle.paths.join(" "),
        (false, more) => format!("{} and {more} more", cycle.paths.join(" ")),
    };
    let room = width.saturating_sub(times.len() as u16 + 5);
    Line::from(vec![
        Span::styled(theme.sign(sign), theme.style(role)),
        Span::raw(format!(" {times}  ")),
        Span::styled(fitted(theme, &what, room), theme.style(Role::Dim)),
    ])
}
