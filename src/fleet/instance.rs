//! What can be done with one instance. Each operation holds the instance's lock, begins with what
//! the database says then, and records its outcome before it lets go of the guest.

use std::cmp::Reverse;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::desired::Pool;
use super::error::FleetError;
use super::ids::{InstanceId, InstancePath};
use super::policy::pause_ms;
use super::record::{self, Instance, PoolRecord, TenantRecord};
use super::secrets;
use super::state::{Change, InstanceState};
use super::step::reached;
use crate::artifacts::Artifacts;
use crate::event::EventSink;
use crate::guest::frames::Request;
use crate::host::files::Lock;
use crate::host::paths::Paths;
use crate::run::machine::MachineChoice;
use crate::run::{self, RunError, Running, restart, snapshot};
use crate::store::fleet::InstanceRow;
use crate::store::vms::{VmRow, VmState};
use crate::store::{Store, StoreError};
use crate::vm::config::RuntimeConfig;
use crate::vm::disks::UPPER_FILE;
use crate::vm::lifecycle::{self, LifecycleError};
use crate::vm::network::subnet::Subnet;
use crate::vm::shim::client;
use crate::vm::snapshot::Snapshot;
use crate::vm::spec::{PortMap, StartedBy, TenantLink, VmName, VmSpec};

/// How long a guest has until it is ready.
const BOOT_TIMEOUT: Duration = Duration::from_secs(120);
/// How long an operation waits for another one on the same instance: a save is the longest.
const PATIENCE: Duration = Duration::from_secs(200);
/// How long the process of a VM that was saved may take to end.
const LET_GO: Duration = Duration::from_secs(10);
/// Pause between two looks at a lock.
const POLL: Duration = Duration::from_millis(10);
/// Port of ssh.
const SSH: u16 = 22;
/// First number in a subnet that is an instance's: the gateway and the builder come before.
const FIRST_HOST: u32 = 3;

/// What an operation works with.
#[derive(Debug)]
pub struct Work<'a> {
    /// Directories.
    pub paths: &'a Paths,
    /// Database.
    pub store: &'a mut Store,
    /// Who hears of it.
    pub sink: &'a EventSink,
    /// Ends it.
    pub cancel: &'a CancellationToken,
}

