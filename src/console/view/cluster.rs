//! The cluster page: coordinator, nodes, tenants, pools and instances as a tree, what is selected in
//! detail, and the console of a selected instance.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Widget, Wrap};

use super::columns::width;
use super::pane::pane;
use super::spot::{Spot, Spots};
use super::table::{self, Column};
use super::text::fitted;
use super::vms::state_role;
use super::{Scene, log};
use crate::console::model::clock::since;
use crate::console::model::fleet::{Instance, Pool, Sum, Tenant};
use crate::console::model::task::TaskModel;
use crate::console::theme::{Role, Sign, Theme};
use crate::console::ui::cluster::{Part, Row, Tree, What};
use crate::console::ui::page::Page;
use crate::event::TaskKind;
use crate::event::cluster::{CountInfo, InstanceInfo};
use crate::event::words::short_duration;

mod detail;

/// What is said where there is no fleet.
const NONE: &str = "No fleet yet. `mvm tenant create dev` makes a tenant, `mvm pool create dev/web --flake \
                    REF` a pool in it, and `mvm pool scale dev/web --running 1` an instance.";
/// The same on the overview.
const NONE_BRIEFLY: &str = "No fleet yet: `mvm tenant create dev` begins one.";
/// What is said where there are no routes.
const NO_ROUTES: &str = "No cluster: `mvm dev cluster up` starts one.";

/// Width from which the detail lies beside the tree.
const BESIDE: u16 = 150;
/// Least and greatest width of names with their branches.
const NAME: (u16, u16) = (16, 44);
/// Widths from which counts have words, and short ones.
const WORDS: [u16; 2] = [38, 26];
/// Characters shown of a revision.
const SHORT: usize = 8;

/// A column of an instance.
#[derive(Debug, Clone, Copy)]
enum Cell {
    State,
    For,
    Endpoint,
    Note,
}

const COLUMNS: [Column<Cell>; 4] = [
    Column::new(Cell::State, "STATE", 8, 8, 0),
    Column::new(Cell::For, "FOR", 4, 4, 1),
    Column::new(Cell::Endpoint, "ENDPOINT", 15, 21, 2),
    Column::new(Cell::Note, "", 6, 200, 3),
];

/// Draws the page or the tile.
pub fn draw(scene: Scene<'_>, area: Rect, buffer: &mut Buffer, spots: &mut Spots) {
    let what = scene.ui.cluster.what(scene.model).filter(|_| scene.ui.page == Page::Cluster);
    let Some(what) = what else { return tree(scene, area, buffer, spots) };
    let instance = matches!(what, What::Instance(..));
    if scene.ui.zoomed {
        return match scene.ui.cluster.part {
            Part::Detail => detail::draw(scene, what, area, buffer),
            Part::Console if instance => console(scene, what, area, buffer, spots),
            _ => tree(scene, area, buffer, spots),
        };
    }
    let lower = if instance { Constraint::Fill(3) } else { Constraint::Length(0) };
    let [left, right, below] = if area.width >= BESIDE {
        let [left, right] = Layout::horizontal([Constraint::Percentage(55), Constraint::Fill(1)]).areas(area);
        let [right, below] = Layout::vertical([Constraint::Fill(3), lower]).areas(right);
        [left, right, below]
    } else {
        let halves = [Constraint::Percentage(45), Constraint::Fill(1)];
        let [above, rest] = Layout::vertical(halves).areas(area);
        let [right, below] = Layout::vertical([Constraint::Fill(4), lower]).areas(rest);
        [above, right, below]
    };
    tree(scene, left, buffer, spots);
    detail::draw(scene, what, right, buffer);
    if instance {
        console(scene, what, below, buffer, spots);
    }
}

/// Whether a part has the keys.
fn is_focused(scene: Scene<'_>, part: Part) -> bool {
    scene.ui.page == Page::Cluster && scene.ui.cluster.part == part
}

