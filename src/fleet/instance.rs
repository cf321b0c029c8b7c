//! What can be done with one instance. Each operation holds the instance's lock, begins with what
//! the database says then, and records its outcome before it lets go of the guest.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::desired::{Pool, Resources};
use super::error::FleetError;
use super::ids::{InstanceId, InstancePath};
use super::policy::pause_ms;
use super::record::{self, Instance, PoolRecord, TenantRecord};
use super::state::{Change, InstanceState};
use super::step::reached;
use super::vm::{endpoint, vm, vms};
use super::work::Work;
use crate::host::files::Lock;
use crate::run::{self, RunError, Running, restart, snapshot};
use crate::store::StoreError;
use crate::store::fleet::InstanceRow;
use crate::vm::lifecycle::{self, LifecycleError};
use crate::vm::shim::client::{self, ClientError};
use crate::vm::snapshot::forget;
use crate::vm::spec::VmSpec;

/// How long an operation waits for another one on the same instance: a save is the longest.
const PATIENCE: Duration = Duration::from_secs(200);
/// How long the process of a VM may take to have its guest go on, the clock set.
const RESUME_DEADLINE: Duration = Duration::from_secs(60);
/// Pause between two looks at a lock.
pub(super) const POLL: Duration = Duration::from_millis(10);
/// How long the process of a VM that is over may take to clean up.
const ENDING: Duration = Duration::from_secs(10);
/// First number in a subnet that is an instance's: the gateway and the builder come before.
pub const FIRST_HOST: u32 = 3;

