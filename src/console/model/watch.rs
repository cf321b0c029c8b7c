//! What a watch set off: from a saved file to a VM that is ready.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

use super::clock::since;
use crate::event::{Event, Kind, Outcome, TaskId};

/// Cycles kept.
const MOST_CYCLES: usize = 20;

/// The last cycles, the newest last.
#[derive(Debug, Default)]
pub struct Cycles {
    cycles: VecDeque<Cycle>,
    /// What changed since the last rebuild was asked for.
    changed: Option<(Vec<String>, u64)>,
    /// Whether a rebuild was asked for and has not begun.
    asked: bool,
    /// The rebuild that was told to end.
    ending: Option<TaskId>,
}

/// One rebuild.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cycle {
    /// The task that rebuilds.
    pub task: TaskId,
    /// When it was set off.
    pub time: Timestamp,
    /// What changed, the first few; empty when somebody asked.
    pub paths: Vec<String>,
    /// How many more changed.
    pub more: u64,
    /// When the artifacts were there.
    pub built: Option<Timestamp>,
    /// When the VM was ready.
    pub ready: Option<Timestamp>,
    /// The VM, by its id.
    pub vm: Option<String>,
    /// How its task ended.
    pub outcome: Option<Outcome>,
}

impl Cycle {
    /// From what set it off to the artifacts.
    pub fn build_time(&self) -> Option<Duration> {
        self.built.map(|built| since(self.time, built))
    }

    /// From the artifacts to a VM that is ready, the end of the old one included.
    pub fn boot_time(&self) -> Option<Duration> {
        Some(since(self.built?, self.ready?))
    }

    /// From what set it off to a VM that is ready.
    pub fn whole_time(&self) -> Option<Duration> {
        self.ready.map(|ready| since(self.time, ready))
    }
}

impl Cycles {
    /// The newest one.
    pub fn last(&self) -> Option<&Cycle> {
        self.cycles.back()
    }

    /// All that are kept, the newest first.
    pub fn newest(&self) -> impl Iterator<Item = &Cycle> {
        self.cycles.iter().rev()
    }

    /// A rebuild was set off. Its VM takes the place of the one before.
    pub(super) fn begin(&mut self, event: &Event, paths: &[String], more: u64) {
        self.asked = false;
        if self.cycles.len() >= MOST_CYCLES {
            self.cycles.pop_front();
        }
        let (task, time, vm) = (event.task.clone(), event.time, self.last().and_then(|last| last.vm.clone()));
        let (built, ready, outcome) = (None, None, None);
        self.cycles.push_back(Cycle { task, time, paths: paths.to_vec(), more, built, ready, vm, outcome });
    }

    /// The watched sources changed.
    pub(super) fn change(&mut self, paths: &[String], more: u64) {
        let (known, others) = self.changed.get_or_insert_default();
        known.extend(paths.iter().filter(|path| !known.contains(path)).cloned().collect::<Vec<_>>());
        *others += more;
    }

    /// What changed is nobody's concern any more.
    pub fn forget(&mut self) {
        self.changed = None;
    }

    /// The rebuild under way that is of no use any more, once.
    pub fn outdated(&mut self) -> Option<TaskId> {
        let busy = self.cycles.iter().rev().find(|cycle| cycle.outcome.is_none())?;
        let is_new = self.changed.is_some() && self.ending.as_ref() != Some(&busy.task);
        is_new.then(|| self.ending.insert(busy.task.clone()).clone())
    }

    /// What changed and is to be built now, once.
    pub fn due(&mut self) -> Option<(Vec<String>, u64)> {
        if self.asked || self.is_busy() {
            return None;
        }
        let changed = self.changed.take()?;
        self.asked = true;
        Some(changed)
    }

    /// Whether a rebuild is under way.
    pub fn is_busy(&self) -> bool {
        self.cycles.iter().any(|cycle| cycle.outcome.is_none())
    }

    /// Hears what comes of one.
    pub(super) fn hear(&mut self, event: &Event) {
        let Some(cycle) = self.cycles.iter_mut().rev().find(|cycle| cycle.task == event.task) else { return };
        match &event.kind {
            Kind::ArtifactsReady { .. } if cycle.built.is_none() => cycle.built = Some(event.time),
            Kind::VmStarted { vm, .. } => {
                cycle.vm = Some(vm.clone());
                cycle.ready = Some(event.time);
            }
            Kind::TaskEnded { outcome, .. } => cycle.outcome = Some(outcome.clone()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::SCHEMA_VERSION;

    #[test]
    fn a_rebuild_is_over_when_its_task_is_even_if_a_newer_one_began() {
        let task = |at: u32| TaskId::parse(&format!("r-{at:011x}-7")).unwrap();
        let event = |at, kind| Event { v: SCHEMA_VERSION, time: Timestamp::UNIX_EPOCH, task: task(at), kind };
        let begun = || Kind::WatchTriggered { paths: Vec::new(), more: 0 };
        let ended = || Kind::TaskEnded { outcome: Outcome::Ok, duration_ms: 1, dropped: 0 };
        let mut cycles = Cycles::default();
        cycles.begin(&event(1, begun()), &[], 0);
        cycles.begin(&event(2, begun()), &[], 0);
        cycles.hear(&event(1, ended()));
        assert!(cycles.is_busy());
        cycles.hear(&event(2, ended()));
        assert!(!cycles.is_busy());
    }
}
