//! Tiles of the other pages.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};

use super::spot::Spots;
use super::{Scene, pane_of, watch};
use crate::console::ui::page::Page;

/// Width below which builds and VMs lie one above the other.
const NARROW: u16 = 100;

/// Draws the tiles.
pub fn draw(scene: Scene<'_>, area: Rect, buffer: &mut Buffer, spots: &mut Spots) {
    let watch = if scene.ui.watching { watch::ROWS.min(area.height / 3) } else { 0 };
    let [above, area] = Layout::vertical([Constraint::Length(watch), Constraint::Fill(1)]).areas(area);
    if watch > 0 {
        watch::draw(scene, above, buffer);
    }
    for (page, area) in Page::TILES.into_iter().zip(tiles(scene, area)) {
        pane_of(page, scene, area, buffer, spots);
    }
}

/// Where the tiles are, in the order of [`Page::TILES`].
fn tiles(scene: Scene<'_>, area: Rect) -> [Rect; 4] {
    let half = [Constraint::Fill(1), Constraint::Fill(1)];
    // Without a cluster a few lines say so.
    let below = match scene.model.cluster.is_empty() {
        true => Constraint::Length(4),
        false if area.width < NARROW => Constraint::Percentage(30),
        false => Constraint::Percentage(45),
    };
    let [above, below] = Layout::vertical([Constraint::Fill(1), below]).areas(area);
    let [builds, vms] = if area.width < NARROW {
        Layout::vertical(half).areas(above)
    } else {
        // A table needs more room than a tree.
        Layout::horizontal([Constraint::Fill(2), Constraint::Fill(3)]).areas(above)
    };
    let [cluster, routes] = if area.width < NARROW {
        Layout::horizontal(half).areas(below)
    } else {
        Layout::horizontal([Constraint::Fill(2), Constraint::Fill(3)]).areas(below)
    };
    [builds, vms, cluster, routes]
}