impl Work<'_> {
    /// Records a new instance of the pool's current revision.
    pub fn create(&mut self, tenant: &TenantRecord, pool: &PoolRecord) -> Result<Instance, FleetError> {
        let build = pool.row.build.clone().ok_or_else(|| FleetError::NotBuilt(pool.path.clone()))?;
        let now = Timestamp::now().as_millisecond();
        let path = pool.path.instance(InstanceId::random());
        let row = InstanceRow {
            id: path.instance.to_string(),
            tenant: path.pool.tenant.to_string(),
            pool: path.pool.pool.to_string(),
            build,
            state: InstanceState::Created.as_str().into(),
            detail: None,
            host: 0,
            resources: serde_json::to_string(&pool.pool.instance_resources).map_err(StoreError::from)?,
            lease: None,
            failures: 0,
            retry_at_ms: None,
            held_until_ms: None,
            since_ms: now,
            created_ms: now,
        };
        let last = (1_u32 << (32 - u32::from(tenant.network.ipv4_subnet.prefix))) - 2;
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
    fn forget_snapshot(&self, vm: &str) -> Result<(), FleetError> {
        let path = self.paths.vm_snapshot(vm);
        match std::fs::remove_dir_all(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(FleetError::File { path, source })
            }
            _ => Ok(()),
        }
    }

    fn failed(&mut self, instance: &mut Instance, error: FleetError) -> Result<(), FleetError> {
        record::change(self.store, instance, Change::Fail, Some(&error.to_string()))?;
        instance.row.failures += 1;
        let pause_ms = pause_ms(instance.row.failures);
        instance.row.retry_at_ms = Some(Timestamp::now().as_millisecond() + pause_ms);
        self.store.set_instance(&instance.row)?;
        Err(error)
    }

    /// Halts an instance's guest in memory.
    pub async fn warm(&mut self, path: &InstancePath) -> Result<(), FleetError> {
        let (_lock, mut instance) = self.lock(path).await?;
        allowed(&instance, Change::Warm)?;
        unleased(&instance)?;
        client::pause(&self.socket(&instance)?).await.map_err(LifecycleError::from)?;
        reached("warm.halted");
        record::change(self.store, &mut instance, Change::Warm, None)
    }

    /// Saves an instance's guest to disk and ends its process. Its agent may drain first.
    pub async fn sleep(&mut self, pool: &Pool, path: &InstancePath) -> Result<(), FleetError> {
        let (_lock, mut instance) = self.lock(path).await?;
        allowed(&instance, Change::Sleep)?;
        unleased(&instance)?;
        let vm = lifecycle::find_running(self.store, path.instance.as_str())?.id;
        // Of a wake that was killed: from here on a snapshot says that the guest was put to sleep.
        self.forget_snapshot(&vm)?;
        let saved = self.save(pool, &instance, &vm).await;
        if let Err(error) = saved
            && (error.is_cancelled() || !self.is_saved(&vm).await?)
        {
            return Err(error);
        }
        reached("sleep.saved");
        record::change(self.store, &mut instance, Change::Sleep, None)
    }

    async fn save(&mut self, pool: &Pool, instance: &Instance, vm: &str) -> Result<(), FleetError> {
        let socket = self.paths.shim_socket(vm);
        if instance.state == InstanceState::Warm {
            client::resume(&socket).await.map_err(LifecycleError::from)?;
        }
        self.drain(&socket, Duration::from_secs(pool.runtime_policy.drain_timeout_seconds)).await;
        reached("sleep.drained");
        let (paths, store, sink, cancel) = (self.paths, &mut *self.store, self.sink, self.cancel);
        snapshot::save(instance.path.instance.as_str(), true, paths, store, sink, cancel).await?;
        Ok(())
    }

    /// Whether a VM is over and saved, as by the command of somebody who was killed meanwhile.
    async fn is_saved(&mut self, vm: &str) -> Result<bool, FleetError> {
        let over = tokio::time::timeout(LET_GO, lifecycle::over(self.paths, vm)).await;
        lifecycle::square(self.paths, self.store)?;
        Ok(over.is_ok() && Snapshot::open(&self.paths.vm_snapshot(vm)).is_ok())
    }

    /// Has the guest's services finish their work, within bounds.
    async fn drain(&self, socket: &std::path::Path, deadline: Duration) {
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

    /// Has an instance's guest run, whatever it takes, and says where its first port answers.
    pub async fn wake(
        &mut self,
        tenant: &TenantRecord,
        pool: &PoolRecord,
        path: &InstancePath,
    ) -> Result<Option<SocketAddr>, FleetError> {
        let (lock, mut instance) = self.lock(path).await?;
        match instance.state {
            InstanceState::Running => {}
            InstanceState::Warm => {
                client::resume(&self.socket(&instance)?).await.map_err(LifecycleError::from)?;
                record::change(self.store, &mut instance, Change::Resume, None)?;
            }
            InstanceState::Sleeping => match self.restore(&instance).await {
                Ok(running) => self.keep(running, &mut instance, Change::Wake).await?,
                Err(error) if error.is_cancelled() => return Err(error.into()),
                Err(error) => {
                    self.sink
                        .warn(format!("{path} cannot go on from where it was saved, and boots: {error}"));
                    record::change(self.store, &mut instance, Change::Fail, Some(&error.to_string()))?;
                    drop(lock);
                    self.start(tenant, pool, path).await?;
                }
            },
            _ => {
                drop(lock);
                self.start(tenant, pool, path).await?;
            }
        }
        endpoint(self.store, path)
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
    async fn lock(&mut self, path: &InstancePath) -> Result<(Lock, Instance), FleetError> {
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

    fn socket(&self, instance: &Instance) -> Result<std::path::PathBuf, FleetError> {
        let vm = lifecycle::find_running(self.store, instance.path.instance.as_str())?;
        Ok(self.paths.shim_socket(&vm.id))
    }

    async fn spec(
        &self,
        tenant: &TenantRecord,
        pool: &Pool,
        instance: &Instance,
    ) -> Result<VmSpec, FleetError> {
        let build_dir = self.paths.builds().join(&instance.row.build);
        let artifacts = Artifacts::open(&build_dir).map_err(|error| FleetError::Refused {
            what: format!("the image of {} is gone: `{}`: {error}", instance.path, build_dir.display()),
            help: format!("`mvm pool build {}` builds it again", instance.path.pool),
        })?;
        let resources = pool.instance_resources;
        let config = RuntimeConfig { cpus: Some(resources.vcpus), ..RuntimeConfig::default() };
        let machine = MachineChoice::new(&config, self.paths).await?;
        // Loopback only; the system chooses the port.
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let ports = artifacts.manifest.image.ports.iter();
        Ok(VmSpec {
            id: lifecycle::new_id(),
            name: instance.path.instance.as_str().parse::<VmName>().map_err(|error| FleetError::Record {
                of: instance.path.to_string(),
                reason: error.to_string(),
            })?,
            build_dir,
            cpus: resources.vcpus,
            memory_mib: resources.mem_mib,
            disk_mib: resources.data_disk_mib,
            kernel_args: Vec::new(),
            ports: ports.map(|guest| PortMap { host: anywhere, guest: *guest }).collect(),
            volumes: Vec::new(),
            network: machine.network,
            egress: true,
            kvm: machine.kvm,
            role: pool.role.clone(),
            boot_timeout_secs: BOOT_TIMEOUT.as_secs(),
            remove: false,
            hypervisor: machine.hypervisor,
            cold: false,
            started_by: StartedBy::Fleet,
            restore_from: None,
            instance: Some(instance.path.to_string()),
            secrets: Some(secrets::dir(self.paths, &tenant.id)),
            tenant: Some(link(tenant, instance)?),
        })
    }
}

/// Where an instance is in its tenant's network.
fn link(tenant: &TenantRecord, instance: &Instance) -> Result<TenantLink, FleetError> {
    let network = tenant.network;
    let (base, prefix) = (network.ipv4_subnet.base, network.ipv4_subnet.prefix);
    let subnet = Subnet::new(base, prefix).map_err(|error| FleetError::Record {
        of: format!("the tenant `{}`", tenant.id),
        reason: error.to_string(),
    })?;
    let address = Ipv4Addr::from(u32::from(base) + instance.row.host);
    Ok(TenantLink { net_id: network.tenant_net_id, subnet, address })
}

/// The VM of an instance and, behind it, those of tries that were killed. It is the live one, else the
/// one that was saved, else the newest with a disk.
pub fn vms(paths: &Paths, store: &Store, path: &InstancePath) -> Result<Vec<VmRow>, FleetError> {
    let mut all = store.vms()?;
    all.retain(|vm| vm.name == path.instance.as_str());
    all.sort_by_key(|vm| {
        let worth = match () {
            () if vm.state.is_live() => 3,
            () if Snapshot::open(&paths.vm_snapshot(&vm.id)).is_ok() => 2,
            () if paths.vm(&vm.id).join(UPPER_FILE).exists() => 1,
            () => 0,
        };
        Reverse((worth, vm.created_ms))
    });
    Ok(all)
}

/// The VM of an instance, if it ever had one.
pub fn vm(paths: &Paths, store: &Store, path: &InstancePath) -> Result<Option<VmRow>, FleetError> {
    Ok(vms(paths, store, path)?.into_iter().next())
}

/// Where the first port of an instance's image answers, ssh's aside if there is another; none when it
/// does not run, or has none.
pub fn endpoint(store: &Store, path: &InstancePath) -> Result<Option<SocketAddr>, FleetError> {
    let vm = match lifecycle::find_running(store, path.instance.as_str()) {
        Ok(vm) if vm.state == VmState::Running => vm,
        Ok(_) | Err(LifecycleError::Unknown { .. } | LifecycleError::NotRunning { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(lifecycle::spec_of(&vm).as_ref().and_then(answers_at))
}

/// Where the guest of a running VM answers: the first port of its image, ssh's aside if there is another.
pub fn answers_at(spec: &VmSpec) -> Option<SocketAddr> {
    let first = spec.ports.iter().find(|map| map.guest != SSH).or(spec.ports.first());
    first.map(|map| map.host)
}

fn allowed(instance: &Instance, change: Change) -> Result<(), FleetError> {
    let refused = |source| FleetError::Change { path: instance.path.clone(), source };
    instance.state.after(change).map(drop).map_err(refused)
}

fn unleased(instance: &Instance) -> Result<(), FleetError> {
    match instance.leased(Timestamp::now().as_millisecond()) {
        None => Ok(()),
        Some(_) => Err(FleetError::Leased(instance.path.clone())),
    }
}
