//! The tasks of other processes, followed by their records.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use memchr::memmem;

use crate::event::line::Line;
use crate::event::{Event, Kind, Outcome, SCHEMA_VERSION, TaskId};
use crate::host::files;
use crate::host::growing::Growing;
use crate::host::paths::Paths;

/// How many tasks that ended earlier are shown.
const MOST: usize = 20;
/// How long ago they may have begun.
const RECENT: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes at the end of a record in which log lines are read when it is first looked at, about
/// 2000 lines of them: what came before is as good as dropped, and costs no time.
const BACKLOG: u64 = 256 * 1024;
/// Where in a line the kind of its event stands, in bytes.
const HEAD: usize = 160;

/// The records in a state's directory of tasks.
#[derive(Debug)]
pub struct Records {
    dir: PathBuf,
    begun: bool,
    /// By the id without its letter, so that they are in the order of their time.
    known: BTreeMap<String, Known>,
}

#[derive(Debug)]
enum Known {
    Followed(Box<Record>),
    /// Over, too old, or this process's own.
    Passed,
}

impl Records {
    /// The records of this state; none has been read.
    pub fn new(paths: &Paths) -> Self {
        Self { dir: paths.tasks(), begun: false, known: BTreeMap::new() }
    }

    /// Gives `each` the events that were added to the records of other processes since the last
    /// time; the first time, those of the tasks of late.
    pub fn read(&mut self, mut each: impl FnMut(Event)) -> io::Result<()> {
        self.look()?;
        for known in self.known.values_mut() {
            let Known::Followed(record) = known else { continue };
            if record.read(&mut each) {
                *known = Known::Passed;
            }
        }
        Ok(())
    }

    /// Looks which records there are.
    fn look(&mut self) -> io::Result<()> {
        let entries = match std::fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        let mut found = BTreeMap::new();
        for entry in entries {
            let name = entry?.file_name();
            let Some(task) = name.to_str().and_then(|name| TaskId::parse(name.strip_suffix(".jsonl")?))
            else {
                continue;
            };
            found.insert(task.as_str()[1..].to_owned(), task);
        }
        // A record that was removed is followed to its end.
        self.known.retain(|key, known| found.contains_key(key) || matches!(known, Known::Followed(_)));
        let since = Timestamp::now().as_millisecond() - RECENT.as_millis() as i64;
        let earlier = if self.begun { 0 } else { found.len().saturating_sub(MOST) };
        for (index, (key, task)) in found.into_iter().enumerate() {
            if self.known.contains_key(&key) {
                continue;
            }
            let old = index < earlier || task.given_ms().is_none_or(|given| given < since);
            let record = if task.is_own() { None } else { Record::open(&self.dir, task, Depth::Late)? };
            // One that still goes on is shown however long ago it began.
            let record = record.filter(|record| !old || record.is_written());
            self.known.insert(key, record.map_or(Known::Passed, |record| Known::Followed(Box::new(record))));
        }
        self.begun = true;
        Ok(())
    }
}

/// One record and how far it is read.
#[derive(Debug)]
pub struct Record {
    task: TaskId,
    path: PathBuf,
    file: Growing,
    /// Bytes at its beginning of which log lines are left out.
    skim: u64,
    offset: u64,
    started: Option<Timestamp>,
    garbage: u64,
}

/// How much of a record's log lines is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// None.
    Skim,
    /// Those of late.
    Late,
    /// All.
    Whole,
}

impl Record {
    /// The record of a task; `None` when there is none.
    pub fn open(dir: &Path, task: TaskId, depth: Depth) -> io::Result<Option<Self>> {
        let path = dir.join(format!("{}.jsonl", task.as_str()));
        let Some(file) = Growing::open(&path)? else { return Ok(None) };
        let skim = match depth {
            Depth::Skim => u64::MAX,
            Depth::Late => file.file().metadata()?.len().saturating_sub(BACKLOG),
            Depth::Whole => 0,
        };
        Ok(Some(Self { task, path, file, skim, offset: 0, started: None, garbage: 0 }))
    }

    /// Whether its writer lives.
    pub fn is_written(&self) -> bool {
        // What cannot be looked at is left alone.
        files::is_locked_elsewhere(self.file.file()).unwrap_or(true)
    }

    /// Gives what was added. Returns whether the task is over.
    pub fn read(&mut self, each: &mut impl FnMut(Event)) -> bool {
        // Looked at first: after that, a writer that is gone adds nothing more.
        let written = self.is_written();
        let mut ended = false;
        let Self { task, file, skim, offset, started, garbage, .. } = self;
        let read = file.read(|line| {
            *offset += line.len() as u64 + 1;
            if *offset <= *skim && is_droppable(line) {
                return;
            }
            match Line::parse(line) {
                Line::Event(event) if event.task == *task => {
                    started.get_or_insert(event.time);
                    ended |= matches!(event.kind, Kind::TaskEnded { .. });
                    each(*event);
                }
                Line::Unknown => {}
                Line::Event(_) | Line::Garbage(_) => *garbage += 1,
            }
        });
        let over = ended || !written && self.started.is_some() || read.is_err();
        if over && self.garbage > 0 {
            tracing::warn!("{} lines of `{}` cannot be read", self.garbage, self.path.display());
        }
        if over && !ended {
            each(self.ended_without_a_word());
        }
        over
    }

    fn ended_without_a_word(&self) -> Event {
        let modified = self.file.file().metadata().and_then(|meta| meta.modified()).ok();
        let time = modified.and_then(|time| time.try_into().ok()).unwrap_or_else(Timestamp::now);
        let duration = self.started.map(|started| time.duration_since(started).as_millis());
        let kind = Kind::TaskEnded {
            outcome: Outcome::Failed {
                error: "the process of this task ended without a word\nhelp: start it again".into(),
                tail: Vec::new(),
            },
            duration_ms: duration.and_then(|ms| u64::try_from(ms).ok()).unwrap_or_default(),
            dropped: 0,
        };
        Event { v: SCHEMA_VERSION, time, task: self.task.clone(), kind }
    }
}

/// Whether a line can be left out, by a look at its beginning only.
fn is_droppable(line: &[u8]) -> bool {
    let head = &line[..line.len().min(HEAD)];
    [&br#""event":"log""#[..], br#""event":"progress""#].iter().any(|kind| memmem::find(head, kind).is_some())
}

#[cfg(test)]
mod tests;
