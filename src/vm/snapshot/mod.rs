//! Machines saved to disk, to go on from there.
//!
//! A snapshot is a directory: what the hypervisor wrote, the disks as they were, and a manifest that
//! is written last. Without a manifest it is none.

pub mod fit;
pub mod ready;
pub mod stamp;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::disks::UPPER_FILE;
use super::hypervisor::{MEMORY_FILE, STATE_FILE};
use super::spec::HypervisorKind;
use crate::host::{files, sparse};
use fit::Fit;
use stamp::Stamp;

/// Version of the format.
const FORMAT: u32 = 1;
const MANIFEST: &str = "manifest.json";

/// What is known of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the format.
    pub v: u32,
    /// What it fits.
    pub fit: Fit,
    /// Id of the VM it was taken of.
    pub vm: String,
    /// Its name.
    pub name: String,
    /// When it was taken.
    pub created: Timestamp,
    /// The files it rests on, as they were.
    pub files: Vec<Stamp>,
}

impl Manifest {
    fn write(&self, dir: &Path) -> io::Result<()> {
        files::write_atomic(&dir.join(MANIFEST), &serde_json::to_vec_pretty(self)?, 0o600)
    }
}

/// A snapshot on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its directory.
    pub dir: PathBuf,
    /// What is known of it.
    pub manifest: Manifest,
}

