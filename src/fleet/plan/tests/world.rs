//! Facts to plan with, and what carrying a plan out makes of them.

use serde_json::{Value, json};

use crate::fleet::desired::DesiredState;
use crate::fleet::desired::{Pool, Quotas, Resources, Tenant};
use crate::fleet::ids::{InstanceId, InstancePath, PoolPath};
use crate::fleet::plan::action::{Action, Plan, ReplaceOrder};
use crate::fleet::plan::actual::{Actual, ActualInstance, ActualPool, ActualTenant, Lease, Revision, Source};
use crate::fleet::policy::Activity;
use crate::fleet::policy::Bucket;
use crate::fleet::state::InstanceState;

/// Now, ms.
pub const NOW: i64 = 1_000_000;

pub fn id(number: usize) -> InstanceId {
    format!("i-{number:08x}").parse().unwrap()
}

/// A state with one tenant `dev` that has these pools.
pub fn desired(pools: Value) -> DesiredState {
    let state = json!({
        "schema_version": 1, "node_id": "laptop",
        "tenants": [{ "tenant_id": "dev", "network": { "tenant_net_id": 1, "ipv4_subnet": "10.240.1.0/24" },
                      "pools": pools }],
    });
    DesiredState::parse(&state.to_string()).unwrap()
}

/// A state with one pool `web`.
pub fn web(running: u32, warm: u32, sleeping: u32) -> DesiredState {
    let counts = json!({ "running": running, "warm": warm, "sleeping": sleeping });
    desired(json!([{ "pool_id": "web", "flake_ref": "f", "desired_counts": counts }]))
}

pub fn instance(number: usize, state: InstanceState) -> ActualInstance {
    ActualInstance {
        id: id(number),
        state,
        since_ms: 0,
        build: "r1".into(),
        resources: Resources::default(),
        retry_at_ms: None,
        lease: None,
        held_until_ms: None,
        activity: Some(Activity { connections: 0, cpu_permille: 0, last_work_ms: -1_000_000 }),
    }
}

pub fn leased(number: usize, state: InstanceState, from: Bucket, until_ms: i64) -> ActualInstance {
    ActualInstance { lease: Some(Lease { until_ms, from }), ..instance(number, state) }
}

pub fn built(pool: &Pool, id: &str) -> Option<Revision> {
    Some(Revision { id: id.into(), source: Source::of(pool) })
}

pub fn recorded(tenant: &Tenant) -> ActualTenant {
    let Tenant { tenant_id, network, quotas, .. } = tenant.clone();
    let pools = tenant
        .pools
        .iter()
        .map(|pool| ActualPool { build: built(pool, "r1"), ..ActualPool::new(pool.clone()) });
    ActualTenant { tenant_id, network, quotas, pools: pools.collect() }
}

/// What is recorded where all of `desired` is, with these instances in its first pool.
pub fn actual(desired: &DesiredState, instances: Vec<ActualInstance>) -> Actual {
    let mut actual = Actual { tenants: desired.tenants.iter().map(recorded).collect() };
    actual.tenants[0].pools[0].instances = instances;
    actual
}

/// What the actions of a plan are, without their paths: `Wake Running`.
pub fn words(plan: &Plan) -> Vec<String> {
    let word = |action: &Action| match action {
        Action::Create { to, .. } => format!("create {}", to.as_str()),
        Action::Start { to, path } => format!("start {} {}", path.instance, to.as_str()),
        Action::Wake { to, path } => format!("wake {} {}", path.instance, to.as_str()),
        Action::Replace { to, path, .. } => format!("replace {} {}", path.instance, to.as_str()),
        Action::Resume { path } => format!("resume {}", path.instance),
        Action::Stop { path } => format!("stop {}", path.instance),
        Action::Warm { path } => format!("warm {}", path.instance),
        Action::Sleep { path } => format!("sleep {}", path.instance),
        Action::Destroy { path } => format!("destroy {}", path.instance),
        other => serde_json::to_value(other).unwrap()["action"].as_str().unwrap().to_owned(),
    };
    plan.actions.iter().map(word).collect()
}

/// Carries actions out, one after the other.
pub struct World {
    pub actual: Actual,
    pub now_ms: i64,
    next: usize,
}

impl World {
    pub fn new(actual: Actual) -> Self {
        Self { actual, now_ms: NOW, next: 0x4000_0000 }
    }

    fn tenant(&mut self, path: &PoolPath) -> &mut ActualTenant {
        self.actual.tenants.iter_mut().find(|tenant| tenant.tenant_id == path.tenant).unwrap()
    }

    pub fn pool(&mut self, path: &PoolPath) -> &mut ActualPool {
        self.tenant(path).pools.iter_mut().find(|pool| pool.pool.pool_id == path.pool).unwrap()
    }

