//! The planner: desired state × what there is → what is to be done. Pure: it reads no clock, starts
//! nothing and forgets nothing; the same facts give the same plan.
//!
//! Each pool gets, in this order: wake sleeping, resume warm, start stopped, create where the quota
//! allows, stop surplus, warm, sleep, destroy; then, where nothing else is to be done, one instance of
//! an older revision is replaced. What cannot be done is told and holds nothing else up. Carrying a
//! plan out and planning again comes to an end: an empty plan.

pub mod action;
pub mod actual;
pub mod changes;
mod lot;
mod pool;
pub(super) mod room;
mod show;
mod tenant;

use std::collections::{HashMap, HashSet};

use self::action::{Action, Blocked, Plan, Why};
use self::actual::{Actual, ActualTenant};
use super::desired::DesiredState;
use super::ids::InstancePath;

/// Stopped instances of a tenant that nothing asks for, and whether they are in the way.
#[derive(Default)]
struct Kept {
    /// Since when, and which.
    stopped: Vec<(i64, InstancePath)>,
    /// For how many new instances there is no room.
    missing: u32,
}

/// What is to be done to make `desired` true at `now_ms`.
pub fn plan(desired: &DesiredState, actual: &Actual, now_ms: i64) -> Plan {
    let mut plan = Plan { now_ms, actions: Vec::new(), blocked: Vec::new() };
    let recorded: HashMap<_, _> = actual.tenants.iter().map(|tenant| (&tenant.tenant_id, tenant)).collect();
    if desired.prune_unknown_tenants {
        let wanted: HashSet<_> = desired.tenants.iter().map(|tenant| &tenant.tenant_id).collect();
        for tenant in actual.tenants.iter().filter(|tenant| !wanted.contains(&tenant.tenant_id)) {
            remove(tenant, &mut plan);
        }
    }
    let networks = tenant::Networks::of(actual);
    for tenant in &desired.tenants {
        let recorded = recorded.get(&tenant.tenant_id).copied();
        tenant::plan(tenant, recorded, &networks, desired.prune_unknown_pools, &mut plan);
    }
    plan
}

/// Removes a tenant, unless something of it is in use.
fn remove(tenant: &ActualTenant, plan: &mut Plan) {
    let in_use = tenant.pools.iter().find_map(|pool| tenant::in_use(pool, plan.now_ms));
    if let Some(why) = in_use {
        return plan.blocked.push(Blocked { path: tenant.tenant_id.to_string(), why });
    }
    let instances = tenant.pools.iter().map(|pool| pool.instances.len()).sum();
    plan.actions.push(Action::RemoveTenant { tenant: tenant.tenant_id.clone(), instances });
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty()
    }
}

impl Why {
    /// When it is worth looking again, ms, where only time is in the way.
    pub fn until_ms(&self) -> Option<i64> {
        match self {
            Self::BuildFailed { until_ms }
            | Self::CreateFailed { until_ms }
            | Self::Failed { until_ms }
            | Self::Held { until_ms }
            | Self::Leased { until_ms }
            | Self::Young { until_ms } => Some(*until_ms),
            Self::Quota { .. } | Self::NetworkTaken { .. } | Self::NetworkInUse { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;
