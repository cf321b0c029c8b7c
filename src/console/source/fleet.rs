//! The fleet of this state, told of piece by piece as it changes.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use jiff::Timestamp;

use super::database::Database;
use crate::event::cluster::{
    CountInfo, InstanceInfo, LeaseInfo, PoolInfo, QuotaInfo, RevisionInfo, SettingInfo, TenantInfo,
};
use crate::event::{EventSink, Kind};
use crate::fleet::desired::{Pool, Quotas, Resources, TenantNetwork};
use crate::fleet::lease::Phase;
use crate::fleet::policy::Demotion;
use crate::fleet::record::{Instance, PoolRecord, TenantRecord};
use crate::fleet::state::InstanceState;
use crate::fleet::vm;
use crate::store::fleet::{InstanceRow, PoolRow};
use crate::store::vms::{VmRow, VmState};
use crate::vm::lifecycle;
use crate::vm::spec::Network;

/// The fleet as it was told of last.
#[derive(Debug, Default)]
pub struct Fleet {
    known: HashMap<String, Known>,
    /// Counts the looks: what was not seen at the last one is gone.
    looks: u64,
    askew: bool,
}

#[derive(Debug)]
struct Known {
    look: u64,
    what: What,
}

/// What something was told of by.
#[derive(Debug, PartialEq)]
enum What {
    Tenant(TenantNetwork, Quotas),
    Pool(Pool, PoolRow),
    Instance(InstanceRow, Option<Guest>),
}

/// What is told of an instance's VM.
#[derive(Debug, Clone, PartialEq)]
struct Guest {
    id: String,
    state: VmState,
    spec: String,
}

impl Guest {
    /// Whether what was told of is as it was.
    fn is(told: Option<&Self>, vm: Option<&VmRow>) -> bool {
        match (told, vm) {
            (Some(told), Some(vm)) => told.id == vm.id && told.state == vm.state && told.spec == vm.spec,
            (told, vm) => told.is_none() && vm.is_none(),
        }
    }
}

impl Fleet {
    /// Tells of what is new, changed or gone.
    pub fn look(&mut self, fleet: &[TenantRecord], vms: &[VmRow], database: &Database, sink: &EventSink) {
        self.looks += 1;
        self.askew = false;
        let guests = guests(vms);
        for tenant in fleet {
            let id = tenant.id.as_str();
            if self.is_news(id, What::Tenant(tenant.network, tenant.quotas)) {
                sink.send(Kind::TenantSeen { tenant: Box::new(of_tenant(tenant)) });
            }
            for pool in &tenant.pools {
                if self.is_news(&pool.path.to_string(), What::Pool(pool.pool.clone(), pool.row.clone())) {
                    let pool = Box::new(of_pool(pool, database));
                    sink.send(Kind::PoolSeen { tenant: id.into(), pool });
                }
                for instance in &pool.instances {
                    let vm = guests.get(instance.path.instance.as_str()).copied();
                    self.look_at(tenant, pool, instance, vm, sink);
                }
            }
        }
        self.forget(sink);
    }

    fn look_at(
        &mut self,
        tenant: &TenantRecord,
        pool: &PoolRecord,
        instance: &Instance,
        vm: Option<&VmRow>,
        sink: &EventSink,
    ) {
        self.askew |= instance.state.is_live() && vm.is_none_or(|vm| !vm.state.is_live());
        let path = instance.path.to_string();
        // Most are as they were: nothing is copied to find that out.
        if let Some(known) = self.known.get_mut(&path)
            && matches!(&known.what, What::Instance(row, guest)
                if *row == instance.row && Guest::is(guest.as_ref(), vm))
        {
            known.look = self.looks;
            return;
        }
        let guest = vm.map(|vm| Guest { id: vm.id.clone(), state: vm.state, spec: vm.spec.clone() });
        if self.is_news(&path, What::Instance(instance.row.clone(), guest)) {
            sink.send(Kind::InstanceSeen {
                tenant: tenant.id.to_string(),
                pool: pool.path.pool.to_string(),
                instance: Box::new(of_instance(tenant, instance, vm)),
            });
        }
    }

    /// Whether there is an instance whose VM is over and that is not marked so yet.
    pub fn is_askew(&self) -> bool {
        self.askew
    }

    fn is_news(&mut self, path: &str, what: What) -> bool {
        let look = self.looks;
        match self.known.get_mut(path) {
            Some(known) if known.what == what => {
                known.look = look;
                false
            }
            Some(known) => {
                *known = Known { look, what };
                true
            }
            None => {
                self.known.insert(path.into(), Known { look, what });
                true
            }
        }
    }

    fn forget(&mut self, sink: &EventSink) {
        let look = self.looks;
        let mut gone: Vec<String> = Vec::new();
        self.known.retain(|path, known| {
            if known.look != look {
                gone.push(path.clone());
            }
            known.look == look
        });
        // What is above goes last.
        gone.sort_unstable_by(|a, b| b.cmp(a));
        gone.into_iter().for_each(|path| sink.send(Kind::FleetGone { path }));
    }
}

