//! What happens outside of this process, as events: VMs and what they use, the tasks of other
//! processes, the console of the VM that is looked at.

pub mod coordinator;
mod database;
mod fleet;
mod snapshots;
pub mod sources;
mod vms;

use std::collections::HashMap;
use std::fmt::Display;
use std::time::{Duration, Instant};

use tokio::sync::watch::Receiver;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::event::relay::Relay;
use crate::event::text::clean;
use crate::event::{Event, EventSink, Kind, SCHEMA_VERSION, Source};
use crate::host::paths::Paths;
use crate::run::follow::Records;
use crate::vm::console::Follower;
use database::Database;
use fleet::Fleet;
use vms::Vms;

/// Pause between two looks at the state.
const LOOK: Duration = Duration::from_millis(200);
/// Pause between two samples of what VMs use.
const SAMPLE: Duration = Duration::from_secs(1);
/// Pause between two comparisons of the records with what really runs.
const SQUARE: Duration = Duration::from_secs(2);
/// Lines of a console's past that are shown.
const PAST: usize = 2000;

/// What the user looks at, so that nothing else is read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interest {
    /// The id of the VM whose console is looked at.
    pub console: Option<String>,
    /// The flake whose sources are watched.
    pub sources: Option<String>,
}

/// Tells `sink`, which is one of [`crate::event::TaskId::machine`], what happens until `cancel`
/// fires or the other end of `interest` is gone.
///
/// A console's lines come once each: the last [`PAST`] when it is first looked at, and what was
/// added since whenever it is looked at again.
pub async fn watch(
    paths: Paths,
    mut interest: Receiver<Interest>,
    sink: EventSink,
    cancel: CancellationToken,
) {
    let mut database = Database::new(paths.clone());
    let (mut vms, mut fleet) = (Vms::new(paths.clone()), Fleet::default());
    let mut records = (Records::new(&paths), Trouble::default());
    let mut consoles = Consoles::default();
    let mut relay = Relay::new(sink.clone());
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut samples, mut squares) = (Every::new(SAMPLE), Every::new(SQUARE));
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            changed = interest.changed() => if changed.is_err() { return },
            _ = looks.tick() => {
                let now = Instant::now();
                if squares.is_due(now) {
                    square(&mut database, &vms, &fleet);
                }
                look(&mut database, &mut vms, &mut fleet, &sink);
                if samples.is_due(now) {
                    vms.sample(&sink, now);
                }
                let read = records.0.read(|event| relay.pass(event));
                records.1.told("the records of tasks cannot be read", read);
            }
        }
        let looked_at = interest.borrow_and_update().console.clone();
        consoles.look(looked_at, &paths, &vms, &sink);
    }
}

/// Tells what has changed since the last look.
fn look(database: &mut Database, vms: &mut Vms, fleet: &mut Fleet, sink: &EventSink) {
    let mut read = database.look();
    let tenants = read.as_mut().and_then(|read| read.fleet.take());
    if let (Some(tenants), Some(read)) = (tenants, &read) {
        fleet.look(&tenants, &read.vms, database, sink);
    }
    vms.look(read, sink);
}

/// Has the records say what really runs.
fn square(database: &mut Database, vms: &Vms, fleet: &Fleet) {
    if vms.any_lives() {
        database.square();
    }
    if fleet.is_askew() {
        database.square_fleet();
    }
}

/// Whether some time has passed.
struct Every {
    period: Duration,
    last: Option<Instant>,
}

impl Every {
    fn new(period: Duration) -> Self {
        Self { period, last: None }
    }

    fn is_due(&mut self, now: Instant) -> bool {
        // Half a look early is better than half a period late.
        let due = self.last.is_none_or(|last| now.saturating_duration_since(last) + LOOK / 2 >= self.period);
        if due {
            self.last = Some(now);
        }
        due
    }
}

/// Something that may fail at every look, and is told once until it succeeds again.
#[derive(Debug, Default)]
struct Trouble(Option<String>);

impl Trouble {
    fn told<T, E: Display>(&mut self, what: &str, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => {
                self.0 = None;
                Some(value)
            }
            Err(error) => {
                let error = error.to_string();
                if self.0.as_ref() != Some(&error) {
                    tracing::warn!("{what}: {error}");
                    self.0 = Some(error);
                }
                None
            }
        }
    }
}

/// The consoles that were looked at so far.
#[derive(Debug, Default)]
struct Consoles {
    followers: HashMap<String, Follower>,
    trouble: Trouble,
}

impl Consoles {
    fn look(&mut self, looked_at: Option<String>, paths: &Paths, vms: &Vms, sink: &EventSink) {
        self.followers.retain(|id, _| vms.is_known(id));
        let Some(vm) = looked_at.filter(|id| vms.is_known(id)) else { return };
        let lines = match self.followers.get_mut(&vm) {
            Some(follower) => follower.read(),
            None => self.followers.entry(vm.clone()).or_insert(Follower::new(&paths.vm(&vm))).last(PAST),
        };
        for line in self.trouble.told("the console cannot be read", lines).into_iter().flatten() {
            let text = clean(&line.text).into_owned();
            let kind = Kind::Log { source: Source::Console { vm: vm.clone() }, text };
            sink.forward(Event { v: SCHEMA_VERSION, time: line.time, task: sink.task().clone(), kind });
        }
    }
}

#[cfg(test)]
mod tests;
