//! The VMs page: the table, the selected VM in detail, its console.

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::widgets::{Paragraph, Widget};

use super::columns::short_reference;
use super::pane::pane;
use super::spot::{Spot, Spots};
use super::table::{self, Column, Place};
use super::{Scene, graph, log, vm};
use crate::console::model::vm::VmModel;
use crate::console::theme::{Role, Theme};
use crate::console::ui::page::Page;
use crate::console::ui::vms::{Column as Sort, Part};
use crate::event::words::{short_bytes, short_duration};

/// Width from which detail and table lie side by side.
const BESIDE: u16 = 150;

/// A column of the table.
#[derive(Debug, Clone, Copy)]
enum What {
    Name,
    State,
    Cpu,
    Memory,
    Network,
    Disk,
    Ports,
    Snapshot,
    Up,
    Flake,
}

impl What {
    /// What the table is sorted by when it is sorted by this column.
    fn sort(self) -> Option<Sort> {
        match self {
            Self::Name => Some(Sort::Name),
            Self::State => Some(Sort::State),
            Self::Cpu => Some(Sort::Cpu),
            Self::Memory => Some(Sort::Memory),
            Self::Network => Some(Sort::Network),
            Self::Disk => Some(Sort::Disk),
            Self::Up => Some(Sort::Up),
            Self::Ports | Self::Snapshot | Self::Flake => None,
        }
    }
}

const COLUMNS: [Column<What>; 10] = [
    Column::new(What::Name, "NAME", 14, 24, 0),
    Column::new(What::State, "STATE", 7, 8, 1),
    Column::new(What::Cpu, "CPU", 11, 22, 3),
    Column::new(What::Memory, "MEM", 10, 21, 4),
    Column::new(What::Network, "NET", 12, 23, 5),
    Column::new(What::Disk, "DISK", 12, 23, 8),
    Column::new(What::Ports, "PORTS", 9, 24, 6),
    Column::new(What::Snapshot, "SNAP", 4, 4, 9),
    Column::new(What::Up, "UP", 4, 4, 2),
    Column::new(What::Flake, "FLAKE", 12, 40, 7),
];

/// Draws the page or the tile.
pub fn draw(scene: Scene<'_>, area: Rect, buffer: &mut Buffer, spots: &mut Spots) {
    let vms = scene.ui.vms.sorted(scene.model);
    let at = scene.ui.vms.place(&vms);
    let Some(selected) = vms.get(at).filter(|_| scene.ui.page == Page::Vms) else {
        return table(scene, &vms, at, area, buffer, spots);
    };
    if scene.ui.zoomed {
        return match scene.ui.vms.part {
            Part::Table => table(scene, &vms, at, area, buffer, spots),
            Part::Detail => vm::detail(scene, selected, area, buffer),
            Part::Console => console(scene, selected, area, buffer, spots),
        };
    }
    let rows = u16::try_from(vms.len()).unwrap_or(u16::MAX).saturating_add(3);
    let above = Constraint::Length(rows.min(area.height / 3).max(5));
    let [list, details, lines] = if area.width >= BESIDE {
        let [left, right] = Layout::horizontal([Constraint::Percentage(58), Constraint::Fill(1)]).areas(area);
        let [list, lines] = Layout::vertical([above, Constraint::Fill(1)]).areas(left);
        [list, right, lines]
    } else {
        Layout::vertical([above, Constraint::Fill(4), Constraint::Fill(3)]).areas(area)
    };
    table(scene, &vms, at, list, buffer, spots);
    vm::detail(scene, selected, details, buffer);
    console(scene, selected, lines, buffer, spots);
}

/// Whether a part has the keys.
pub(super) fn is_focused(scene: Scene<'_>, part: Part) -> bool {
    scene.ui.page == Page::Vms && scene.ui.vms.part == part
}

/// A VM's console.
fn console(scene: Scene<'_>, vm: &VmModel, area: Rect, buffer: &mut Buffer, spots: &mut Spots) {
    let inner = pane(scene.theme, "Console", is_focused(scene, Part::Console), area, buffer);
    log::draw(scene, &vm.console, inner, buffer, spots);
}

fn table(scene: Scene<'_>, vms: &[&VmModel], at: usize, area: Rect, buffer: &mut Buffer, spots: &mut Spots) {
    let theme = scene.theme;
    let focused =
        is_focused(scene, Part::Table) || (scene.ui.page == Page::Overview && scene.ui.pane() == Page::Vms);
    let title = if vms.is_empty() { "VMs".into() } else { format!("VMs {}", vms.len()) };
    let inner = pane(theme, &title, focused, area, buffer);
    if vms.is_empty() {
        let text =
            format!("No VM: `{}` builds and boots a flake.", scene.keymap.first_of("run", theme.ascii));
        return Paragraph::new(text).style(theme.style(Role::Dim)).render(inner, buffer);
    }
    let [head, body] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(inner);
    // While none has a snapshot, others have the room.
    let saved = vms.iter().any(|vm| vm.snapshot().is_some());
    let columns = COLUMNS.iter().filter(|column| saved || !matches!(column.what, What::Snapshot));
    let places = table::fit(&columns.copied().collect::<Vec<_>>(), inner.width);
    for place in &places {
        let sorted = place.column.what.sort() == Some(scene.ui.vms.column);
        let sign = if sorted { order_sign(theme, scene.ui.vms.column, scene.ui.vms.reverse) } else { "" };
        let role = if sorted { Role::Accent } else { Role::Dim };
        let text = format!("{}{sign}", place.column.title);
        table::left(theme, &text, theme.style(role), place.of(head), buffer);
    }
    for (index, row) in table::visible(vms.len(), at, body.height).zip(body.rows()) {
        spots.add(row, Spot::Vm(vms[index].id.clone()));
        for place in &places {
            cell(scene, vms[index], place, row, buffer);
        }
        if index == at && (focused || scene.ui.page == Page::Vms) {
            buffer.set_style(row, theme.style(Role::Selected));
        }
    }
}

