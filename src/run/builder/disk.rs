//! The builder VM's stores: for each project a disk that stays from build to build, so that what one
//! project's builders write is not what another is built of.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::process::Command;

use crate::host::files::{self, Lock, hex};
use crate::host::identity::boot_id;
use crate::host::inputs::FlakeInputs;
use crate::host::paths::Paths;
use crate::image::FlakeRef;
use crate::image::flake::Place;
use crate::vm::disks::{DiskError, make_ext4};

/// Why there is no disk.
#[derive(Debug, thiserror::Error)]
pub enum DiskFault {
    /// It cannot be made.
    #[error(transparent)]
    Make(#[from] DiskError),
    /// A file of it.
    #[error("cannot write `{path}`: {source}\nhelp: free some space or mend its permissions")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A project's store, which nobody else has as long as this is held.
#[derive(Debug)]
pub struct Disk {
    /// The file with its file system.
    pub path: PathBuf,
    known: Known,
    _lock: Lock,
}

/// What is known of what is in it.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Known {
    /// The boot of this machine in which it was written.
    boot: String,
    /// Store paths of this machine that were copied into it.
    copied: BTreeSet<PathBuf>,
}

/// Of a flake, by the sources it is of.
pub fn path(paths: &Paths, flake: &FlakeRef) -> PathBuf {
    let source = match &flake.place {
        Place::Local(tree) => tree.root.display().to_string(),
        Place::Url(url) => url.clone(),
    };
    let name = &hex(&Sha256::digest(source))[..16];
    paths.builder().join("stores").join(format!("{name}.ext4"))
}

/// All that there are.
pub fn all(paths: &Paths) -> Vec<PathBuf> {
    let entries = fs::read_dir(paths.builder().join("stores")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|it| it == "ext4")).collect()
}

/// Removes one; false when a build has it.
pub fn remove(path: &Path) -> io::Result<bool> {
    let Some(_lock) = Lock::try_take(&path.with_extension("lock"))? else { return Ok(false) };
    files::remove_file_if_there(&path.with_extension("json"))?;
    files::remove_file_if_there(path)?;
    Ok(true)
}

impl Disk {
    /// Takes it; `None` when another build has it.
    pub fn take(path: &Path) -> Result<Option<Self>, DiskFault> {
        let failed = |source| DiskFault::File { path: path.into(), source };
        path.parent().map_or(Ok(()), fs::create_dir_all).map_err(failed)?;
        let lock = Lock::try_take(&path.with_extension("lock")).map_err(failed)?;
        // One that cannot be read is none: all is copied again.
        let json = fs::read(path.with_extension("json")).unwrap_or_default();
        let known = serde_json::from_slice(&json).unwrap_or_default();
        Ok(lock.map(|lock| Self { path: path.into(), known, _lock: lock }))
    }

    /// Makes it if there is none, or only a smaller one.
    pub async fn make(&mut self, mib: u64) -> Result<(), DiskFault> {
        let there = fs::metadata(&self.path).map_or(0, |meta| meta.len());
        let mut sound = there >= mib * 1024 * 1024;
        if sound && self.known.boot != boot_id() {
            // The machine may have lost its power while it was written: what is not whole is not relied on.
            self.known = Known::default();
            let checked = Command::new("e2fsck").args(["-f", "-y"]).arg(&self.path).output().await;
            sound = checked.is_ok_and(|checked| matches!(checked.status.code(), Some(0 | 1)));
        }
        if !sound {
            self.known = Known::default();
            files::remove_file_if_there(&self.path).map_err(|source| self.failed(source))?;
            make_ext4(&self.path, mib, None, None).await?;
        }
        self.known.boot = boot_id();
        self.note()
    }

    /// mvm's own inputs that it does not have yet.
    pub fn missing(&self, inputs: &FlakeInputs) -> Vec<PathBuf> {
        let paths = inputs.overrides.iter().filter_map(|(_, reference)| reference.strip_prefix("path:"));
        paths.map(PathBuf::from).filter(|path| !self.known.copied.contains(path)).collect()
    }

    /// Remembers that they were copied.
    pub fn remember(&mut self, paths: Vec<PathBuf>) -> Result<(), DiskFault> {
        self.known.copied.extend(paths);
        self.note()
    }

    fn note(&self) -> Result<(), DiskFault> {
        let json = serde_json::to_vec_pretty(&self.known).unwrap_or_default();
        let written = files::write_atomic(&self.path.with_extension("json"), &json, 0o600);
        written.map_err(|source| self.failed(source))
    }

    fn failed(&self, source: io::Error) -> DiskFault {
        DiskFault::File { path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_disk_is_one_builds_and_is_made_anew_when_it_is_too_small_or_broken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stores/a.ext4");
        let mut disk = Disk::take(&path).unwrap().unwrap();
        assert!(Disk::take(&path).unwrap().is_none());
        disk.make(16).await.unwrap();
        disk.remember(vec!["/nix/store/x".into()]).unwrap();
        let inputs =
            FlakeInputs { overrides: vec![("x".into(), "path:/nix/store/x".into())], registry: None };
        let again = |disk: Disk| {
            drop(disk);
            Disk::take(&path).unwrap().unwrap()
        };
        let mut disk = again(disk);
        disk.make(16).await.unwrap();
        assert!(disk.missing(&inputs).is_empty());
        disk.make(32).await.unwrap();
        assert_eq!(disk.missing(&inputs).len(), 1);
        // Of another boot of this machine, and not whole.
        disk.remember(vec!["/nix/store/x".into()]).unwrap();
        disk.known.boot = "another".into();
        disk.note().unwrap();
        fs::write(&path, vec![0; 32 << 20]).unwrap();
        let mut disk = again(disk);
        disk.make(32).await.unwrap();
        assert_eq!(disk.missing(&inputs).len(), 1);
        assert!(fs::read(&path).unwrap().iter().any(|byte| *byte != 0));
        assert!(!remove(&path).unwrap());
        drop(disk);
        assert!(remove(&path).unwrap() && !path.exists());
    }
}
