//! Tiles of the other pages.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};

use super::spot::Spots;
use super::{Scene, pane_of};
use crate::console::ui::page::Page;

/// Draws the tiles: one under the other where the screen is narrow.
pub fn draw(scene: Scene<'_>, area: Rect, buffer: &mut Buffer, spots: &mut Spots) {
    let half = [Constraint::Fill(1), Constraint::Fill(1)];
    let [above, below] = Layout::vertical(half).areas(area);
    let [builds, vms] = Layout::horizontal(half).areas(above);
    let [cluster, routes] = Layout::horizontal(half).areas(below);
    for (page, area) in Page::TILES.into_iter().zip([builds, vms, cluster, routes]) {
        pane_of(page, scene, area, buffer, spots);
    }
}
