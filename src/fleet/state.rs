//! The states of an instance, and the one function by which they follow each other.

use serde::{Deserialize, Serialize};

/// State of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// Recorded.
    Created,
    /// Its image and its address are settled; it may be started.
    Ready,
    /// Its guest runs.
    Running,
    /// Its guest is halted in memory.
    Warm,
    /// Its guest is saved on disk; no process.
    Sleeping,
    /// Over, with its disk kept.
    Stopped,
    /// Over by a fault; with its disk kept.
    Failed,
    /// About to be forgotten.
    Destroyed,
}

/// What happens to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Image and address are settled.
    Prepare,
    /// The guest has booted.
    Start,
    /// The guest is halted.
    Warm,
    /// The halted guest goes on.
    Resume,
    /// The guest is saved and its process over.
    Sleep,
    /// The saved guest goes on.
    Wake,
    /// The guest is over, in order.
    Stop,
    /// The guest is over, or never came up, by a fault.
    Fail,
    /// The instance is to be forgotten.
    Destroy,
}

/// A change that a state does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an instance that is {state} cannot {change}", state = .state.as_str(), change = .change.as_str())]
pub struct NoSuchChange {
    /// The state.
    pub state: InstanceState,
    /// The change.
    pub change: Change,
}

impl InstanceState {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Created,
        Self::Ready,
        Self::Running,
        Self::Warm,
        Self::Sleeping,
        Self::Stopped,
        Self::Failed,
        Self::Destroyed,
    ];

    /// The state's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Warm => "warm",
            Self::Sleeping => "sleeping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Destroyed => "destroyed",
        }
    }

    /// Whether it has a guest in memory.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Running | Self::Warm)
    }

    /// The state after `change`.
    pub fn after(self, change: Change) -> Result<Self, NoSuchChange> {
        use InstanceState::*;
        Ok(match (self, change) {
            (Created, Change::Prepare) => Ready,
            (Ready | Stopped | Failed, Change::Start) => Running,
            (Running, Change::Warm) => Warm,
            (Warm, Change::Resume) => Running,
            (Running | Warm, Change::Sleep) => Sleeping,
            (Sleeping, Change::Wake) => Running,
            (Running | Warm | Sleeping | Failed, Change::Stop) => Stopped,
            (Created | Ready | Running | Warm | Sleeping | Stopped | Failed, Change::Fail) => Failed,
            (Created | Ready | Running | Warm | Sleeping | Stopped | Failed, Change::Destroy) => Destroyed,
            (state, change) => return Err(NoSuchChange { state, change }),
        })
    }
}

impl Change {
    /// The change as a verb.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prepare => "be prepared",
            Self::Start => "start",
            Self::Warm => "be warmed",
            Self::Resume => "resume",
            Self::Sleep => "be put to sleep",
            Self::Wake => "be woken",
            Self::Stop => "stop",
            Self::Fail => "fail",
            Self::Destroy => "be destroyed",
        }
    }
}
