//! The table of VMs, and the selected one in detail.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Widget};

use super::Scene;
use super::pane::pane;
use crate::console::theme::Role;
use crate::console::ui::page::Page;

/// Draws the page or the tile.
pub fn draw(scene: Scene<'_>, area: Rect, buffer: &mut Buffer) {
    let inner = pane(scene.theme, "VMs", scene.ui.pane() == Page::Vms, area, buffer);
    let vms = scene.ui.vms.sorted(scene.model);
    let Some(selected) = scene.ui.vms.vm(scene.model) else {
        let text = "No VM: `r` builds and boots a flake.";
        return Paragraph::new(text).style(scene.theme.style(Role::Dim)).render(inner, buffer);
    };
    for (vm, row) in vms.iter().zip(inner.rows()) {
        let sample = vm.samples.back().copied().unwrap_or_default();
        let text = format!(
            "{:<16} {:<9} {:>4}% {:>5}M",
            vm.name,
            vm.state,
            sample.cpu_permille / 10,
            sample.memory_kib / 1024
        );
        let role = if vm.id == selected.id { Role::Selected } else { Role::Text };
        Line::styled(text, scene.theme.style(role)).render(row, buffer);
    }
}
