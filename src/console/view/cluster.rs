//! The cluster as a tree: coordinator, nodes, tenants, pools, instances.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Widget, Wrap};

use super::pane::pane;
use super::text::fitted;
use super::vms::state_role;
use super::{Scene, table};
use crate::console::theme::{Role, Sign};
use crate::console::ui::cluster::{Row, What};
use crate::console::ui::page::Page;

/// What is said where there is no cluster.
const NONE: &str = "No cluster: this version of mvm cannot start one yet.";

/// Draws the page or the tile.
pub fn draw(scene: Scene<'_>, area: Rect, buffer: &mut Buffer) {
    let inner = pane(scene.theme, "Cluster", scene.ui.pane() == Page::Cluster, area, buffer);
    let rows = scene.ui.cluster.rows(scene.model);
    if rows.is_empty() {
        return none(scene, inner, buffer);
    }
    let at = scene.ui.cluster.place(&rows);
    for (index, place) in table::visible(rows.len(), at, inner.height).zip(inner.rows()) {
        line(scene, &rows[index], inner.width).render(place, buffer);
        if index == at && scene.ui.pane() == Page::Cluster {
            buffer.set_style(place, scene.theme.style(Role::Selected));
        }
    }
}

/// Says that there is no cluster, and how to come by one.
pub(super) fn none(scene: Scene<'_>, area: Rect, buffer: &mut Buffer) {
    let text = Paragraph::new(NONE).wrap(Wrap { trim: true });
    text.style(scene.theme.style(Role::Dim)).render(area, buffer);
}

fn line(scene: Scene<'_>, row: &Row<'_>, width: u16) -> Line<'static> {
    let theme = scene.theme;
    let (kind, name, state) = match row.what {
        What::Coordinator(cluster) => ("coordinator", cluster.address.clone(), cluster.state.clone()),
        What::Node(node) => ("agent", format!("{} {}", node.name, node.address), node.state.clone()),
        What::Tenant(tenant) => ("tenant", tenant.name.clone(), String::new()),
        What::Pool(pool) => ("pool", pool.name.clone(), format!("{} of {}", pool.actual, pool.desired)),
        What::Instance(instance) => ("", instance.name.clone(), instance.state.clone()),
    };
    let role = match row.what {
        What::Pool(pool) if pool.actual == pool.desired => Role::Ok,
        What::Pool(_) => Role::Busy,
        What::Tenant(_) => Role::Text,
        _ => state_role(&state),
    };
    let mut trunk = String::new();
    if let Some((last, above)) = row.last.split_last() {
        for over in above {
            trunk += if *over { " " } else { theme.sign(Sign::Trunk) };
            trunk += " ";
        }
        trunk += theme.sign(if *last { Sign::LastBranch } else { Sign::Branch });
        trunk += " ";
    }
    let kind = if kind.is_empty() { String::new() } else { format!("{kind} ") };
    let folded = if row.folded { format!(" {}", theme.sign(Sign::Cut)) } else { String::new() };
    let alive = matches!(row.what, What::Coordinator(_) | What::Node(_) | What::Instance(_));
    let alive = if alive { format!("{} ", theme.sign(Sign::Alive)) } else { String::new() };
    let state = if state.is_empty() { state } else { format!("  {state}") };
    Line::from(vec![
        Span::styled(trunk, theme.style(Role::Dim)),
        Span::styled(kind, theme.style(Role::Dim)),
        Span::styled(alive, theme.style(role)),
        Span::raw(fitted(theme, &name, width)),
        Span::styled(fitted(theme, &state, width), theme.style(role)),
        Span::styled(folded, theme.style(Role::Dim)),
    ])
}

#[cfg(test)]
mod tests;
