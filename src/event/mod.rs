//! The one vocabulary of everything that happens.
//!
//! A long task writes [`Event`]s into an [`EventSink`]; the console, the headless printer,
//! `--json` and the task's file on disk are readers of the same stream.

pub mod cluster;
pub mod fault;
pub mod line;
pub mod pieces;
pub mod relay;
mod stream;
pub mod text;
pub mod vm;
pub mod words;

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use cluster::{ClusterInfo, InstanceInfo, PoolInfo, RouteInfo, TenantInfo};
pub use stream::{EventSink, EventStream, LOG_CAPACITY};
use vm::{VmInfo, VmSample};

/// Version of the JSON schema; it only grows.
pub const SCHEMA_VERSION: u32 = 1;

/// Names one task on this machine: `b-…` for a build, `r-…` for a run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(String);

impl TaskId {
    /// A new id with `prefix`, sortable by time.
    pub fn new(prefix: char) -> Self {
        // Two that are given within a millisecond, or while the clock goes back, must differ.
        static LAST: AtomicI64 = AtomicI64::new(0);
        let now = Timestamp::now().as_millisecond();
        let later = |last: i64| Some(now.max(last + 1));
        let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, later).unwrap_or(now);
        let millis = now.max(last + 1);
        Self(format!("{prefix}-{millis:011x}-{:x}", std::process::id()))
    }

    /// The task of events that belong to none, such as what a VM uses.
    pub fn machine() -> Self {
        Self("machine".into())
    }

    /// The id with this text, if it is one that [`Self::new`] gives.
    pub fn parse(text: &str) -> Option<Self> {
        let id = Self(text.into());
        id.parts().is_some().then_some(id)
    }

    /// When it was given, in milliseconds since the epoch; `None` of [`Self::machine`].
    pub fn given_ms(&self) -> Option<i64> {
        self.parts().map(|(millis, _)| millis)
    }

    /// Whether this process gave it.
    pub fn is_own(&self) -> bool {
        self.parts().is_some_and(|(_, process)| process == std::process::id())
    }

    fn parts(&self) -> Option<(i64, u32)> {
        let (_, rest) = self.0.split_once('-').filter(|(letter, _)| letter.len() == 1)?;
        let (millis, process) = rest.split_once('-')?;
        Some((i64::from_str_radix(millis, 16).ok()?, u32::from_str_radix(process, 16).ok()?))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One thing that happened in one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Schema version, [`SCHEMA_VERSION`].
    pub v: u32,
    /// When it happened.
    pub time: Timestamp,
    /// The task it belongs to.
    pub task: TaskId,
    /// What happened.
    #[serde(flatten)]
    pub kind: Kind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Kind {
    /// A task began.
    TaskStarted {
        /// What sort of task.
        kind: TaskKind,
        /// One line for people, e.g. `nix/examples/hello#minimal`.
        title: String,
    },
    /// A flake or an Mvmfile is to be built.
    BuildAsked {
        /// The flake, made absolute, with its attribute if one was given; or the Mvmfile's directory.
        flake: String,
        /// The store that is built in, if it is another one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        store: Option<String>,
    },
    /// The task entered a phase, e.g. `evaluate`, `build`, `boot`, `personalise`.
    Phase {
        /// The phase's name.
        name: String,
    },
    /// Something with a beginning and an end began inside the task.
    ActivityStarted {
        /// Unique within the task.
        id: u64,
        /// The activity it is part of.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        parent: Option<u64>,
        /// What it is.
        what: Activity,
    },
    /// A derivation's own phase, e.g. `unpackPhase`.
    ActivityPhase {
        /// The activity.
        id: u64,
        /// The phase's name.
        phase: String,
    },
    /// The activity ended; Nix does not say how.
    ActivityStopped {
        /// The activity.
        id: u64,
    },
    /// Counts of an activity, or of the whole task when `id` is absent.
    Progress {
        /// The activity.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<u64>,
        /// Units finished.
        done: u64,
        /// Units expected; may fall as well as rise.
        expected: u64,
        /// Units under way.
        running: u64,
        /// Units failed.
        failed: u64,
    },
    /// One line of text.
    Log {
        /// Who wrote it.
        source: Source,
        /// The line, with control sequences other than SGR removed.
        text: String,
    },
    /// A build's artifacts are there.
    ArtifactsReady {
        /// The build's id.
        build: String,
        /// The directory that holds them, or the app that they are in.
        path: PathBuf,
        /// True when nothing had to be built.
        cached: bool,
        /// How it was found or made, e.g. `source unchanged`, `same output`, `built`.
        how: String,
    },
    /// A VM changed its state.
    VmState {
        /// The VM's id.
        vm: String,
        /// Its name.
        name: String,
        /// The new state, e.g. `running`.
        state: String,
    },
    /// How a VM came up and what each step took.
    VmStarted {
        /// The VM's id.
        vm: String,
        /// Its name.
        name: String,
        /// `booted` or `restored`.
        how: String,
        /// Why it was not restored, where it could have been.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
        /// Steps in order with their length in milliseconds.
        steps: Vec<(String, u64)>,
    },
    /// A VM was saved.
    SnapshotTaken {
        /// The VM's id.
        vm: String,
        /// Its name.
        name: String,
        /// Bytes on disk.
        bytes: u64,
        /// How long the guest stood still, in milliseconds.
        paused_ms: u64,
        /// How long it took in all, in milliseconds.
        ms: u64,
    },
    /// A VM as the records have it: sent when it is first seen and whenever something changed.
    VmSeen {
        /// All there is to know.
        #[serde(flatten)]
        info: Box<VmInfo>,
    },
    /// A VM is no longer in the records.
    VmGone {
        /// The VM's id.
        vm: String,
    },
    /// What a running VM uses.
    VmSample {
        /// The VM's id.
        vm: String,
        /// The figures.
        #[serde(flatten)]
        sample: VmSample,
    },
    /// A VM ends when this process does, or no more.
    VmLeashed {
        /// The VM's id.
        vm: String,
        /// Whether it does.
        on: bool,
    },
    /// This process forwards a port to a VM, or no more.
    Forwarded {
        /// The VM's id.
        vm: String,
        /// From where to where, `ADDR:HOST:GUEST`.
        map: String,
        /// Whether it does.
        on: bool,
    },
    /// What this machine works with, for people, e.g. `qemu/tcg · nix 2.8.0`.
    Machine {
        /// The words.
        text: String,
    },
    /// The cluster as it stands: sent when it is first seen and whenever something changed.
    ClusterSeen {
        /// All there is to know.
        cluster: Box<ClusterInfo>,
    },
    /// A tenant of this state: sent when it is first seen and whenever something changed.
    TenantSeen {
        /// The tenant, without its pools.
        tenant: Box<TenantInfo>,
    },
    /// A pool of this state: sent when it is first seen and whenever something changed.
    PoolSeen {
        /// Its tenant.
        tenant: String,
        /// The pool, without its instances.
        pool: Box<PoolInfo>,
    },
    /// An instance of this state: sent when it is first seen and whenever something changed.
    InstanceSeen {
        /// Its tenant.
        tenant: String,
        /// Its pool.
        pool: String,
        /// The instance.
        instance: Box<InstanceInfo>,
    },
    /// A tenant, a pool or an instance of this state is no more, nor is anything of it.
    FleetGone {
        /// `TENANT`, `TENANT/POOL` or `TENANT/POOL/INSTANCE`.
        path: String,
    },
    /// There is no cluster any more, nor any route.
    ClusterGone,
    /// A route as it stands.
    RouteSeen {
        /// All there is to know.
        route: Box<RouteInfo>,
    },
    /// A route is no more.
    RouteGone {
        /// Where it listened.
        listen: String,
    },
    /// Sources that are watched changed; what is done about it is a task of its own.
    SourcesChanged {
        /// What changed, the first few; empty where that cannot be told.
        paths: Vec<String>,
        /// How many more changed.
        more: u64,
    },
    /// A source that is watched changed, or somebody asked for a rebuild.
    WatchTriggered {
        /// What changed, the first few; empty when somebody asked.
        paths: Vec<String>,
        /// How many more changed.
        more: u64,
    },
    /// The task ended.
    TaskEnded {
        /// How.
        outcome: Outcome,
        /// How long it took, in milliseconds.
        duration_ms: u64,
        /// Log lines dropped because a reader was slow.
        dropped: u64,
    },
}

/// Sorts of task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskKind {
    /// A flake is built.
    Build,
    /// A flake is built and booted.
    Run,
    /// The machine is being prepared.
    Setup,
    /// A VM is saved, or goes on from where it was saved.
    Snapshot,
    /// Tenants, pools or instances are changed.
    Fleet,
    /// Agent and coordinator of this machine are started or ended.
    Cluster,
}

