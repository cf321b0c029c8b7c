//! The coordinator's routes, and what the last wake of the selected one took.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Widget};

use super::pane::pane;
use super::table::{self, Column};
use super::text::wrapped;
use super::vm::steps_in_words;
use super::vms::{state_role, unknown};
use super::{Scene, cluster};
use crate::console::theme::Role;
use crate::console::ui::page::Page;
use crate::event::cluster::RouteInfo;
use crate::event::words::{duration, short_bytes, short_duration};

/// A column of the table.
#[derive(Debug, Clone, Copy)]
enum What {
    Listen,
    Target,
    State,
    Connections,
    In,
    Out,
    Wake,
    Idle,
}

const COLUMNS: [Column<What>; 8] = [
    Column::new(What::Listen, "LISTEN", 15, 16, 0),
    Column::new(What::Target, "TARGET", 10, 40, 2),
    Column::new(What::State, "STATE", 8, 8, 1),
    Column::new(What::Connections, "CONN", 4, 6, 4),
    Column::new(What::In, "IN", 4, 5, 6),
    Column::new(What::Out, "OUT", 4, 5, 7),
    Column::new(What::Wake, "WAKE", 7, 7, 3),
    Column::new(What::Idle, "IDLE", 4, 4, 5),
];

/// Draws the page or the tile.
pub fn draw(scene: Scene<'_>, area: Rect, buffer: &mut Buffer) {
    let theme = scene.theme;
    let focused = scene.ui.pane() == Page::Routes;
    let inner = pane(theme, "Routes", focused, area, buffer);
    let routes = &scene.model.cluster.routes;
    if routes.is_empty() && scene.model.cluster.info.is_none() {
        return cluster::no_routes(scene, inner, buffer);
    }
    let at = scene.ui.routes.place(routes);
    let words = routes.get(at).filter(|_| scene.ui.page == Page::Routes).map(in_words);
    let words = words.map(|words| wrapped(&words, inner.width)).unwrap_or_default();
    let below = Constraint::Length(words.len() as u16);
    let [head, body, foot] =
        Layout::vertical([Constraint::Length(1), Constraint::Fill(1), below]).areas(inner);
    let places = table::fit(&COLUMNS, inner.width);
    for place in &places {
        table::left(theme, place.column.title, theme.style(Role::Dim), place.of(head), buffer);
    }
    for (index, row) in table::visible(routes.len(), at, body.height).zip(body.rows()) {
        let route = &routes[index];
        for place in &places {
            let role = match place.column.what {
                What::State => state_role(&route.state),
                _ => Role::Text,
            };
            let style = if role == Role::Text { Style::new() } else { theme.style(role) };
            let text = cell(route, place.column.what).unwrap_or_else(|| unknown(theme).into());
            table::left(theme, &text, style, place.of(row), buffer);
        }
        if index == at && focused {
            buffer.set_style(row, theme.style(Role::Selected));
        }
    }
    Paragraph::new(words.into_iter().map(Line::raw).collect::<Vec<_>>()).render(foot, buffer);
}

fn cell(route: &RouteInfo, what: What) -> Option<String> {
    Some(match what {
        What::Listen => route.listen.clone(),
        What::Target => format!("{}/{}", route.tenant, route.pool),
        What::State => route.state.clone(),
        What::Connections => format!("{:>4}", route.connections),
        What::In => short_bytes(route.rx_bytes),
        What::Out => short_bytes(route.tx_bytes),
        What::Wake => duration(Duration::from_millis(route.wake.as_ref()?.ms)),
        What::Idle => short_duration(Duration::from_secs(route.idle_secs?)),
    })
}

/// The selected route in a sentence or two.
fn in_words(route: &RouteInfo) -> String {
    let wake = match &route.wake {
        None => "has not woken anything yet".into(),
        Some(wake) => {
            let total = duration(Duration::from_millis(wake.ms));
            format!("last wake {total}: {}", steps_in_words(&wake.steps))
        }
    };
    let idle = match route.idle_secs {
        Some(seconds) => format!("; sleeps in {}", duration(Duration::from_secs(seconds))),
        None => String::new(),
    };
    format!("{} {wake}{idle}", route.listen)
}
