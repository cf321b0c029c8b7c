//! What is true of a task, written only by applying events.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

use super::clock::since;
use super::doing::Doing;
use super::totals::Totals;
use super::transfer::Transfers;
use super::tree::Tree;
use crate::console::log::{LogBuffer, Severity, SourceId};
use crate::event::text::{clean, strip};
use crate::event::words::{drv_name, saving};
use crate::event::{Activity, Event, Kind, Level, Outcome, Source, TaskId, TaskKind};

/// Lines shown of the log that matters to an error.
const MOST_TAIL: usize = 60;
/// Phases kept.
const MOST_PHASES: usize = 64;

/// One task as it stands.
#[derive(Debug, Clone)]
pub struct TaskModel {
    /// Its id.
    pub id: TaskId,
    /// Whether this process does it.
    pub own: bool,
    /// What sort of task it is.
    pub kind: TaskKind,
    /// One line for people.
    pub title: String,
    /// The phases it has been in, with when each began.
    pub phases: Vec<(String, Timestamp)>,
    /// When it began.
    pub started: Option<Timestamp>,
    /// Derivations.
    pub tree: Tree,
    /// Downloads and copies.
    pub transfers: Transfers,
    /// What else goes on.
    pub doing: Doing,
    /// What Nix counts.
    pub totals: Totals,
    /// Its log.
    pub log: LogBuffer,
    /// The sources of the log that have a name, by their place in the tree.
    sources: HashMap<usize, SourceId>,
    /// Log lines lost because a reader was slow.
    pub lost: u64,
    /// What was built.
    pub artifacts: Option<Artifacts>,
    /// The VM that was started.
    pub vm: Option<VmStart>,
    /// The VM that was saved.
    pub saved: Option<Saved>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// How it ended.
    pub outcome: Option<Outcome>,
}

/// What a build gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifacts {
    /// The directory.
    pub path: PathBuf,
    /// True when nothing had to be built.
    pub cached: bool,
    /// How they were found or made, e.g. `source unchanged`.
    pub how: String,
}

/// How a VM came up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmStart {
    /// Its name.
    pub name: String,
    /// `booted` or `restored`.
    pub how: String,
    /// Why it was not restored, where it could have been.
    pub why: Option<String>,
    /// Its steps with their length.
    pub steps: Vec<(String, Duration)>,
}

/// How a VM was saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// Its name.
    pub name: String,
    /// Bytes on disk.
    pub bytes: u64,
    /// How long the guest stood still.
    pub paused: Duration,
    /// How long it took in all.
    pub whole: Duration,
}

impl Saved {
    /// How, for people.
    pub fn words(&self) -> String {
        saving(self.bytes, self.paused, self.whole)
    }
}

impl TaskModel {
    /// A task of which only the id is known. Its log takes at most so many bytes.
    pub fn new(id: TaskId, log_limit: usize) -> Self {
        Self {
            own: id.is_own(),
            id,
            kind: TaskKind::Build,
            title: String::new(),
            phases: Vec::new(),
            started: None,
            tree: Tree::default(),
            transfers: Transfers::default(),
            doing: Doing::default(),
            totals: Totals::default(),
            log: LogBuffer::with_limit(log_limit),
            sources: HashMap::new(),
            lost: 0,
            artifacts: None,
            vm: None,
            saved: None,
            ended: None,
            outcome: None,
        }
    }

    /// The phase it is in; empty before the first.
    pub fn phase(&self) -> &str {
        self.phases.last().map_or("", |(name, _)| name)
    }

    /// The phases, with how long each took or has been going on.
    pub fn phase_times(&self, now: Timestamp) -> impl Iterator<Item = (&str, Duration)> {
        let end = self.ended.unwrap_or(now);
        let ends = self.phases.iter().skip(1).map(|(_, time)| *time).chain([end]);
        self.phases.iter().zip(ends).map(|((name, time), end)| (name.as_str(), since(*time, end)))
    }

    /// The process that does it, where its id tells.
    pub fn pid(&self) -> Option<u32> {
        u32::from_str_radix(self.id.as_str().rsplit('-').next()?, 16).ok()
    }

    /// What it failed with, line by line: the whole error and, where no derivation is to blame for
    /// it, the last lines of the log that matters.
    pub fn error_lines(&self) -> impl Iterator<Item = &str> {
        let (error, tail) = match &self.outcome {
            Some(Outcome::Failed { error, tail }) => (error.as_str(), tail.as_slice()),
            _ => ("", [].as_slice()),
        };
        let from =
            if self.tree.failed().is_empty() { tail.len().saturating_sub(MOST_TAIL) } else { tail.len() };
        error.lines().chain(tail[from..].iter().map(String::as_str))
    }

    /// Takes an event in. Returns whether anything that shows has changed.
    pub fn apply(&mut self, event: &Event) -> bool {
        let time = event.time;
        let doing = self.doing.apply(&event.kind, time);
        self.told(event, time) || doing
    }

