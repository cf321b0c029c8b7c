//! One VM as it stands.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

use super::clock::since;
use crate::console::log::{LogBuffer, Severity, SourceId};
use crate::event::vm::{SnapshotInfo, VmInfo, VmSample};

/// Samples kept for the graphs, one a second.
pub const MOST_SAMPLES: usize = 120;

/// How a VM came up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// `booted` or `restored`.
    pub how: String,
    /// Why it was not restored, where it could have been.
    pub why: Option<String>,
    /// The steps with their length in milliseconds.
    pub steps: Vec<(String, u64)>,
}

/// Most memory for the lines of one console, in bytes.
const CONSOLE_LIMIT: usize = 4 * 1024 * 1024;

/// A VM.
#[derive(Debug)]
pub struct VmModel {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its state, e.g. `running`.
    pub state: String,
    /// The record of it; absent until it was read.
    pub info: Option<VmInfo>,
    /// What it used, the newest last.
    pub samples: VecDeque<VmSample>,
    /// How it came up, where that was seen.
    pub start: Option<Start>,
    /// Whether it ends with this console.
    pub leashed: bool,
    /// Ports this console forwards to it, `ADDR:HOST:GUEST`.
    pub forwards: Vec<String>,
    /// The guest's console.
    pub console: LogBuffer,
}

impl VmModel {
    /// A VM of which only the id is known.
    pub fn new(id: &str) -> Self {
        Self {
            id: id.into(),
            name: String::new(),
            state: String::new(),
            info: None,
            samples: VecDeque::new(),
            start: None,
            leashed: false,
            forwards: Vec::new(),
            console: LogBuffer::with_limit(CONSOLE_LIMIT),
        }
    }

    /// Whether it has, or is about to have, a process.
    pub fn is_live(&self) -> bool {
        match &self.info {
            Some(info) => info.live,
            None => !matches!(self.state.as_str(), "stopped" | "failed"),
        }
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.state == "running"
    }

    /// Its own snapshot.
    pub fn snapshot(&self) -> Option<SnapshotInfo> {
        self.info.as_ref()?.snapshot
    }

    /// How long it has been running.
    pub fn up(&self, now: Timestamp) -> Option<Duration> {
        let info = self.info.as_ref().filter(|_| self.is_running())?;
        Some(since(info.changed, now))
    }

    /// Takes its record in.
    pub(super) fn see(&mut self, info: &VmInfo) -> bool {
        if self.info.as_ref() == Some(info) {
            return false;
        }
        self.name.clone_from(&info.name);
        self.state.clone_from(&info.state);
        if !info.live {
            self.samples.clear();
        }
        self.info = Some(info.clone());
        true
    }

    /// Takes a change of its state in that a task told of.
    pub(super) fn turn(&mut self, name: &str, state: &str) -> bool {
        self.name = name.into();
        // The record is newer than what a task of long ago said.
        if self.info.is_none() {
            self.state = state.into();
        }
        true
    }

    /// Takes in that a port is forwarded to it, or no more.
    pub(super) fn forward(&mut self, map: &str, on: bool) -> bool {
        let before = self.forwards.len();
        self.forwards.retain(|known| known != map);
        if on {
            self.forwards.push(map.into());
        }
        on || before != self.forwards.len()
    }

    /// Takes a measurement in.
    pub(super) fn measure(&mut self, sample: VmSample) -> bool {
        // One that was on its way when the VM ended says nothing about it.
        if !self.is_live() {
            return false;
        }
        if self.samples.len() >= MOST_SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
        true
    }

    /// Takes a line of its console in.
    pub(super) fn hear(&mut self, time: Timestamp, text: &str) -> bool {
        self.console.push(time, SourceId::UNNAMED, Severity::Plain, text);
        true
    }
}