/// The console of an instance.
fn console(scene: Scene<'_>, what: What<'_>, area: Rect, buffer: &mut Buffer, spots: &mut Spots) {
    let inner = pane(scene.theme, "Console", is_focused(scene, Part::Console), area, buffer);
    let What::Instance(_, instance) = what else { return };
    match instance.info.vm.as_ref().map(|vm| scene.model.vm(vm)) {
        Some(Some(vm)) => log::draw(scene, &vm.console, inner, buffer, spots),
        Some(None) => say(scene, "Nothing is known of its VM.", inner, buffer),
        None => say(scene, "It has not been started yet.", inner, buffer),
    }
}

fn tree(scene: Scene<'_>, area: Rect, buffer: &mut Buffer, spots: &mut Spots) {
    let theme = scene.theme;
    let here = scene.ui.pane() == Page::Cluster;
    let consoleless =
        scene.ui.cluster.part == Part::Console && scene.ui.cluster.instance(scene.model).is_none();
    let focused = here && (scene.ui.page != Page::Cluster || is_focused(scene, Part::Tree) || consoleless);
    let inner = pane(theme, "Cluster", focused, area, buffer);
    let tree = scene.ui.cluster.tree(scene.model);
    if tree.is_empty() {
        let none = if scene.ui.page == Page::Cluster { NONE } else { NONE_BRIEFLY };
        return say(scene, none, inner, buffer);
    }
    let at = scene.ui.cluster.place(&tree);
    draw_rows(scene, &tree, at, inner, buffer, spots);
}

fn draw_rows(
    scene: Scene<'_>,
    tree: &Tree<'_>,
    at: usize,
    area: Rect,
    buffer: &mut Buffer,
    spots: &mut Spots,
) {
    let shown = table::visible(tree.len(), at, area.height);
    let first = shown.start;
    let rows = tree.rows(shown);
    let names: Vec<Line<'_>> = rows.iter().map(|row| name(scene.theme, row, area.width)).collect();
    let least = NAME.0.min(area.width);
    // What is above the fleet needs no columns.
    let is_above = |row: &Row<'_>| matches!(row.what, What::Coordinator(_) | What::Node(_));
    let in_columns = rows.iter().zip(&names).filter(|(row, _)| !is_above(row));
    let widest = in_columns.map(|(_, name)| name.width() as u16).max().unwrap_or(0);
    let named = widest.clamp(least, NAME.1.max(least)).min(area.width);
    for ((index, row), (name, place)) in rows.iter().enumerate().zip(names.into_iter().zip(area.rows())) {
        spots.add(place, Spot::Row(row.path.to_string()));
        let named = if is_above(row) { (name.width() as u16).min(place.width) } else { named };
        name.render(Rect { width: named, ..place }, buffer);
        let x = place.x.saturating_add(named + 2).min(place.right());
        rest(scene, row, Rect { x, width: place.right() - x, ..place }, buffer);
        if first + index == at && scene.ui.pane() == Page::Cluster {
            buffer.set_style(place, scene.theme.style(Role::Selected));
        }
    }
}

/// Says that there are no routes.
pub(super) fn no_routes(scene: Scene<'_>, area: Rect, buffer: &mut Buffer) {
    say(scene, NO_ROUTES, area, buffer);
}

fn say(scene: Scene<'_>, text: &str, area: Rect, buffer: &mut Buffer) {
    let text = Paragraph::new(text).wrap(Wrap { trim: true });
    text.style(scene.theme.style(Role::Dim)).render(area, buffer);
}

