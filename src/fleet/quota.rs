//! What has to be in order before an instance is started or ended: quotas, and leases.

use std::collections::HashSet;

use jiff::Timestamp;

use super::error::FleetError;
use super::ids::InstancePath;
use super::plan::room::Room;
use super::policy::Bucket;
use super::record::{self, Instance};
use super::work::{AskedBy, Work};

impl Work<'_> {
    /// Whether the tenant's quotas leave room for the instance to run; a plan has seen to that. One that
    /// is just being started counts as running.
    pub(super) fn room_for(&self, path: &InstancePath) -> Result<(), FleetError> {
        if self.asked_by == AskedBy::Plan {
            return Ok(());
        }
        let tenant = record::find_tenant(self.store, &path.pool.tenant)?;
        let vms = self.store.vms()?;
        let live: HashSet<&str> =
            vms.iter().filter(|vm| vm.state.is_live()).map(|vm| vm.name.as_str()).collect();
        let mut room = Room::new(&tenant.quotas, tenant.network.ipv4_subnet);
        let mut wish = None;
        for pool in &tenant.pools {
            let resources = &pool.pool.instance_resources;
            for instance in &pool.instances {
                let mut bucket = Bucket::of(instance.state);
                if instance.path == *path {
                    wish = Some((bucket, *resources));
                } else if !instance.state.is_live() && live.contains(instance.path.instance.as_str()) {
                    bucket = Some(Bucket::Running);
                }
                room.count(bucket, resources);
            }
        }
        let Some((from, resources)) = wish else { return Err(FleetError::NoInstance(path.clone())) };
        room.shift(from, Bucket::Running, &resources)
            .map_err(|short| FleetError::Quota { tenant: tenant.id, what: short.to_string() })
    }

    /// Whether nobody holds the instance awake; a person's command does not ask.
    pub(super) fn unneeded(&self, instance: &Instance) -> Result<(), FleetError> {
        let needed = instance.wakefulness().is_needed(Timestamp::now().as_millisecond());
        match self.asked_by {
            AskedBy::Plan | AskedBy::Peer if needed => Err(FleetError::Leased(instance.path.clone())),
            _ => Ok(()),
        }
    }
}