impl TaskKind {
    /// The letter that begins the ids of such tasks.
    pub fn letter(self) -> char {
        match self {
            Self::Build => 'b',
            Self::Run => 'r',
            Self::Setup => 's',
            Self::Snapshot => 'n',
            Self::Fleet => 'f',
            Self::Cluster => 'c',
        }
    }
}

/// What an activity does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Activity {
    /// Nix evaluates or fetches inputs.
    Evaluate {
        /// Nix's own words.
        text: String,
    },
    /// A file is downloaded.
    Download {
        /// From where.
        uri: String,
    },
    /// A store path is copied or substituted.
    Copy {
        /// The store path.
        path: String,
    },
    /// A derivation is built, or a layer of an Mvmfile's image.
    Build {
        /// The derivation's store path, or the layer's directory.
        drv: String,
        /// The machine that builds it; empty for this one.
        host: String,
        /// How long it took in the past, in milliseconds (the median).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        usual_ms: Option<u64>,
        /// Derivations built earlier in the same task that it needs, the first few hundred.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        needs: Vec<String>,
    },
    /// The set of all builds, copies or downloads: bears totals.
    Total {
        /// `builds`, `copies` or `downloads`.
        of: String,
    },
    /// Something else, in Nix's words.
    Other {
        /// Nix's own words.
        text: String,
    },
}

/// Who wrote a log line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "snake_case")]
pub enum Source {
    /// The builder of a derivation, or what makes a layer.
    Build {
        /// The derivation's store path, or the layer's directory.
        drv: String,
    },
    /// Nix itself.
    Nix {
        /// Nix's verbosity level: 0 error, 1 warning, 3 information.
        level: u8,
    },
    /// The guest's console.
    Console {
        /// The VM's id.
        vm: String,
    },
    /// mvm.
    Mvm {
        /// How grave it is.
        level: Level,
    },
}

/// How grave a line of mvm's own is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// For information.
    Info,
    /// Something the user should know.
    Warning,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// As wished.
    Ok,
    /// With an error.
    Failed {
        /// What failed, on what, and what to do next.
        error: String,
        /// The last lines of the log that matters.
        tail: Vec<String>,
    },
    /// By the user.
    Cancelled,
}

impl Kind {
    /// Whether a slow reader may lose it.
    pub fn may_drop(&self) -> bool {
        matches!(self, Kind::Log { .. } | Kind::Progress { .. } | Kind::VmSample { .. })
    }
}

#[cfg(test)]
mod tests;
