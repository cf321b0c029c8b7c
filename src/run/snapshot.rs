//! A VM saved, and gone on from.

use std::io;

use tokio_util::sync::CancellationToken;

use super::boot::{RunError, Running, boot, discard, recorded};
use crate::event::{EventSink, Kind};
use crate::host::paths::Paths;
use crate::store::Store;
use crate::store::vms::{VmRow, VmState};
use crate::vm::console;
use crate::vm::lifecycle::{self, LifecycleError};
use crate::vm::shim::client;
use crate::vm::shim::protocol::Saved;
use crate::vm::snapshot::Snapshot;
use crate::vm::spec::VmSpec;

/// Saves a running VM with all its disks, in the place of its earlier snapshot; it goes on
/// afterwards, or is over with `stop`.
pub async fn save(
    name: &str,
    stop: bool,
    paths: &Paths,
    store: &mut Store,
    sink: &EventSink,
    cancel: &CancellationToken,
) -> Result<Saved, RunError> {
    let vm = lifecycle::find_running(store, name)?;
    sink.phase("save");
    let socket = paths.shim_socket(&vm.id);
    let saved = tokio::select! {
        saved = client::save(&socket, stop) => saved.map_err(LifecycleError::from)?,
        // The VM's process brings it to an end by itself.
        () = cancel.cancelled() => return Err(RunError::Unavailable {
            what: format!("interrupted, but the VM `{}` goes on being saved", vm.name),
            help: "`mvm snapshot ls` shows it once it is done; `mvm stop --kill` ends the VM".into(),
        }),
    };
    if stop {
        lifecycle::over(paths, &vm.id, lifecycle::SOON).await;
        store.set_vm_state(&vm.id, VmState::Stopped, None).map_err(LifecycleError::from)?;
    }
    let Saved { bytes, paused_ms, ms } = saved;
    sink.send(Kind::SnapshotTaken { vm: vm.id, name: vm.name, bytes, paused_ms, ms });
    Ok(saved)
}

/// Has a VM that is over go on from its snapshot, as a new VM of the same name with the same
/// identity; `adapt` changes what its process does of it, such as ports. The snapshot goes with it; the old VM is removed once the new one runs.
pub async fn restore(
    name: &str,
    adapt: impl FnOnce(&mut VmSpec),
    paths: &Paths,
    store: &mut Store,
    sink: &EventSink,
    cancel: &CancellationToken,
) -> Result<Running, RunError> {
    let old = saved_vm(name, paths, store)?;
    let spec = recorded(&old)?;
    let id = lifecycle::new_id();
    let mut spec = VmSpec { id: id.clone(), restore_from: Some(paths.vm_snapshot(&old.id)), ..spec };
    adapt(&mut spec);
    let running = match boot(paths, store, spec, true, sink, cancel).await {
        Ok(running) => running,
        Err(error) => {
            // It was never more than a copy, and must not be taken for the newest of its name.
            discard(&id, paths, store)?;
            return Err(error);
        }
    };
    inherit(paths, &old.id, &id)?;
    lifecycle::remove(paths, store, &old)?;
    Ok(running)
}

/// Gives a VM what stays of the one whose place it took: its snapshot and its console log.
pub(super) fn inherit(paths: &Paths, from: &str, to: &str) -> Result<(), LifecycleError> {
    let target = paths.vm_snapshot(to);
    // Its memory may be mapped already; only its name changes.
    match std::fs::rename(paths.vm_snapshot(from), &target) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(LifecycleError::File { path: target, source });
        }
        _ => {}
    }
    // The log goes on where the old one's ended; it is no reason to fail.
    let _ = console::inherit(&paths.vm(from), &paths.vm(to));
    Ok(())
}

/// The VM with this name or id that is over and has a snapshot.
fn saved_vm(name: &str, paths: &Paths, store: &Store) -> Result<VmRow, RunError> {
    let found = lifecycle::find(store, name)?;
    if found.state.is_live() {
        return Err(RunError::Unavailable {
            what: format!("the VM `{}` is running", found.name),
            help: format!("`mvm stop {}` ends it; what it did since its snapshot is lost then", found.name),
        });
    }
    let vms = store.vms().map_err(LifecycleError::from)?;
    let bears = |vm: &&VmRow| vm.name == name || vm.id == name;
    let saved = vms.iter().filter(bears).find(|vm| Snapshot::open(&paths.vm_snapshot(&vm.id)).is_ok());
    saved.cloned().ok_or_else(|| RunError::Unavailable {
        what: format!("there is no snapshot of the VM `{name}`"),
        help: "`mvm snapshot create NAME` takes one of a running VM; `mvm snapshot ls` lists them".into(),
    })
}
