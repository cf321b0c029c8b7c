//! The VM to work in: one a state, from a flake that is compiled in, kept until it is recreated.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::wish::{BuildWish, WishError};
use super::{RunError, RunRequest, Running, STOP_DEADLINE, restart, run, snapshot};
use crate::artifacts::Artifacts;
use crate::event::EventSink;
use crate::host::files::{self, Lock};
use crate::host::paths::Paths;
use crate::store::vms::{VmRow, VmState};
use crate::store::{Store, StoreError};
use crate::vm::config::RuntimeConfig;
use crate::vm::lifecycle::{self, LifecycleError};
use crate::vm::snapshot::Snapshot;
use crate::vm::spec::{StartedBy, VmName};

/// The VM's name.
pub const NAME: &str = "dev";

/// The flake, file by file.
const FILES: [(&str, &str); 2] = [
    ("flake.nix", include_str!("../../nix/dev/flake.nix")),
    ("mvm.toml", include_str!("../../nix/dev/mvm.toml")),
];

/// Lies in the directory of a VM whose first boot failed: there is nothing in it to go on with.
const NEVER_UP: &str = "never-up";

/// Pause between two looks at a VM that another command boots.
const POLL: Duration = Duration::from_millis(20);

/// Why there is no dev VM.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// A VM of a flake has the name.
    #[error(
        "a VM named `{NAME}` is running that `mvm dev` did not start\nhelp: `mvm ssh {NAME}` opens it; end it with `mvm stop {NAME}` to make room"
    )]
    Taken,
    /// Another command boots it, and does not get there.
    #[error(
        "the dev VM is still booting\nhelp: `mvm logs {NAME}` shows its console; `mvm dev --recreate` begins anew"
    )]
    Booting,
    /// The flake cannot be written.
    #[error(
        "cannot write the dev VM's flake in `{path}`: {source}\nhelp: free some space or mend its permissions"
    )]
    Write {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The request.
    #[error(transparent)]
    Wish(#[from] WishError),
    /// The build or the boot.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Its end.
    #[error(transparent)]
    Lifecycle(#[from] LifecycleError),
    /// Database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A part of the root file system: where it is another one, Nix builds all from scratch. Its own
/// `--rebuild` is of the outermost derivation only.
const SERIAL: &str = "serial";

/// Lays out the flake and tells how its image is built; from scratch if wished.
pub fn wish(paths: &Paths, scratch: bool) -> Result<BuildWish, DevError> {
    let dir = paths.dev_flake();
    let written = std::fs::create_dir_all(&dir)
        .and_then(|()| FILES.iter().try_for_each(|(name, content)| write(&dir.join(name), content)));
    let serial = dir.join(SERIAL);
    let written = written.and_then(|()| match scratch || !serial.exists() {
        true => {
            let number = if scratch { Timestamp::now().as_millisecond() } else { 0 };
            files::write_atomic(&serial, format!("{number}\n").as_bytes(), 0o600)
        }
        false => Ok(()),
    });
    written.map_err(|source| DevError::Write { path: dir.clone(), source })?;
    // Of a state inside a git work tree Nix would see nothing but what is tracked.
    Ok(BuildWish { flake: format!("path:{}", dir.display()), ..BuildWish::default() })
}

fn write(file: &Path, content: &str) -> io::Result<()> {
    match std::fs::read(file) {
        Ok(there) if there == content.as_bytes() => Ok(()),
        _ => files::write_atomic(file, content.as_bytes(), 0o600),
    }
}

/// Keeps another `mvm dev` from making a second one; `told` is called if there is one to wait for.
pub async fn lock(paths: &Paths, told: impl Fn()) -> Result<Lock, DevError> {
    let file = paths.dev_flake().with_extension("lock");
    let mut waits = false;
    loop {
        let taken = Lock::try_take(&file).map_err(|source| DevError::Write { path: file.clone(), source })?;
        if let Some(lock) = taken {
            return Ok(lock);
        }
        if !waits {
            told();
            waits = true;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The dev VM: the live one, else the newest that ever came up.
pub fn find(paths: &Paths, store: &Store) -> Result<Option<VmRow>, StoreError> {
    let mut all = of_dev(store)?;
    all.retain(|vm| vm.state.is_live() || !paths.vm(&vm.id).join(NEVER_UP).exists());
    let live = all.iter().position(|vm| vm.state.is_live()).unwrap_or(0);
    Ok((!all.is_empty()).then(|| all.swap_remove(live)))
}

/// Whether a VM is owed to `mvm dev`.
pub fn is_dev(vm: &VmRow) -> bool {
    lifecycle::spec_of(vm).is_some_and(|spec| spec.started_by == StartedBy::Dev)
}

fn of_dev(store: &Store) -> Result<Vec<VmRow>, StoreError> {
    Ok(store.vms()?.into_iter().filter(is_dev).collect())
}

/// The dev VM if it is up; one that another command boots is waited for.
pub async fn running(paths: &Paths, store: &mut Store) -> Result<Option<VmRow>, DevError> {
    let mut looked = Duration::ZERO;
    loop {
        // It may end on the way, without a word too.
        lifecycle::square(paths, store)?;
        let Some(vm) = find(paths, store)?.filter(|vm| vm.state.is_live()) else { return Ok(None) };
        if !matches!(vm.state, VmState::Created | VmState::Booting) {
            return Ok(Some(vm));
        }
        let limit = lifecycle::spec_of(&vm).map_or(0, |spec| spec.boot_timeout_secs);
        if looked > Duration::from_secs(limit) + STOP_DEADLINE {
            return Err(DevError::Booting);
        }
        tokio::time::sleep(POLL).await;
        looked += POLL;
    }
}

/// Ends and removes every dev VM.
pub async fn remove(paths: &Paths, store: &mut Store) -> Result<(), DevError> {
    remove_but(None, paths, store).await
}

async fn remove_but(kept: Option<&str>, paths: &Paths, store: &mut Store) -> Result<(), DevError> {
    for vm in of_dev(store)?.iter().filter(|vm| kept != Some(&vm.id)) {
        if vm.state.is_live() {
            lifecycle::stop(paths, store, vm, Some(STOP_DEADLINE)).await?;
        }
        lifecycle::remove(paths, store, vm)?;
    }
    Ok(())
}

/// Has the dev VM of an earlier day go on from its snapshot if it did nothing since, else boots it with what
/// it wrote to its disk, or else a new one.
pub async fn start(
    config: RuntimeConfig,
    scratch: bool,
    paths: &Paths,
    store: &mut Store,
    sink: &EventSink,
    cancel: &CancellationToken,
) -> Result<Running, DevError> {
    if lifecycle::find_running(store, NAME).is_ok_and(|vm| !is_dev(&vm)) {
        return Err(DevError::Taken);
    }
    if let Some(old) = find(paths, store)?.filter(|vm| !vm.state.is_live()) {
        let bootable = lifecycle::spec_of(&old).is_some_and(|spec| Artifacts::open(&spec.build_dir).is_ok());
        if bootable && paths.vm(&old.id).is_dir() {
            if let Ok(snapshot) = Snapshot::open(&paths.vm_snapshot(&old.id)) {
                if snapshot.is_the_last_of(&paths.vm(&old.id)) {
                    sink.info("the dev VM goes on from its snapshot");
                    match snapshot::restore(&old.id, |_| {}, paths, store, sink, cancel).await {
                        Ok(running) => {
                            remove_but(Some(&running.starting.id), paths, store).await?;
                            return Ok(running);
                        }
                        Err(RunError::Cancelled) => return Err(RunError::Cancelled.into()),
                        Err(error) => sink.warn(format!("it does not go on from there, and boots: {error}")),
                    }
                } else {
                    sink.info(format!(
                        "`mvm snapshot restore {NAME}` goes back to its snapshot, which is older"
                    ));
                }
            }
            sink.info("booting the dev VM again, with what it wrote");
            let running = restart::restart(&old.id, paths, store, sink, cancel).await?;
            // Attempts that did not come up have the same disk.
            remove_but(Some(&running.starting.id), paths, store).await?;
            return Ok(running);
        }
        sink.warn("what the last dev VM booted is gone; this is a new one");
    }
    remove(paths, store).await?;
    let request = RunRequest {
        build: wish(paths, scratch)?.request(paths).await?,
        builder: None,
        config,
        name: Some(name()),
        remove: false,
        cold: false,
        started_by: StartedBy::Dev,
    };
    let running = run(&request, paths, store, sink, cancel).await;
    if running.is_err() {
        for vm in of_dev(store)? {
            // Where it cannot be marked, --recreate still helps.
            let _ = std::fs::write(paths.vm(&vm.id).join(NEVER_UP), "");
        }
    }
    Ok(running?)
}

fn name() -> VmName {
    VmName::near(NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flake_is_written_once_and_mended_when_changed() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::at(dir.path().join("s"), dir.path().join("r")).unwrap();
        let flake = wish(&paths, false).unwrap().flake;
        assert_eq!(flake, format!("path:{}", paths.dev_flake().display()));
        let file = paths.dev_flake().join("flake.nix");
        let written = std::fs::metadata(&file).unwrap().modified().unwrap();
        wish(&paths, false).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().modified().unwrap(), written);
        std::fs::write(&file, "{ }").unwrap();
        let serial = || std::fs::read_to_string(paths.dev_flake().join(SERIAL)).unwrap();
        wish(&paths, true).unwrap();
        let another = serial();
        assert_ne!(another, "0\n");
        wish(&paths, false).unwrap();
        assert_eq!(serial(), another);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), FILES[0].1);
    }

    #[test]
    fn the_settings_beside_the_flake_are_valid() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::at(dir.path().join("s"), dir.path().join("r")).unwrap();
        wish(&paths, false).unwrap();
        let config = RuntimeConfig::beside(Some(&paths.dev_flake())).unwrap();
        assert_eq!(config.memory_mib, Some(512));
    }
}
