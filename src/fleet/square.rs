//! The records of instances, squared with what really runs: after a crash, a reboot, or a VM that
//! ended by itself.

use std::time::Duration;

use jiff::Timestamp;

use super::error::FleetError;
use super::ids::InstancePath;
use super::instance::{self, FIRST_HOST};
use super::record::{self, Instance};
use super::state::{Change, InstanceState};
use super::vm;
use super::work::Work;
use crate::host::files::Lock;
use crate::host::paths::Paths;
use crate::store::Store;
use crate::store::vms::{VmRow, VmState};
use crate::vm::lifecycle;
use crate::vm::snapshot::{Snapshot, forget_inherited};
use crate::vm::spec::{StartedBy, TenantLink};

/// A VM whose command was killed before it let go of it ends within this time.
const SETTLED: Duration = Duration::from_secs(60);

/// What the VM of an instance is up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// It runs.
    Running,
    /// It is halted.
    Halted,
    /// It is on its way, and on the leash of a command.
    Starting,
    /// It is over, and saved.
    Saved,
    /// It is over, in order.
    Over,
    /// It is over, by a fault, or was never there.
    Lost,
}

/// Squares all instances that nobody works on; to be called after the VMs' own squaring. Returns what
/// was found to be otherwise, for people.
pub fn square(paths: &Paths, store: &mut Store) -> Result<Vec<String>, FleetError> {
    let mut found = adopt(paths, store)?;
    for row in store.instances()? {
        let file = paths.instance_lock(&row.id);
        let lock = Lock::try_take(&file).map_err(|source| FleetError::File { path: file, source })?;
        // It may have changed since the list was read.
        let (Some(_lock), Some(row)) = (lock, store.instance(&row.id)?) else { continue };
        let mut instance = record::parse(row)?;
        let mut vms = vm::vms(paths, store, &instance.path)?.into_iter();
        let vm = vms.next();
        for left in vms.filter(|vm| !vm.state.is_live()) {
            lifecycle::remove(paths, store, &left)?;
        }
        let seen = see(paths, vm.as_ref(), instance.state);
        let Some(change) = correction(instance.state, seen) else {
            if let Some(vm) = vm.filter(|vm| vm.state.is_live() && is_settled(vm)) {
                // Where it went on from is not what it is any more.
                forget_inherited(&paths.vm_snapshot(&vm.id), &vm.id);
            }
            continue;
        };
        let detail = vm.and_then(|vm| vm.detail).filter(|_| change == Change::Fail);
        match record::change(store, &mut instance, change, detail.as_deref()) {
            // Somebody else has seen it at the same time.
            Err(FleetError::Raced(_)) => continue,
            changed => changed?,
        }
        found.push(format!("{} is {}", instance.path, instance.state.as_str()));
    }
    Ok(found)
}

/// VMs of instances that the database does not know.
pub fn orphans(store: &Store) -> Result<Vec<(InstancePath, TenantLink, VmRow)>, FleetError> {
    let mut orphans = Vec::new();
    for vm in store.vms()? {
        let Some(spec) = lifecycle::spec_of(&vm).filter(|spec| spec.started_by == StartedBy::Fleet) else {
            continue;
        };
        let path = spec.instance.as_deref().and_then(|text| text.parse::<InstancePath>().ok());
        let (Some(path), Some(link)) = (path, spec.tenant) else { continue };
        if store.instance(path.instance.as_str())?.is_none() {
            orphans.push((path, link, vm));
        }
    }
    Ok(orphans)
}

/// Records instances again that only their VMs know of, after the database was lost, once their pools
/// are there again.
fn adopt(paths: &Paths, store: &mut Store) -> Result<Vec<String>, FleetError> {
    let mut adopted = Vec::new();
    for (path, link, vm) in orphans(store)? {
        let Ok((tenant, pool)) = record::find_pool(store, &path.pool) else { continue };
        let subnet = tenant.network.ipv4_subnet;
        let host = u32::from(link.address).wrapping_sub(u32::from(subnet.base));
        if !(FIRST_HOST..=subnet.last_host()).contains(&host) {
            continue;
        }
        let state = match see(paths, Some(&vm), InstanceState::Running) {
            Seen::Running | Seen::Starting => InstanceState::Running,
            Seen::Halted => InstanceState::Warm,
            Seen::Saved => InstanceState::Sleeping,
            Seen::Over | Seen::Lost => InstanceState::Stopped,
        };
        let mut row = instance::row(&path, state, &vm.build, &pool.pool.instance_resources)?;
        row.created_ms = vm.created_ms;
        if store.insert_instance(&row, host, host)?.is_some() {
            adopted.push(format!("{path} is {}, and known again", state.as_str()));
        }
    }
    Ok(adopted)
}

