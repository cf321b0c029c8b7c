//! The two processes of a cluster: started in the background, found again, ended.

use std::ffi::OsString;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use jiff::Timestamp;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::time::Instant;

use super::error::ClusterError;
use super::plan::{config_file, desired_file};
use crate::event::text;
use crate::host::identity::ProcessId;
use crate::host::paths::Paths;
use crate::host::{child, files, process};

/// A log that is longer than this when its part is started becomes the earlier one, in bytes.
const LOG_SIZE: u64 = 4 << 20;
/// Most of a log's end that is looked at for an error, in bytes.
const TAIL: u64 = 8 << 10;
/// Lines of a log in an error.
const TAIL_LINES: usize = 12;
/// Pause between two looks at a process.
const POLL: Duration = Duration::from_millis(20);
/// How long a killed process may take to be gone.
const GONE: Duration = Duration::from_secs(5);

/// A process of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Keeps the desired state true.
    Agent,
    /// Carries connections.
    Coordinator,
}

/// What is written down of a part that was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The process.
    pub process: ProcessId,
    /// When it was started.
    pub started: Timestamp,
    /// Where the agent was told to listen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<SocketAddr>,
}

/// What a part is up to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It runs with the cluster's files. The record is absent where `up` did not start it.
    Running {
        /// Its process.
        process: ProcessId,
        /// What is written down of it.
        record: Option<Record>,
    },
    /// It was started and does not serve yet.
    Starting(Record),
    /// Another one has the state, with files of its own. Its process, where it can be told.
    Stranger(Option<ProcessId>),
    /// It ended without being told to.
    Crashed,
    /// It does not run.
    Stopped,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Part {
    /// Both, in the order in which they are started.
    pub const ALL: [Self; 2] = [Self::Agent, Self::Coordinator];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Coordinator => "coordinator",
        }
    }

    /// Its log.
    pub fn log(self, paths: &Paths) -> PathBuf {
        paths.cluster().join(format!("{self}.log"))
    }

    /// The log before it, once it has grown long.
    pub fn earlier_log(self, paths: &Paths) -> PathBuf {
        paths.cluster().join(format!("{self}.log.1"))
    }

    fn record_file(self, paths: &Paths) -> PathBuf {
        paths.cluster().join(format!("{self}.json"))
    }

    /// Held by it while it serves.
    fn lock(self, paths: &Paths) -> PathBuf {
        paths.cluster().join(format!("{self}.lock"))
    }

    /// What it is up to.
    pub fn look(self, paths: &Paths) -> State {
        let record = self.record(paths);
        let alive = record.clone().filter(|record| record.process.is_alive());
        // A lock that cannot be looked at is taken for held: nobody is started beside it.
        if !files::is_locked(&self.lock(paths)).unwrap_or(true) {
            return match (alive, record) {
                (Some(record), _) => State::Starting(record),
                (None, Some(_)) => State::Crashed,
                (None, None) => State::Stopped,
            };
        }
        if let Some(record) = alive {
            return State::Running { process: record.process.clone(), record: Some(record) };
        }
        // Started by hand, or by one who was killed before it was written down.
        match self.holder(paths) {
            Some(process) if self.is_ours(process.pid, paths) => State::Running { process, record: None },
            other => State::Stranger(other),
        }
    }

    /// What is written down of it.
    pub fn record(self, paths: &Paths) -> Option<Record> {
        serde_json::from_slice(&std::fs::read(self.record_file(paths)).ok()?).ok()
    }

    /// Forgets it.
    pub fn forget(self, paths: &Paths) -> Result<(), ClusterError> {
        let path = self.record_file(paths);
        files::remove_file_if_there(&path).map_err(|source| ClusterError::Write { path, source })
    }

    /// Removes what one that ended by force left.
    pub fn clear(self, paths: &Paths) -> Result<(), ClusterError> {
        if self == Self::Coordinator {
            let path = paths.coordinator_socket();
            files::remove_file_if_there(&path).map_err(|source| ClusterError::Write { path, source })?;
        }
        self.forget(paths)
    }

    /// The process that has its lock's file open to write: who looks at it only reads.
    fn holder(self, paths: &Paths) -> Option<ProcessId> {
        let lock = self.lock(paths).canonicalize().ok()?;
        let holds = |pid: u32| {
            let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            files.into_iter().any(|file| std::fs::read_link(file.path()).is_ok_and(|target| target == lock))
        };
        let serves = |pid: &u32| arguments(*pid).iter().any(|word| word == "serve");
        process::all().filter(serves).find(|pid| holds(*pid)).and_then(ProcessId::of)
    }

    /// Whether a process of this sort was given the cluster's files.
    fn is_ours(self, pid: u32, paths: &Paths) -> bool {
        let words = arguments(pid);
        let has = |file: PathBuf| words.iter().any(|word| Path::new(word) == file);
        match self {
            Self::Agent => has(desired_file(paths)),
            // Its file is the cluster's, unless it was told otherwise.
            Self::Coordinator => {
                has(config_file(paths)) || !words.iter().any(|word| word.starts_with("--config"))
            }
        }
    }

    /// Starts it, in a session of its own, and writes it down.
    pub fn start(
        self,
        arguments: &[OsString],
        listen: Option<SocketAddr>,
        paths: &Paths,
    ) -> Result<Started, ClusterError> {
        let fail = |source| ClusterError::Spawn { part: self, source };
        let log = self.open_log(paths)?;
        let since = log.metadata().map(|meta| meta.len()).unwrap_or(0);
        let mut command = Command::new(std::env::current_exe().map_err(fail)?);
        command.args(["--no-tui", self.as_str(), "serve"]).args(arguments);
        command.current_dir("/").stdin(Stdio::null());
        command.stdout(log.try_clone().map_err(fail)?).stderr(log);
        // SAFETY: setsid and close_range are async-signal-safe and touch nothing of the parent's.
        unsafe {
            command.pre_exec(|| {
                nix::unistd::setsid()?;
                child::keep_only_standard_streams();
                Ok(())
            });
        }
        let child = command.spawn().map_err(fail)?;
        let process = child.id().and_then(ProcessId::of);
        let Some(process) = process else {
            let tail = self.tail(since, paths);
            return Err(ClusterError::Died { part: self, log: self.log(paths), tail });
        };
        let record = Record { process: process.clone(), started: Timestamp::now(), listen };
        let started = Started { part: self, process, since };
        let path = self.record_file(paths);
        let written = serde_json::to_vec_pretty(&record).map_err(io::Error::from);
        let written = written.and_then(|json| files::write_atomic(&path, &json, 0o600));
        match written {
            Ok(()) => Ok(started),
            Err(source) => {
                // What nobody knows of must not go on.
                let _ = started.process.signal(Signal::SIGKILL);
                Err(ClusterError::Write { path, source })
            }
        }
    }

    fn open_log(self, paths: &Paths) -> Result<File, ClusterError> {
        let path = self.log(paths);
        let open = || {
            if path.metadata().is_ok_and(|meta| meta.len() > LOG_SIZE) {
                std::fs::rename(&path, self.earlier_log(paths))?;
            }
            OpenOptions::new().create(true).append(true).mode(0o600).open(&path)
        };
        open().map_err(|source| ClusterError::Write { path: path.clone(), source })
    }

    /// The last lines that it wrote into its log, of those behind `since` bytes.
    pub fn tail(self, since: u64, paths: &Paths) -> Vec<String> {
        let read = || -> io::Result<Vec<u8>> {
            let mut file = File::open(self.log(paths))?;
            let end = file.metadata()?.len();
            file.seek(SeekFrom::Start(since.max(end.saturating_sub(TAIL)).min(end)))?;
            let mut bytes = Vec::new();
            file.take(TAIL).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<String> = text.lines().map(|line| text::clean(line).into_owned()).collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].to_vec()
    }

    /// Ends it: politely first, by force after `grace`. True when it needed force.
    pub async fn end(
        self,
        process: &ProcessId,
        grace: Duration,
        paths: &Paths,
    ) -> Result<bool, ClusterError> {
        let pid = process.pid;
        let signal = |signal| match process.signal(signal) {
            // It is gone.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => Ok(()),
            sent => sent.map_err(|source| ClusterError::Signal { part: self, pid, source }),
        };
        signal(Signal::SIGTERM)?;
        let ended = is_gone(process, grace).await;
        if !ended {
            signal(Signal::SIGKILL)?;
            if !is_gone(process, GONE).await {
                return Err(ClusterError::Stuck { part: self, pid });
            }
        }
        self.clear(paths)?;
        Ok(!ended)
    }
}

