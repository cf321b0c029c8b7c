//! A VM replaced by one of another build: under its name, at its ports, with nobody refused.

use tokio_util::sync::CancellationToken;

use super::boot::{RunError, Running, boot, discard, recorded};
use super::{RunRequest, STOP_DEADLINE, built};
use crate::event::EventSink;
use crate::host::paths::Paths;
use crate::store::Store;
use crate::store::vms::VmRow;
use crate::vm::lifecycle::{self, LifecycleError};
use crate::vm::spec::{HypervisorKind, PortMap, VmSpec, VolumeSpec};
use crate::vm::virtiofs;

/// Builds, boots the result beside `old`, and has it take its place once it is ready: name and ports.
/// The old VM ends then, and is removed. `None` where it would be replaced by its like.
///
/// Whatever fails before leaves the old one as it is, unless both would write into one volume: then it ends first.
pub async fn replace(
    request: &RunRequest,
    old: &VmRow,
    paths: &Paths,
    store: &mut Store,
    sink: &EventSink,
    cancel: &CancellationToken,
) -> Result<Option<Running>, RunError> {
    let was = recorded(old)?;
    // What is to be known of the machine was said when the old one was started.
    let (spec, _, _held) = built(request, paths, store, sink, cancel).await?;
    let mut spec = VmSpec { name: was.name.clone(), ..spec };
    spec.ports.iter_mut().for_each(|map| keep_port(map, &was.ports));
    let lives = store.vm(&old.id).map_err(LifecycleError::from)?.is_some_and(|vm| vm.state.is_live());
    if lives && is_like(&spec, &was) {
        sink.info(format!("`{}` runs it already", was.name));
        return Ok(None);
    }
    // Two guests that write in one place would destroy what is in it.
    let is_shared =
        |volume: &&VolumeSpec| !volume.read_only && (volume.host.is_file() || shares(volume, &spec));
    let shares = spec.volumes.iter().find(is_shared);
    if lives && let Some(volume) = shares {
        let what = volume.host.display();
        sink.info(format!("`{}` ends before the new one starts: both would write into {what}", was.name));
        lifecycle::stop(paths, store, old, Some(STOP_DEADLINE)).await?;
    } else if lives {
        spec.takes_over = Some(old.id.clone());
    }
    let id = spec.id.clone();
    let beside = spec.takes_over.is_some();
    let running = boot(paths, store, spec, true, sink, cancel).await;
    if running.is_err() && beside {
        // It never was; the old one is looked at under this name.
        discard(&id, paths, store)?;
    }
    let running = running?;
    if beside && !store.take_place(&old.id, &id).map_err(LifecycleError::from)? {
        running.starting.end(paths).await;
        discard(&id, paths, store)?;
        return Err(RunError::Unavailable {
            what: format!("the VM `{}` was ended while it was being replaced", was.name),
            help: "`mvm run` starts another; so does the next change of a watch".into(),
        });
    }
    if let Err(error) = end(&old.id, paths, store).await {
        // The new one is there in any case.
        sink.warn(format!("the VM that was replaced does not end: {error}"));
    }
    Ok(Some(running))
}

/// Ends and removes a VM.
async fn end(id: &str, paths: &Paths, store: &mut Store) -> Result<(), LifecycleError> {
    let Some(vm) = store.vm(id)? else { return Ok(()) };
    if vm.state.is_live() {
        lifecycle::stop(paths, store, &vm, Some(STOP_DEADLINE)).await?;
    }
    lifecycle::remove(paths, store, &vm)
}

/// Whether a volume's directory is shared as it is, and not copied.
fn shares(volume: &VolumeSpec, spec: &VmSpec) -> bool {
    spec.hypervisor == HypervisorKind::Qemu && virtiofs::program_for(volume).is_some()
}

/// Where any port would do, the one it had does.
fn keep_port(map: &mut PortMap, had: &[PortMap]) {
    let same = |had: &&PortMap| had.guest == map.guest && had.host.ip() == map.host.ip();
    if map.host.port() == 0
        && let Some(had) = had.iter().find(same)
    {
        map.host = had.host;
    }
}

/// Whether a VM made so is like the one that was.
fn is_like(spec: &VmSpec, was: &VmSpec) -> bool {
    let VmSpec { id, boot_timeout_secs, remove, cold, started_by, restore_from, takes_over, .. } =
        was.clone();
    // What does not show in the guest.
    *was == VmSpec {
        id,
        boot_timeout_secs,
        remove,
        cold,
        started_by,
        restore_from,
        takes_over,
        ..spec.clone()
    }
}
