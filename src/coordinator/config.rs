//! The coordinator's configuration: `coordinator.toml`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::agent::pki::PeerName;
use crate::fleet::ids::{PoolId, PoolPath, TenantId};

mod check;
mod parse;

pub use parse::ConfigError;

/// All that a coordinator is told.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What holds for all routes.
    #[serde(default)]
    pub coordinator: Settings,
    /// The nodes whose agents it asks.
    #[serde(default)]
    pub nodes: Vec<Node>,
    /// Where it listens, and for whom.
    #[serde(default)]
    pub routes: Vec<Route>,
}

/// What holds for all routes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How long an instance without a connection is kept awake.
    #[serde(rename = "idle_timeout_secs", deserialize_with = "seconds")]
    pub idle_timeout: Duration,
    /// How long a client waits for an instance at most.
    #[serde(rename = "wake_timeout_secs", deserialize_with = "seconds")]
    pub wake_timeout: Duration,
    /// Pause between two looks at a pool's instances.
    #[serde(rename = "health_interval_secs", deserialize_with = "seconds")]
    pub health_interval: Duration,
    /// How long a connection may be without a byte in either direction; nought for ever.
    #[serde(rename = "connection_idle_timeout_secs", deserialize_with = "seconds")]
    pub connection_idle_timeout: Duration,
    /// How long connections have to end before a coordinator that is to end cuts them.
    #[serde(rename = "drain_timeout_secs", deserialize_with = "seconds")]
    pub drain_timeout: Duration,
    /// Connections of a tenant at once; more are closed.
    pub max_connections_per_tenant: u32,
    /// Connections of a route that wait for an instance; more are closed.
    pub max_queued_per_route: u32,
    /// Where it tells Prometheus its numbers; loopback only.
    pub metrics: Option<SocketAddr>,
    /// The coordinator's certificate with its key, relative to the file; else that of a coordinator
    /// in `cluster/pki` of the state.
    pub tls_identity: Option<PathBuf>,
    /// The cluster's authority, relative to the file; else `ca.pem` beside the certificate.
    pub tls_ca: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(300),
            wake_timeout: Duration::from_secs(60),
            health_interval: Duration::from_secs(5),
            connection_idle_timeout: Duration::from_secs(600),
            drain_timeout: Duration::from_secs(30),
            max_connections_per_tenant: 1000,
            max_queued_per_route: 1000,
            metrics: None,
            tls_identity: None,
            tls_ca: None,
        }
    }
}

/// A node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its name, which its certificate has to bear.
    pub name: PeerName,
    /// Where its agent listens (QUIC).
    pub address: SocketAddr,
}

/// A route: from an address to a pool.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Whose pool.
    pub tenant_id: TenantId,
    /// Which pool.
    pub pool_id: PoolId,
    /// Where clients connect (TCP); names the route.
    pub listen: SocketAddr,
    /// The node that has the pool.
    pub node: PeerName,
    /// Instead of the coordinator's.
    #[serde(rename = "idle_timeout_secs", default, deserialize_with = "some_seconds")]
    pub idle_timeout: Option<Duration>,
    /// Instead of the coordinator's.
    #[serde(rename = "connection_idle_timeout_secs", default, deserialize_with = "some_seconds")]
    pub connection_idle_timeout: Option<Duration>,
    /// Connections of one instance at once; more wait in order. No limit without it.
    #[serde(default)]
    pub max_connections_per_instance: Option<u32>,
    /// A path that the application answers over HTTP while it is well; without it the agent is asked
    /// alone.
    #[serde(default)]
    pub health_path: Option<String>,
}

impl Route {
    /// The pool that it leads to.
    pub fn target(&self) -> PoolPath {
        PoolPath { tenant: self.tenant_id.clone(), pool: self.pool_id.clone() }
    }
}

fn seconds<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    u32::deserialize(from).map(|seconds| Duration::from_secs(seconds.into()))
}

fn some_seconds<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    seconds(from).map(Some)
}
