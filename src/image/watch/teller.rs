//! The system tells of changes, by inotify.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{Config, ErrorKind, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// Messages that wait to be read; what comes on top is lost, and known to be.
const WAITING: usize = 4096;
/// File systems on which others change files without this kernel's doing, by the kernel's numbers.
const REMOTE: [(i64, &str); 8] = [
    (0x6573_5546, "FUSE"),
    (0x6a65_6a63, "virtiofs"),
    (0x0102_1997, "9p"),
    (0x6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x786f_4256, "vboxsf"),
    (0x00c3_6400, "Ceph"),
];

/// What is told.
#[derive(Debug)]
pub enum Told {
    /// These may have changed.
    Changed(Vec<PathBuf>, How),
    /// More than could be told.
    Lost,
}

/// How something changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// It was made, and was not there before. What is moved to a name may take another's place.
    New,
    /// It is not there any more; something else may be.
    Gone,
    /// Otherwise.
    Other,
}

/// Why nothing can be told.
#[derive(Debug)]
pub enum Silence {
    /// The system could tell of nothing, or not of so much.
    Limit(String),
    /// Something else is wrong.
    Error(io::Error),
}

/// Tells of changes in directories.
pub struct Teller {
    watcher: RecommendedWatcher,
    told: mpsc::Receiver<Event>,
    lost: Arc<AtomicBool>,
    directories: HashSet<PathBuf>,
}

impl fmt::Debug for Teller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Teller").field("directories", &self.directories.len()).finish_non_exhaustive()
    }
}

impl Teller {
    /// Watches nothing yet.
    pub fn new(root: &Path) -> Result<Self, Silence> {
        if let Some(name) = remote(root) {
            return Err(Silence::Limit(format!("{name} does not tell of changes that others make")));
        }
        let (events, told) = mpsc::channel(WAITING);
        let lost = Arc::new(AtomicBool::new(false));
        let loses = lost.clone();
        let hear = move |event: notify::Result<Event>| match event {
            // Whoever reads changes nothing, and Nix reads everything.
            Ok(Event { kind: EventKind::Access(kind), .. })
                if kind != AccessKind::Close(AccessMode::Write) => {}
            Ok(event) => {
                if event.need_rescan() {
                    loses.store(true, Ordering::Release);
                }
                if events.try_send(event).is_err() {
                    loses.store(true, Ordering::Release);
                }
            }
            // Of one directory that is gone, which is told of.
            Err(_) => {}
        };
        let watcher = RecommendedWatcher::new(hear, Config::default().with_follow_symlinks(false));
        Ok(Self { watcher: watcher.map_err(silence)?, told, lost, directories: HashSet::new() })
    }

    /// Whether a directory is watched.
    pub fn watches(&self, dir: &Path) -> bool {
        self.directories.contains(dir)
    }

    /// Watches one more directory, without what is below it.
    pub fn watch(&mut self, dir: &Path) -> Result<(), Silence> {
        match self.watcher.watch(dir, RecursiveMode::NonRecursive) {
            Ok(()) => {
                self.directories.insert(dir.to_path_buf());
                Ok(())
            }
            Err(error) if is_gone(&error) => Ok(()),
            Err(error) => Err(silence(error)),
        }
    }

    /// Does not watch what is not there any more: a directory of this name is another one.
    pub fn forget(&mut self, path: &Path) {
        if self.directories.contains(path) {
            let (gone, kept): (HashSet<PathBuf>, _) =
                std::mem::take(&mut self.directories).into_iter().partition(|dir| dir.starts_with(path));
            self.directories = kept;
            // The system may have done so already.
            gone.iter().for_each(|dir| drop(self.watcher.unwatch(dir)));
        }
    }

    /// What is told next. May be dropped and called again.
    pub async fn next(&mut self) -> Told {
        if self.lost.swap(false, Ordering::AcqRel) {
            return Told::Lost;
        }
        match self.told.recv().await {
            Some(event) => Told::Changed(event.paths, how(event.kind)),
            // The watcher has the other end, and is here.
            None => std::future::pending().await,
        }
    }
}

fn how(kind: EventKind) -> How {
    match kind {
        EventKind::Create(_) => How::New,
        EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From)) => How::Gone,
        _ => How::Other,
    }
}

fn silence(error: notify::Error) -> Silence {
    let reached =
        |what: &str| Silence::Limit(format!("the limit fs.inotify.{what} is reached (`sysctl` raises it)"));
    match &error.kind {
        ErrorKind::MaxFilesWatch => reached("max_user_watches"),
        ErrorKind::Io(source) => match source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EMFILE | Errno::ENFILE) => reached("max_user_instances"),
            Some(Errno::ENOSPC) => reached("max_user_watches"),
            _ => Silence::Error(io::Error::other(error)),
        },
        _ => Silence::Error(io::Error::other(error)),
    }
}

fn is_gone(error: &notify::Error) -> bool {
    match &error.kind {
        ErrorKind::PathNotFound => true,
        ErrorKind::Io(error) => {
            matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        }
        _ => false,
    }
}

/// The file system of `path`, if this kernel does not hear of all its changes.
fn remote(path: &Path) -> Option<&'static str> {
    let kind = nix::sys::statfs::statfs(path).ok()?.filesystem_type().0 as i64;
    REMOTE.iter().find(|(number, _)| *number == kind).map(|(_, name)| *name)
}
