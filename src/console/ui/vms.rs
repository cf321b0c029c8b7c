//! What is selected among VMs, and how they are sorted.

use std::cmp::{Ordering, Reverse};

use super::page::{neighbour, step};
use crate::console::model::Model;
use crate::console::model::vm::VmModel;

/// Most lines the detail can be scrolled by; the view stops at its end.
const MOST_SCROLL: usize = 200;

/// Parts of the VMs page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Part {
    /// The table.
    #[default]
    Table,
    /// All about the selected VM.
    Detail,
    /// The console of the selected VM.
    Console,
}

impl Part {
    /// All parts, in the order in which Tab goes through them.
    pub const ALL: [Self; 3] = [Self::Table, Self::Detail, Self::Console];
}

/// What the table is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Column {
    /// Live ones first, the newest first.
    #[default]
    State,
    /// Name.
    Name,
    /// CPU in use.
    Cpu,
    /// Memory in use.
    Memory,
    /// Bytes sent and received.
    Network,
    /// Bytes read and written.
    Disk,
    /// When the state last changed, the latest first.
    Up,
}

impl Column {
    const ALL: [Self; 7] =
        [Self::State, Self::Name, Self::Cpu, Self::Memory, Self::Network, Self::Disk, Self::Up];
}

/// The VMs page.
#[derive(Debug, Default)]
pub struct VmsUi {
    /// The part that has the keys.
    pub part: Part,
    /// What the table is sorted by.
    pub column: Column,
    /// Whether the order is turned round.
    pub reverse: bool,
    /// First line shown of the detail.
    pub top: usize,
    selected: Option<String>,
}

impl VmsUi {
    fn order(&self, a: &VmModel, b: &VmModel) -> Ordering {
        let last = |vm: &VmModel| vm.samples.back().copied().unwrap_or_default();
        let order = match self.column {
            Column::State => a.is_live().cmp(&b.is_live()).reverse(),
            Column::Name => a.name.cmp(&b.name),
            Column::Cpu => last(b).cpu_permille.cmp(&last(a).cpu_permille),
            Column::Memory => last(b).memory_kib.cmp(&last(a).memory_kib),
            Column::Network => last(b).network_bps().cmp(&last(a).network_bps()),
            Column::Disk => last(b).disk_bps().cmp(&last(a).disk_bps()),
            Column::Up => {
                let changed = |vm: &VmModel| Reverse(vm.info.as_ref().map(|info| info.changed));
                changed(a).cmp(&changed(b))
            }
        };
        if self.reverse { order.reverse() } else { order }
    }

    /// The VMs in the table's order; among equals the newest stay first.
    pub fn sorted<'a>(&self, model: &'a Model) -> Vec<&'a VmModel> {
        let mut vms: Vec<&VmModel> = model.vms.iter().collect();
        vms.sort_by(|a, b| self.order(a, b));
        vms
    }

    /// The place of the selected VM among the sorted ones: the first while none was chosen.
    pub fn place(&self, sorted: &[&VmModel]) -> usize {
        let chosen = self.selected.as_ref();
        chosen.and_then(|id| sorted.iter().position(|vm| vm.id == *id)).unwrap_or(0)
    }

    /// The selected VM.
    pub fn vm<'a>(&self, model: &'a Model) -> Option<&'a VmModel> {
        let chosen = self.selected.as_ref().and_then(|id| model.vm(id));
        chosen.or_else(|| model.vms.iter().min_by(|a, b| self.order(a, b)))
    }

    /// Selects a VM.
    pub fn select(&mut self, id: &str) {
        self.selected = Some(id.into());
        self.top = 0;
    }

    /// Scrolls the detail.
    pub fn scroll(&mut self, by: isize) {
        self.top = self.top.saturating_add_signed(by).min(MOST_SCROLL);
    }

    /// Moves the selection.
    pub fn move_by(&mut self, model: &Model, by: isize) {
        let vms = self.sorted(model);
        if let Some(at) = step(Some(self.place(&vms)), by, vms.len()) {
            self.select(&vms[at].id);
        }
    }

    /// Sorts by the next column.
    pub fn next_column(&mut self) {
        self.column = neighbour(&Column::ALL, self.column, 1);
    }
}
