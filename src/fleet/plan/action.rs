//! What a plan consists of.

use serde::Serialize;

use super::changes::Change;
use crate::fleet::desired::{Pool, Quotas, TenantNetwork};
use crate::fleet::ids::{InstancePath, PoolPath, TenantId};
use crate::fleet::policy::Bucket;

/// What is to be done, and what would be done but cannot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// When it was made, ms.
    pub now_ms: i64,
    /// The actions; those of one pool in the order in which they are to be done.
    pub actions: Vec<Action>,
    /// What has to wait.
    pub blocked: Vec<Blocked>,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// Record a tenant and make its network.
    CreateTenant {
        /// Its name.
        tenant: TenantId,
        /// Its network.
        network: TenantNetwork,
        /// What it may use.
        quotas: Quotas,
    },
    /// Record other settings of a tenant.
    UpdateTenant {
        /// Its name.
        tenant: TenantId,
        /// Its network from now on; only a tenant without instances gets another.
        network: TenantNetwork,
        /// What it may use from now on.
        quotas: Quotas,
        /// What differs.
        changes: Vec<Change>,
    },
    /// Remove a tenant with all it has.
    RemoveTenant {
        /// Its name.
        tenant: TenantId,
        /// How many instances go with it.
        instances: usize,
    },
    /// Record a pool.
    CreatePool {
        /// Its name.
        path: PoolPath,
        /// Its settings.
        pool: Box<Pool>,
    },
    /// Record other settings of a pool.
    UpdatePool {
        /// Its name.
        path: PoolPath,
        /// Its settings from now on.
        pool: Box<Pool>,
        /// What differs.
        changes: Vec<Change>,
    },
    /// Build a pool's flake, and make that its current revision. Where it fails, the pool's further
    /// actions of this plan fail with it.
    BuildPool {
        /// The pool.
        path: PoolPath,
    },
    /// Remove a pool with its instances and revisions.
    RemovePool {
        /// Its name.
        path: PoolPath,
        /// How many instances go with it.
        instances: usize,
    },
    /// Create an instance of the current revision.
    Create {
        /// The pool.
        path: PoolPath,
        /// Where to bring it.
        to: Bucket,
    },
    /// Wake a sleeping instance.
    Wake {
        /// The instance.
        path: InstancePath,
        /// Where to bring it: running or warm.
        to: Bucket,
    },
    /// Let a warm instance go on.
    Resume {
        /// The instance.
        path: InstancePath,
    },
    /// Start an instance that is created, ready, stopped or failed.
    Start {
        /// The instance.
        path: InstancePath,
        /// Where to bring it.
        to: Bucket,
    },
    /// Stop a surplus instance; its disk stays.
    Stop {
        /// The instance.
        path: InstancePath,
    },
    /// Halt a running instance in memory.
    Warm {
        /// The instance.
        path: InstancePath,
    },
    /// Save an instance to disk.
    Sleep {
        /// The instance.
        path: InstancePath,
    },
    /// Put an instance of the current revision and resources in the place of an older one.
    Replace {
        /// The older one; it goes.
        path: InstancePath,
        /// Where to bring the new one.
        to: Bucket,
        /// Which of the two steps is first.
        order: ReplaceOrder,
    },
    /// Remove an instance with its disk; if it still runs, it is stopped first.
    Destroy {
        /// The instance.
        path: InstancePath,
    },
}

/// How one instance takes another's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplaceOrder {
    /// The new one runs before the old one goes.
    NewFirst,
    /// The old one goes first: there is no room for both, and none that runs is missed.
    OldFirst,
}

/// What would be done but has to wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Blocked {
    /// Of what: `TENANT`, `TENANT/POOL` or `TENANT/POOL/INSTANCE`.
    pub path: String,
    /// Why.
    pub why: Why,
}

/// Why something has to wait. Times are ms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Why {
    /// A quota is used up.
    Quota {
        /// What was to be done.
        wish: Wish,
        /// How many times.
        times: u32,
        /// The quota's name.
        quota: &'static str,
        /// What is used of it.
        used: u64,
        /// What would be used.
        need: u64,
        /// What may be used.
        most: u64,
    },
    /// A build failed not long ago.
    BuildFailed {
        /// When it is tried again.
        until_ms: i64,
    },
    /// Instances could not be created not long ago.
    CreateFailed {
        /// When it is tried again.
        until_ms: i64,
    },
    /// It failed not long ago.
    Failed {
        /// When it is started again.
        until_ms: i64,
    },
    /// A person's command holds it.
    Held {
        /// Until when.
        until_ms: i64,
    },
    /// It is in use.
    Leased {
        /// Until when, if the lease is not renewed.
        until_ms: i64,
    },
    /// It came into its state not long ago.
    Young {
        /// When it may leave it.
        until_ms: i64,
    },
    /// The network belongs to another tenant.
    NetworkTaken {
        /// That tenant.
        by: TenantId,
    },
    /// A tenant with instances gets no other network.
    NetworkInUse {
        /// Its instances.
        instances: usize,
    },
}

/// What a quota forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// Create a pool.
    Pool,
    /// One more running instance.
    Run,
    /// One more warm instance.
    Warm,
    /// One more sleeping instance.
    Sleep,
    /// A newer instance in the place of an older one.
    Replace,
}

impl Wish {
    /// The wish for an instance in a bucket.
    pub(super) fn of(to: Bucket) -> Self {
        match to {
            Bucket::Running => Self::Run,
            Bucket::Warm => Self::Warm,
            Bucket::Sleeping => Self::Sleep,
        }
    }
}