/// A part that was started just now.
#[derive(Debug, Clone)]
pub struct Started {
    /// Which.
    pub part: Part,
    /// Its process.
    pub process: ProcessId,
    /// Bytes of the log that others wrote before.
    pub since: u64,
}

/// Waits until a process is gone; false when it is not in time.
async fn is_gone(process: &ProcessId, within: Duration) -> bool {
    let until = Instant::now() + within;
    while process.is_alive() {
        if Instant::now() >= until {
            return false;
        }
        tokio::time::sleep(POLL).await;
    }
    true
}

/// What a process was called with.
fn arguments(pid: u32) -> Vec<String> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::files::Lock;

    fn place() -> (tempfile::TempDir, Paths) {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::at(dir.path().join("s"), dir.path().join("r")).unwrap();
        std::fs::create_dir(paths.cluster()).unwrap();
        (dir, paths)
    }

    fn write(paths: &Paths, process: ProcessId) -> Record {
        let record = Record { process, started: Timestamp::now(), listen: None };
        std::fs::write(Part::Agent.record_file(paths), serde_json::to_vec(&record).unwrap()).unwrap();
        record
    }

    #[test]
    fn a_part_is_what_its_lock_and_its_record_say() {
        let (_dir, paths) = place();
        let look = || Part::Agent.look(&paths);
        assert_eq!(look(), State::Stopped);
        let me = ProcessId::of(std::process::id()).unwrap();
        write(&paths, ProcessId { start: me.start + 1, ..me.clone() });
        assert_eq!(look(), State::Crashed);
        let record = write(&paths, me.clone());
        assert_eq!(look(), State::Starting(record.clone()));
        let _lock = Lock::try_take(&Part::Agent.lock(&paths)).unwrap().unwrap();
        assert_eq!(look(), State::Running { process: me, record: Some(record) });
        // Whoever holds the lock now is not who was started.
        Part::Agent.forget(&paths).unwrap();
        assert_eq!(look(), State::Stranger(None));
    }

    #[test]
    fn the_tail_of_a_log_is_what_was_written_since_the_start() {
        let (_dir, paths) = place();
        let log = Part::Agent.log(&paths);
        std::fs::write(&log, "old\n").unwrap();
        assert!(Part::Agent.tail(4, &paths).is_empty());
        std::fs::write(&log, format!("old\n{}\u{1b}[2Jlast\n", "line\n".repeat(50))).unwrap();
        let tail = Part::Agent.tail(4, &paths);
        assert_eq!((tail.len(), tail.last().map(String::as_str)), (TAIL_LINES, Some("last")));
    }

    #[test]
    fn a_long_log_becomes_the_earlier_one() {
        let (_dir, paths) = place();
        let log = Part::Agent.log(&paths);
        std::fs::write(&log, vec![b'x'; LOG_SIZE as usize + 1]).unwrap();
        Part::Agent.open_log(&paths).unwrap();
        assert_eq!(log.metadata().unwrap().len(), 0);
        assert!(Part::Agent.earlier_log(&paths).metadata().unwrap().len() > LOG_SIZE);
    }
}
