//! What is true, written only by applying events.

pub mod cluster;
pub mod derivation;
pub mod task;
pub mod totals;
pub mod transfer;
pub mod tree;
pub mod vm;

use jiff::Timestamp;

use crate::event::{Event, Kind, Level, Source, TaskId};
use cluster::ClusterModel;
use task::TaskModel;
use vm::VmModel;

/// Tasks kept; the oldest ended ones go first.
const MOST_TASKS: usize = 50;

/// All there is to show.
#[derive(Debug, Default)]
pub struct Model {
    /// Builds and runs, the newest first.
    pub tasks: Vec<TaskModel>,
    /// VMs, the newest first.
    pub vms: Vec<VmModel>,
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
            Kind::VmSeen { info } => self.vm_or_new(&info.id).see(info),
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
                let changed = self.vm_or_new(vm).turn(name, state);
                self.task_event(event) || changed
            }
            Kind::VmStarted { vm, how, steps, .. } => {
                let known = self.vm_or_new(vm);
                known.start = Some((how.clone(), steps.clone()));
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
