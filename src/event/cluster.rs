//! Cluster and fleet in events: nodes, tenants, pools and instances, and the coordinator's routes.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A coordinator and all below it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterInfo {
    /// Where the coordinator listens, e.g. `127.0.0.1`.
    pub address: String,
    /// The coordinator's state, e.g. `serving`.
    pub state: String,
    /// Machines that run instances.
    pub nodes: Vec<NodeInfo>,
    /// The coordinator's process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Since when it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// Its mvm's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The file of its configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// What is wrong with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A machine of the cluster, by its agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its name.
    pub name: String,
    /// Where its agent listens.
    pub address: String,
    /// Its state, e.g. `connected`.
    pub state: String,
    /// Who has instances there.
    pub tenants: Vec<TenantInfo>,
    /// Whether it is this machine: the fleet of this state is then its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub here: bool,
    /// Why its agent does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A tenant: on one node of a cluster, or of this state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantInfo {
    /// Its name.
    pub name: String,
    /// Its pools; none where they are told of one by one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<PoolInfo>,
    /// Its network, e.g. `10.240.1.0/24`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// What it may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quotas: Option<QuotaInfo>,
}

/// What a tenant may use at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaInfo {
    /// CPUs of running and warm instances.
    pub cpus: u32,
    /// Memory of running and warm instances in MiB.
    pub memory_mib: u64,
    /// Running instances.
    pub running: u32,
    /// Warm instances.
    pub warm: u32,
    /// Pools.
    pub pools: u32,
    /// Instances of one pool.
    pub instances: u32,
    /// Disks of all instances in GiB, as large as they may grow.
    pub disk_gib: u64,
}

/// Instances of one image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolInfo {
    /// Its name.
    pub name: String,
    /// How many instances there should be.
    pub desired: u32,
    /// How many there are; nought where they are told of one by one.
    #[serde(default)]
    pub actual: u32,
    /// The instances; none where they are told of one by one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<InstanceInfo>,
    /// How many should be in which state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<CountInfo>,
    /// What it is to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<SettingInfo>,
    /// The build that new instances boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// That one and those before it, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revisions: Vec<RevisionInfo>,
    /// Why its last build failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// When the next build is due after one that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Timestamp>,
    /// Until when it is left as a person has set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Timestamp>,
}

/// How many instances are, or should be, in which state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountInfo {
    /// Running.
    pub running: u32,
    /// Halted in memory.
    pub warm: u32,
    /// Saved to disk.
    pub sleeping: u32,
}

/// What a pool is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingInfo {
    /// The flake of its image.
    pub flake: String,
    /// The flake's profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The flake's role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// CPUs of an instance.
    pub cpus: u32,
    /// Memory of an instance in MiB.
    pub memory_mib: u32,
    /// Disk of an instance in MiB.
    pub disk_mib: u64,
    /// How long an instance runs at least, in seconds.
    pub min_running_secs: u64,
    /// How long an instance is warm at least, in seconds.
    pub min_warm_secs: u64,
    /// How long an instance may take to drain, in seconds.
    pub drain_secs: u64,
    /// How long a guest may take to shut down, in seconds.
    pub shutdown_secs: u64,
    /// Whether its instances are never put to sleep for being idle.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pinned: bool,
    /// Whether it goes before others when a quota is short.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub critical: bool,
}

/// A build that a pool has, or had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionInfo {
    /// The build.
    pub build: String,
    /// When it became the current one.
    pub created: Timestamp,
}

/// One VM of a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceInfo {
    /// Its name.
    pub name: String,
    /// Its state, e.g. `running` or `sleeping`.
    pub state: String,
    /// When it came into its state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// When it was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// The build it boots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Its CPUs.
    #[serde(default, skip_serializing_if = "is_nought")]
    pub cpus: u32,
    /// Its memory in MiB.
    #[serde(default, skip_serializing_if = "is_nought")]
    pub memory_mib: u32,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Where it answers on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Its address in the tenant's network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The id of its VM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<String>,
    /// What its agent is doing with it, e.g. `waking`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doing: Option<String>,
    /// Who holds it awake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseInfo>,
    /// How many starts failed in a row.
    #[serde(default, skip_serializing_if = "is_nought")]
    pub failures: u32,
    /// When the next start is due after one that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Timestamp>,
    /// Until when it is left as a person has set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Timestamp>,
}

/// A wake that lasts for a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseInfo {
    /// Its end.
    pub until: Timestamp,
    /// Where the instance was before, e.g. `sleeping`.
    pub from: String,
}

fn is_nought<T: Default + PartialEq>(number: &T) -> bool {
    *number == T::default()
}

/// A route of the coordinator.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteInfo {
    /// Where it listens: names the route.
    pub listen: String,
    /// The tenant it leads to.
    pub tenant: String,
    /// The pool it leads to.
    pub pool: String,
    /// Its state, e.g. `sleeping`.
    pub state: String,
    /// Open connections.
    pub connections: u64,
    /// Bytes that came from clients.
    pub rx_bytes: u64,
    /// Bytes that went to clients.
    pub tx_bytes: u64,
    /// The last time a connection woke an instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wake: Option<WakeInfo>,
    /// Seconds until its instances are put to sleep; absent while that is not due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_secs: Option<u64>,
    /// The pool's node.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// Connections that wait for an instance.
    #[serde(default, skip_serializing_if = "is_nought")]
    pub queued: u64,
    /// Connections so far.
    #[serde(default, skip_serializing_if = "is_nought")]
    pub accepted: u64,
    /// Of these, closed without an instance.
    #[serde(default, skip_serializing_if = "is_nought")]
    pub refused: u64,
    /// Wakes so far.
    #[serde(default, skip_serializing_if = "is_nought")]
    pub wakes: u64,
    /// Of these, failed.
    #[serde(default, skip_serializing_if = "is_nought")]
    pub failed_wakes: u64,
    /// The pool's instances.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<BackendInfo>,
    /// What is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// An instance as a route sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendInfo {
    /// Its name.
    pub name: String,
    /// Its state, e.g. `running`.
    pub state: String,
    /// Where it is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Its connections through the route.
    #[serde(default, skip_serializing_if = "is_nought")]
    pub connections: u64,
    /// Whether the route keeps it awake.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub leased: bool,
    /// Whether its application answers as it should; absent where it is not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy: Option<bool>,
}

/// How long a client waited for an instance that slept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WakeInfo {
    /// In all, in milliseconds.
    pub ms: u64,
    /// Steps in order with their length in milliseconds.
    pub steps: Vec<(String, u64)>,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// Who was woken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// How many clients waited.
    #[serde(default, skip_serializing_if = "is_nought")]
    pub waiters: u64,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
