//! The events of each task on disk: `tasks/<id>.jsonl`.
//!
//! That is how another process follows a task. A file holds at most [`MOST_BYTES`]: beyond it log
//! and progress lines are left out, state changes never.

use std::fs::{DirBuilder, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::DirBuilderExt;

use crate::event::{Event, TaskId};
use crate::host::paths::Paths;

/// Bytes after which log lines are no longer written.
pub const MOST_BYTES: u64 = 16 * 1024 * 1024;
/// How many tasks' files stay.
pub const MOST_FILES: usize = 50;

/// The writing end of a task's file.
#[derive(Debug)]
pub struct Recorder {
    file: BufWriter<File>,
    bytes: u64,
}

impl Recorder {
    /// Makes the file of a task, and removes those of the oldest tasks.
    pub fn new(paths: &Paths, task: &TaskId) -> io::Result<Self> {
        let dir = paths.tasks();
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        prune(paths, MOST_FILES - 1)?;
        let file = File::create(dir.join(format!("{}.jsonl", task.as_str())))?;
        Ok(Self { file: BufWriter::new(file), bytes: 0 })
    }

    /// Adds an event. What others should see at once is flushed.
    pub fn add(&mut self, event: &Event) -> io::Result<()> {
        let droppable = event.kind.may_drop();
        if droppable && self.bytes > MOST_BYTES {
            return Ok(());
        }
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        self.file.write_all(&line)?;
        self.bytes += line.len() as u64;
        if droppable { Ok(()) } else { self.file.flush() }
    }
}

/// Removes all but the newest `keep` files; returns how many went. Task ids sort by time.
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
    for file in &files {
        match std::fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(files.len())
}
