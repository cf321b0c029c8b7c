//! What is true, written only by applying events.

pub mod clock;
pub mod cluster;
pub mod derivation;
pub mod doing;
pub mod fleet;
pub mod task;
pub mod totals;
pub mod transfer;
pub mod tree;
pub mod vm;
pub mod watch;

use std::collections::VecDeque;

use jiff::Timestamp;

use crate::console::log::DEFAULT_LIMIT;
use crate::event::vm::VmInfo;
use crate::event::{Event, Kind, Level, Source, TaskId};
use cluster::ClusterModel;
use task::TaskModel;
use vm::{Start, VmModel};
use watch::Cycles;

/// Longest description of the machine, in characters.
const MOST_MACHINE: usize = 60;
/// Tasks kept; the oldest ended ones go first.
const MOST_TASKS: usize = 50;

/// Starts kept of VMs that were not seen yet.
const MOST_STARTS: usize = 50;

/// How many logs may be full before those of the oldest tasks are emptied.
const FULL_LOGS: usize = 3;

/// All there is to show.
#[derive(Debug)]
pub struct Model {
    /// Most memory for the lines of one task's log, in bytes; all of them take [`FULL_LOGS`] times as
    /// much at most, once another task begins.
    log_limit: usize,
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
    /// What this console's watch set off.
    pub watch: Cycles,
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

impl Default for Model {
    fn default() -> Self {
        Self::new(DEFAULT_LIMIT)
    }
}

impl Model {
    /// Nothing yet; `log_limit` bounds the log of each task, in bytes.
    pub fn new(log_limit: usize) -> Self {
        Self {
            log_limit,
            tasks: Vec::new(),
            vms: Vec::new(),
            starts: VecDeque::new(),
            cluster: ClusterModel::default(),
            machine: String::new(),
            notice: None,
            watch: Cycles::default(),
        }
    }

    /// Takes an event in. Returns whether anything that shows has changed.
    pub fn apply(&mut self, event: &Event) -> bool {
        self.watch.hear(event);
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
            Kind::VmStarted { vm, how, why, steps, .. } => {
                let start = Start { how: how.clone(), why: why.clone(), steps: steps.clone() };
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
                // Versions need no more; and whoever made a recording may have written anything.
                let plain = |c: &char| matches!(c, ' '..='~' | '·');
                self.machine = text.chars().filter(plain).take(MOST_MACHINE).collect();
                true
            }
            Kind::ClusterSeen { cluster } => self.cluster.see(cluster),
            Kind::TenantSeen { tenant } => self.cluster.fleet.see_tenant(tenant),
            Kind::PoolSeen { tenant, pool } => self.cluster.fleet.see_pool(tenant, pool),
            Kind::InstanceSeen { tenant, pool, instance } => {
                self.cluster.fleet.see_instance(tenant, pool, instance)
            }
            Kind::FleetGone { path } => self.cluster.fleet.lose(path),
            Kind::ClusterGone => self.cluster.lose(),
            Kind::RouteSeen { route } => self.cluster.see_route(route),
            Kind::RouteGone { listen } => self.cluster.lose_route(listen),
            Kind::SourcesChanged { paths, more } => {
                self.watch.change(paths, *more);
                false
            }
            Kind::WatchTriggered { paths, more } => {
                // Another console's watch is its own: this one must not take its VM's place.
                if event.task.is_own() {
                    self.watch.begin(event, paths, *more);
                }
                self.task_event(event);
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
        self.empty_old_logs();
        let mut task = TaskModel::new(event.task.clone(), self.log_limit);
        task.apply(event);
        // Records of tasks that began earlier may be read later.
        let place = self.tasks.partition_point(|known| known.started > task.started);
        self.tasks.insert(place, task);
        true
    }

    /// Keeps what all logs take together within bounds: those of the oldest ended tasks go.
    fn empty_old_logs(&mut self) {
        let mut bytes: usize = self.tasks.iter().map(|task| task.log.bytes()).sum();
        for task in self.tasks.iter_mut().rev().filter(|task| task.ended.is_some()) {
            if bytes <= (FULL_LOGS - 1) * self.log_limit {
                break;
            }
            bytes -= task.log.bytes();
            task.log.clear();
        }
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
