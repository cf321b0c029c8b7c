//! All about the selected route: where on its way a request is, and what the last wake took.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::super::Scene;
use super::super::fields::{self, Fields};
use super::super::pane::pane;
use super::super::text::fitted;
use super::super::vms::state_role;
use crate::console::model::clock::since;
use crate::console::theme::{Role, Theme};
use crate::event::cluster::{BackendInfo, RouteInfo, WakeInfo};
use crate::event::words::{bytes, duration};

/// The states that a route goes round.
const WAY: [&str; 5] = ["sleeping", "waking", "running", "idle", "sleeping"];
/// Width of labels, as of [`Fields`], and of a step's name and time.
const STEP: [usize; 3] = [11, 10, 8];
/// Widest bar of a step.
const BAR: u64 = 40;

/// Draws the pane.
pub(super) fn draw(scene: Scene<'_>, route: &RouteInfo, area: Rect, buffer: &mut Buffer) {
    let node = if route.node.is_empty() { String::new() } else { format!(" on {}", route.node) };
    let title = format!("{} to {}/{}{node}", route.listen, route.tenant, route.pool);
    let title = fitted(scene.theme, &title, area.width.saturating_sub(8));
    let inner = pane(scene.theme, &title, false, area, buffer);
    fields::draw(lines(scene, route, inner.width), 0, inner, buffer);
}

fn lines(scene: Scene<'_>, route: &RouteInfo, width: u16) -> Vec<Line<'static>> {
    let mut page = Fields::new(scene.theme, width);
    page.lines.push(way(scene.theme, &route.state));
    page.add("state", &state(route), state_role(&route.state));
    route.error.iter().for_each(|error| page.add("why", error, Role::Error));
    page.add("open", &connections(route), Role::Text);
    match &route.wake {
        None => page.add("wakes", "none so far", Role::Dim),
        Some(wake) => of_wake(scene, route, wake, &mut page),
    }
    for (index, one) in route.instances.iter().enumerate() {
        let label = if index == 0 { "instances" } else { "" };
        let role = if one.healthy == Some(false) { Role::Error } else { state_role(&one.state) };
        page.add(label, &instance(one), role);
    }
    page.lines
}

/// The way round, with the place where the route is.
fn way(theme: &Theme, state: &str) -> Line<'static> {
    let arrow = if theme.ascii { " -> " } else { " → " };
    let mut spans = vec![Span::styled(format!("{:<1$}", "way", STEP[0]), theme.style(Role::Dim))];
    // Asleep it is at the beginning, not at the end as well.
    let at = WAY.iter().position(|one| *one == state);
    for (index, one) in WAY.into_iter().enumerate() {
        if index > 0 {
            spans.push(Span::styled(arrow, theme.style(Role::Dim)));
        }
        let here = at == Some(index);
        let text = if here { format!("[{one}]") } else { one.into() };
        spans.push(Span::styled(text, theme.style(if here { state_role(one) } else { Role::Dim })));
    }
    Line::from(spans)
}

/// The state in words.
fn state(route: &RouteInfo) -> String {
    let seconds = |seconds| duration(Duration::from_secs(seconds));
    let words = match (route.state.as_str(), route.idle_secs) {
        (_, Some(left)) => format!("its instances may sleep in {}", seconds(left)),
        ("sleeping", None) => "the next connection wakes an instance".into(),
        ("waking", None) => format!("{} wait for an instance", route.queued),
        ("draining", None) => "nothing new is taken".into(),
        _ => return route.state.clone(),
    };
    format!("{}: {words}", route.state)
}

fn connections(route: &RouteInfo) -> String {
    let RouteInfo { connections, queued, accepted, refused, .. } = route;
    let waiting = if *queued > 0 { format!(", {queued} of them wait") } else { String::new() };
    let refused = if *refused > 0 { format!(", {refused} refused") } else { String::new() };
    let moved = match (route.rx_bytes, route.tx_bytes) {
        (0, 0) => String::new(),
        (come, gone) => format!("; {} in, {} out", bytes(come), bytes(gone)),
    };
    format!("{connections} connections{waiting}; {accepted} so far{refused}{moved}")
}

/// Wakes so far, and the last one step by step.
fn of_wake(scene: Scene<'_>, route: &RouteInfo, wake: &WakeInfo, page: &mut Fields<'_>) {
    let failed = match route.failed_wakes {
        0 => String::new(),
        failed => format!(", {failed} failed"),
    };
    page.add("wakes", &format!("{} so far{failed}", route.wakes), Role::Text);
    let took = duration(Duration::from_millis(wake.ms));
    let ago = wake.at.map(|at| format!(", {} ago", duration(since(at, scene.now)))).unwrap_or_default();
    let of = wake.instance.as_ref().map(|instance| format!(", {instance}")).unwrap_or_default();
    let waited = if wake.waiters > 1 { format!(", {} waited", wake.waiters) } else { String::new() };
    let (text, role) = match wake.error {
        Some(_) => (format!("failed after {took}{ago}{of}{waited}"), Role::Error),
        None => (format!("{took}{ago}{of}{waited}"), Role::Text),
    };
    page.add("last wake", &text, role);
    let news = wake.error.iter().filter(|error| route.error.as_ref() != Some(*error));
    news.for_each(|error| page.add("", error, Role::Error));
    page.lines.extend(wake.steps.iter().map(|step| bar(scene.theme, step, wake.ms)));
}

/// A step of a wake, as long as its part of the whole.
fn bar(theme: &Theme, (name, ms): &(String, u64), whole: u64) -> Line<'static> {
    let part = u128::from((*ms).min(whole)) * u128::from(BAR) / u128::from(whole.max(1));
    let full = if theme.ascii { "#" } else { "█" };
    let [label, step, time] = STEP;
    let name = fitted(theme, name, step as u16 - 1);
    let words = format!("{:label$}{name:<step$}{:>time$} ", "", duration(Duration::from_millis(*ms)));
    Line::from(vec![Span::raw(words), Span::styled(full.repeat(part as usize), theme.style(Role::Graph))])
}

fn instance(one: &BackendInfo) -> String {
    let health = one.healthy.map(|well| if well { "well" } else { "does not answer as it should" });
    let more = [
        (one.connections > 0).then(|| format!("{} open", one.connections)),
        one.endpoint.clone(),
        one.leased.then(|| "kept awake".into()),
        health.map(Into::into),
    ];
    let more: Vec<String> = more.into_iter().flatten().collect();
    format!("{}  {:<8}  {}", one.name, one.state, more.join(", ")).trim_end().into()
}