    pub fn instance(&mut self, path: &InstancePath) -> &mut ActualInstance {
        self.pool(&path.pool).instances.iter_mut().find(|instance| instance.id == path.instance).unwrap()
    }

    fn bring(&mut self, path: &InstancePath, state: InstanceState) {
        let now_ms = self.now_ms;
        let instance = self.instance(path);
        (instance.state, instance.since_ms) = (state, now_ms);
        if instance.lease.is_some_and(|lease| lease.from.state() == state || Bucket::of(state).is_none()) {
            instance.lease = None;
        }
    }

    fn create(&mut self, path: &PoolPath, to: Bucket) {
        self.next += 1;
        let (number, now_ms) = (self.next, self.now_ms);
        let pool = self.pool(path);
        let (build, resources) = (pool.build.clone().unwrap().id, pool.pool.instance_resources);
        let new = instance(number, to.state());
        pool.instances.push(ActualInstance { build, resources, since_ms: now_ms, ..new });
    }

    fn destroy(&mut self, path: &InstancePath) {
        self.pool(&path.pool).instances.retain(|instance| instance.id != path.instance);
    }

    /// Carries one action out; `between` sees each state on the way.
    pub fn apply(&mut self, action: &Action, between: &mut dyn FnMut(&Actual)) {
        match action {
            Action::CreateTenant { tenant, network, quotas } => self.actual.tenants.push(ActualTenant {
                tenant_id: tenant.clone(),
                network: *network,
                quotas: *quotas,
                pools: Vec::new(),
            }),
            Action::UpdateTenant { tenant, network, quotas, .. } => {
                let tenant = self.actual.tenants.iter_mut().find(|t| t.tenant_id == *tenant).unwrap();
                (tenant.network, tenant.quotas) = (*network, *quotas);
            }
            Action::RemoveTenant { tenant, .. } => self.actual.tenants.retain(|t| t.tenant_id != *tenant),
            Action::CreatePool { path, pool } => {
                self.tenant(path).pools.push(ActualPool::new(pool.as_ref().clone()));
            }
            Action::UpdatePool { path, pool, .. } => self.pool(path).pool = pool.as_ref().clone(),
            Action::RemovePool { path, .. } => {
                self.tenant(path).pools.retain(|pool| pool.pool.pool_id != path.pool);
            }
            Action::BuildPool { path } => {
                self.next += 1;
                let build = format!("r{}", self.next);
                let pool = self.pool(path);
                pool.build = built(&pool.pool, &build);
            }
            Action::Create { path, to } => {
                self.create(path, Bucket::Running);
                between(&self.actual);
                self.pool(path).instances.last_mut().unwrap().state = to.state();
            }
            Action::Wake { path, to } | Action::Start { path, to } => {
                self.bring(path, InstanceState::Running);
                between(&self.actual);
                self.bring(path, to.state());
            }
            Action::Resume { path } => self.bring(path, InstanceState::Running),
            Action::Stop { path } => self.bring(path, InstanceState::Stopped),
            Action::Warm { path } => self.bring(path, InstanceState::Warm),
            Action::Sleep { path } => self.bring(path, InstanceState::Sleeping),
            Action::Replace { path, to, order } => {
                if *order == ReplaceOrder::OldFirst {
                    self.destroy(path);
                }
                self.create(&path.pool, Bucket::Running);
                between(&self.actual);
                if *order == ReplaceOrder::NewFirst {
                    self.destroy(path);
                }
                self.pool(&path.pool).instances.last_mut().unwrap().state = to.state();
            }
            Action::Destroy { path } => self.destroy(path),
        }
        between(&self.actual);
    }
}

/// What a tenant uses of its quotas that are not of one pool, and those quotas.
pub fn used(tenant: &ActualTenant, quotas: &Quotas) -> Vec<(&'static str, u64, u64)> {
    let all = || tenant.pools.iter().flat_map(|pool| &pool.instances);
    let live = || all().filter(|instance| instance.state.is_live());
    let count = |state| all().filter(|instance| instance.state == state).count() as u64;
    vec![
        ("vcpus", live().map(|i| u64::from(i.resources.vcpus)).sum(), quotas.max_vcpus.into()),
        ("memory", live().map(|i| u64::from(i.resources.mem_mib)).sum(), quotas.max_mem_mib),
        ("running", count(InstanceState::Running), quotas.max_running.into()),
        ("warm", count(InstanceState::Warm), quotas.max_warm.into()),
        ("disk", all().map(|i| i.resources.data_disk_mib).sum(), quotas.max_disk_gib * 1024),
        ("pools", tenant.pools.len() as u64, quotas.max_pools.into()),
        ("addresses", all().count() as u64, tenant.network.ipv4_subnet.instances()),
    ]
}