    fn told(&mut self, event: &Event, time: Timestamp) -> bool {
        match &event.kind {
            Kind::TaskStarted { title, kind } => {
                self.kind = *kind;
                self.title = strip(title);
                self.started = Some(time);
            }
            Kind::Phase { name } if self.phases.len() < MOST_PHASES => self.phases.push((strip(name), time)),
            Kind::ActivityStarted { id, parent, what } => return self.begin(*id, *parent, what, time),
            Kind::ActivityPhase { id, phase } => return self.tree.phase(*id, phase),
            Kind::ActivityStopped { id } => {
                let transfer = self.transfers.end(*id);
                return self.tree.end(*id, time) || transfer;
            }
            Kind::Progress { id, done, expected, running, failed } => {
                let transfer = id.is_some_and(|id| self.transfers.progress(id, *done, *expected, time));
                return self.totals.progress(*id, [*done, *expected, *running, *failed]) || transfer;
            }
            Kind::Log { source, text } => return self.log(source, text, time),
            Kind::ArtifactsReady { path, cached, how, .. } => {
                self.artifacts = Some(Artifacts { path: path.clone(), cached: *cached, how: strip(how) });
            }
            Kind::VmStarted { name, how, why, steps, .. } => {
                let steps =
                    steps.iter().map(|(step, ms)| (strip(step), Duration::from_millis(*ms))).collect();
                let why = why.as_deref().map(strip);
                self.vm = Some(VmStart { name: strip(name), how: strip(how), why, steps });
            }
            Kind::SnapshotTaken { name, bytes, paused_ms, ms, .. } => {
                let [paused, whole] = [*paused_ms, *ms].map(Duration::from_millis);
                let saved = Saved { name: strip(name), bytes: *bytes, paused, whole };
                let line = format!("saved {} {}", saved.name, saved.words());
                self.log.push(time, SourceId::UNNAMED, Severity::Info, &line);
                self.saved = Some(saved);
            }
            Kind::TaskEnded { outcome, dropped, .. } => self.end(outcome, *dropped, time),
            _ => return false,
        }
        true
    }

    fn begin(&mut self, id: u64, parent: Option<u64>, what: &Activity, time: Timestamp) -> bool {
        match what {
            Activity::Build { .. } => self.tree.begin(id, what, time),
            Activity::Download { .. } | Activity::Copy { .. } => self.transfers.begin(id, parent, what, time),
            Activity::Total { .. } => {
                self.totals.begin(id, what);
                false
            }
            Activity::Evaluate { .. } | Activity::Other { .. } => false,
        }
    }

    fn end(&mut self, outcome: &Outcome, dropped: u64, time: Timestamp) {
        let well = *outcome == Outcome::Ok;
        if let Outcome::Failed { error, .. } = outcome {
            self.tree.blame(error, time);
            for line in error.lines() {
                self.log.push(time, SourceId::UNNAMED, Severity::Error, &clean(line));
            }
        }
        self.log.lost(dropped);
        self.lost = dropped;
        // Counts that were lost say nothing.
        let counted = self.totals.builds();
        let known = dropped == 0 && counted.expected > 0;
        let built = if known { counted.done } else { u64::MAX };
        self.tree.end_all(time, (!well).then_some(built));
        self.totals.end(well);
        self.transfers.end_all();
        self.ended = Some(time);
        self.outcome = Some(outcome.clone());
    }

    /// The source of the log that a derivation is, once it wrote something.
    pub fn source(&self, drv: &str) -> Option<SourceId> {
        self.sources.get(&self.tree.find(drv)?).copied()
    }

    fn log(&mut self, source: &Source, text: &str, time: Timestamp) -> bool {
        let (severity, source) = match source {
            Source::Build { drv } => match self.tree.find(drv) {
                Some(at) => {
                    let named = || self.log.add_source(drv_name(drv));
                    (Severity::Plain, *self.sources.entry(at).or_insert_with(named))
                }
                None => {
                    let text = format!("{}> {text}", drv_name(drv));
                    self.log.push(time, SourceId::UNNAMED, Severity::Plain, &text);
                    return true;
                }
            },
            Source::Nix { level } => {
                if *level == 0 {
                    self.tree.blame(text, time);
                }
                let severity = match level {
                    0 => Severity::Error,
                    1 => Severity::Warning,
                    _ => Severity::Plain,
                };
                (severity, SourceId::UNNAMED)
            }
            Source::Console { .. } => (Severity::Plain, SourceId::UNNAMED),
            Source::Mvm { level: Level::Warning } => (Severity::Warning, SourceId::UNNAMED),
            Source::Mvm { level: Level::Info } => (Severity::Info, SourceId::UNNAMED),
        };
        self.log.push(time, source, severity, text);
        true
    }
}

#[cfg(test)]
mod tests;