/// Which way a sorted column goes.
fn order_sign(theme: &Theme, column: Sort, reverse: bool) -> &'static str {
    let upwards = matches!(column, Sort::Name) != reverse;
    match (upwards, theme.ascii) {
        (true, false) => "▲",
        (false, false) => "▼",
        (true, true) => "^",
        (false, true) => "v",
    }
}

fn cell(scene: Scene<'_>, vm: &VmModel, place: &Place<What>, row: Rect, buffer: &mut Buffer) {
    let (theme, area) = (scene.theme, place.of(row));
    let plain = Style::new();
    let text = match place.column.what {
        What::Name => vm.name.clone(),
        What::State => {
            let style = theme.style(state_role(&vm.state));
            return table::left(theme, &vm.state, style, area, buffer);
        }
        What::Ports => ports(vm),
        What::Flake => {
            vm.info.as_ref().and_then(|info| info.flake.as_deref()).map_or("", short_reference).into()
        }
        What::Snapshot => {
            // That there is none is no figure that is not known.
            let size = vm.snapshot().map(|snapshot| short_bytes(snapshot.bytes)).unwrap_or_default();
            return table::left(theme, &size, plain, area, buffer);
        }
        What::Up => vm.up(scene.now).map(short_duration).unwrap_or_default(),
        What::Cpu => return usage(scene, vm, Use::Cpu, 5, area, buffer),
        What::Memory => return usage(scene, vm, Use::Memory, 4, area, buffer),
        What::Network => return usage(scene, vm, Use::Network, 6, area, buffer),
        What::Disk => return usage(scene, vm, Use::Disk, 6, area, buffer),
    };
    let text = if text.is_empty() { unknown(theme) } else { &text };
    table::left(theme, text, plain, area, buffer);
}

/// A figure and its graph.
fn usage(scene: Scene<'_>, vm: &VmModel, of: Use, width: u16, area: Rect, buffer: &mut Buffer) {
    let known = vm.samples.back().and_then(|sample| of.of(sample));
    let text = known.map_or_else(|| unknown(scene.theme).to_string(), |value| of.short(value));
    table::left(scene.theme, &format!("{text:>0$}", usize::from(width)), Style::new(), area, buffer);
    let graph = Rect { x: area.x + width + 1, width: area.width.saturating_sub(width + 1), ..area };
    graph::draw(scene.theme, of.newest(vm), of.full(vm), graph.intersection(row_of(area)), buffer);
}

fn row_of(area: Rect) -> Rect {
    Rect { height: 1, ..area }
}

/// The sign for what is not known.
pub(super) fn unknown(theme: &Theme) -> &'static str {
    if theme.ascii { "-" } else { "–" }
}

/// How a state is coloured, of a VM, an instance or a route.
pub(super) fn state_role(state: &str) -> Role {
    match state {
        "running" | "ready" | "connected" | "open" | "serving" => Role::Ok,
        "failed" | "lost" | "down" | "refused" | "unreachable" | "closed" => Role::Error,
        "stopped" | "paused" | "sleeping" => Role::Dim,
        "idle" => Role::Accent,
        "empty" => Role::Warning,
        _ => Role::Busy,
    }
}

/// Published and forwarded ports, `HOST:GUEST`, without the loopback address.
fn ports(vm: &VmModel) -> String {
    let published = vm.info.iter().flat_map(|info| &info.ports);
    let all = published.chain(&vm.forwards).map(|map| map.strip_prefix("127.0.0.1:").unwrap_or(map));
    if vm.is_live() { all.collect::<Vec<_>>().join(" ") } else { String::new() }
}

/// What a VM uses, one figure at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Cpu,
    Memory,
    Network,
    Disk,
}

impl Use {
    pub(super) const ALL: [Self; 4] = [Self::Cpu, Self::Memory, Self::Network, Self::Disk];

    /// The figure of a sample; absent where the host cannot tell.
    pub(super) fn of(self, sample: &crate::event::vm::VmSample) -> Option<u64> {
        match self {
            Self::Cpu => Some(sample.cpu_permille.into()),
            Self::Memory => Some(sample.memory_kib.saturating_mul(1024)),
            Self::Network => sample.network_bps(),
            Self::Disk => Some(sample.disk_bps()),
        }
    }

    /// The figures of the last samples, the newest first.
    pub(super) fn newest(self, vm: &VmModel) -> impl Iterator<Item = u64> {
        vm.samples.iter().rev().map_while(move |sample| self.of(sample))
    }

    /// What a full bar means: all CPUs, all memory, else the most that was seen.
    pub(super) fn full(self, vm: &VmModel) -> u64 {
        let most = || self.newest(vm).max().unwrap_or(1);
        match (self, &vm.info) {
            (Self::Cpu, Some(info)) => u64::from(info.cpus) * 1000,
            (Self::Memory, Some(info)) => u64::from(info.memory_mib) << 20,
            _ => most(),
        }
    }

    /// The figure in few characters.
    pub(super) fn short(self, value: u64) -> String {
        match self {
            Self::Cpu => format!("{}%", value / 10),
            Self::Memory => short_bytes(value),
            Self::Network | Self::Disk => format!("{}/s", short_bytes(value)),
        }
    }
}

#[cfg(test)]
mod tests;
