//! A running machine, saved to disk.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::booted::Booted;
use super::prepare::Prepared;
use super::protocol::Saved;
use super::{ShimError, boot};
use crate::artifacts::Artifacts;
use crate::host::paths::Paths;
use crate::host::{files, layout};
use crate::vm::snapshot::fit::Fit;
use crate::vm::snapshot::stamp::{Digested, Stamp};
use crate::vm::snapshot::{self, SnapshotError, Taken, ready};

/// How long the agent may take to fall silent.
const SILENCE: Duration = Duration::from_secs(5);
/// ssh's note of the guest's key, kept with the snapshot.
const KNOWN_HOSTS: &str = "known_hosts";

/// A snapshot of which all is written, but not yet on disk for good.
pub type Completing = JoinHandle<Result<(), ShimError>>;

/// A directory in which a snapshot is taken: gone when that fails, or is given up.
struct Half(PathBuf);

impl Drop for Half {
    fn drop(&mut self) {
        // Complete it has another name; else what went wrong first is what is told.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Halts the machine with its agent silent, and writes it and its disks into `dir`. It is the caller's to
/// have it go on, whatever the result.
async fn write(
    booted: &mut Booted,
    dir: &Path,
    copy_disks: impl FnOnce() -> Result<(), SnapshotError> + Send + 'static,
) -> Result<(), ShimError> {
    if let Some(agent) = booted.agent.take() {
        let silent = tokio::time::timeout(SILENCE, agent.client.retire()).await;
        let silent = silent.map_err(|_| "it does not answer".to_string());
        silent.and_then(|silent| silent.map_err(|error| error.to_string())).map_err(ShimError::Agent)?;
    }
    booted.hypervisor.pause().await?;
    booted.hypervisor.save(dir).await?;
    Ok(tokio::task::spawn_blocking(copy_disks).await??)
}

/// Saves a sealed guest as a ready snapshot. The guest goes on; the agent is to be met again.
pub async fn ready(
    paths: &Paths,
    prepared: &Prepared,
    fit: &Fit,
    booted: &mut Booted,
) -> Result<Completing, ShimError> {
    let Prepared { spec, artifacts, dir, .. } = prepared;
    let place = ready::begin(paths, &spec.id)
        .map_err(|source| ShimError::File { path: paths.snapshots(), source })?;
    let half = Half(place.clone());
    let (from, to) = (dir.clone(), place.clone());
    let written = write(booted, &place, move || snapshot::save_upper(&from, &to)).await;
    let resumed = booted.hypervisor.resume().await;
    written?;
    resumed?;
    let taken = taken(prepared, fit, outside(artifacts)?);
    let (paths, key) = (paths.clone(), fit.key());
    Ok(tokio::task::spawn_blocking(move || {
        snapshot::complete(&half.0, taken)?;
        ready::publish(&paths, &half.0, &key).map_err(|source| ShimError::File { path: place, source })
    }))
}

/// A VM of which all is written.
pub struct Written {
    half: Half,
    target: PathBuf,
    taken: Taken,
    begun: Instant,
    paused_ms: u64,
}

/// Saves a VM with all its disks into its directory. The guest stands still then, its agent silent, if it
/// fails too; to `stop` it afterwards must make sense.
pub async fn vm(
    paths: &Paths,
    prepared: &Prepared,
    booted: &mut Booted,
    stop: bool,
) -> Result<Written, ShimError> {
    let Prepared { spec, artifacts, dir, .. } = prepared;
    if !artifacts.has_agent() {
        return Err(ShimError::Unsavable(
            "its image has no guest agent, so it would go on with an old clock and random numbers of the past",
        ));
    }
    if !booted.daemons.is_empty() {
        return Err(ShimError::Unsavable("its shared directories cannot be saved; give volumes a size"));
    }
    if spec.remove {
        return Err(ShimError::Unsavable("it was started with `--rm`: nothing of it stays"));
    }
    if !stop && booted.disks[2..].iter().any(|disk| !disk.path.starts_with(dir)) {
        return Err(ShimError::Unsavable(
            "it goes on writing into an image file of yours, which would not fit the snapshot then; save it with `--stop`",
        ));
    }
    let begun = Instant::now();
    let fit = boot::fit(paths, prepared, &booted.disks[2..]).await?;
    let target = paths.vm_snapshot(&spec.id);
    let next = layout::begin(&target).map_err(|source| ShimError::File { path: target.clone(), source })?;
    let half = Half(next.clone());
    let (from, to) = (dir.clone(), next.clone());
    let copy = move || {
        snapshot::save_disks(&from, &to)?;
        let path = to.join(KNOWN_HOSTS);
        match std::fs::copy(from.join(KNOWN_HOSTS), &path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(SnapshotError::File { path, source })
            }
            _ => Ok(()),
        }
    };
    write(booted, &next, copy).await?;
    let mut stamps = outside(artifacts)?;
    // A user's own images may be large: they are not read.
    for disk in booted.disks[2..].iter().filter(|disk| !disk.path.starts_with(dir)) {
        stamps.push(stamp(&disk.path, None)?);
    }
    let paused_ms = begun.elapsed().as_millis() as u64;
    Ok(Written { half, target, taken: taken(prepared, &fit, stamps), begun, paused_ms })
}

impl Written {
    /// Has it on the disk for good, in the place of an earlier snapshot.
    pub async fn complete(self) -> Result<Saved, ShimError> {
        let Self { half, target, taken, begun, paused_ms } = self;
        let completed = tokio::task::spawn_blocking(move || {
            snapshot::complete(&half.0, taken)?;
            layout::replace(&half.0, &target)
                .map_err(|source| ShimError::File { path: target.clone(), source })?;
            let bytes = files::disk_usage(&target);
            Ok(Saved { bytes, paused_ms, ms: begun.elapsed().as_millis() as u64 })
        });
        completed.await?
    }
}

/// Gives a VM that goes on from a snapshot its note of the guest's key.
pub fn take_known_hosts(snapshot: &Path, prepared: &Prepared) -> Result<(), ShimError> {
    let path = prepared.dir.join(KNOWN_HOSTS);
    let Ok(known) = std::fs::read_to_string(snapshot.join(KNOWN_HOSTS)) else { return Ok(()) };
    let Some((_, key)) = known.split_once(' ') else { return Ok(()) };
    files::write_atomic(&path, format!("{} {key}", prepared.spec.id).as_bytes(), 0o600)
        .map_err(|source| ShimError::File { path, source })
}

fn taken(prepared: &Prepared, fit: &Fit, outside: Vec<Stamp>) -> Taken {
    let (vm, name) = (prepared.spec.id.clone(), prepared.spec.name.to_string());
    Taken { fit: fit.clone(), vm, name, outside }
}

/// The files of the build, whose digests are known.
fn outside(artifacts: &Artifacts) -> Result<Vec<Stamp>, ShimError> {
    let files = artifacts.manifest.files.iter();
    files
        .map(|file| stamp(&artifacts.dir.join(&file.name), Some(Digested::Whole(file.sha256.clone()))))
        .collect()
}

fn stamp(path: &Path, sha256: Option<Digested>) -> Result<Stamp, ShimError> {
    Stamp::known(path, sha256).map_err(|source| ShimError::File { path: path.into(), source })
}
