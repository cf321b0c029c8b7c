//! Planning a fleet: desired state against what there is.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mvm::fleet::desired::{
    Counts, DesiredState, Pool, Quotas, Resources, RuntimePolicy, Tenant, TenantNetwork,
};
use mvm::fleet::plan::action::Plan;
use mvm::fleet::plan::actual::{Actual, ActualInstance, ActualPool, ActualTenant, Lease, Revision, Source};
use mvm::fleet::plan::plan;
use mvm::fleet::policy::{Activity, Bucket};
use mvm::fleet::state::InstanceState;

use crate::claim::{Claim, Limit, in_turns, stated};
use crate::place::Place;

const TENANTS: u32 = 100;
const POOLS: u32 = 10;
const ROUNDS: usize = 31;
/// Now, ms.
const NOW: i64 = 1_000_000;

/// A plan for 10 000 instances.
pub fn measure(_: &Place) -> Result<Claim> {
    let fleets = [1_000, 10_000, 100_000].map(|count| (count, Fleet::new(count)));
    let mut samples = Vec::new();
    for _ in 0..ROUNDS {
        samples.push([fleets[0].1.time()?, fleets[1].1.time()?, fleets[2].1.time()?]);
    }
    let of = |index: usize| samples.iter().map(|sample| sample[index]).collect::<Vec<Duration>>();
    let mut lines = Vec::new();
    for (index, (count, fleet)) in fleets.iter().enumerate() {
        let mut sorted = of(index);
        let actions = fleet.plan().actions.len();
        lines.push(stated(&format!("{count} instances, {actions} actions"), &sorted));
        sorted.sort();
        let nanos = sorted[ROUNDS / 2].as_nanos() / u128::from(*count);
        lines.push(format!("{:<34} {nanos:>9} ns", "  for each instance"));
    }
    Ok(Claim {
        what: "a plan for 10 000 instances of 100 tenants",
        ours: of(1),
        limit: Limit::Absolute(Duration::from_millis(50)),
        stated: lines,
    })
}

/// A plan for 100 000 instances against one for 10 000.
pub fn measure_growth(_: &Place) -> Result<Claim> {
    let (many, few) = (Fleet::new(100_000), Fleet::new(10_000));
    let (ours, theirs) = in_turns(ROUNDS, || many.time(), || few.time())?;
    let limit = Limit::Share(15.0, "for 10 000", theirs);
    Ok(Claim { what: "a plan for 100 000 instances", ours, limit, stated: Vec::new() })
}

struct Fleet {
    desired: DesiredState,
    actual: Actual,
}

impl Fleet {
    /// So many instances, every tenth of which calls for an action.
    fn new(instances: u32) -> Self {
        let each = instances / TENANTS / POOLS;
        let mut tenants = Vec::new();
        let mut recorded = Vec::new();
        for number in 0..TENANTS {
            let tenant = tenant(number, each);
            let pools = tenant.pools.iter().enumerate();
            let first = |pool: usize| (number * POOLS + pool as u32) * each;
            let pools = pools.map(|(index, pool)| actual_pool(pool, first(index), each)).collect();
            let Tenant { tenant_id, network, quotas, .. } = tenant.clone();
            recorded.push(ActualTenant { tenant_id, network, quotas, pools });
            tenants.push(tenant);
        }
        let desired = DesiredState {
            schema_version: 1,
            node_id: "bench".into(),
            tenants,
            prune_unknown_tenants: true,
            prune_unknown_pools: true,
        };
        Self { desired, actual: Actual { tenants: recorded } }
    }

    fn plan(&self) -> Plan {
        plan(black_box(&self.desired), black_box(&self.actual), NOW)
    }

    fn time(&self) -> Result<Duration> {
        let since = Instant::now();
        let plan = black_box(self.plan());
        let took = since.elapsed();
        ensure!(!plan.is_empty(), "there is something to do");
        Ok(took)
    }
}

fn tenant(number: u32, each: u32) -> Tenant {
    let pool = |index: u32| Pool {
        pool_id: format!("pool-{index}").parse().expect("a pool"),
        flake_ref: "github:owner/repository".into(),
        profile: None,
        role: None,
        instance_resources: Resources::default(),
        // Half of them run, the rest is split.
        desired_counts: Counts { running: each / 2, warm: each / 10, sleeping: each - each / 2 - each / 10 },
        runtime_policy: RuntimePolicy::default(),
        pinned: index == 1,
        critical: index == 2,
    };
    let base = 0x0AF0_0000 + (number << 12);
    let subnet = format!("{}/20", std::net::Ipv4Addr::from(base)).try_into().expect("a network");
    Tenant {
        tenant_id: format!("tenant-{number}").parse().expect("a tenant"),
        network: TenantNetwork { tenant_net_id: number as u16 + 1, ipv4_subnet: subnet },
        quotas: Quotas {
            max_vcpus: 10_000,
            max_mem_mib: 1 << 24,
            max_running: 10_000,
            max_warm: 10_000,
            max_instances_per_pool: 10_000,
            max_disk_gib: 100_000,
            ..Quotas::default()
        },
        pools: (0..POOLS).map(pool).collect(),
    }
}

fn actual_pool(pool: &Pool, first: u32, each: u32) -> ActualPool {
    let instance = |index: u32| {
        let bucket = match index {
            _ if index < pool.desired_counts.running => Bucket::Running,
            _ if index < pool.desired_counts.running + pool.desired_counts.warm => Bucket::Warm,
            _ => Bucket::Sleeping,
        };
        let lapsed = (index % 10 == 9).then_some(Lease { until_ms: NOW, from: Bucket::Sleeping });
        let state = match index % 10 {
            0 => InstanceState::Stopped,
            9 => InstanceState::Running,
            _ => bucket.state(),
        };
        ActualInstance {
            id: format!("i-{:08x}", first + index).parse().expect("an instance"),
            state,
            since_ms: i64::from(index),
            build: "0123456789abcdfghijklmnpqrsvwxyz".into(),
            resources: Resources::default(),
            retry_at_ms: None,
            lease: lapsed,
            held_until_ms: None,
            activity: Some(Activity {
                connections: 0,
                cpu_permille: 0,
                last_work_ms: i64::from(index * 7919 % 1009),
            }),
        }
    };
    let build = Revision { id: "0123456789abcdfghijklmnpqrsvwxyz".into(), source: Source::of(pool) };
    let instances = (0..each).map(instance).collect();
    ActualPool { build: Some(build), instances, ..ActualPool::new(pool.clone()) }
}
