//! Instances put to rest: halted in memory, or saved to disk.

use std::path::Path;
use std::time::Duration;

use super::desired::Pool;
use super::error::FleetError;
use super::ids::InstancePath;
use super::instance::{POLL, allowed};
use super::lease::{Effect, Event, OpId};
use super::policy::Demotion;
use super::record::{self, Instance};
use super::state::{Change, InstanceState};
use super::step::reached;
use super::work::Work;
use crate::guest::frames::Request;
use crate::run::snapshot;
use crate::vm::lifecycle::{self, LifecycleError};
use crate::vm::shim::client;
use crate::vm::snapshot::{Snapshot, forget_inherited};

/// How long the process of a VM may take to halt its guest.
const HALT_DEADLINE: Duration = Duration::from_secs(30);
/// How long the process of a VM that was saved may take to end.
const LET_GO: Duration = Duration::from_secs(10);

impl Work<'_> {
    /// Halts an instance's guest in memory.
    pub async fn warm(&mut self, path: &InstancePath) -> Result<(), FleetError> {
        let (_lock, mut instance) = self.lock(path).await?;
        allowed(&instance, Change::Warm)?;
        let rest = self.begin_rest(&instance, Demotion::Warm)?;
        let socket = self.socket(&instance)?;
        let halted = client::pause(&socket);
        let halted = tokio::time::timeout(HALT_DEADLINE, halted).await;
        let halted =
            halted.unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()));
        let halted = halted.map_err(LifecycleError::from);
        if halted.is_ok() {
            reached("warm.halted");
            record::change(self.store, &mut instance, Change::Warm, None)?;
        }
        self.end_rest(&instance, rest, halted.is_ok())?;
        Ok(halted?)
    }

    /// Saves an instance's guest to disk and ends its process. Its agent may drain first.
    pub async fn sleep(&mut self, pool: &Pool, path: &InstancePath) -> Result<(), FleetError> {
        let (_lock, mut instance) = self.lock(path).await?;
        allowed(&instance, Change::Sleep)?;
        let rest = self.begin_rest(&instance, Demotion::Sleep)?;
        let slept = self.fall_asleep(pool, &mut instance).await;
        self.end_rest(&instance, rest, slept.is_ok())?;
        slept
    }

    async fn fall_asleep(&mut self, pool: &Pool, instance: &mut Instance) -> Result<(), FleetError> {
        let vm = lifecycle::find_running(self.store, instance.path.instance.as_str())?.id;
        // From here on a snapshot says that the guest was put to sleep.
        forget_inherited(&self.paths.vm_snapshot(&vm), &vm);
        let saved = self.save(pool, instance, &vm).await;
        if let Err(error) = saved
            && (error.is_cancelled() || !self.is_saved(&vm).await?)
        {
            return Err(error);
        }
        reached("sleep.saved");
        record::change(self.store, instance, Change::Sleep, None)
    }

    async fn save(&mut self, pool: &Pool, instance: &Instance, vm: &str) -> Result<(), FleetError> {
        let socket = self.paths.shim_socket(vm);
        if instance.state == InstanceState::Warm {
            self.resume(&socket).await?;
        }
        self.drain(&socket, Duration::from_secs(pool.runtime_policy.drain_timeout_seconds)).await;
        reached("sleep.drained");
        let (paths, store, sink, cancel) = (self.paths, &mut *self.store, self.sink, self.cancel);
        snapshot::save(instance.path.instance.as_str(), true, paths, store, sink, cancel).await?;
        Ok(())
    }

    /// Whether a VM is over and saved, as by the command of somebody who was killed meanwhile.
    async fn is_saved(&mut self, vm: &str) -> Result<bool, FleetError> {
        let over = tokio::time::timeout(LET_GO, lifecycle::over(self.paths, vm, POLL)).await;
        lifecycle::square(self.paths, self.store)?;
        Ok(over.is_ok() && Snapshot::open(&self.paths.vm_snapshot(vm)).is_ok())
    }

    /// Has the guest's services finish their work, within bounds.
    async fn drain(&self, socket: &Path, deadline: Duration) {
        let drained = async {
            let agent = client::agent(socket).await.map_err(|error| error.to_string())?;
            let deadline_ms = deadline.as_millis() as u64;
            agent.request(Request::Drain { deadline_ms }).await.map_err(|error| error.to_string())
        };
        match tokio::time::timeout(deadline + Duration::from_secs(1), drained).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => self.sink.warn(format!("the guest could not drain: {error}")),
            Err(_) => self.sink.warn(format!("the guest did not drain within {} s", deadline.as_secs())),
        }
    }

    /// Begins to put an instance to rest, if nobody needs it. The caller holds its lock.
    fn begin_rest(&mut self, instance: &Instance, to: Demotion) -> Result<OpId, FleetError> {
        // Whatever was under way is over: its lock is ours.
        let events = [Event::Observed { state: instance.state }, Event::Rest { to }];
        let (effects, _) = self.note(&instance.path, &events)?;
        let begun = effects.into_iter().find_map(|effect| match effect {
            Effect::Rest { op, .. } => Some(op),
            _ => None,
        });
        begun.ok_or_else(|| FleetError::Leased(instance.path.clone()))
    }

    /// Notes how that went.
    fn end_rest(&mut self, instance: &Instance, op: OpId, done: bool) -> Result<(), FleetError> {
        let event = match done {
            true => Event::Done { op },
            false => Event::Failed { op, state: instance.state },
        };
        // Who asked to wake it meanwhile waits for the lock.
        self.note(&instance.path, &[event]).map(drop)
    }
}
