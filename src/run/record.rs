//! The events of each task on disk: `tasks/<id>.jsonl`.
//!
//! That is how another process follows a task. A file holds at most [`MOST_BYTES`]: beyond it log
//! and progress lines are left out, state changes never.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::event::{Event, EventStream, Kind, TaskId};
use crate::host::files::{self, Lock};
use crate::host::paths::Paths;

/// Bytes after which log lines are no longer written.
pub const MOST_BYTES: u64 = 16 * 1024 * 1024;
/// How many tasks' files stay.
pub const MOST_FILES: usize = 50;
/// How long a log line may wait in memory: writing each by itself would cost too much.
const HELD_BACK: Duration = Duration::from_millis(500);

/// The writing end of a file of events. A lock on a task's file tells others that the task goes on.
#[derive(Debug)]
pub struct Recorder {
    file: BufWriter<File>,
    bytes: u64,
    /// Log lines that found no room.
    left_out: u64,
    due: Option<Instant>,
    _lock: Option<Lock>,
}

impl Recorder {
    /// Makes the file of a task, and removes those of the oldest tasks.
    pub fn new(paths: &Paths, task: &TaskId) -> io::Result<Self> {
        let dir = paths.tasks();
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        prune(paths, MOST_FILES - 1)?;
        let lock = Lock::try_take(&dir.join(format!("{}.jsonl", task.as_str())))?;
        let lock = lock.ok_or(io::ErrorKind::AlreadyExists)?;
        let file = File::from(lock.as_fd().try_clone_to_owned()?);
        Ok(Self::of(file, Some(lock)))
    }

    /// Makes a file of the user's own, for the events of many tasks; never one that is there already.
    pub fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Self::of(file, None))
    }

    fn of(file: File, lock: Option<Lock>) -> Self {
        Self { file: BufWriter::new(file), bytes: 0, left_out: 0, due: None, _lock: lock }
    }

    /// Adds an event. What others should see at once is flushed.
    pub fn add(&mut self, event: &Event) -> io::Result<()> {
        let droppable = event.kind.may_drop();
        if droppable && self.bytes > MOST_BYTES {
            self.left_out += u64::from(matches!(event.kind, Kind::Log { .. }));
            return Ok(());
        }
        let mut line = match &event.kind {
            // Whoever reads it is told.
            Kind::TaskEnded { outcome, duration_ms, dropped } if self.left_out > 0 => {
                let dropped = dropped + std::mem::take(&mut self.left_out);
                let kind = Kind::TaskEnded { outcome: outcome.clone(), duration_ms: *duration_ms, dropped };
                serde_json::to_vec(&Event { kind, ..event.clone() })?
            }
            _ => serde_json::to_vec(event)?,
        };
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.bytes += line.len() as u64;
        let now = Instant::now();
        let due = *self.due.get_or_insert(now + HELD_BACK);
        if droppable && now < due { Ok(()) } else { self.flush() }
    }

    /// When [`Self::flush`] is due if no event comes before; `None` while nothing is held back.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Writes what is held back.
    pub fn flush(&mut self) -> io::Result<()> {
        self.due = None;
        self.file.flush()
    }
}

/// A task's events, each written into its record on its way.
#[derive(Debug)]
pub struct Recorded {
    events: EventStream,
    recorder: Option<Recorder>,
}

impl Recorded {
    /// Records `events`; without a recorder they just pass.
    pub fn new(events: EventStream, recorder: Option<Recorder>) -> Self {
        Self { events, recorder }
    }

    /// The next event, or `None` once every sink is gone. While there is none, what the record
    /// holds back is written when it is due. May be cancelled without losing an event.
    pub async fn next(&mut self) -> Option<Event> {
        let next = match self.recorder.as_ref().and_then(Recorder::due) {
            Some(due) => tokio::time::timeout_at(due.into(), self.events.next()).await,
            None => Ok(self.events.next().await),
        };
        let event = match next {
            Ok(event) => event?,
            Err(_) => {
                self.write(Recorder::flush);
                self.events.next().await?
            }
        };
        self.write(|recorder| recorder.add(&event));
        Some(event)
    }

    /// A full disk loses the record, not the task.
    fn write(&mut self, how: impl FnOnce(&mut Recorder) -> io::Result<()>) {
        if self.recorder.as_mut().is_some_and(|recorder| how(recorder).is_err()) {
            self.recorder = None;
        }
    }
}

/// Removes all but the newest `keep` files, and those of tasks that go on; returns how many went. Task ids sort
/// by time.
pub fn prune(paths: &Paths, keep: usize) -> io::Result<usize> {
    let entries = match std::fs::read_dir(paths.tasks()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let mut files: Vec<_> = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    // The letter before the time says only what sort of task it was.
    files.sort_by_key(|path| {
        path.file_name().map(|name| name.to_string_lossy().chars().skip(1).collect::<String>())
    });
    files.truncate(files.len().saturating_sub(keep));
    files.retain(|file| !files::is_locked(file).unwrap_or_default());
    for file in &files {
        files::remove_file_if_there(file)?;
    }
    Ok(files.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EventSink, EventStream, Outcome};

    fn event(say: impl FnOnce(&EventSink)) -> Event {
        let (sink, mut stream): (EventSink, EventStream) = EventSink::new(TaskId::new('t'));
        say(&sink);
        stream.try_next().unwrap()
    }

    #[test]
    fn a_record_that_is_full_counts_what_it_leaves_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        let mut recorder = Recorder::create(&path).unwrap();
        recorder.bytes = MOST_BYTES + 1;
        (0..3).for_each(|_| recorder.add(&event(|sink| sink.info("more"))).unwrap());
        let ended = |sink: &EventSink| {
            sink.send(Kind::TaskEnded { outcome: Outcome::Ok, duration_ms: 1, dropped: 2 });
        };
        recorder.add(&event(ended)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.lines().count() == 1 && text.contains("\"dropped\":5"), "{text}");
    }

    #[test]
    fn of_old_records_those_of_tasks_that_go_on_stay() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::at(dir.path().join("state"), dir.path().join("run")).unwrap();
        let record = || Recorder::new(&paths, &TaskId::new('t')).unwrap();
        let goes_on = record();
        (0..2).for_each(|_| drop(record()));
        assert_eq!(prune(&paths, 1).unwrap(), 1);
        drop(goes_on);
        assert_eq!(prune(&paths, 1).unwrap(), 1);
    }

    #[test]
    fn a_log_line_is_held_back_for_a_while_and_a_state_change_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::at(dir.path().join("state"), dir.path().join("run")).unwrap();
        let task = TaskId::new('t');
        let mut recorder = Recorder::new(&paths, &task).unwrap();
        let path = paths.tasks().join(format!("{}.jsonl", task.as_str()));
        let lines = || std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(crate::host::files::is_locked(&path).unwrap());
        assert_eq!(recorder.due(), None);
        recorder.add(&event(|sink| sink.info("one"))).unwrap();
        let due = recorder.due().expect("held back");
        recorder.add(&event(|sink| sink.info("two"))).unwrap();
        assert_eq!((lines(), recorder.due()), (0, Some(due)), "the first line says when");
        recorder.add(&event(|sink| sink.phase("boot"))).unwrap();
        assert_eq!((lines(), recorder.due()), (3, None));
        recorder.add(&event(|sink| sink.info("three"))).unwrap();
        recorder.flush().unwrap();
        assert_eq!((lines(), recorder.due()), (4, None));
    }
}