/// Whether a VM's state is so old that no leash of a killed command is about to end it.
fn is_settled(vm: &VmRow) -> bool {
    Timestamp::now().as_millisecond() - vm.changed_ms > SETTLED.as_millis() as i64
}

fn see(paths: &Paths, vm: Option<&VmRow>, state: InstanceState) -> Seen {
    let Some(vm) = vm else { return Seen::Lost };
    match vm.state {
        VmState::Running | VmState::Paused if !state.is_live() && !is_settled(vm) => Seen::Starting,
        VmState::Running => Seen::Running,
        VmState::Paused => Seen::Halted,
        VmState::Created | VmState::Booting => Seen::Starting,
        VmState::Stopped | VmState::Failed if Snapshot::open(&paths.vm_snapshot(&vm.id)).is_ok() => {
            Seen::Saved
        }
        VmState::Stopped => Seen::Over,
        VmState::Failed => Seen::Lost,
    }
}

/// What has happened to an instance that is thought to be in `state`.
fn correction(state: InstanceState, seen: Seen) -> Option<Change> {
    use InstanceState::*;
    match (state, seen) {
        (_, Seen::Starting) | (Destroyed, _) => None,
        // A guest that goes on loses its snapshot: where there is one, its saving was the last that happened.
        (Running | Warm, Seen::Saved) => Some(Change::Sleep),
        (Running | Warm, Seen::Over) => Some(Change::Stop),
        (Running | Warm, Seen::Lost) => Some(Change::Fail),
        (Running, Seen::Halted) => Some(Change::Warm),
        (Warm, Seen::Running) => Some(Change::Resume),
        (Sleeping, Seen::Over | Seen::Lost) => Some(Change::Fail),
        (Sleeping, Seen::Running | Seen::Halted) => Some(Change::Wake),
        (Ready | Stopped | Failed, Seen::Running | Seen::Halted) => Some(Change::Start),
        (Created, _) => Some(Change::Prepare),
        (Ready | Stopped | Failed, _) | (Running, Seen::Running) | (Warm, Seen::Halted) => None,
        (Sleeping, Seen::Saved) => None,
    }
}

/// Finishes the removal of instances that a killed command began.
pub async fn finish(work: &mut Work<'_>) -> Result<(), FleetError> {
    let half = |instance: &&Instance| instance.state == InstanceState::Destroyed;
    let fleet = record::load(work.store)?;
    for instance in
        fleet.iter().flat_map(|tenant| &tenant.pools).flat_map(|pool| &pool.instances).filter(half)
    {
        work.destroy(&instance.path).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN: [Seen; 6] =
        [Seen::Running, Seen::Halted, Seen::Starting, Seen::Saved, Seen::Over, Seen::Lost];

    #[test]
    fn every_correction_is_a_change_that_the_state_allows() {
        for state in InstanceState::ALL {
            for seen in SEEN {
                if let Some(change) = correction(state, seen) {
                    assert!(state.after(change).is_ok(), "{state:?} {seen:?} {change:?}");
                }
            }
        }
    }

    #[test]
    fn after_its_corrections_an_instance_is_as_it_is_seen() {
        for mut state in InstanceState::ALL {
            for seen in SEEN {
                for _ in 0..3 {
                    let Some(change) = correction(state, seen) else { break };
                    state = state.after(change).unwrap();
                }
                assert_eq!(correction(state, seen), None, "{state:?} {seen:?}");
            }
        }
    }

    #[test]
    fn one_that_was_saved_before_it_was_recorded_sleeps() {
        assert_eq!(correction(InstanceState::Running, Seen::Saved), Some(Change::Sleep));
        assert_eq!(correction(InstanceState::Sleeping, Seen::Lost), Some(Change::Fail));
        assert_eq!(correction(InstanceState::Running, Seen::Starting), None);
    }
}