/// Branches, a sign, and the name.
fn name(theme: &Theme, row: &Row<'_>, room: u16) -> Line<'static> {
    let mut trunk = String::new();
    for up in (0..row.trunk.depth).rev() {
        let sign = match (up, row.trunk.is_last(up)) {
            (0, true) => theme.sign(Sign::LastBranch),
            (0, false) => theme.sign(Sign::Branch),
            (_, true) => " ",
            (_, false) => theme.sign(Sign::Trunk),
        };
        trunk += sign;
        trunk += " ";
    }
    let (kind, alive, name) = match row.what {
        What::Coordinator(cluster) => ("coordinator ", Some(&cluster.state), cluster.address.clone()),
        What::Node(node) => ("agent ", Some(&node.state), format!("{} {}", node.name, node.address)),
        What::Tenant(tenant) => ("", None, tenant.info.name.clone()),
        What::Pool(pool) => ("", None, pool.info.name.clone()),
        What::Instance(_, instance) => ("", Some(&instance.info.state), instance.info.name.clone()),
    };
    let role = if matches!(row.what, What::Tenant(_)) { Role::Title } else { Role::Text };
    let sign = alive.map(|state| {
        let role = state_role(state);
        let sign = if role == Role::Error { Sign::Failed } else { Sign::Alive };
        Span::styled(format!("{} ", theme.sign(sign)), theme.style(role))
    });
    let folded = if row.folded { format!(" {}", theme.sign(Sign::Cut)) } else { String::new() };
    let taken = trunk.chars().count() + kind.len() + 2 * usize::from(sign.is_some()) + width(&folded);
    let room = usize::from(room.min(NAME.1)).saturating_sub(taken) as u16;
    let mut spans =
        vec![Span::styled(trunk, theme.style(Role::Dim)), Span::styled(kind, theme.style(Role::Dim))];
    spans.extend(sign);
    spans.push(Span::styled(fitted(theme, &name, room), theme.style(role)));
    spans.push(Span::styled(folded, theme.style(Role::Dim)));
    Line::from(spans)
}

/// What is to be known about a row at a glance.
fn rest(scene: Scene<'_>, row: &Row<'_>, area: Rect, buffer: &mut Buffer) {
    let theme = scene.theme;
    let words = match row.what {
        What::Coordinator(cluster) => alive(&cluster.state, cluster.error.as_deref()),
        What::Node(node) => alive(&node.state, node.error.as_deref()),
        What::Tenant(tenant) => of_tenant(tenant, area.width),
        What::Pool(pool) => of_pool(theme, pool, busy(scene, &pool.path), area.width),
        What::Instance(pool, instance) => return of_instance(scene, pool, instance, area, buffer),
    };
    let mut x = area.x;
    for (text, role) in words.into_iter().filter(|(text, _)| !text.is_empty()) {
        if x >= area.right() {
            break;
        }
        let place = Rect { x, width: area.right() - x, ..area };
        let text = fitted(theme, &text, place.width);
        table::left(theme, &text, theme.style(role), place, buffer);
        x = x.saturating_add(width(&text) as u16 + 2);
    }
}

/// A state, and what is wrong.
fn alive(state: &str, error: Option<&str>) -> Vec<(String, Role)> {
    let error = error.and_then(|error| error.lines().next()).unwrap_or_default();
    vec![(state.into(), state_role(state)), (error.into(), Role::Error)]
}

fn of_tenant(tenant: &Tenant, room: u16) -> Vec<(String, Role)> {
    let Sum { is, failed, .. } = tenant.sum();
    let network = tenant.info.network.clone().unwrap_or_default();
    let words = match room >= WORDS[0] {
        true => format!("{} running  {} warm  {} sleeping", is.running, is.warm, is.sleeping),
        false => format!("{} running", is.running),
    };
    vec![(words, Role::Text), failing(failed), (network, Role::Dim)]
}

/// What is being done with it.
fn busy(scene: Scene<'_>, path: &str) -> Option<String> {
    let fleet = |task: &&TaskModel| task.kind == TaskKind::Fleet && task.ended.is_none();
    let verb = |task: &TaskModel| Some(task.title.strip_suffix(path)?.strip_suffix(' ')?.to_owned());
    let verb = scene.model.tasks.iter().filter(fleet).find_map(verb)?;
    Some(format!("{} {}", scene.theme.sign(Sign::Busy), verb.trim_end_matches(" the pool")))
}

fn of_pool(theme: &Theme, pool: &Pool, busy: Option<String>, room: u16) -> Vec<(String, Role)> {
    let info = &pool.info;
    let Some(wish) = info.counts else {
        let role = if info.actual == info.desired { Role::Ok } else { Role::Busy };
        return vec![(format!("{} of {}", info.actual, info.desired), role)];
    };
    let is = pool.sum.is;
    let role = if is == wish { Role::Ok } else { Role::Busy };
    let failure = info.failure.as_deref().map(|text| {
        let first = text.lines().next().unwrap_or_default();
        (format!("{} {first}", theme.sign(Sign::Failed)), Role::Error)
    });
    let revision = (info.revision.as_deref().map_or("not built", short).to_string(), Role::Dim);
    let mut words = vec![(counted(is, wish, room), role), failing(pool.sum.failed)];
    words.extend(busy.map(|busy| (busy, Role::Busy)).or(failure));
    words.push(revision);
    words
}

fn failing(failed: u32) -> (String, Role) {
    let words = if failed > 0 { format!("{failed} failed") } else { String::new() };
    (words, Role::Error)
}

/// How many there are of how many there should be.
fn counted(is: CountInfo, wish: CountInfo, room: u16) -> String {
    let (names, gap) = match room {
        room if room >= WORDS[0] => (["running ", "warm ", "sleeping "], "  "),
        room if room >= WORDS[1] => (["run ", "warm ", "sleep "], " "),
        _ => ([""; 3], " "),
    };
    let all = [(is.running, wish.running), (is.warm, wish.warm), (is.sleeping, wish.sleeping)];
    let words = names.iter().zip(all).map(|(name, (is, wish))| format!("{name}{is}/{wish}"));
    words.collect::<Vec<_>>().join(gap)
}

/// The beginning of a revision.
fn short(revision: &str) -> &str {
    revision.char_indices().nth(SHORT).map_or(revision, |(at, _)| &revision[..at])
}

fn of_instance(scene: Scene<'_>, pool: &Pool, instance: &Instance, area: Rect, buffer: &mut Buffer) {
    let (info, current) = (&instance.info, pool.info.revision.as_deref());
    let busy = busy(scene, &instance.path);
    let theme = scene.theme;
    for place in table::fit(&COLUMNS, area.width) {
        let (text, style) = match place.column.what {
            Cell::State => (info.state.clone(), theme.style(state_role(&info.state))),
            Cell::For => {
                let since = info.since.map(|time| short_duration(since(time, scene.now)));
                (since.unwrap_or_default(), Style::new())
            }
            Cell::Endpoint => (info.endpoint.clone().unwrap_or_default(), Style::new()),
            Cell::Note => {
                let Some((text, role)) = note(scene, info, current, busy.as_deref()) else { continue };
                (text, theme.style(role))
            }
        };
        table::left(theme, &text, style, place.of(area), buffer);
    }
}

/// What is out of the ordinary about an instance.
fn note(
    scene: Scene<'_>,
    info: &InstanceInfo,
    current: Option<&str>,
    busy: Option<&str>,
) -> Option<(String, Role)> {
    if let Some(busy) = busy {
        return Some((busy.into(), Role::Busy));
    }
    if let Some(doing) = &info.doing {
        return Some((format!("{} {doing}", scene.theme.sign(Sign::Busy)), Role::Busy));
    }
    if let Some(detail) = &info.detail {
        return Some((detail.lines().next().unwrap_or_default().into(), Role::Error));
    }
    if info.lease.as_ref().is_some_and(|lease| lease.until > scene.now) {
        return Some(("leased".into(), Role::Dim));
    }
    let (own, current) = (info.revision.as_deref()?, current?);
    (own != current).then(|| (format!("still {}", short(own)), Role::Warning))
}

#[cfg(test)]
mod tests;
