//! How the cluster stands: its two processes, and what they and the database say.

use std::net::SocketAddr;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use super::error::ClusterError;
use super::part::{Part, State};
use super::plan::{Plan, config_file};
use crate::coordinator::status::{NodeState, NodeStatus, RouteStatus};
use crate::coordinator::{self, admin};
use crate::fleet::ids::InstancePath;
use crate::fleet::record;
use crate::fleet::state::InstanceState;
use crate::fleet::vm::endpoint;
use crate::host::paths::Paths;
use crate::store::Store;

/// Version of the schema.
pub const SCHEMA_VERSION: u32 = 1;

/// The cluster at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// [`SCHEMA_VERSION`].
    pub v: u32,
    /// Whether `init` was here.
    pub initialised: bool,
    /// The agent.
    pub agent: PartStatus,
    /// The coordinator.
    pub coordinator: PartStatus,
    /// The nodes, as the coordinator sees them; as they are written down while it does not run.
    pub nodes: Vec<NodeStatus>,
    /// The instances of the cluster's pools.
    pub instances: Vec<InstanceStatus>,
    /// The routes, as the coordinator tells; none while it does not run.
    pub routes: Vec<RouteStatus>,
    /// All that the coordinator tells.
    #[serde(skip)]
    pub told: Option<coordinator::status::Status>,
    /// What is wrong with the files, or with asking.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}

/// One of the two processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartStatus {
    /// What it is up to.
    pub state: PartState,
    /// Its process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Since when it runs, where `up` started it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Where it listens: the agent's address, or the coordinator's socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Its log.
    pub log: PathBuf,
}

/// What a part is up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PartState {
    /// It runs.
    Running,
    /// It does not serve yet.
    Starting,
    /// Another runs, with files of its own.
    Foreign,
    /// It ended without being told to.
    Crashed,
    /// It does not run.
    Stopped,
}

impl PartState {
    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Starting => "starting",
            Self::Foreign => "foreign",
            Self::Crashed => "crashed",
            Self::Stopped => "stopped",
        }
    }
}

/// An instance of the cluster's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InstanceStatus {
    /// Its path.
    pub path: InstancePath,
    /// Its state.
    pub state: InstanceState,
    /// Since when.
    pub since_ms: i64,
    /// Where it is reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
    /// Whether somebody keeps it awake.
    pub leased: bool,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The two processes, by what can be seen without asking anybody.
pub fn parts(paths: &Paths) -> [PartStatus; 2] {
    Part::ALL.map(|part| {
        let (state, process, record) = match part.look(paths) {
            State::Running { process, record } => (PartState::Running, Some(process), record),
            State::Starting(record) => (PartState::Starting, Some(record.process.clone()), Some(record)),
            State::Stranger(process) => (PartState::Foreign, process, None),
            State::Crashed => (PartState::Crashed, None, part.record(paths)),
            State::Stopped => (PartState::Stopped, None, None),
        };
        let address = match part {
            Part::Agent => record.as_ref().and_then(|record| record.listen).map(|at| at.to_string()),
            Part::Coordinator => process.as_ref().map(|_| paths.coordinator_socket().display().to_string()),
        };
        PartStatus {
            state,
            pid: process.map(|process| process.pid),
            since: record.map(|record| record.started),
            address,
            log: part.log(paths),
        }
    })
}

/// Whether there is a cluster in this state.
pub fn is_there(paths: &Paths) -> bool {
    config_file(paths).exists()
}

/// Looks and asks.
pub async fn status(paths: &Paths, store: &Store) -> Result<Status, ClusterError> {
    let [agent, coordinator] = parts(paths);
    let mut errors = Vec::new();
    let plan = match Plan::read(paths) {
        Ok(plan) => Some(plan),
        // That is no fault.
        Err(ClusterError::Missing(_)) if !is_there(paths) => None,
        Err(error) => {
            errors.push(error.to_string());
            None
        }
    };
    let asked = match coordinator.state {
        PartState::Running | PartState::Foreign => {
            let asked = admin::client::status(&paths.coordinator_socket()).await;
            asked.map_err(|error| errors.push(error.to_string())).ok()
        }
        _ => None,
    };
    let unasked = |plan: &Plan| {
        let node = |node: &crate::coordinator::config::Node| NodeStatus {
            name: node.name.clone(),
            address: node.address,
            state: NodeState::Connecting,
            error: Some("no coordinator runs".into()),
        };
        plan.config.nodes.iter().map(node).collect()
    };
    let (nodes, routes) = match &asked {
        Some(asked) => {
            errors.extend(asked.config_error.clone());
            (asked.nodes.clone(), asked.routes.clone())
        }
        None => (plan.as_ref().map(unasked).unwrap_or_default(), Vec::new()),
    };
    let instances = instances(plan.as_ref(), store)?;
    let initialised = is_there(paths);
    let (v, told) = (SCHEMA_VERSION, asked);
    Ok(Status { v, initialised, agent, coordinator, nodes, instances, routes, told, errors })
}

/// The instances of the plan's pools; of the cluster's tenant where there is no plan.
fn instances(plan: Option<&Plan>, store: &Store) -> Result<Vec<InstanceStatus>, ClusterError> {
    let pools = plan.map(Plan::pools);
    let now_ms = Timestamp::now().as_millisecond();
    let fleet = record::load(store)?;
    let ours = fleet.iter().flat_map(|tenant| &tenant.pools).filter(|pool| match &pools {
        Some(pools) => pools.contains(&pool.path),
        None => pool.path.tenant.as_str() == super::NAME,
    });
    let mut found = Vec::new();
    for instance in ours.flat_map(|pool| &pool.instances) {
        found.push(InstanceStatus {
            path: instance.path.clone(),
            state: instance.state,
            since_ms: instance.row.since_ms,
            endpoint: endpoint(store, &instance.path)?,
            leased: instance.wakefulness().is_needed(now_ms),
            detail: instance.row.detail.clone(),
        });
    }
    Ok(found)
}
