//! The coordinator's routes, and the way of a request through the selected one.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;

use super::pane::pane;
use super::spot::{Spot, Spots};
use super::table::{self, Column};
use super::vms::{state_role, unknown};
use super::{Scene, cluster};
use crate::console::theme::Role;
use crate::console::ui::page::Page;
use crate::event::cluster::RouteInfo;
use crate::event::words::{duration, short_bytes, short_duration};

mod detail;

/// Width from which the detail lies beside the table.
const BESIDE: u16 = 150;
/// Rows around the table's: borders and header.
const AROUND: u16 = 3;

/// A column of the table.
#[derive(Debug, Clone, Copy)]
enum What {
    Listen,
    Target,
    State,
    Connections,
    Waiting,
    In,
    Out,
    Wake,
    Idle,
}

const COLUMNS: [Column<What>; 9] = [
    Column::new(What::Listen, "LISTEN", 15, 21, 0),
    Column::new(What::Target, "TARGET", 10, 40, 2),
    Column::new(What::State, "STATE", 11, 11, 1),
    Column::new(What::Connections, "CONN", 4, 6, 4),
    Column::new(What::Waiting, "WAIT", 4, 4, 6),
    Column::new(What::In, "IN", 4, 5, 7),
    Column::new(What::Out, "OUT", 4, 5, 8),
    Column::new(What::Wake, "WAKE", 6, 7, 3),
    Column::new(What::Idle, "IDLE", 4, 4, 5),
];

/// Draws the page or the tile.
pub fn draw(scene: Scene<'_>, area: Rect, buffer: &mut Buffer, spots: &mut Spots) {
    let routes = &scene.model.cluster.routes;
    let selected = routes.get(scene.ui.routes.place(routes)).filter(|_| scene.ui.page == Page::Routes);
    let Some(route) = selected else { return list(scene, area, buffer, spots) };
    let [left, right] = if area.width >= BESIDE {
        Layout::horizontal([Constraint::Percentage(55), Constraint::Fill(1)]).areas(area)
    } else {
        let rows = u16::try_from(routes.len()).unwrap_or(u16::MAX).saturating_add(AROUND);
        let rows = rows.min((area.height * 2 / 5).max(AROUND + 1));
        Layout::vertical([Constraint::Length(rows), Constraint::Fill(1)]).areas(area)
    };
    list(scene, left, buffer, spots);
    detail::draw(scene, route, right, buffer);
}

/// The table.
fn list(scene: Scene<'_>, area: Rect, buffer: &mut Buffer, spots: &mut Spots) {
    let theme = scene.theme;
    let focused = scene.ui.pane() == Page::Routes;
    let inner = pane(theme, "Routes", focused, area, buffer);
    let routes = &scene.model.cluster.routes;
    if routes.is_empty() && scene.model.cluster.info.is_none() {
        return cluster::no_routes(scene, inner, buffer);
    }
    let at = scene.ui.routes.place(routes);
    let [head, body] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(inner);
    let places = table::fit(&COLUMNS, inner.width);
    for place in &places {
        table::left(theme, place.column.title, theme.style(Role::Dim), place.of(head), buffer);
    }
    for (index, row) in table::visible(routes.len(), at, body.height).zip(body.rows()) {
        let route = &routes[index];
        spots.add(row, Spot::Route(route.listen.clone()));
        for place in &places {
            let style = match role(route, place.column.what) {
                Role::Text => Style::new(),
                role => theme.style(role),
            };
            let text = cell(route, place.column.what).unwrap_or_else(|| unknown(theme).into());
            table::left(theme, &text, style, place.of(row), buffer);
        }
        if index == at && focused {
            buffer.set_style(row, theme.style(Role::Selected));
        }
    }
}

fn cell(route: &RouteInfo, what: What) -> Option<String> {
    Some(match what {
        What::Listen => route.listen.clone(),
        What::Target => format!("{}/{}", route.tenant, route.pool),
        What::State => route.state.clone(),
        What::Connections => format!("{:>4}", route.connections),
        What::Waiting => format!("{:>4}", route.queued),
        What::In => short_bytes(route.rx_bytes),
        What::Out => short_bytes(route.tx_bytes),
        What::Wake => match route.wake.as_ref()? {
            wake if wake.error.is_some() => "failed".into(),
            wake => duration(Duration::from_millis(wake.ms)),
        },
        What::Idle => short_duration(Duration::from_secs(route.idle_secs?)),
    })
}

fn role(route: &RouteInfo, what: What) -> Role {
    match what {
        What::State => state_role(&route.state),
        What::Waiting if route.queued > 0 => Role::Busy,
        What::Wake if route.wake.as_ref().is_some_and(|wake| wake.error.is_some()) => Role::Error,
        _ => Role::Text,
    }
}

#[cfg(test)]
mod tests;
