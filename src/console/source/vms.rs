//! VMs: the records of the store, squared with what really runs, and what each uses.

use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use jiff::Timestamp;

use super::database::Read;
use super::snapshots::{Own, Ready};
use crate::artifacts::Artifacts;
use crate::event::vm::{SnapshotInfo, VmInfo};
use crate::event::{EventSink, Kind};
use crate::host::paths::Paths;
use crate::store::vms::{VmRow, VmState};
use crate::vm::lifecycle;
use crate::vm::network;
use crate::vm::spec::{HypervisorKind, Network, VmSpec};
use crate::vm::usage::{Sampler, Target};
use crate::vm::virtiofs;

/// The VMs as they were told of last.
#[derive(Debug)]
pub struct Vms {
    paths: Paths,
    /// By id.
    known: BTreeMap<String, Known>,
    ready: Ready,
    sampler: Sampler,
}

#[derive(Debug)]
struct Known {
    row: VmRow,
    flake: Option<String>,
    tap: Option<String>,
    own: Own,
    /// The snapshots that were told of last: its own, and the ready one of its build.
    saved: Saved,
}

type Saved = [Option<SnapshotInfo>; 2];

impl Vms {
    /// None is known.
    pub fn new(paths: Paths) -> Self {
        Self { paths, known: BTreeMap::new(), ready: Ready::default(), sampler: Sampler::default() }
    }

    /// Whether there is a VM of this id.
    pub fn is_known(&self, id: &str) -> bool {
        self.known.contains_key(id)
    }

    /// Tells of VMs that are new, changed or gone, as far as the database was read, or on the disk.
    pub fn look(&mut self, read: Option<Read>, sink: &EventSink) {
        self.ready.look(&self.paths);
        if let Some(read) = read {
            self.take(read, sink);
        }
        self.compare(sink);
    }

    /// Tells of VMs whose snapshots changed, which the records do not say.
    fn compare(&mut self, sink: &EventSink) {
        for known in self.known.values_mut() {
            let saved = saved(&self.paths, &known.row, &mut known.own, &self.ready);
            if known.saved != saved {
                known.saved = saved;
                sink.send(Kind::VmSeen { info: Box::new(known.info(&self.paths)) });
            }
        }
    }

    fn take(&mut self, Read { vms: rows, flakes, .. }: Read, sink: &EventSink) {
        let there: HashSet<&str> = rows.iter().map(|row| row.id.as_str()).collect();
        self.known.retain(|id, _| {
            let stays = there.contains(id.as_str());
            if !stays {
                sink.send(Kind::VmGone { vm: id.clone() });
            }
            stays
        });
        // The newest come first.
        for row in rows.into_iter().rev() {
            let flake = flakes.get(&row.build).cloned();
            if self.known.get(&row.id).is_some_and(|known| known.row == row && known.flake == flake) {
                continue;
            }
            let mut own = Own::default();
            let saved = saved(&self.paths, &row, &mut own, &self.ready);
            let tap = lifecycle::spec_of(&row).and_then(|spec| network::tap_name(&spec));
            let known = Known { row, flake, tap, own, saved };
            sink.send(Kind::VmSeen { info: Box::new(known.info(&self.paths)) });
            self.known.insert(known.row.id.clone(), known);
        }
    }

    /// Whether there is one that may have lost its process.
    pub fn any_lives(&self) -> bool {
        self.known.values().any(|known| known.row.state.is_live())
    }

    /// Tells what each running VM has used since the last time.
    pub fn sample(&mut self, sink: &EventSink, now: Instant) {
        let targets: Vec<Target<'_>> = self.known.values().filter_map(target).collect();
        for (vm, sample) in self.sampler.sample(&targets, now) {
            sink.send(Kind::VmSample { vm: vm.into(), sample });
        }
    }
}

/// A VM that has a hypervisor, or will soon.
fn target(Known { row, tap, .. }: &Known) -> Option<Target<'_>> {
    let runs = matches!(row.state, VmState::Booting | VmState::Running | VmState::Paused);
    let shim = row.process.as_ref().filter(|_| runs)?;
    Some(Target { id: &row.id, shim, tap: tap.as_deref() })
}

/// The VM's own snapshot, and the ready one of its build.
fn saved(paths: &Paths, row: &VmRow, own: &mut Own, ready: &Ready) -> Saved {
    [own.look(&paths.vm_snapshot(&row.id)), ready.of(&row.build)]
}

impl Known {
    /// All there is to tell.
    fn info(&self, paths: &Paths) -> VmInfo {
        let [snapshot, ready] = self.saved;
        let info = info(paths, &self.row, self.flake.clone(), lifecycle::spec_of(&self.row));
        VmInfo { snapshot, ready, ..info }
    }
}

fn info(paths: &Paths, row: &VmRow, flake: Option<String>, spec: Option<VmSpec>) -> VmInfo {
    let artifacts = paths.builds().join(&row.build);
    let files = Artifacts::open(&artifacts).map(|artifacts| artifacts.manifest.files).unwrap_or_default();
    let time = |ms| Timestamp::from_millisecond(ms).unwrap_or_default();
    let info = VmInfo {
        id: row.id.clone(),
        name: row.name.clone(),
        state: row.state.as_str().into(),
        live: row.state.is_live(),
        detail: row.detail.clone(),
        flake,
        artifacts,
        files: files.into_iter().map(|file| (file.name, file.size)).collect(),
        hypervisor: String::new(),
        network: String::new(),
        cpus: 0,
        memory_mib: 0,
        disk_mib: 0,
        ports: Vec::new(),
        volumes: Vec::new(),
        pid: row.process.as_ref().map(|process| process.pid),
        created: time(row.created_ms),
        changed: time(row.changed_ms),
        started_by: None,
        shares: false,
        removed_at_end: false,
        snapshot: None,
        ready: None,
    };
    // One of another mvm may not be readable: the VM is shown all the same.
    let Some(spec) = spec else { return info };
    // Only a VM that may be saved soon is worth the look.
    let shares = info.live && virtiofs::is_used(&spec);
    VmInfo {
        artifacts: spec.build_dir,
        hypervisor: match (spec.hypervisor, spec.kvm) {
            (HypervisorKind::Firecracker, _) => "firecracker",
            (HypervisorKind::Qemu, true) => "qemu/kvm",
            (HypervisorKind::Qemu, false) => "qemu/tcg",
        }
        .into(),
        network: match spec.network {
            Network::Tap => "tap".into(),
            Network::User => "user".into(),
        },
        cpus: spec.cpus,
        memory_mib: spec.memory_mib,
        disk_mib: spec.disk_mib,
        ports: spec.ports.iter().map(ToString::to_string).collect(),
        volumes: spec.volumes.iter().map(ToString::to_string).collect(),
        started_by: Some(spec.started_by.as_str().into()),
        shares,
        removed_at_end: spec.remove,
        ..info
    }
}