/// The VM of each instance: the live one, else the newest.
fn guests(vms: &[VmRow]) -> HashMap<&str, &VmRow> {
    let mut guests: HashMap<&str, &VmRow> = HashMap::new();
    for vm in vms {
        let worth = |vm: &VmRow| (vm.state.is_live(), vm.created_ms);
        let known = guests.entry(&vm.name).or_insert(vm);
        if worth(vm) > worth(known) {
            *known = vm;
        }
    }
    guests
}

fn of_tenant(tenant: &TenantRecord) -> TenantInfo {
    let Quotas {
        max_vcpus,
        max_mem_mib,
        max_running,
        max_warm,
        max_pools,
        max_instances_per_pool,
        max_disk_gib,
    } = tenant.quotas;
    TenantInfo {
        name: tenant.id.to_string(),
        pools: Vec::new(),
        network: Some(tenant.network.ipv4_subnet.to_string()),
        quotas: Some(QuotaInfo {
            cpus: max_vcpus,
            memory_mib: max_mem_mib,
            running: max_running,
            warm: max_warm,
            pools: max_pools,
            instances: max_instances_per_pool,
            disk_gib: max_disk_gib,
        }),
    }
}

fn of_pool(record: &PoolRecord, database: &Database) -> PoolInfo {
    let (pool, row) = (&record.pool, &record.row);
    let counts = pool.desired_counts;
    let revisions = database.revisions(row).into_iter();
    PoolInfo {
        name: record.path.pool.to_string(),
        desired: u32::try_from(counts.total()).unwrap_or(u32::MAX),
        actual: 0,
        instances: Vec::new(),
        counts: Some(CountInfo { running: counts.running, warm: counts.warm, sleeping: counts.sleeping }),
        settings: Some(settings(pool)),
        revision: row.build.clone(),
        revisions: revisions
            .map(|row| RevisionInfo { build: row.build, created: time(row.created_ms) })
            .collect(),
        failure: row.detail.clone(),
        retry: row.retry_at_ms.map(time),
        held: row.held_until_ms.map(time),
    }
}

fn settings(pool: &Pool) -> SettingInfo {
    let (each, policy) = (pool.instance_resources, pool.runtime_policy);
    SettingInfo {
        flake: pool.flake_ref.clone(),
        profile: pool.profile.clone(),
        role: pool.role.clone(),
        cpus: each.vcpus,
        memory_mib: each.mem_mib,
        disk_mib: each.data_disk_mib,
        min_running_secs: policy.min_running_seconds,
        min_warm_secs: policy.min_warm_seconds,
        drain_secs: policy.drain_timeout_seconds,
        shutdown_secs: policy.graceful_shutdown_seconds,
        pinned: pool.pinned,
        critical: pool.critical,
    }
}

fn of_instance(tenant: &TenantRecord, instance: &Instance, vm: Option<&VmRow>) -> InstanceInfo {
    let row = &instance.row;
    // One of another mvm may not be readable: the instance is shown all the same.
    let each: Option<Resources> = serde_json::from_str(&row.resources).ok();
    let spec = vm.and_then(lifecycle::spec_of);
    // Only then does anybody reach it there.
    let networked = spec.as_ref().is_some_and(|spec| spec.network == Network::Tap);
    let address = Ipv4Addr::from(u32::from(tenant.network.ipv4_subnet.base).saturating_add(row.host));
    let (awake, now_ms) = (instance.wakefulness(), Timestamp::now().as_millisecond());
    // One that has lapsed changes nothing any more that is worth a word.
    let lease = awake.lease(now_ms).filter(|_| awake.is_needed(now_ms));
    let answers = instance.state == InstanceState::Running;
    let spec = spec.filter(|_| answers && vm.is_some_and(|vm| vm.state == VmState::Running));
    InstanceInfo {
        name: instance.path.instance.to_string(),
        state: instance.state.as_str().into(),
        since: Some(time(row.since_ms)),
        created: Some(time(row.created_ms)),
        revision: Some(row.build.clone()),
        cpus: each.map_or(0, |each| each.vcpus),
        memory_mib: each.map_or(0, |each| each.mem_mib),
        detail: row.detail.clone(),
        endpoint: spec.as_ref().and_then(vm::answers_at).map(|endpoint| endpoint.to_string()),
        address: networked.then(|| address.to_string()),
        vm: vm.map(|vm| vm.id.clone()),
        doing: doing(awake.phase()).map(Into::into),
        lease: lease.map(|lease| LeaseInfo { until: time(lease.until_ms), from: lease.from.as_str().into() }),
        failures: row.failures,
        retry: row.retry_at_ms.map(time),
        held: row.held_until_ms.map(time),
    }
}

/// What an agent does with an instance.
fn doing(phase: Phase) -> Option<&'static str> {
    match phase {
        Phase::At { .. } => None,
        Phase::Waking { .. } => Some("waking"),
        Phase::Resting { to: Demotion::Warm, .. } => Some("warming"),
        Phase::Resting { to: Demotion::Sleep, .. } => Some("going to sleep"),
    }
}

fn time(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap_or_default()
}
