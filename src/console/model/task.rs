//! What is true of a task, written only by applying events.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;

use crate::event::{Activity, Event, Kind, Outcome, Source, TaskId, TaskKind};

/// Most activities kept; the oldest ended ones go first.
const MOST_ITEMS: usize = 256;
/// Last log lines kept.
const MOST_LINES: usize = 200;

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
    /// The phase it is in.
    pub phase: String,
    /// When it began.
    pub started: Option<Timestamp>,
    /// Builds and downloads, in order of their start.
    pub items: VecDeque<Item>,
    /// Builds done and expected.
    pub builds: (u64, u64),
    /// The activity whose progress counts builds.
    counting: Option<u64>,
    /// Last log lines.
    pub lines: VecDeque<String>,
    /// When it ended.
    pub ended: Option<Timestamp>,
    /// How it ended.
    pub outcome: Option<Outcome>,
}

/// A build or download.
#[derive(Debug, Clone)]
pub struct Item {
    id: u64,
    /// What it is, e.g. `hello-rootfs`.
    pub name: String,
    /// `building` or `fetching`.
    pub verb: &'static str,
    /// The machine it runs on; empty for this one.
    pub host: String,
    /// Its own phase, e.g. `unpackPhase`.
    pub phase: String,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Option<Timestamp>,
}

impl Item {
    /// How long it ran, or has been running.
    pub fn elapsed(&self, now: Timestamp) -> Duration {
        since(self.started, self.ended.unwrap_or(now))
    }
}

/// Time from `from` to `to`, zero when the clock went back.
pub fn since(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

impl TaskModel {
    /// A task of which only the id is known.
    pub fn new(id: TaskId) -> Self {
        Self {
            own: id.is_own(),
            id,
            kind: TaskKind::Build,
            title: String::new(),
            phase: String::new(),
            started: None,
            items: VecDeque::new(),
            builds: (0, 0),
            counting: None,
            lines: VecDeque::new(),
            ended: None,
            outcome: None,
        }
    }

    /// Takes an event in. Returns whether anything that shows has changed.
    pub fn apply(&mut self, event: &Event) -> bool {
        match &event.kind {
            Kind::TaskStarted { title, kind } => {
                self.kind = *kind;
                self.title.clone_from(title);
                self.started = Some(event.time);
            }
            Kind::Phase { name } => self.phase.clone_from(name),
            Kind::ActivityStarted { id, what, .. } => return self.begin(*id, what, event.time),
            Kind::ActivityPhase { id, phase } => match self.item(*id) {
                Some(item) => item.phase.clone_from(phase),
                None => return false,
            },
            Kind::ActivityStopped { id } => match self.item(*id) {
                Some(item) => item.ended = Some(event.time),
                None => return false,
            },
            Kind::Progress { id, done, expected, .. } if *id == self.counting => {
                // When all is done Nix counts back to nought.
                self.builds = (self.builds.0.max(*done), self.builds.1.max(*expected));
            }
            Kind::Log { source, text } => return self.log(source, text),
            Kind::TaskEnded { outcome, .. } => {
                self.ended = Some(event.time);
                self.outcome = Some(outcome.clone());
            }
            _ => return false,
        }
        true
    }

    fn begin(&mut self, id: u64, what: &Activity, time: Timestamp) -> bool {
        let (name, verb, host) = match what {
            Activity::Build { drv, host, .. } => {
                (crate::event::words::drv_name(drv).to_string(), "building", host.clone())
            }
            Activity::Download { uri } => (uri.clone(), "fetching", String::new()),
            Activity::Total { of } if of == "builds" => {
                self.counting = Some(id);
                return false;
            }
            _ => return false,
        };
        if self.items.len() >= MOST_ITEMS {
            let oldest = self.items.iter().position(|item| item.ended.is_some()).unwrap_or(0);
            self.items.remove(oldest);
        }
        self.items.push_back(Item { id, name, verb, host, phase: String::new(), started: time, ended: None });
        true
    }

    fn item(&mut self, id: u64) -> Option<&mut Item> {
        self.items.iter_mut().rev().find(|item| item.id == id)
    }

    fn log(&mut self, source: &Source, text: &str) -> bool {
        let line = match source {
            Source::Build { drv } => format!("{}> {text}", crate::event::words::drv_name(drv)),
            Source::Nix { .. } | Source::Console { .. } => text.to_string(),
            Source::Mvm { .. } => return false,
        };
        if self.lines.len() >= MOST_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
        true
    }
}
