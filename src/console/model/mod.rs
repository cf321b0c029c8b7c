//! What is true, written only by applying events.

pub mod cluster;
pub mod derivation;
pub mod task;
pub mod totals;
pub mod transfer;
pub mod tree;
pub mod vm;

use std::collections::VecDeque;

use jiff::Timestamp;

use crate::event::vm::VmInfo;
use crate::event::{Event, Kind, Level, Source, TaskId};
use cluster::ClusterModel;
use task::TaskModel;
use vm::{Start, VmModel};

/// Tasks kept; the oldest ended ones go first.
const MOST_TASKS: usize = 50;

/// Starts kept of VMs that were not seen yet.
const MOST_STARTS: usize = 50;

/// All there is to show.
#[derive(Debug, Default)]
pub struct Model {
    /// Builds and runs, the newest first.
    pub tasks: Vec<TaskModel>,
    /// VMs, the newest first.
    pub vms: Vec<VmModel>,
    /// How VMs came up whose records were not seen yet.
    starts: VecDeque<(String, Start)>,
    /// The cluster and its routes.
    pub cluster: ClusterModel,
    /// What this machine works with, for people; empty until it was looked for.
    pub machine: String,
    /// The last thing the user should know that belongs to no task.
    pub notice: Option<Notice>,
    /// What the watch saw last.
    pub watch: Option<Watch>,
}

/// A word to the user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// How grave it is.
    pub level: Level,
    /// The word.
    pub text: String,
    /// When it was said.
    pub time: Timestamp,
}

/// What set off the last rebuild.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// The task that rebuilds.
    pub task: TaskId,
    /// When it was set off.
    pub time: Timestamp,
    /// What changed, the first few; empty when somebody asked.
    pub paths: Vec<String>,
    /// How many more changed.
    pub more: u64,
}

impl Model {
    /// Takes an event in. Returns whether anything that shows has changed.
    pub fn apply(&mut self, event: &Event) -> bool {
        match &event.kind {
            Kind::VmSeen { info } => self.see_vm(info),
            Kind::VmGone { vm } => {
                let before = self.vms.len();
                self.vms.retain(|known| known.id != *vm);
                before != self.vms.len()
            }
            Kind::VmSample { vm, sample } => self.vm_mut(vm).is_some_and(|known| known.measure(*sample)),
            Kind::Log { source: Source::Console { vm }, text } if event.task == TaskId::machine() => {
                self.vm_mut(vm).is_some_and(|known| known.hear(event.time, text))
            }
            Kind::Log { source: Source::Mvm { level }, text } if event.task == TaskId::machine() => {
                self.notice = Some(Notice { level: *level, text: text.clone(), time: event.time });
                true
            }
            Kind::VmState { vm, name, state } => {
                let changed = self.turn_vm(event.task.is_own(), vm, name, state);
                self.task_event(event) || changed
            }
            Kind::VmStarted { vm, how, steps, .. } => {
                let start = (how.clone(), steps.clone());
                match self.vm_mut(vm) {
                    Some(known) => known.start = Some(start),
                    None => self.remember_start(vm, start),
                }
                self.task_event(event)
            }
            Kind::VmLeashed { vm, on } => {
                self.vm_mut(vm).is_some_and(|known| std::mem::replace(&mut known.leashed, *on) != *on)
            }
            Kind::Forwarded { vm, map, on } => self.vm_mut(vm).is_some_and(|known| known.forward(map, *on)),
            Kind::Machine { text } => {
                self.machine.clone_from(text);
                true
            }
            Kind::ClusterSeen { cluster } => self.cluster.see(cluster),
            Kind::ClusterGone => self.cluster.lose(),
            Kind::RouteSeen { route } => self.cluster.see_route(route),
            Kind::RouteGone { listen } => self.cluster.lose_route(listen),
            Kind::WatchTriggered { paths, more } => {
                let (task, time) = (event.task.clone(), event.time);
                self.watch = Some(Watch { task, time, paths: paths.clone(), more: *more });
                true
            }
            _ => self.task_event(event),
        }
    }

    fn see_vm(&mut self, info: &VmInfo) -> bool {
        let start = self.starts.iter().position(|(vm, _)| *vm == info.id);
        let start = start.and_then(|at| self.starts.remove(at));
        let known = self.vm_or_new(&info.id);
        known.start = known.start.take().or(start.map(|(_, start)| start));
        known.see(info)
    }

    /// Takes in what a task says of a VM's state. Tasks of others may be of long ago and their VMs
    /// removed: only records tell which of those there are.
    fn turn_vm(&mut self, own: bool, id: &str, name: &str, state: &str) -> bool {
        let over = matches!(state, "stopped" | "failed");
        match self.vm_mut(id) {
            // It never got a record that was seen: nothing is left of it.
            Some(known) if over && known.info.is_none() => {
                self.vms.retain(|known| known.id != id);
                true
            }
            Some(known) => known.turn(name, state),
            None if own && !over => self.vm_or_new(id).turn(name, state),
            None => false,
        }
    }

    fn remember_start(&mut self, vm: &str, start: Start) {
        if self.starts.len() >= MOST_STARTS {
            self.starts.pop_front();
        }
        self.starts.push_back((vm.into(), start));
    }

    fn task_event(&mut self, event: &Event) -> bool {
        if let Some(task) = self.tasks.iter_mut().find(|task| task.id == event.task) {
            return task.apply(event);
        }
        if event.task == TaskId::machine() {
            return false;
        }
        if self.tasks.len() >= MOST_TASKS {
            let oldest = self.tasks.iter().rposition(|task| task.ended.is_some());
            self.tasks.remove(oldest.unwrap_or(self.tasks.len() - 1));
        }
        let mut task = TaskModel::new(event.task.clone());
        task.apply(event);
        // Records of tasks that began earlier may be read later.
        let place = self.tasks.partition_point(|known| known.started > task.started);
        self.tasks.insert(place, task);
        true
    }

    /// The task with this id.
    pub fn task(&self, id: &TaskId) -> Option<&TaskModel> {
        self.tasks.iter().find(|task| task.id == *id)
    }

    /// The VM with this id.
    pub fn vm(&self, id: &str) -> Option<&VmModel> {
        self.vms.iter().find(|vm| vm.id == id)
    }

    fn vm_mut(&mut self, id: &str) -> Option<&mut VmModel> {
        self.vms.iter_mut().find(|vm| vm.id == id)
    }

    fn vm_or_new(&mut self, id: &str) -> &mut VmModel {
        let at = match self.vms.iter().position(|vm| vm.id == id) {
            Some(at) => at,
            None => {
                self.vms.insert(0, VmModel::new(id));
                0
            }
        };
        &mut self.vms[at]
    }
}
