//! What a coordinator says of itself: the status API's answers. They only grow.

use std::net::SocketAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::agent::pki::PeerName;
use crate::fleet::ids::{InstancePath, PoolId, TenantId};

#[cfg(test)]
pub(crate) mod sample;

/// Version of the schema.
pub const SCHEMA_VERSION: u32 = 1;

/// A coordinator at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// [`SCHEMA_VERSION`].
    pub v: u32,
    /// mvm's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Since when it runs.
    pub started: Timestamp,
    /// The configuration's file.
    pub config: String,
    /// Why the file as it is now is not in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_error: Option<String>,
    /// Whether it takes no more connections and ends with the last.
    pub draining: bool,
    /// Open connections.
    pub connections: u64,
    /// The nodes, as in the configuration.
    pub nodes: Vec<NodeStatus>,
    /// The routes, as in the configuration.
    pub routes: Vec<RouteStatus>,
}

/// The way to a node's agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub name: PeerName,
    /// Where its agent listens.
    pub address: SocketAddr,
    /// Whether its agent answers.
    pub state: NodeState,
    /// Why it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Whether a node's agent answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// It has not been tried to the end.
    Connecting,
    /// It does.
    Connected,
    /// It does not; it is tried again.
    Down,
    /// It is another, or does not take us: until certificates change it stays so.
    Refused,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteStatus {
    /// Where it listens; names the route.
    pub listen: SocketAddr,
    /// The tenant it leads to.
    pub tenant: TenantId,
    /// The pool it leads to.
    pub pool: PoolId,
    /// The pool's node.
    pub node: PeerName,
    /// Its state.
    pub state: RouteState,
    /// Open connections, those that wait included.
    pub connections: u64,
    /// Those that wait for an instance.
    pub queued: u64,
    /// Connections so far.
    pub accepted: u64,
    /// Of these, closed because there were too many, or nobody to take them.
    pub refused: u64,
    /// Bytes that came from clients.
    pub rx_bytes: u64,
    /// Bytes that went to clients.
    pub tx_bytes: u64,
    /// Wakes so far.
    pub wakes: u64,
    /// Of these, failed.
    pub failed_wakes: u64,
    /// The last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_wake: Option<WakeStatus>,
    /// Seconds until the last of its instances is let go; absent while there are connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_secs: Option<u64>,
    /// The pool's instances, as the agent told last.
    pub instances: Vec<InstanceStatus>,
    /// What is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A route's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteState {
    /// Its instances sleep, or are warm or stopped: the next connection wakes one.
    Sleeping,
    /// An instance is being woken.
    Waking,
    /// Connections are carried.
    Running,
    /// An instance runs, and nobody is connected.
    Idle,
    /// Nothing new is taken.
    Draining,
    /// The node's agent does not answer.
    Unreachable,
    /// The pool is not there, or has no instances.
    Empty,
    /// Its address could not be had.
    Closed,
}

impl RouteState {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Sleeping,
        Self::Waking,
        Self::Running,
        Self::Idle,
        Self::Draining,
        Self::Unreachable,
        Self::Empty,
        Self::Closed,
    ];

    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sleeping => "sleeping",
            Self::Waking => "waking",
            Self::Running => "running",
            Self::Idle => "idle",
            Self::Draining => "draining",
            Self::Unreachable => "unreachable",
            Self::Empty => "empty",
            Self::Closed => "closed",
        }
    }
}

/// One wake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WakeStatus {
    /// When it began.
    pub at: Timestamp,
    /// Who was woken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstancePath>,
    /// How long the first client waited, in milliseconds.
    pub ms: u64,
    /// Parts of it in order, with their length in milliseconds: queue, agent, restore, ready.
    pub steps: Vec<(String, u64)>,
    /// How many clients waited.
    pub waiters: u64,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// An instance of a route's pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceStatus {
    /// Its path.
    pub path: InstancePath,
    /// Its state, as the agent told last.
    pub state: String,
    /// Where it is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
    /// Its connections through this route.
    pub connections: u64,
    /// Whether this route keeps it awake.
    pub leased: bool,
    /// Whether its application answers as it should; absent where it is not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy: Option<bool>,
}
