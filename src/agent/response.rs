//! What an agent answers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::pki::{PeerName, Role};
use super::request::{InstanceFilter, LeaseId};
use crate::event::Event;
use crate::fleet::ids::{InstancePath, TenantId};
use crate::fleet::state::InstanceState;

/// Most instances in one answer: a frame holds them.
pub const PAGE: usize = 2000;

/// An answer: `{"answer": "woken", …}`, or `{"answer": "error", "code": …, "message": …}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Response {
    /// Who is there.
    Hello {
        /// The node's name.
        node: PeerName,
        /// mvm's version there.
        version: String,
        /// As what it sees the asker.
        role: Role,
    },
    /// What was, or would be, done.
    Reconciled {
        /// The plan, as the fleet writes it.
        plan: serde_json::Value,
    },
    /// What the node is.
    NodeInfo(NodeInfo),
    /// What the node does.
    NodeStats(NodeStats),
    /// Tenants.
    Tenants {
        /// By name.
        tenants: Vec<TenantSummary>,
    },
    /// Instances.
    Instances {
        /// By path.
        instances: Vec<InstanceSummary>,
        /// Whether there are more: ask again for those after the last.
        #[serde(default)]
        more: bool,
    },
    /// An instance runs.
    Woken(Woken),
    /// The lease goes on.
    Renewed,
    /// The lease is over.
    Released,
    /// The instance sleeps.
    Slept,
    /// [`Notice`]s follow on the same stream.
    Subscribed,
    /// It did not work.
    Error(Fault),
}

impl Response {
    /// Of all instances those that are asked for, as many as one answer holds.
    pub fn instances(all: impl IntoIterator<Item = InstanceSummary>, filter: &InstanceFilter) -> Self {
        let mut instances: Vec<_> = all.into_iter().filter(|one| filter.takes(&one.path)).collect();
        instances.sort_by(|a, b| a.path.cmp(&b.path));
        let more = instances.len() > PAGE;
        instances.truncate(PAGE);
        Self::Instances { instances, more }
    }

    /// The answer's name, as on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello { .. } => "hello",
            Self::Reconciled { .. } => "reconciled",
            Self::NodeInfo(_) => "node_info",
            Self::NodeStats(_) => "node_stats",
            Self::Tenants { .. } => "tenants",
            Self::Instances { .. } => "instances",
            Self::Woken(_) => "woken",
            Self::Renewed => "renewed",
            Self::Released => "released",
            Self::Slept => "slept",
            Self::Subscribed => "subscribed",
            Self::Error(_) => "error",
        }
    }

    /// An error.
    pub fn error(code: FaultCode, message: impl Into<String>) -> Self {
        Self::Error(Fault::new(code, message))
    }
}

/// What a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its name.
    pub node: String,
    /// mvm's version.
    pub version: String,
    /// What runs its guests, e.g. `qemu/kvm`.
    pub hypervisor: String,
    /// How guests are reached, e.g. `user`.
    pub network: String,
    /// CPUs.
    pub cpus: u32,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// Since when the agent runs.
    pub started: Timestamp,
}

/// What a node does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStats {
    /// Instances in each state.
    pub instances: BTreeMap<InstanceState, u64>,
    /// CPUs of running and warm instances.
    pub vcpus: u32,
    /// Memory of running and warm instances, MiB.
    pub mem_mib: u64,
    /// Leases that are held.
    pub leases: u64,
    /// Rounds of reconciling.
    pub rounds: u64,
    /// Rounds in which something failed.
    pub failed_rounds: u64,
    /// When the last round ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_round: Option<Timestamp>,
}

/// A tenant in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantSummary {
    /// Its name.
    pub tenant: TenantId,
    /// How many pools it has.
    pub pools: u32,
    /// Instances in each state.
    pub instances: BTreeMap<InstanceState, u64>,
}

/// An instance in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceSummary {
    /// Its path.
    pub path: InstancePath,
    /// Its state.
    pub state: InstanceState,
    /// Since when.
    pub since: Timestamp,
    /// Where it is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<SocketAddr>,
    /// The revision of its pool that it was made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Whether a lease keeps it running.
    #[serde(default)]
    pub leased: bool,
    /// Whether it is where it belongs, and not only awake for those who have woken it.
    #[serde(default)]
    pub at_home: bool,
}

