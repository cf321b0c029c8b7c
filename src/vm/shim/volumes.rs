//! Disks and shares of a VM, and what the guest is told of them.

use super::ShimError;
use super::prepare::Prepared;
use crate::guest::frames::{self, VolumeSource};
use crate::host::paths::Paths;
use crate::vm::disks;
use crate::vm::hypervisor::Disk;
use crate::vm::spec::{HypervisorKind, VolumeSpec};
use crate::vm::virtiofs::{self, ShareDaemon};

/// Disks and shares of a VM, and what the guest is told of them.
pub struct Volumes {
    /// Disks, in order: the root, the VM's own, volumes.
    pub disks: Vec<Disk>,
    /// virtio-fs daemons, which end with the VM.
    pub daemons: Vec<ShareDaemon>,
    /// For the guest.
    pub guest: Vec<frames::Volume>,
}

impl Volumes {
    /// Makes volumes that are not there yet. The VM's own disk is only named.
    pub async fn make(paths: &Paths, prepared: &Prepared) -> Result<Self, ShimError> {
        let Prepared { spec, artifacts, dir, .. } = prepared;
        let upper = dir.join(disks::UPPER_FILE);
        let rootfs = artifacts.rootfs.clone();
        let mut volumes = Self {
            disks: vec![Disk { path: rootfs, read_only: true }, Disk { path: upper, read_only: false }],
            daemons: Vec::new(),
            guest: Vec::new(),
        };
        for (index, volume) in spec.volumes.iter().enumerate() {
            volumes.add(paths, prepared, volume, index).await?;
        }
        Ok(volumes)
    }

    async fn add(
        &mut self,
        paths: &Paths,
        prepared: &Prepared,
        volume: &VolumeSpec,
        index: usize,
    ) -> Result<(), ShimError> {
        // Firecracker has no virtio-fs.
        let can_share = prepared.spec.hypervisor == HypervisorKind::Qemu;
        let source = match virtiofs::program_for(volume).filter(|_| can_share) {
            Some(program) => {
                let socket = paths.share_socket(&prepared.spec.id, index);
                let daemon = ShareDaemon::start(&program, volume, socket, index)
                    .map_err(|source| ShimError::File { path: program, source })?;
                let tag = daemon.share().tag;
                self.daemons.push(daemon);
                VolumeSource::Tag(tag)
            }
            None => {
                let disk = disks::volume(volume, &prepared.dir, index).await?;
                self.disks.push(Disk { path: disk.path, read_only: volume.read_only });
                VolumeSource::Uuid(disk.uuid)
            }
        };
        let (target, read_only) = (volume.guest.clone(), volume.read_only);
        self.guest.push(frames::Volume { source, target, read_only });
        Ok(())
    }
}
