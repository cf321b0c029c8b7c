//! What there is, as the planner is told. Times are milliseconds of one clock.

use std::borrow::Cow;

use crate::fleet::desired::{Pool, Quotas, Resources, TenantNetwork};
use crate::fleet::ids::{InstanceId, TenantId};
use crate::fleet::policy::{Activity, Bucket};
use crate::fleet::state::InstanceState;

/// All that a node has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Actual {
    /// Its tenants.
    pub tenants: Vec<ActualTenant>,
}

/// A tenant as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActualTenant {
    /// Its name.
    pub tenant_id: TenantId,
    /// Its network.
    pub network: TenantNetwork,
    /// What it may use.
    pub quotas: Quotas,
    /// Its pools.
    pub pools: Vec<ActualPool>,
}

/// A pool as it is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActualPool {
    /// Its settings.
    pub pool: Pool,
    /// Its current revision.
    pub build: Option<Revision>,
    /// A build failed: none is tried before, ms.
    pub build_retry_at_ms: Option<i64>,
    /// An instance could not be created: none is tried before, ms.
    pub retry_at_ms: Option<i64>,
    /// A command of a person: reconcile leaves the pool alone until then, ms.
    pub held_until_ms: Option<i64>,
    /// Its instances.
    pub instances: Vec<ActualInstance>,
}

/// A build of a pool's flake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// Its name: the hash of what was built.
    pub id: String,
    /// What it was built of.
    pub source: Source,
}

/// What a revision is built of; another source needs another build.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Source {
    /// The flake.
    pub flake_ref: String,
    /// Its profile.
    pub profile: Option<String>,
    /// Its role.
    pub role: Option<String>,
}

impl Source {
    /// The source that a pool's settings name.
    pub fn of(pool: &Pool) -> Self {
        let Pool { flake_ref, profile, role, .. } = pool.clone();
        Self { flake_ref, profile, role }
    }

    /// Whether a pool's settings name it.
    pub fn is_of(&self, pool: &Pool) -> bool {
        self.flake_ref == pool.flake_ref && self.profile == pool.profile && self.role == pool.role
    }
}

/// An instance as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActualInstance {
    /// Its name.
    pub id: InstanceId,
    /// Its state.
    pub state: InstanceState,
    /// When it came into the state, ms.
    pub since_ms: i64,
    /// The revision it runs.
    pub build: String,
    /// What it has.
    pub resources: Resources,
    /// It failed: no start is tried before, ms.
    pub retry_at_ms: Option<i64>,
    /// Why it was woken. A lapsed lease stays until the instance is where it came from.
    pub lease: Option<Lease>,
    /// A command of a person: reconcile leaves it alone until then, ms.
    pub held_until_ms: Option<i64>,
    /// What its guest does, where that is known.
    pub activity: Option<Activity>,
}

/// A wake that lasts for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Its end, ms.
    pub until_ms: i64,
    /// Where the instance was before; it counts there.
    pub from: Bucket,
}

impl ActualInstance {
    /// Its lease, if that is valid and there is something to be leased.
    pub fn leased(&self, now_ms: i64) -> Option<Lease> {
        self.lease.filter(|lease| now_ms < lease.until_ms && Bucket::of(self.state).is_some())
    }

    /// Until when a person's command holds it, ms.
    pub fn held(&self, now_ms: i64) -> Option<i64> {
        self.held_until_ms.filter(|until| now_ms < *until)
    }
}

impl ActualPool {
    /// A pool that was just recorded.
    pub fn new(pool: Pool) -> Self {
        Self {
            pool,
            build: None,
            build_retry_at_ms: None,
            retry_at_ms: None,
            held_until_ms: None,
            instances: Vec::new(),
        }
    }

    /// The recorded pool, or a new one.
    pub(super) fn or_new<'a>(recorded: Option<&'a Self>, pool: &Pool) -> Cow<'a, Self> {
        recorded.map_or_else(|| Cow::Owned(Self::new(pool.clone())), Cow::Borrowed)
    }
}
