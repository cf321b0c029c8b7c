//! What a person sets, and reconciling then leaves alone for a while.

use std::time::Duration;

use jiff::Timestamp;

use super::desired::{Counts, Pool};
use super::error::FleetError;
use super::execute::{self, Activities, Outcome};
use super::ids::{InstancePath, PoolPath};
use super::record;
use super::work::Work;
use crate::store::Store;

/// How long reconciling leaves alone what was set by hand.
const HOLD: Duration = Duration::from_secs(60);

/// Until when reconciling leaves alone what is set by hand now.
pub fn hold() -> Option<i64> {
    Some(Timestamp::now().as_millisecond() + HOLD.as_millis() as i64)
}

/// Has reconciling leave an instance alone for a while: before it is worked on, and after that too, as
/// it may have taken long.
pub fn hold_instance(store: &mut Store, path: &InstancePath) -> Result<(), FleetError> {
    Ok(store.hold_instance(path.instance.as_str(), hold())?)
}

/// Records how many instances of a pool there are to be; [`Work::reach`] makes it so.
pub fn set_counts(store: &mut Store, path: &PoolPath, counts: Counts) -> Result<(), FleetError> {
    let (tenant, found) = record::find_pool(store, path)?;
    let most = tenant.quotas.max_instances_per_pool;
    if counts.total() > most.into() {
        let what = format!("{most} instances of one pool");
        return Err(FleetError::Quota { tenant: tenant.id, what });
    }
    record::put_pool(store, &path.tenant, &Pool { desired_counts: counts, ..found.pool })?;
    Ok(store.hold_pool(path.tenant.as_str(), path.pool.as_str(), None)?)
}

impl Work<'_> {
    /// Makes true what is recorded of a pool; reconciling leaves that alone for a while.
    pub async fn reach(&mut self, path: &PoolPath) -> Result<Outcome, FleetError> {
        let desired = execute::recorded(&record::load(self.store)?, Some(path));
        let outcome =
            execute::reconcile(self.paths, &desired, &Activities::new(), self.sink, self.cancel).await?;
        self.store.hold_pool(path.tenant.as_str(), path.pool.as_str(), hold())?;
        Ok(outcome)
    }
}
