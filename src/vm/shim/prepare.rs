//! What a shim does before it has threads: lock, specification, ports, namespace.

use std::net::TcpListener;
use std::path::PathBuf;

use super::{ShimError, handover, own_identity, record};
use crate::artifacts::Artifacts;
use crate::host::files::Lock;
use crate::host::paths::Paths;
use crate::store::vms::VmState;
use crate::store::{Store, StoreError};
use crate::vm::lifecycle::{PROCESS_FILE, SPEC_FILE};
use crate::vm::network::{Connecting, TapPlace, ports};
use crate::vm::spec::{PortMap, VmSpec};

/// A VM about to be started.
pub struct Prepared {
    /// The specification; ports are those really listened on.
    pub spec: VmSpec,
    /// The snapshot to go on from.
    pub restore_from: Option<PathBuf>,
    /// What it boots.
    pub artifacts: Artifacts,
    /// Its directory.
    pub dir: PathBuf,
    /// Held as long as the VM lives, by the hypervisor as well.
    pub lock: Lock,
    /// Listeners of the published ports, in the host's namespace.
    pub listeners: Vec<(PortMap, TcpListener)>,
    /// The network, unless it is user-mode.
    pub tap: Option<TapPlace>,
}

impl Prepared {
    /// Takes the VM's lock and everything that must be taken before other threads exist. Its network is
    /// still being connected.
    pub fn new(paths: &Paths, id: &str) -> Result<(Self, Connecting), ShimError> {
        let dir = paths.vm(id);
        let lock_path = dir.join("lock");
        let lock = Lock::try_take(&lock_path)
            .map_err(|source| ShimError::File { path: lock_path, source })?
            .ok_or_else(|| ShimError::Owned(id.into()))?;
        let mut spec = read_spec(dir.join(SPEC_FILE))?;
        let artifacts = Artifacts::open(&spec.build_dir)
            .map_err(|source| ShimError::Spec { path: spec.build_dir.join("manifest.json"), source })?;
        if let Some(me) = own_identity() {
            Store::open(&paths.database())?.store.set_vm_process(id, &me)?;
            let path = dir.join(PROCESS_FILE);
            let json = serde_json::to_vec(&me).map_err(StoreError::from)?;
            // Not worth waiting for the disk: after a power cut the process is gone as well.
            std::fs::write(&path, &json).map_err(|source| ShimError::File { path, source })?;
        }
        record(paths, id, VmState::Booting, None);
        let listeners = listen(paths, &mut spec)?;
        spec.ports = listeners.iter().map(|(map, _)| *map).collect();
        let (tap, connecting) = TapPlace::enter(paths, &spec)?;
        // Once it runs it is a VM like others.
        let restore_from = spec.restore_from.take();
        Ok((Self { spec, restore_from, artifacts, dir, lock, listeners, tap }, connecting))
    }
}

/// Listens at the published ports, with the listeners of the VM whose place it takes where that has them.
fn listen(paths: &Paths, spec: &mut VmSpec) -> Result<Vec<(PortMap, TcpListener)>, ShimError> {
    // It may have ended since: then its ports are free.
    let handed = spec.takes_over.take().and_then(|old| handover::take(&paths.shim_socket(&old)).ok());
    let mut handed = handed.unwrap_or_default();
    let one = |map: &PortMap| match handed.iter().position(|(had, _)| had.host == map.host) {
        Some(index) => Ok((*map, handed.swap_remove(index).1)),
        None => ports::listen(map),
    };
    Ok(spec.ports.iter().map(one).collect::<Result<_, _>>()?)
}

fn read_spec(path: PathBuf) -> Result<VmSpec, ShimError> {
    let read = || Ok(serde_json::from_slice(&std::fs::read(&path)?)?);
    read().map_err(|source: std::io::Error| ShimError::Spec { path, source })
}
