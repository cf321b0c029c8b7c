//! One derivation that is, or was, built.

use std::time::Duration;

use jiff::Timestamp;

use super::clock::since;

/// How a build stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is being built.
    Running,
    /// It ended, and nothing says that it failed: Nix does not tell how a build ended.
    Done,
    /// It failed.
    Failed,
    /// It ended together with a task that was not to succeed; how is not known.
    Ended,
}

/// A derivation.
#[derive(Debug, Clone)]
pub struct Derivation {
    /// Its store path.
    pub drv: String,
    /// Its name, without the hash.
    pub name: String,
    /// The machine that builds it; empty for this one.
    pub host: String,
    /// Its own phase, e.g. `unpackPhase`.
    pub phase: String,
    /// When its build began.
    pub started: Timestamp,
    /// When its build ended.
    pub ended: Option<Timestamp>,
    /// How long it usually takes, in milliseconds.
    pub usual_ms: Option<u64>,
    /// How its build stands.
    pub state: State,
    /// Its activity.
    pub(super) id: u64,
    /// The first derivation to begin that needs it.
    pub(super) above: Option<usize>,
    /// What it is drawn above, in order of their start.
    pub(super) below: Vec<usize>,
    /// Rows it takes together with all below it.
    pub(super) rows: usize,
}

impl Derivation {
    /// How long its build took, or has been going on.
    pub fn elapsed(&self, now: Timestamp) -> Duration {
        since(self.started, self.ended.unwrap_or(now))
    }

    /// How long it usually takes.
    pub fn usual(&self) -> Option<Duration> {
        self.usual_ms.map(Duration::from_millis)
    }
}