/// An instance that was woken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Woken {
    /// Keeps it running.
    pub lease: LeaseId,
    /// The instance.
    pub instance: InstancePath,
    /// Where it is reached.
    pub endpoint: SocketAddr,
    /// What took how long, in milliseconds and in order; nothing where it ran already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<(String, u64)>,
}

/// What is told to a subscriber.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "notice", rename_all = "snake_case")]
pub enum Notice {
    /// Something happened.
    Event {
        /// What.
        event: Box<Event>,
    },
    /// The subscriber was too slow for these.
    Lost {
        /// How many.
        events: u64,
    },
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// For programs.
    pub code: FaultCode,
    /// For people; may end with a `help:` line.
    pub message: String,
    /// When it makes sense to ask again, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_ms: Option<u64>,
}

impl Fault {
    /// One that will not go by itself.
    pub fn new(code: FaultCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_ms: None }
    }

    /// Too much at once; ask again after `wait`.
    pub fn busy(message: impl Into<String>, wait: Duration) -> Self {
        let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        Self { code: FaultCode::Busy, message: message.into(), retry_ms: Some(millis.max(1)) }
    }
}

/// What went wrong, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultCode {
    /// Too much at once.
    Busy,
    /// No frame: empty, too long, cut short.
    BadFrame,
    /// A frame that did not come to its end in time.
    TooSlow,
    /// A request that cannot be read.
    BadRequest,
    /// A request of another name than there are.
    UnknownRequest,
    /// The certificate does not allow it.
    Forbidden,
    /// There is no such tenant, pool, instance or lease.
    NotFound,
    /// Its state does not allow it.
    Conflict,
    /// A quota does not allow it.
    Quota,
    /// It took too long.
    Timeout,
    /// The answer does not fit a frame.
    TooLarge,
    /// The agent ends.
    Stopping,
    /// The agent failed.
    Internal,
    /// Of a newer agent.
    #[serde(other)]
    Other,
}

impl FaultCode {
    /// As on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::BadFrame => "bad_frame",
            Self::TooSlow => "too_slow",
            Self::BadRequest => "bad_request",
            Self::UnknownRequest => "unknown_request",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Quota => "quota",
            Self::Timeout => "timeout",
            Self::TooLarge => "too_large",
            Self::Stopping => "stopping",
            Self::Internal => "internal",
            Self::Other => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(number: usize) -> InstanceSummary {
        let label = "x".repeat(63);
        InstanceSummary {
            path: format!("{label}/{label}/i-{number:08x}").parse().unwrap(),
            state: InstanceState::Destroyed,
            since: Timestamp::now(),
            endpoint: Some("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().unwrap()),
            revision: Some("r".repeat(64)),
            leased: false,
            at_home: true,
        }
    }

    #[test]
    fn a_page_of_instances_fits_a_frame_and_all_pages_hold_all() {
        let all: Vec<_> = (0..PAGE * 2 + 1).rev().map(summary).collect();
        let mut filter = InstanceFilter::default();
        let mut seen = 0;
        for page in 0.. {
            assert!(page < 4);
            let answer = Response::instances(all.clone(), &filter);
            assert!(super::super::wire::encode(&answer).is_ok());
            let Response::Instances { instances, more } = answer else { unreachable!() };
            seen += instances.len();
            filter.after = instances.last().map(|last| last.path.clone());
            if !more {
                break;
            }
        }
        assert_eq!(seen, all.len());
    }

    #[test]
    fn answers_are_read_as_they_are_written_and_may_grow() {
        let stats = NodeStats { instances: [(InstanceState::Warm, 3)].into(), ..NodeStats::default() };
        for answer in [
            Response::Subscribed,
            Response::NodeStats(stats),
            Response::instances([summary(1)], &InstanceFilter::default()),
            Response::Error(Fault::busy("no", Duration::from_millis(20))),
        ] {
            let text = serde_json::to_string(&answer).unwrap();
            assert_eq!(serde_json::from_str::<Response>(&text).unwrap(), answer);
        }
        let newer = r#"{"answer":"error","code":"moved","message":"gone","whither":"x"}"#;
        let answer: Response = serde_json::from_str(newer).unwrap();
        assert_eq!(answer, Response::error(FaultCode::Other, "gone"));
    }
}
