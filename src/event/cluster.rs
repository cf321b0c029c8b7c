//! A cluster in events: its tree of nodes and instances, and its routes.

use serde::{Deserialize, Serialize};

/// A coordinator and all below it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterInfo {
    /// Where the coordinator listens, e.g. `127.0.0.1:7000`.
    pub address: String,
    /// The coordinator's state, e.g. `running`.
    pub state: String,
    /// Machines that run instances.
    pub nodes: Vec<NodeInfo>,
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
}

/// A tenant on one node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantInfo {
    /// Its name.
    pub name: String,
    /// Its pools.
    pub pools: Vec<PoolInfo>,
}

/// Instances of one image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolInfo {
    /// Its name.
    pub name: String,
    /// How many instances there should be.
    pub desired: u32,
    /// How many there are.
    pub actual: u32,
    /// The instances.
    pub instances: Vec<InstanceInfo>,
}

/// One VM of a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceInfo {
    /// Its name.
    pub name: String,
    /// Its state, e.g. `running` or `sleeping`.
    pub state: String,
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
}

/// How long a client waited for an instance that slept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WakeInfo {
    /// In all, in milliseconds.
    pub ms: u64,
    /// Steps in order with their length in milliseconds.
    pub steps: Vec<(String, u64)>,
}
