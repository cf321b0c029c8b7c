//! A VM shut down and booted again, with what it wrote to its disks.

use tokio_util::sync::CancellationToken;

use super::boot::{RunError, Running, boot, recorded};
use super::{STOP_DEADLINE, snapshot};
use crate::artifacts::Artifacts;
use crate::event::EventSink;
use crate::host::paths::Paths;
use crate::image::hold::hold;
use crate::store::Store;
use crate::store::vms::VmRow;
use crate::vm::disks;
use crate::vm::lifecycle::{self, LifecycleError};
use crate::vm::spec::VmSpec;

/// Boots a VM's specification again as a new VM of the same name, ending the old one if it runs.
///
/// The new VM has a new id and inherits the old one's disks, snapshot and console log; the old one is
/// removed once the new one is ready. Until then nothing of it is touched, so that one that does
/// not come up can be restarted again.
pub async fn restart(
    id: &str,
    paths: &Paths,
    store: &mut Store,
    sink: &EventSink,
    cancel: &CancellationToken,
) -> Result<Running, RunError> {
    let _held = hold(&paths.builds(), sink, cancel).await?;
    let old = lifecycle::find(store, id)?;
    let spec = bootable(&old)?;
    if let Ok(other) = lifecycle::find_running(store, &old.name)
        && other.id != old.id
    {
        return Err(LifecycleError::NameTaken(spec.name).into());
    }
    let spec = VmSpec { id: lifecycle::new_id(), ..spec };
    again(&old, spec, paths, store, sink, cancel).await
}

/// Boots a specification as the VM that takes over an old one's disks, snapshot and console log; see [`restart`].
pub async fn again(
    old: &VmRow,
    spec: VmSpec,
    paths: &Paths,
    store: &mut Store,
    sink: &EventSink,
    cancel: &CancellationToken,
) -> Result<Running, RunError> {
    let (from, to) = (paths.vm(&old.id), paths.vm(&spec.id));
    // Before its end, which removes a VM that is to leave nothing.
    let inherited = disks::inherit(&from, &to);
    let ended = match inherited {
        Err(source) => Err(LifecycleError::File { path: to.clone(), source }.into()),
        Ok(()) if old.state.is_live() => end(paths, store, old, sink, cancel).await,
        Ok(()) => Ok(()),
    };
    if let Err(error) = ended {
        // Links only: the old VM keeps its disks.
        let _ = std::fs::remove_dir_all(&to);
        return Err(error);
    }
    let running = boot(paths, store, spec, true, sink, cancel).await?;
    let id = running.starting.id.clone();
    let tidied = snapshot::inherit(paths, &old.id, &id).map_err(RunError::from).and_then(|()| {
        let old = store.vm(&old.id).map_err(LifecycleError::from)?;
        Ok(old.map_or(Ok(()), |old| lifecycle::remove(paths, store, &old))?)
    });
    if let Err(error) = tidied {
        // The new one is there in any case.
        sink.warn(format!("the VM that it takes over from does not go: {error}"));
    }
    Ok(running)
}

async fn end(
    paths: &Paths,
    store: &mut Store,
    old: &VmRow,
    sink: &EventSink,
    cancel: &CancellationToken,
) -> Result<(), RunError> {
    sink.phase("stop");
    tokio::select! {
        ended = lifecycle::stop(paths, store, old, Some(STOP_DEADLINE)) => Ok(ended?),
        // The guest was asked and ends nevertheless.
        () = cancel.cancelled() => Err(RunError::Cancelled),
    }
}

/// The VM's specification, if what it boots is still there: a running one is not ended for nothing.
fn bootable(vm: &VmRow) -> Result<VmSpec, RunError> {
    let spec = recorded(vm)?;
    match Artifacts::open(&spec.build_dir) {
        // It is booted: where it once went on from is no matter.
        Ok(_) => Ok(VmSpec { restore_from: None, ..spec }),
        Err(error) => Err(RunError::Unavailable {
            what: format!("what the VM `{}` boots is gone: `{}`: {error}", vm.name, spec.build_dir.display()),
            help: "`mvm run` builds it again and boots a new one".into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::TaskId;
    use crate::store::vms::VmState;

    #[tokio::test]
    async fn what_cannot_be_booted_again_is_left_as_it_is() {
        let world = tempfile::tempdir().unwrap();
        let paths = Paths::at(world.path().join("state"), world.path().join("run")).unwrap();
        let mut store = Store::open(std::path::Path::new(":memory:")).unwrap().store;
        let (sink, _stream) = EventSink::new(TaskId::new('t'));
        let cancel = CancellationToken::new();
        let error = restart("v-1", &paths, &mut store, &sink, &cancel).await.unwrap_err();
        assert!(error.to_string().contains("there is no VM named `v-1`"), "{error}");

        let mut row = VmRow {
            id: "v-1".into(),
            name: "hello".into(),
            build: "b".into(),
            state: VmState::Created,
            detail: None,
            spec: "{}".into(),
            process: None,
            created_ms: 1,
            changed_ms: 1,
            beside: None,
        };
        store.insert_vm(&row).unwrap();
        let error = restart("v-1", &paths, &mut store, &sink, &cancel).await.unwrap_err();
        assert!(error.to_string().contains("record of the VM `hello`"), "{error}");

        (row.id, row.name) = ("v-2".into(), "web".into());
        row.spec = serde_json::json!({
            "id": "v-2", "name": "web", "build_dir": "/no/such/build", "cpus": 1, "memory_mib": 256,
            "disk_mib": 64, "kernel_args": [], "ports": [], "volumes": [], "network": "user",
            "egress": true, "kvm": false, "role": null, "boot_timeout_secs": 1, "remove": false,
        })
        .to_string();
        store.insert_vm(&row).unwrap();
        let error = restart("v-2", &paths, &mut store, &sink, &cancel).await.unwrap_err();
        assert!(error.to_string().contains("/no/such/build"), "{error}");
        assert_eq!(store.vm("v-2").unwrap().map(|vm| vm.state), Some(VmState::Created));
    }
}
