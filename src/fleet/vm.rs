//! The VM of an instance: of the same name, made of what its pool says.

use std::cmp::Reverse;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::desired::Pool;
use super::error::FleetError;
use super::ids::InstancePath;
use super::record::{Instance, TenantRecord};
use super::secrets;
use super::work::Work;
use crate::artifacts::Artifacts;
use crate::host::paths::Paths;
use crate::run::machine::MachineChoice;
use crate::store::Store;
use crate::store::vms::{VmRow, VmState};
use crate::vm::config::RuntimeConfig;
use crate::vm::disks::UPPER_FILE;
use crate::vm::lifecycle::{self, LifecycleError};
use crate::vm::network::subnet::Subnet;
use crate::vm::snapshot::Snapshot;
use crate::vm::spec::{PortMap, StartedBy, TenantLink, VmName, VmSpec};

/// How long a guest has until it is ready.
const BOOT_TIMEOUT: Duration = Duration::from_secs(120);
/// Port of ssh.
const SSH: u16 = 22;

impl Work<'_> {
    /// The specification of an instance's VM.
    pub(super) async fn spec(
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
            takes_over: None,
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
    let mut all = store.vms_named(path.instance.as_str())?;
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

/// Keeps what is done to VMs off those of instances, whose states would not be what is recorded. One
/// that the fleet knows nothing of is nobody's.
pub fn refuse_instance(store: &Store, vm: &VmRow, instead: &str) -> Result<(), FleetError> {
    let spec = lifecycle::spec_of(vm).filter(|spec| spec.started_by == StartedBy::Fleet);
    match spec.and_then(|spec| spec.instance) {
        Some(path) if store.instance(&vm.name)?.is_some() => Err(FleetError::Refused {
            what: format!("the VM `{}` is that of the instance {path}", vm.name),
            help: format!("`mvm instance {instead} {path}` is for it"),
        }),
        _ => Ok(()),
    }
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
