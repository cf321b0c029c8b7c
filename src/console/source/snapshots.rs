//! Snapshots as they lie on the disk: looked into again only where something has changed.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::event::vm::SnapshotInfo;
use crate::host::paths::Paths;
use crate::vm::snapshot::{Snapshot, ready};

/// Changes this soon after one another may bear the same time.
const TICK: Duration = Duration::from_millis(50);

/// What tells whether a directory is still the one and unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    inode: u64,
    changed: SystemTime,
}

impl Mark {
    fn of(dir: &Path) -> Option<Self> {
        let meta = dir.metadata().ok()?;
        Some(Self { inode: meta.ino(), changed: meta.modified().ok()? })
    }

    /// Whether any later change will bear another time.
    fn is_settled(&self) -> bool {
        SystemTime::now().duration_since(self.changed).map_or(true, |age| age > TICK)
    }
}

/// The snapshot of one VM.
#[derive(Debug, Default)]
pub struct Own {
    mark: Option<Mark>,
    info: Option<SnapshotInfo>,
}

impl Own {
    /// The snapshot in `dir`, if there is one.
    pub fn look(&mut self, dir: &Path) -> Option<SnapshotInfo> {
        // One that takes another's place is another directory: there is no need to wait.
        let mark = Mark::of(dir);
        if self.mark != mark {
            self.info = Snapshot::open(dir).ok().map(|snapshot| info(&snapshot));
            self.mark = mark;
        }
        self.info
    }
}

/// The ready snapshots.
#[derive(Debug, Default)]
pub struct Ready {
    mark: Option<Mark>,
    /// One of each build, by the build's id.
    by_build: HashMap<String, SnapshotInfo>,
}

impl Ready {
    /// Looks whether there are others now.
    pub fn look(&mut self, paths: &Paths) {
        let mark = Mark::of(&paths.snapshots());
        if self.mark == mark {
            return;
        }
        self.by_build.clear();
        for snapshot in ready::list(paths) {
            let build = snapshot.manifest.fit.build.clone();
            self.by_build.entry(build).or_insert_with(|| info(&snapshot));
        }
        self.mark = mark.filter(Mark::is_settled);
    }

    /// That of a build.
    pub fn of(&self, build: &str) -> Option<SnapshotInfo> {
        self.by_build.get(build).copied()
    }
}

fn info(snapshot: &Snapshot) -> SnapshotInfo {
    SnapshotInfo { bytes: snapshot.bytes(), created: snapshot.manifest.created }
}
