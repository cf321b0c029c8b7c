//! Builds of the past, well or not, by what the records of their tasks tell.

mod wanted;

use std::collections::HashSet;
use std::io;

use jiff::Timestamp;

use super::follow::{Depth, Record};
use crate::event::words::drv_name;
use crate::event::{Activity, Event, Kind, Outcome, TaskId};
use crate::host::paths::Paths;
pub use wanted::{Wanted, WantedError};

/// What the record of a task tells of the build it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// The task.
    pub task: TaskId,
    /// When it began.
    pub began: Timestamp,
    /// The flake, absolute, with its attribute if one was given.
    pub flake: String,
    /// The store that was built in, if it was another one.
    pub store: Option<String>,
    /// The build that came of it.
    pub build: Option<String>,
    /// The derivations that were built, by their paths, each once.
    pub drvs: Vec<String>,
    /// How the task ended; `None` while it goes on.
    pub outcome: Option<Outcome>,
}

/// The builds there are records of, the newest first.
pub fn list(paths: &Paths) -> io::Result<Vec<Past>> {
    read(paths, |_| true)
}

/// The builds that are at work, the newest first.
pub fn running(paths: &Paths) -> io::Result<Vec<Past>> {
    let mut pasts = read(paths, Record::is_written)?;
    // The task may go on with what was built.
    pasts.retain(|past| past.outcome.is_none() && past.build.is_none());
    Ok(pasts)
}

fn read(paths: &Paths, wanted: impl Fn(&Record) -> bool) -> io::Result<Vec<Past>> {
    let entries = match std::fs::read_dir(paths.tasks()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut tasks = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        tasks.extend(name.to_str().and_then(|name| TaskId::parse(name.strip_suffix(".jsonl")?)));
    }
    tasks.sort_by_key(|task| std::cmp::Reverse(task.given_ms()));
    let mut pasts = Vec::new();
    for task in tasks {
        let record = Record::open(&paths.tasks(), task, Depth::Skim)?;
        pasts.extend(record.filter(&wanted).and_then(Past::of));
    }
    Ok(pasts)
}

impl Past {
    /// Reads the record of a task; `None` when there is none, or nothing was to be built.
    pub fn read(paths: &Paths, task: TaskId) -> io::Result<Option<Self>> {
        Ok(Record::open(&paths.tasks(), task, Depth::Skim)?.and_then(Self::of))
    }

    fn of(mut record: Record) -> Option<Self> {
        let (mut past, mut drvs) = (None, HashSet::new());
        record.read(&mut |event| take(&mut past, &mut drvs, event));
        past
    }

    /// Whether all was there already.
    pub fn is_hit(&self) -> bool {
        self.build.is_some() && self.drvs.is_empty()
    }

    /// The derivations that its error names.
    pub fn failed(&self) -> Vec<&str> {
        match &self.outcome {
            Some(Outcome::Failed { error, .. }) => {
                self.drvs.iter().map(String::as_str).filter(|drv| error.contains(drv)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// How it stands, in a word.
    pub fn state(&self) -> &'static str {
        match &self.outcome {
            None => "running",
            Some(Outcome::Failed { .. }) => "failed",
            Some(Outcome::Cancelled) => "cancelled",
            Some(Outcome::Ok) if self.is_hit() => "cached",
            Some(Outcome::Ok) => "built",
        }
    }

    /// The derivation that `name` means: a path, a name, or how just one of the names begins.
    pub fn drv(&self, name: &str) -> Result<&str, WantedError> {
        let all = || self.drvs.iter().map(String::as_str);
        if let Some(drv) = all().find(|drv| *drv == name) {
            return Ok(drv);
        }
        let named: Vec<&str> = all().filter(|drv| drv_name(drv) == name).collect();
        let begun = || all().filter(|drv| drv_name(drv).starts_with(name)).collect();
        let found: Vec<&str> = if named.is_empty() { begun() } else { named };
        match found.as_slice() {
            [drv] => Ok(drv),
            [] => Err(wanted::no_drv(self, name)),
            several => Err(wanted::several_drvs(name, several)),
        }
    }
}

/// Adds what an event tells.
fn take(past: &mut Option<Past>, drvs: &mut HashSet<String>, event: Event) {
    let Event { time, task, kind, .. } = event;
    // What comes before a build is asked for is none of it.
    let Some(past) = past.as_mut() else {
        if let Kind::BuildAsked { flake, store } = kind {
            let (build, drvs, outcome) = (None, Vec::new(), None);
            *past = Some(Past { task, began: time, flake, store, build, drvs, outcome });
        }
        return;
    };
    match kind {
        Kind::ArtifactsReady { build, .. } => past.build = Some(build),
        Kind::ActivityStarted { what: Activity::Build { drv, .. }, .. } if drvs.insert(drv.clone()) => {
            past.drvs.push(drv);
        }
        Kind::TaskEnded { outcome, .. } => past.outcome = Some(outcome),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