/// Why a VM cannot go on from a snapshot. It is kept in any case.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// There is none, or one that was not completed.
    #[error("there is no snapshot in `{dir}`: {source}")]
    None {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another mvm's.
    #[error("the snapshot `{dir}` has format {found}, this mvm reads {FORMAT}")]
    Format {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        found: u32,
    },
    /// This machine, or what is asked of it, is another.
    #[error("the snapshot does not fit: {}", .0.join("; "))]
    Misfit(Vec<String>),
    /// A file it rests on is another.
    #[error("the snapshot cannot be used: {}", .0.join("; "))]
    Changed(Vec<String>),
    /// It could not be written or copied.
    #[error("the snapshot's `{path}`: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Removes the snapshot in `dir` if it is not of the VM itself, but of the one that it went on from.
pub fn forget_inherited(dir: &Path, vm: &str) {
    // What is left is tried again by the next who looks.
    drop(match Snapshot::open(dir).is_ok_and(|snapshot| snapshot.manifest.vm != vm) {
        true => forget(dir),
        false => sweep(gone(dir)),
    });
}

/// Has no snapshot be in `dir` from now on. Its files are large, and removed by a thread of its own.
pub fn forget(dir: &Path) -> io::Result<()> {
    match std::fs::rename(dir, gone(dir)) {
        // One that went before is still there.
        Err(error) if error.kind() != io::ErrorKind::NotFound => files::remove_dir_if_there(dir),
        _ => sweep(gone(dir)),
    }
}

fn sweep(gone: PathBuf) -> io::Result<()> {
    if gone.exists() {
        let thread = std::thread::Builder::new().name("forget".into());
        thread.spawn(move || files::remove_dir_if_there(&gone))?;
    }
    Ok(())
}

fn gone(dir: &Path) -> PathBuf {
    dir.with_extension("gone")
}

impl Snapshot {
    /// Opens the snapshot in `dir`.
    pub fn open(dir: &Path) -> Result<Self, SnapshotError> {
        let none = |source| SnapshotError::None { dir: dir.into(), source };
        let json = std::fs::read(dir.join(MANIFEST)).map_err(none)?;
        let value: serde_json::Value = serde_json::from_slice(&json).map_err(|error| none(error.into()))?;
        let found = value["v"].as_u64().unwrap_or_default() as u32;
        if found != FORMAT {
            return Err(SnapshotError::Format { dir: dir.into(), found });
        }
        let manifest = serde_json::from_value(value).map_err(|error| none(error.into()))?;
        Ok(Self { dir: dir.into(), manifest })
    }

    /// Whether a machine like `fit` can go on from it. Nothing of it is loaded before.
    pub fn check(&self, fit: &Fit) -> Result<(), SnapshotError> {
        let differences = fit.differences(&self.manifest.fit);
        if !differences.is_empty() {
            return Err(SnapshotError::Misfit(differences));
        }
        let (mut files, mut changed) = (Vec::new(), Vec::new());
        for stamp in &self.manifest.files {
            match stamp.renewed(&self.dir) {
                Ok(stamp) => files.push(stamp),
                Err(what) => changed.push(what),
            }
        }
        if !changed.is_empty() {
            return Err(SnapshotError::Changed(changed));
        }
        if files != self.manifest.files {
            // Where it cannot be noted, what was moved or copied is read at each start.
            let _ = Manifest { files, ..self.manifest.clone() }.write(&self.dir);
        }
        Ok(())
    }

    /// Copies the disks that belong to it into a VM's directory.
    pub fn copy_disks(&self, to: &Path) -> Result<(), SnapshotError> {
        for name in
            disks(&self.dir).map_err(|source| SnapshotError::File { path: self.dir.clone(), source })?
        {
            copy(&self.dir, to, &name)?;
        }
        Ok(())
    }

    /// Whether the VM in `vm` wrote nothing to its own disks since it was saved.
    pub fn is_the_last_of(&self, vm: &Path) -> bool {
        let modified = |dir: &Path, name: &str| std::fs::metadata(dir.join(name))?.modified();
        // The copies were made while it stood still.
        let since = |name: &String| Ok(modified(vm, name)? > modified(&self.dir, name)?);
        let written = || disks(&self.dir)?.iter().map(since).collect::<io::Result<Vec<bool>>>();
        written().is_ok_and(|written| !written.contains(&true))
    }

    /// Bytes it takes on disk; holes do not count.
    pub fn bytes(&self) -> u64 {
        files::disk_usage(&self.dir)
    }
}

/// What a snapshot that is being taken rests on.
#[derive(Debug)]
pub struct Taken {
    /// What it fits.
    pub fit: Fit,
    /// Id of the VM.
    pub vm: String,
    /// Name of the VM.
    pub name: String,
    /// Files outside of its directory.
    pub outside: Vec<Stamp>,
}

/// Copies the disks in a VM's directory into the snapshot in `to`.
pub fn save_disks(vm: &Path, to: &Path) -> Result<(), SnapshotError> {
    for name in disks(vm).map_err(|source| SnapshotError::File { path: vm.into(), source })? {
        copy(vm, to, &name)?;
    }
    Ok(())
}

/// Copies a VM's own disk into the ready snapshot in `to`: volumes are the VM's alone.
pub fn save_upper(vm: &Path, to: &Path) -> Result<(), SnapshotError> {
    copy(vm, to, UPPER_FILE)
}

/// Completes the snapshot in `dir`: has everything on disk, then writes the manifest.
pub fn complete(dir: &Path, taken: Taken) -> Result<(), SnapshotError> {
    let file = |path: PathBuf| move |source| SnapshotError::File { path, source };
    let mut names = disks(dir).map_err(file(dir.into()))?;
    names.extend([STATE_FILE, MEMORY_FILE].map(String::from));
    let mut stamps = taken.outside;
    for name in names {
        let path = dir.join(&name);
        if name == MEMORY_FILE && !path.exists() {
            continue;
        }
        if name == MEMORY_FILE && taken.fit.hypervisor == HypervisorKind::Firecracker {
            // It wrote all of the memory; what is zero of it needs no space.
            File::options()
                .read(true)
                .write(true)
                .open(&path)
                .and_then(|memory| sparse::punch(&memory))
                .map_err(file(path.clone()))?;
        }
        File::open(&path).and_then(|file| file.sync_all()).map_err(file(path.clone()))?;
        stamps.push(Stamp::read(dir, &name).map_err(file(path))?);
    }
    let (fit, vm, name) = (taken.fit, taken.vm, taken.name);
    let manifest = Manifest { v: FORMAT, fit, vm, name, created: Timestamp::now(), files: stamps };
    manifest.write(dir).map_err(file(dir.join(MANIFEST)))
}

/// Names of the disk images in a directory.
fn disks(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".ext4") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn copy(from: &Path, to: &Path, name: &str) -> Result<(), SnapshotError> {
    let target = to.join(name);
    let copied = File::open(from.join(name)).and_then(|file| sparse::copy(&file, &target));
    copied.map_err(|source| SnapshotError::File { path: target, source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use fit::tests::fit;

    /// A snapshot in a directory of its own.
    pub(super) fn snapshot(dir: &Path) -> Snapshot {
        let vm = tempfile::tempdir().unwrap();
        for name in ["upper.ext4", "volume-0.ext4", "console.log"] {
            std::fs::write(vm.path().join(name), name).unwrap();
        }
        std::fs::write(dir.join(STATE_FILE), "state").unwrap();
        std::fs::write(dir.join(MEMORY_FILE), "memory").unwrap();
        save_disks(vm.path(), dir).unwrap();
        assert!(matches!(Snapshot::open(dir), Err(SnapshotError::None { .. })), "no manifest yet");
        let taken = Taken { fit: fit(), vm: "v-1".into(), name: "hello".into(), outside: vec![] };
        complete(dir, taken).unwrap();
        Snapshot::open(dir).unwrap()
    }

    #[test]
    fn a_complete_snapshot_fits_and_gives_its_disks() {
        let (dir, vm) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let snapshot = snapshot(dir.path());
        snapshot.check(&fit()).unwrap();
        snapshot.copy_disks(vm.path()).unwrap();
        assert_eq!(disks(vm.path()).unwrap(), ["upper.ext4", "volume-0.ext4"]);
        assert!(snapshot.bytes() > 0);
    }

    #[test]
    fn a_vm_that_wrote_to_a_disk_since_is_further_than_its_snapshot() {
        let (dir, vm) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = File::create(vm.path().join(UPPER_FILE)).unwrap();
        save_disks(vm.path(), dir.path()).unwrap();
        std::fs::write(dir.path().join(STATE_FILE), "state").unwrap();
        let taken = Taken { fit: fit(), vm: "v-1".into(), name: "hello".into(), outside: vec![] };
        complete(dir.path(), taken).unwrap();
        let snapshot = Snapshot::open(dir.path()).unwrap();
        assert!(snapshot.is_the_last_of(vm.path()));
        file.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(1)).unwrap();
        assert!(!snapshot.is_the_last_of(vm.path()));
    }

    #[test]
    fn a_snapshot_of_another_machine_is_refused_with_what_differs() {
        let dir = tempfile::tempdir().unwrap();
        let error = snapshot(dir.path()).check(&Fit { cpus: 2, ..fit() }).unwrap_err();
        assert_eq!(error.to_string(), "the snapshot does not fit: cpus was 1 and is 2");
    }

    #[test]
    fn what_is_empty_of_firecrackers_memory_takes_no_space_once_complete() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(STATE_FILE), "state").unwrap();
        let memory = dir.path().join(MEMORY_FILE);
        std::fs::write(&memory, vec![0; 4 * 1024 * 1024]).unwrap();
        let fit = Fit { hypervisor: HypervisorKind::Firecracker, ..fit() };
        let taken = Taken { fit, vm: "v-1".into(), name: "hello".into(), outside: vec![] };
        complete(dir.path(), taken).unwrap();
        let meta = memory.metadata().unwrap();
        assert_eq!(meta.len(), 4 * 1024 * 1024);
        assert!(meta.blocks() * 512 <= 64 * 1024, "{} blocks", meta.blocks());
    }

    #[test]
    fn a_file_that_was_only_copied_is_read_once() {
        let dir = tempfile::tempdir().unwrap();
        let snapshot = snapshot(dir.path());
        let state = dir.path().join(STATE_FILE);
        std::fs::remove_file(&state).unwrap();
        std::fs::write(&state, "state").unwrap();
        snapshot.check(&fit()).unwrap();
        let noted = Snapshot::open(dir.path()).unwrap();
        assert_ne!(noted, snapshot);
        noted.check(&fit()).unwrap();
        assert_eq!(Snapshot::open(dir.path()).unwrap(), noted);
    }

    #[test]
    fn a_truncated_or_changed_file_is_refused_by_its_name() {
        for (name, content, said) in [
            (MEMORY_FILE, "mem", "has 3 bytes and had 6"),
            (STATE_FILE, "STATE", "was changed since"),
            ("upper.ext4", "Upper.ext4", "was changed since"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let snapshot = snapshot(dir.path());
            std::fs::write(dir.path().join(name), content).unwrap();
            let error = snapshot.check(&fit()).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains(name), "{error}");
        }
    }

    #[test]
    fn a_manifest_of_another_format_or_half_of_one_is_no_snapshot() {
        let dir = tempfile::tempdir().unwrap();
        snapshot(dir.path());
        let path = dir.path().join(MANIFEST);
        let json = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &json[..json.len() / 2]).unwrap();
        assert!(matches!(Snapshot::open(dir.path()), Err(SnapshotError::None { .. })));
        std::fs::write(&path, json.replace("\"v\": 1", "\"v\": 9")).unwrap();
        assert!(matches!(Snapshot::open(dir.path()), Err(SnapshotError::Format { found: 9, .. })));
    }
}
