//! The builder VM's store: a disk that stays from build to build.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::host::files::{self, Lock};
use crate::host::inputs::FlakeInputs;
use crate::host::paths::Paths;
use crate::host::program::{self, ProgramError};
use crate::vm::disks::{DiskError, make_ext4};

/// Beside the disk: what was copied into it.
const COPIED: &str = "store.json";

/// Why there is no disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskFault {
    /// It cannot be made.
    #[error(transparent)]
    Make(#[from] DiskError),
    /// It does not grow.
    #[error(
        "the builder VM's disk does not grow: {0}\nhelp: `mvm gc` removes it, and the next build makes another"
    )]
    Grow(#[from] ProgramError),
    /// A file of it.
    #[error("cannot write `{path}`: {source}\nhelp: free some space or mend its permissions")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Store paths of this machine that were copied into the disk.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Copied {
    paths: BTreeSet<PathBuf>,
}

/// Where it is.
pub fn path(paths: &Paths) -> PathBuf {
    paths.builder().join("store.ext4")
}

/// Keeps others from it while it is in use; `None` when somebody has it.
pub fn lock(paths: &Paths) -> io::Result<Option<Lock>> {
    fs::create_dir_all(paths.builder())?;
    Lock::try_take(&paths.builder().join("lock"))
}

/// The disk, of at least this size. It is made if there is none.
pub async fn ready(paths: &Paths, mib: u64) -> Result<PathBuf, DiskFault> {
    let disk = path(paths);
    let file = |source| DiskFault::File { path: disk.clone(), source };
    if !disk.exists() {
        // It speaks of another one.
        files::remove_file_if_there(&disk.with_file_name(COPIED)).map_err(file)?;
        make_ext4(&disk, mib, None, None).await?;
        return Ok(disk);
    }
    let bytes = mib * 1024 * 1024;
    if fs::metadata(&disk).map_err(file)?.len() < bytes {
        // It is only grown when it is whole. 1 means that something was mended.
        let mut check = Command::new("e2fsck");
        drop(program::output(check.args(["-f", "-p"]).arg(&disk)).await);
        OpenOptions::new().write(true).open(&disk).and_then(|file| file.set_len(bytes)).map_err(file)?;
        program::output(Command::new("resize2fs").arg(&disk)).await?;
    }
    Ok(disk)
}

/// mvm's own inputs that it does not have yet.
pub fn missing(disk: &Path, inputs: &FlakeInputs) -> Vec<PathBuf> {
    let copied = copied(disk);
    let paths = inputs.overrides.iter().filter_map(|(_, reference)| reference.strip_prefix("path:"));
    paths.map(PathBuf::from).filter(|path| !copied.paths.contains(path)).collect()
}

/// Remembers that they were copied.
pub fn remember(disk: &Path, paths: Vec<PathBuf>) -> Result<(), DiskFault> {
    let mut copied = copied(disk);
    copied.paths.extend(paths);
    let path = disk.with_file_name(COPIED);
    let json = serde_json::to_vec_pretty(&copied).unwrap_or_default();
    files::write_atomic(&path, &json, 0o600).map_err(|source| DiskFault::File { path, source })
}

fn copied(disk: &Path) -> Copied {
    // One that cannot be read is none: they are copied again.
    fs::read(disk.with_file_name(COPIED))
        .ok()
        .and_then(|json| serde_json::from_slice(&json).ok())
        .unwrap_or_default()
}
