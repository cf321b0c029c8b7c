//! The desired state: a file that says which tenants and pools there are to be, and how many
//! instances of each.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::ids::{PoolId, TenantId};

mod check;
pub(crate) mod parse;

pub use parse::DesiredError;

/// The one version of the schema there is.
pub const SCHEMA_VERSION: u32 = 1;

/// All that a node is to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DesiredState {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The node's name.
    pub node_id: String,
    /// Its tenants.
    pub tenants: Vec<Tenant>,
    /// Whether tenants that are not named here go.
    #[serde(default)]
    pub prune_unknown_tenants: bool,
    /// Whether pools that are not named here go.
    #[serde(default)]
    pub prune_unknown_pools: bool,
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// Its name.
    pub tenant_id: TenantId,
    /// Its network.
    pub network: TenantNetwork,
    /// What it may use.
    #[serde(default)]
    pub quotas: Quotas,
    /// Its pools.
    #[serde(default)]
    pub pools: Vec<Pool>,
}

/// A tenant's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantNetwork {
    /// Its number on the node, in the name of its bridge.
    pub tenant_net_id: u16,
    /// Its addresses: below 10.240.0.0/12, at most a /16 and at least a /29.
    pub ipv4_subnet: Subnet,
}

/// An IPv4 network: `10.240.1.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    /// Its first address.
    pub base: Ipv4Addr,
    /// Length of its prefix.
    pub prefix: u8,
}

/// What a tenant may use at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quotas {
    /// CPUs of running and warm instances.
    pub max_vcpus: u32,
    /// Memory of running and warm instances, MiB.
    pub max_mem_mib: u64,
    /// Running instances.
    pub max_running: u32,
    /// Warm instances.
    pub max_warm: u32,
    /// Pools.
    pub max_pools: u32,
    /// Instances of one pool, in whatever state.
    pub max_instances_per_pool: u32,
    /// Disks of all instances, GiB, as large as they may grow.
    pub max_disk_gib: u64,
}

/// A pool: instances of one image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Its name.
    pub pool_id: PoolId,
    /// The flake of its image.
    pub flake_ref: String,
    /// The flake's profile.
    #[serde(default)]
    pub profile: Option<String>,
    /// The flake's role.
    #[serde(default)]
    pub role: Option<String>,
    /// What each instance gets.
    #[serde(default)]
    pub instance_resources: Resources,
    /// How many instances are to be in which state.
    #[serde(default)]
    pub desired_counts: Counts,
    /// How long states last.
    #[serde(default)]
    pub runtime_policy: RuntimePolicy,
    /// Whether its instances are never put to sleep for being idle.
    #[serde(default)]
    pub pinned: bool,
    /// Whether it goes before others when a quota is short.
    #[serde(default)]
    pub critical: bool,
}

/// What an instance gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// CPUs.
    pub vcpus: u32,
    /// Memory, MiB.
    pub mem_mib: u32,
    /// Its own writable disk, MiB, sparse.
    pub data_disk_mib: u64,
}

/// How many instances are to be in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Counts {
    /// Running.
    pub running: u32,
    /// Halted in memory.
    pub warm: u32,
    /// Saved to disk.
    pub sleeping: u32,
}

/// How long states last, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RuntimePolicy {
    /// An instance runs at least so long before it is warmed or put to sleep.
    pub min_running_seconds: u64,
    /// An instance is warm at least so long before it is put to sleep.
    pub min_warm_seconds: u64,
    /// How long its agent may take to drain before it sleeps.
    pub drain_timeout_seconds: u64,
    /// How long its guest may take to shut down.
    pub graceful_shutdown_seconds: u64,
}

impl Counts {
    /// All of them together.
    pub fn total(&self) -> u64 {
        u64::from(self.running) + u64::from(self.warm) + u64::from(self.sleeping)
    }
}

impl Subnet {
    /// Its first and its last address.
    pub fn range(&self) -> (u32, u32) {
        let hosts = u32::MAX.checked_shr(u32::from(self.prefix)).unwrap_or(0);
        let first = u32::from(self.base) & !hosts;
        (first, first | hosts)
    }

    /// How many instances have an address in it: all but the network's own, the bridge's, the
    /// builder's and the broadcast address.
    pub fn instances(&self) -> u64 {
        let (first, last) = self.range();
        (u64::from(last - first) + 1).saturating_sub(4)
    }

    /// The last number in it that an instance may have.
    pub fn last_host(&self) -> u32 {
        let (first, last) = self.range();
        (last - first).saturating_sub(1)
    }

    /// Whether the two have an address in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        let ((first, last), (others_first, others_last)) = (self.range(), other.range());
        first <= others_last && others_first <= last
    }
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            max_vcpus: 16,
            max_mem_mib: 8192,
            max_running: 16,
            max_warm: 16,
            max_pools: 16,
            max_instances_per_pool: 64,
            max_disk_gib: 512,
        }
    }
}

impl Default for Resources {
    fn default() -> Self {
        Self { vcpus: 1, mem_mib: 256, data_disk_mib: 1024 }
    }
}

impl Default for RuntimePolicy {
    fn default() -> Self {
        Self {
            min_running_seconds: 30,
            min_warm_seconds: 30,
            drain_timeout_seconds: 10,
            graceful_shutdown_seconds: 10,
        }
    }
}

impl std::fmt::Display for Subnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl TryFrom<String> for Subnet {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parsed = text
            .split_once('/')
            .and_then(|(base, prefix)| Some(Self { base: base.parse().ok()?, prefix: prefix.parse().ok()? }));
        parsed.ok_or_else(|| format!("`{text}` is no IPv4 network such as `10.240.1.0/24`"))
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}
