//! All about one VM.

use std::time::Duration;

use jiff::Timestamp;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::Line;

use super::fields::Fields;
use super::pane::pane;
use super::vms::{Use, is_focused, state_role, unknown};
use super::{Scene, fields, graph, table};
use crate::console::model::clock::since;
use crate::console::model::vm::{Start, VmModel};
use crate::console::theme::{Role, Theme};
use crate::console::ui::vms::Part;
use crate::event::vm::{SnapshotInfo, VmInfo, VmSample};
use crate::event::words::{bytes, duration, short_bytes, short_duration};

/// Width of the figures beside graphs.
const FIGURE: u16 = 26;
/// Width from which the graphs lie beside the words.
const BESIDE: u16 = 100;

/// Draws the pane.
pub(super) fn detail(scene: Scene<'_>, vm: &VmModel, area: Rect, buffer: &mut Buffer) {
    let title = super::text::fitted(scene.theme, &vm.name, area.width.saturating_sub(8));
    let inner = pane(scene.theme, &title, is_focused(scene, Part::Detail), area, buffer);
    let words = match vm.samples.is_empty() {
        true => inner,
        false if inner.width >= BESIDE => {
            let [words, graphs] =
                Layout::horizontal([Constraint::Fill(1), Constraint::Percentage(45)]).spacing(2).areas(inner);
            graphs_of(scene, vm, Layout::vertical([Constraint::Max(4); 4]).areas(graphs), buffer);
            words
        }
        false if inner.height >= 16 => {
            let heights = [Constraint::Length(8), Constraint::Fill(1)];
            let [graphs, words] = Layout::vertical(heights).areas(inner);
            graphs_of(scene, vm, Layout::vertical([Constraint::Length(2); 4]).areas(graphs), buffer);
            words
        }
        false => {
            let rows = [Constraint::Length(1), Constraint::Length(1), Constraint::Fill(1)];
            let [first, second, words] = Layout::vertical(rows).areas(inner);
            let halves = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).spacing(2);
            let ([a, b], [c, d]) = (halves.areas(first), halves.areas(second));
            graphs_of(scene, vm, [a, b, c, d], buffer);
            words
        }
    };
    fields::draw(lines(scene, vm, words.width), scene.ui.vms.top, words, buffer);
}

/// What the VM uses, in words and as graphs as high as there is room.
fn graphs_of(scene: Scene<'_>, vm: &VmModel, areas: [Rect; 4], buffer: &mut Buffer) {
    let theme = scene.theme;
    for (of, area) in Use::ALL.into_iter().zip(areas) {
        // A row between two graphs keeps them apart.
        let area = Rect { height: area.height.saturating_sub(u16::from(area.height > 2)), ..area };
        let word = vm.samples.back().map(|sample| words_of(theme, of, sample, vm.info.as_ref()));
        let figure = FIGURE.min(area.width * 2 / 3);
        let place = Rect { width: figure, ..area };
        table::left(theme, &word.unwrap_or_default(), Style::new(), place, buffer);
        let graph = Rect { x: area.x + figure, width: area.width - figure, ..area };
        graph::draw(theme, of.newest(vm), of.full(vm), graph, buffer);
    }
}

fn words_of(theme: &Theme, of: Use, sample: &VmSample, info: Option<&VmInfo>) -> String {
    let rate = |value: Option<u64>| value.map_or_else(|| unknown(theme).into(), short_bytes);
    match of {
        Use::Cpu => {
            let of = info.map(|info| format!(" of {}", info.cpus)).unwrap_or_default();
            format!("cpu  {}%{of}", sample.cpu_permille / 10)
        }
        Use::Memory => {
            let of = info.map(|info| format!(" of {}M", info.memory_mib)).unwrap_or_default();
            format!("mem  {}{of}", short_bytes(sample.memory_kib.saturating_mul(1024)))
        }
        Use::Network => format!("net  in {}/s out {}/s", rate(sample.rx_bps), rate(sample.tx_bps)),
        Use::Disk => {
            format!("disk rd {}/s wr {}/s", rate(Some(sample.read_bps)), rate(Some(sample.write_bps)))
        }
    }
}

/// Everything in words.
fn lines(scene: Scene<'_>, vm: &VmModel, width: u16) -> Vec<Line<'static>> {
    let theme = scene.theme;
    let mut page = Fields::new(theme, width);
    let role = state_role(&vm.state);
    let Some(info) = &vm.info else {
        page.add("state", &vm.state, role);
        page.add("id", &vm.id, Role::Text);
        return page.lines;
    };
    let time = duration(since(info.changed, scene.now));
    let state =
        if info.live { format!("{} for {time}", vm.state) } else { format!("{} {time} ago", vm.state) };
    page.add("state", &state, role);
    if vm.leashed {
        page.add("", "ends with this console", Role::Warning);
    }
    if let Some(detail) = &info.detail {
        page.add("why", detail, Role::Error);
    }
    if let Some(start) = &vm.start {
        page.add("start", &started(start), Role::Text);
        if let Some(why) = &start.why {
            page.add("", &format!("not restored: {why}"), Role::Dim);
        }
    }
    match info.snapshot {
        None => page.add("snapshot", "none", Role::Dim),
        Some(SnapshotInfo { bytes: size, created }) => {
            let age = short_duration(since(created, scene.now));
            page.add("snapshot", &format!("{}, {age} old", bytes(size)), Role::Text);
        }
    }
    let machine = format!(
        "{}, {} CPU{}, {}M memory, {}M disk",
        info.hypervisor,
        info.cpus,
        if info.cpus == 1 { "" } else { "s" },
        info.memory_mib,
        info.disk_mib
    );
    page.add("machine", &machine, Role::Text);
    page.add("network", &info.network, Role::Text);
    page.list("ports", &info.ports);
    page.list("forwarded", &vm.forwards);
    page.list("volumes", &info.volumes);
    if let Some(flake) = &info.flake {
        page.add("flake", flake, Role::Text);
    }
    match &info.started_by {
        None => page.add("created", &second(info.created), Role::Text),
        Some(command) => {
            page.add("started by", &format!("mvm {command}, {}", second(info.created)), Role::Text);
        }
    }
    page.add("artifacts", &info.artifacts.to_string_lossy(), Role::Text);
    let files = info.files.iter().map(|(name, size)| format!("{name} {}", bytes(*size)));
    let ready = match info.ready {
        None => "no ready snapshot".into(),
        Some(ready) => format!("ready snapshot {}", bytes(ready.bytes)),
    };
    page.add("", &files.chain([ready]).collect::<Vec<_>>().join(", "), Role::Dim);
    let shim = info.pid.map_or_else(|| unknown(theme).into(), |pid| format!("pid {pid}"));
    page.add("shim", &shim, Role::Text);
    page.add("id", &vm.id, Role::Text);
    page.lines
}

/// `booted in 2.7 s: spawn 120 ms, boot 2.1 s`.
fn started(Start { how, steps, .. }: &Start) -> String {
    let total = steps.iter().fold(0_u64, |sum, (_, ms)| sum.saturating_add(*ms));
    format!("{how} in {}: {}", duration(Duration::from_millis(total)), steps_in_words(steps))
}

/// Steps with their times.
pub(super) fn steps_in_words(steps: &[(String, u64)]) -> String {
    let words = steps.iter().map(|(name, ms)| format!("{name} {}", duration(Duration::from_millis(*ms))));
    words.collect::<Vec<_>>().join(", ")
}

/// A time to the second.
pub(super) fn second(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}