impl Work<'_> {
    /// Records a new instance of the pool's current revision.
    pub fn create(&mut self, tenant: &TenantRecord, pool: &PoolRecord) -> Result<Instance, FleetError> {
        let build = pool.row.build.clone().ok_or_else(|| FleetError::NotBuilt(pool.path.clone()))?;
        let path = pool.path.instance(InstanceId::random());
        // Nobody else squares it before it is settled.
        let file = self.paths.instance_lock(path.instance.as_str());
        let _lock = Lock::try_take(&file).map_err(|source| FleetError::File { path: file, source })?;
        let row = row(&path, InstanceState::Created, &build, &pool.pool.instance_resources)?;
        let last = tenant.network.ipv4_subnet.last_host();
        if self.store.insert_instance(&row, FIRST_HOST, last)?.is_none() {
            return Err(FleetError::NoAddress(tenant.id.clone()));
        }
        reached("create.recorded");
        let mut instance = record::find_instance(self.store, &path)?;
        record::change(self.store, &mut instance, Change::Prepare, None)?;
        reached("create.prepared");
        Ok(instance)
    }

    /// Boots an instance's guest, with its disk where it has one.
    pub async fn start(
        &mut self,
        tenant: &TenantRecord,
        pool: &PoolRecord,
        path: &InstancePath,
    ) -> Result<(), FleetError> {
        let (_lock, mut instance) = self.lock(path).await?;
        if instance.state == InstanceState::Created {
            record::change(self.store, &mut instance, Change::Prepare, None)?;
        }
        allowed(&instance, Change::Start)?;
        self.room_for(path)?;
        let started = self.boot(tenant, &pool.pool, &instance).await;
        match started {
            Ok(running) => self.keep(running, &mut instance, Change::Start).await,
            Err(error) if error.is_cancelled() => Err(error),
            Err(error) => self.failed(&mut instance, error),
        }
    }

    async fn boot(
        &mut self,
        tenant: &TenantRecord,
        pool: &Pool,
        instance: &Instance,
    ) -> Result<Running, FleetError> {
        let spec = self.spec(tenant, pool, instance).await?;
        let (paths, store, sink, cancel) = (self.paths, &mut *self.store, self.sink, self.cancel);
        Ok(match vm(paths, store, &instance.path)? {
            Some(old) => restart::again(&old, spec, paths, store, sink, cancel).await?,
            None => run::boot(paths, store, spec, true, sink, cancel).await?,
        })
    }

    /// Records that the guest runs, then lets it live on its own.
    async fn keep(
        &mut self,
        running: Running,
        instance: &mut Instance,
        change: Change,
    ) -> Result<(), FleetError> {
        let wakes = change == Change::Wake;
        reached(if wakes { "wake.ready" } else { "start.ready" });
        record::change(self.store, instance, change, None)?;
        (instance.row.failures, instance.row.retry_at_ms) = (0, None);
        self.store.set_instance(&instance.row)?;
        reached(if wakes { "wake.recorded" } else { "start.recorded" });
        let id = running.starting.id.clone();
        running.starting.detach().await.map_err(LifecycleError::Spawn)?;
        reached(if wakes { "wake.detached" } else { "start.detached" });
        self.forget_snapshot(&id)
    }

    /// What was saved of a guest that went on from there is not what it is any more.
    pub(super) fn forget_snapshot(&self, vm: &str) -> Result<(), FleetError> {
        let path = self.paths.vm_snapshot(vm);
        forget(&path).map_err(|source| FleetError::File { path, source })
    }

    fn failed(&mut self, instance: &mut Instance, error: FleetError) -> Result<(), FleetError> {
        record::change(self.store, instance, Change::Fail, Some(&error.to_string()))?;
        instance.row.failures += 1;
        let pause_ms = pause_ms(instance.row.failures);
        instance.row.retry_at_ms = Some(Timestamp::now().as_millisecond() + pause_ms);
        self.store.set_instance(&instance.row)?;
        Err(error)
    }

    /// Has an instance's guest run, whatever it takes, and says where its first port answers.
    pub async fn wake(
        &mut self,
        tenant: &TenantRecord,
        pool: &PoolRecord,
        path: &InstancePath,
    ) -> Result<Option<SocketAddr>, FleetError> {
        let (lock, mut instance) = self.lock(path).await?;
        let runs = match instance.state {
            InstanceState::Running => self.still_runs(&mut instance).await?,
            InstanceState::Warm => {
                self.room_for(path)?;
                self.resume(&self.socket(&instance)?).await?;
                record::change(self.store, &mut instance, Change::Resume, None)?;
                true
            }
            InstanceState::Sleeping => {
                self.room_for(path)?;
                self.go_on(&mut instance).await?
            }
            _ => false,
        };
        if !runs {
            drop(lock);
            self.start(tenant, pool, path).await?;
        }
        endpoint(self.store, path)
    }

    /// Whether a guest that is thought to run does; one that was halted goes on. One that is just ending
    /// is waited for.
    async fn still_runs(&mut self, instance: &mut Instance) -> Result<bool, FleetError> {
        let begun = Instant::now();
        loop {
            let asked = match self.socket(instance) {
                Ok(socket) => self.resume(&socket).await,
                Err(error) => Err(error),
            };
            let Err(error) = asked else { return Ok(true) };
            lifecycle::square(self.paths, self.store)?;
            match vm(self.paths, self.store, &instance.path)? {
                Some(vm) if vm.state.is_live() && begun.elapsed() >= ENDING => return Err(error),
                Some(vm) if vm.state.is_live() => tokio::time::sleep(POLL).await,
                _ => {
                    record::change(self.store, instance, Change::Fail, Some("its guest has ended"))?;
                    return Ok(false);
                }
            }
        }
    }

    /// Has a halted guest go on, in time.
    pub(super) async fn resume(&self, socket: &Path) -> Result<(), FleetError> {
        let late = |_| ClientError::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
        let resumed = tokio::time::timeout(RESUME_DEADLINE, client::resume(socket)).await;
        Ok(resumed.unwrap_or_else(|elapsed| Err(late(elapsed))).map_err(LifecycleError::from)?)
    }

    /// Has a saved guest go on; false where it never will. What may do another time is kept for that.
    async fn go_on(&mut self, instance: &mut Instance) -> Result<bool, FleetError> {
        let error = match self.restore(instance).await {
            Ok(running) => return self.keep(running, instance, Change::Wake).await.map(|()| true),
            Err(error) => error,
        };
        if !error.is_unusable() {
            return Err(error.into());
        }
        let path = &instance.path;
        self.sink.warn(format!("{path} cannot go on from where it was saved, and boots: {error}"));
        record::change(self.store, instance, Change::Fail, Some(&error.to_string()))?;
        Ok(false)
    }

    async fn restore(&mut self, instance: &Instance) -> Result<Running, RunError> {
        if let Ok(left) = lifecycle::find_running(self.store, instance.path.instance.as_str()) {
            // Of a wake that was killed before it was recorded: nobody has met this guest.
            lifecycle::stop(self.paths, self.store, &left, None).await?;
        }
        let (paths, store, sink, cancel) = (self.paths, &mut *self.store, self.sink, self.cancel);
        // Another may have its ports meanwhile.
        let anew = |spec: &mut VmSpec| spec.ports.iter_mut().for_each(|map| map.host.set_port(0));
        snapshot::restore(instance.path.instance.as_str(), anew, paths, store, sink, cancel).await
    }

    /// Ends an instance's guest in order; its disk stays.
    pub async fn stop(&mut self, pool: &Pool, path: &InstancePath) -> Result<(), FleetError> {
        let (_lock, mut instance) = self.lock(path).await?;
        allowed(&instance, Change::Stop)?;
        self.unneeded(&instance)?;
        self.end(&instance, Duration::from_secs(pool.runtime_policy.graceful_shutdown_seconds)).await?;
        reached("stop.ended");
        record::change(self.store, &mut instance, Change::Stop, None)
    }

    async fn end(&mut self, instance: &Instance, deadline: Duration) -> Result<(), FleetError> {
        let Some(vm) = vm(self.paths, self.store, &instance.path)? else { return Ok(()) };
        if vm.state.is_live() {
            lifecycle::stop(self.paths, self.store, &vm, Some(deadline)).await?;
        }
        self.forget_snapshot(&vm.id)
    }

    /// Ends an instance and forgets it, with its disk.
    pub async fn destroy(&mut self, path: &InstancePath) -> Result<(), FleetError> {
        let (_lock, mut instance) = self.lock(path).await?;
        if instance.state != InstanceState::Destroyed {
            self.unneeded(&instance)?;
            record::change(self.store, &mut instance, Change::Destroy, None)?;
        }
        reached("destroy.recorded");
        for vm in vms(self.paths, self.store, path)? {
            if vm.state.is_live() {
                lifecycle::stop(self.paths, self.store, &vm, None).await?;
            }
            lifecycle::remove(self.paths, self.store, &vm)?;
        }
        self.store.remove_instance(&instance.row)?;
        // Nobody asks for the lock of an instance that is gone; a leftover is removed at the next boot.
        let _ = std::fs::remove_file(self.paths.instance_lock(path.instance.as_str()));
        Ok(())
    }

    /// Takes the instance's lock; what the database says of it then.
    pub(super) async fn lock(&mut self, path: &InstancePath) -> Result<(Lock, Instance), FleetError> {
        let file = self.paths.instance_lock(path.instance.as_str());
        let until = tokio::time::Instant::now() + PATIENCE;
        let lock = loop {
            match Lock::try_take(&file) {
                Ok(Some(lock)) => break lock,
                Ok(None) if tokio::time::Instant::now() > until => {
                    return Err(FleetError::Busy(path.clone()));
                }
                Ok(None) => {}
                Err(source) => return Err(FleetError::File { path: file, source }),
            }
            tokio::select! {
                () = self.cancel.cancelled() => return Err(RunError::Cancelled.into()),
                () = tokio::time::sleep(POLL) => {}
            }
        };
        let instance = record::find_instance(self.store, path)?;
        Ok((lock, instance))
    }

    pub(super) fn socket(&self, instance: &Instance) -> Result<std::path::PathBuf, FleetError> {
        let vm = lifecycle::find_running(self.store, instance.path.instance.as_str())?;
        Ok(self.paths.shim_socket(&vm.id))
    }
}

/// The record of an instance that nothing has happened to yet.
pub fn row(
    path: &InstancePath,
    state: InstanceState,
    build: &str,
    resources: &Resources,
) -> Result<InstanceRow, FleetError> {
    let now = Timestamp::now().as_millisecond();
    Ok(InstanceRow {
        id: path.instance.to_string(),
        tenant: path.pool.tenant.to_string(),
        pool: path.pool.pool.to_string(),
        build: build.into(),
        state: state.as_str().into(),
        detail: None,
        host: 0,
        resources: serde_json::to_string(resources).map_err(StoreError::from)?,
        lease: None,
        failures: 0,
        retry_at_ms: None,
        held_until_ms: None,
        since_ms: now,
        created_ms: now,
    })
}

pub(super) fn allowed(instance: &Instance, change: Change) -> Result<(), FleetError> {
    let refused = |source| FleetError::Change { path: instance.path.clone(), source };
    instance.state.after(change).map(drop).map_err(refused)
}
