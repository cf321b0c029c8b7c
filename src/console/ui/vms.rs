//! What is selected among VMs, and how they are sorted.

use std::cmp::Reverse;

use super::page::{neighbour, step};
use crate::console::model::Model;
use crate::console::model::vm::VmModel;

/// Parts of the VMs page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Part {
    /// The table.
    #[default]
    Table,
    /// The console of the selected VM.
    Console,
}

impl Part {
    /// All parts, in the order in which Tab goes through them.
    pub const ALL: [Self; 2] = [Self::Table, Self::Console];
}

/// What the table is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Column {
    /// Running ones first, the newest first.
    #[default]
    State,
    /// Name.
    Name,
    /// CPU in use.
    Cpu,
    /// Memory in use.
    Memory,
}

impl Column {
    const ALL: [Self; 4] = [Self::State, Self::Name, Self::Cpu, Self::Memory];
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
    selected: Option<String>,
}

impl VmsUi {
    /// The VMs in the table's order.
    pub fn sorted<'a>(&self, model: &'a Model) -> Vec<&'a VmModel> {
        let mut vms: Vec<&VmModel> = model.vms.iter().collect();
        let last = |vm: &VmModel| vm.samples.back().copied().unwrap_or_default();
        match self.column {
            // Stable: among equals the newest stay first.
            Column::State => vms.sort_by_key(|vm| !vm.is_live()),
            Column::Name => vms.sort_by(|a, b| a.name.cmp(&b.name)),
            Column::Cpu => vms.sort_by_key(|vm| Reverse(last(vm).cpu_permille)),
            Column::Memory => vms.sort_by_key(|vm| Reverse(last(vm).memory_kib)),
        }
        if self.reverse {
            vms.reverse();
        }
        vms
    }

    /// The selected VM.
    pub fn vm<'a>(&self, model: &'a Model) -> Option<&'a VmModel> {
        let chosen = self.selected.as_ref().and_then(|id| model.vm(id));
        chosen.or_else(|| self.sorted(model).first().copied())
    }

    /// Selects a VM.
    pub fn select(&mut self, id: &str) {
        self.selected = Some(id.into());
    }

    /// Moves the selection.
    pub fn move_by(&mut self, model: &Model, by: isize) {
        let vms = self.sorted(model);
        let current = self.vm(model).and_then(|vm| vms.iter().position(|one| one.id == vm.id));
        self.selected = step(current, by, vms.len()).map(|at| vms[at].id.clone());
    }

    /// Sorts by the next column.
    pub fn next_column(&mut self) {
        self.column = neighbour(&Column::ALL, self.column, 1);
    }
}
