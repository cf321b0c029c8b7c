//! The actions of one tenant.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};

use super::action::{Action, Blocked, Plan, Why, Wish};
use super::actual::{Actual, ActualPool, ActualTenant};
use super::pool::PoolPlanner;
use super::room::{Room, Short};
use super::{Kept, changes};
use crate::fleet::desired::{Pool, Subnet, Tenant, TenantNetwork};
use crate::fleet::ids::{PoolPath, TenantId};
use crate::fleet::policy::Bucket;

/// The networks that there are, by number and by first address.
pub(super) struct Networks<'a> {
    numbers: HashMap<u16, &'a TenantId>,
    subnets: BTreeMap<u32, (Subnet, &'a TenantId)>,
}

impl<'a> Networks<'a> {
    pub(super) fn of(actual: &'a Actual) -> Self {
        let networks = actual.tenants.iter().map(|tenant| (tenant.network, &tenant.tenant_id));
        Self {
            numbers: networks.clone().map(|(network, id)| (network.tenant_net_id, id)).collect(),
            subnets: networks
                .map(|(TenantNetwork { ipv4_subnet, .. }, id)| (ipv4_subnet.range().0, (ipv4_subnet, id)))
                .collect(),
        }
    }

    /// Another tenant with the number or some of the addresses of a network. A tenant that is about to
    /// go has them until it is gone.
    fn taken(&self, network: TenantNetwork, by_other_than: &TenantId) -> Option<&'a TenantId> {
        let (first, last) = network.ipv4_subnet.range();
        // Recorded networks do not overlap: those before the last one that begins in time are over.
        let within = self.subnets.range(first..=last).map(|(_, found)| found);
        let before = self.subnets.range(..first).next_back().map(|(_, found)| found);
        let overlapping = within.chain(before).filter(|(subnet, _)| subnet.overlaps(&network.ipv4_subnet));
        let number = self.numbers.get(&network.tenant_net_id);
        number.into_iter().chain(overlapping.map(|(_, id)| id)).find(|id| **id != by_other_than).copied()
    }
}

/// Adds a tenant's actions to the plan.
pub(super) fn plan(
    tenant: &Tenant,
    recorded: Option<&ActualTenant>,
    networks: &Networks<'_>,
    prune: bool,
    plan: &mut Plan,
) {
    let Some(network) = settle(tenant, recorded, networks, plan) else { return };
    let mut room = Room::new(&tenant.quotas, network.ipv4_subnet);
    let recorded = recorded.map_or(&[][..], |recorded| &recorded.pools);
    for instance in recorded.iter().flat_map(|pool| &pool.instances) {
        room.count(Bucket::of(instance.state), &instance.resources);
    }
    if prune {
        let wanted: HashSet<_> = tenant.pools.iter().map(|pool| &pool.pool_id).collect();
        for pool in recorded.iter().filter(|pool| !wanted.contains(&pool.pool.pool_id)) {
            remove(tenant, pool, plan);
        }
    }
    let known: HashMap<_, _> = recorded.iter().map(|pool| (&pool.pool.pool_id, pool)).collect();
    let mut pools: Vec<&Pool> = tenant.pools.iter().collect();
    pools.sort_by_key(|pool| Reverse(pool.critical));
    let (mut count, mut kept) = (recorded.len() as u64, Kept::default());
    for pool in pools {
        let path = PoolPath { tenant: tenant.tenant_id.clone(), pool: pool.pool_id.clone() };
        let actual = known.get(&pool.pool_id).copied();
        if actual.is_none() {
            let most = tenant.quotas.max_pools.into();
            if count >= most {
                let why = Short::count("max_pools", count, most).why(Wish::Pool, 1);
                plan.blocked.push(Blocked { path: path.to_string(), why });
                continue;
            }
            count += 1;
            plan.actions.push(Action::CreatePool { path: path.clone(), pool: Box::new(pool.clone()) });
        }
        let actual = ActualPool::or_new(actual, pool);
        let (room, kept) = (&mut room, &mut kept);
        let max_instances = tenant.quotas.max_instances_per_pool.into();
        PoolPlanner { path: &path, pool, actual: &actual, room, kept, max_instances, plan }.run();
    }
    make_way(kept, plan);
}

/// Records the tenant, or what differs. Returns its network, unless it can have none yet.
fn settle(
    tenant: &Tenant,
    recorded: Option<&ActualTenant>,
    networks: &Networks<'_>,
    plan: &mut Plan,
) -> Option<TenantNetwork> {
    let id = || tenant.tenant_id.clone();
    let (mut network, quotas) = (tenant.network, tenant.quotas);
    let taken = networks.taken(network, &tenant.tenant_id).cloned();
    let mut blocked = |why| plan.blocked.push(Blocked { path: tenant.tenant_id.to_string(), why });
    let Some(recorded) = recorded else {
        if let Some(by) = taken {
            blocked(Why::NetworkTaken { by });
            return None;
        }
        plan.actions.push(Action::CreateTenant { tenant: id(), network, quotas });
        return Some(network);
    };
    let instances = recorded.pools.iter().map(|pool| pool.instances.len()).sum();
    if network != recorded.network {
        if instances > 0 {
            blocked(Why::NetworkInUse { instances });
            network = recorded.network;
        } else if let Some(by) = taken {
            blocked(Why::NetworkTaken { by });
            network = recorded.network;
        }
    }
    if (network, quotas) != (recorded.network, recorded.quotas) {
        let mut changes = changes::between("network", &recorded.network, &network);
        changes.extend(changes::between("quotas", &recorded.quotas, &quotas));
        plan.actions.push(Action::UpdateTenant { tenant: id(), network, quotas, changes });
    }
    Some(network)
}

fn remove(tenant: &Tenant, pool: &ActualPool, plan: &mut Plan) {
    let path = PoolPath { tenant: tenant.tenant_id.clone(), pool: pool.pool.pool_id.clone() };
    if let Some(why) = in_use(pool, plan.now_ms) {
        return plan.blocked.push(Blocked { path: path.to_string(), why });
    }
    plan.actions.push(Action::RemovePool { path, instances: pool.instances.len() });
}

/// Why a pool cannot be removed now.
pub(super) fn in_use(pool: &ActualPool, now_ms: i64) -> Option<Why> {
    let held = pool.held_until_ms.filter(|until| now_ms < *until);
    let held = held.or_else(|| pool.instances.iter().filter_map(|instance| instance.held(now_ms)).max());
    let leased =
        || pool.instances.iter().filter_map(|instance| instance.leased(now_ms)).map(|l| l.until_ms).max();
    held.map(|until_ms| Why::Held { until_ms }).or_else(|| leased().map(|until_ms| Why::Leased { until_ms }))
}

/// Destroys stopped instances that are only kept, the oldest first, where new ones have no room.
fn make_way(mut kept: Kept, plan: &mut Plan) {
    let missing = usize::try_from(kept.missing).unwrap_or(usize::MAX).min(kept.stopped.len());
    if missing > 0 {
        kept.stopped.sort();
        let paths = kept.stopped.drain(..missing).map(|(_, path)| Action::Destroy { path });
        plan.actions.extend(paths);
    }
}
