//! A plan carried out: what is recorded first, then instances, as many at a time as there are CPUs, and
//! what goes; beside them builds, one at a time, each before the instances of its pool. What fails is
//! told, and holds up nothing else.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{LocalBoxFuture, join_all};
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;

use super::desired::{DesiredState, Pool, SCHEMA_VERSION, Tenant};
use super::error::FleetError;
use super::ids::{InstanceId, InstancePath, PoolPath};
use super::plan::action::{Action, Plan, ReplaceOrder};
use super::plan::actual::{Actual, ActualInstance, ActualPool, ActualTenant, Revision};
use super::plan::plan;
use super::policy::{Activity, Bucket, pause_ms};
use super::record::{self, PoolRecord, TenantRecord};
use super::square;
use super::work::{AskedBy, Work};
use crate::event::EventSink;
use crate::host::files::Lock;
use crate::host::paths::Paths;
use crate::run::RunError;
use crate::store::Store;
use crate::vm::lifecycle;

/// Most rounds of planning and doing in a row: each brings every pool nearer to what it is to be, so
/// one that needs more is being changed at the same time.
const MOST_ROUNDS: usize = 16;

/// Most rounds in a row in which something fails: a guest may end while it is worked on, and the next
/// round sees it.
const MOST_FAILURES: u32 = 3;

/// How long one who is to reconcile waits for another who does.
const PATIENCE: Duration = Duration::from_secs(200);
/// Pause between two looks at whether that one is done.
const POLL: Duration = Duration::from_millis(20);

/// What guests were last seen to do, by instance.
pub type Activities = HashMap<InstanceId, Activity>;

/// How reconciling went.
#[derive(Debug)]
pub struct Outcome {
    /// The plans of all rounds, the last of which has nothing left to do, or could not be carried out.
    pub plans: Vec<Plan>,
    /// What failed, in words; of each only the first time.
    pub failed: Vec<String>,
}

/// Makes a desired state true, as far as that goes now.
pub async fn reconcile(
    paths: &Paths,
    desired: &DesiredState,
    activities: &Activities,
    sink: &EventSink,
    cancel: &CancellationToken,
) -> Result<Outcome, FleetError> {
    let mut outcome = Outcome { plans: Vec::new(), failed: Vec::new() };
    let mut store = open(paths)?;
    let mut failures = 0;
    for _ in 0..MOST_ROUNDS {
        let _alone = alone(paths, PATIENCE, cancel).await?;
        for name in lifecycle::adopt(paths, &mut store)? {
            sink.info(format!("found the VM `{name}`, and recorded it again"));
        }
        lifecycle::square(paths, &mut store)?;
        square::square(paths, &mut store)?;
        let unfinished =
            square::finish(&mut Work { paths, store: &mut store, sink, cancel, asked_by: AskedBy::Plan })
                .await?;
        let plan = preview(&store, desired, activities)?;
        if plan.is_empty() {
            if plan.blocked.is_empty() {
                // A later round made good what failed in an earlier one.
                outcome.failed.clear();
            }
            outcome.failed.extend(unfinished);
            outcome.plans.push(plan);
            break;
        }
        let mut now = plan.clone();
        if !square::orphans(&store)?.is_empty() {
            // Once their pools are recorded again they are known, and need not be made.
            let records =
                |action: &Action| matches!(action, Action::CreateTenant { .. } | Action::CreatePool { .. });
            if plan.actions.iter().any(records) {
                now.actions.retain(records);
            }
        }
        let mut failed = execute(paths, &now, sink, cancel).await;
        failed.extend(unfinished);
        outcome.plans.push(now);
        if cancel.is_cancelled() {
            return Err(RunError::Cancelled.into());
        }
        failures += u32::from(!failed.is_empty());
        outcome.failed.extend(failed);
        if failures >= MOST_FAILURES {
            break;
        }
    }
    Ok(outcome)
}

/// Waits until nobody else reconciles, and keeps others from it: two who see the same instance missing
/// would make it twice.
async fn alone(paths: &Paths, patience: Duration, cancel: &CancellationToken) -> Result<Lock, FleetError> {
    let path = paths.reconcile_lock();
    let until = tokio::time::Instant::now() + patience;
    loop {
        match Lock::try_take(&path) {
            Ok(Some(lock)) => return Ok(lock),
            Ok(None) if tokio::time::Instant::now() > until => return Err(FleetError::Reconciling),
            Ok(None) => {}
            Err(source) => return Err(FleetError::File { path, source }),
        }
        tokio::select! {
            () = cancel.cancelled() => return Err(RunError::Cancelled.into()),
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

/// What would be done now.
pub fn preview(store: &Store, desired: &DesiredState, activities: &Activities) -> Result<Plan, FleetError> {
    let now_ms = Timestamp::now().as_millisecond();
    let actual = actual(&record::load(store)?, activities, now_ms)?;
    Ok(plan(desired, &actual, now_ms))
}

/// What there is, for the planner.
pub fn actual(fleet: &[TenantRecord], activities: &Activities, now_ms: i64) -> Result<Actual, FleetError> {
    let tenants = fleet.iter().map(|tenant| {
        Ok(ActualTenant {
            tenant_id: tenant.id.clone(),
            network: tenant.network,
            quotas: tenant.quotas,
            pools: tenant
                .pools
                .iter()
                .map(|pool| actual_pool(pool, activities, now_ms))
                .collect::<Result<_, _>>()?,
        })
    });
    Ok(Actual { tenants: tenants.collect::<Result<_, FleetError>>()? })
}

fn actual_pool(pool: &PoolRecord, activities: &Activities, now_ms: i64) -> Result<ActualPool, FleetError> {
    let row = &pool.row;
    let build = match (&row.build, &row.source) {
        (Some(id), Some(source)) => Some(Revision { id: id.clone(), source: pool.read(source)? }),
        _ => None,
    };
    let instances = pool.instances.iter().map(|instance| {
        Ok(ActualInstance {
            id: instance.path.instance.clone(),
            state: instance.state,
            since_ms: instance.row.since_ms,
            build: instance.row.build.clone(),
            resources: pool.read(&instance.row.resources)?,
            retry_at_ms: instance.row.retry_at_ms,
            lease: instance.wakefulness().lease(now_ms),
            held_until_ms: instance.row.held_until_ms,
            activity: activities.get(&instance.path.instance).copied(),
        })
    });
    Ok(ActualPool {
        pool: pool.pool.clone(),
        build,
        build_retry_at_ms: row.retry_at_ms,
        retry_at_ms: row.create_at_ms,
        held_until_ms: row.held_until_ms,
        instances: instances.collect::<Result<_, FleetError>>()?,
    })
}

/// What is recorded, as a desired state: what the commands have set. With `only`, that pool alone.
pub fn recorded(fleet: &[TenantRecord], only: Option<&PoolPath>) -> DesiredState {
    let wanted = |path: &PoolPath| only.is_none_or(|only| only == path);
    let tenants = fleet.iter().map(|tenant| Tenant {
        tenant_id: tenant.id.clone(),
        network: tenant.network,
        quotas: tenant.quotas,
        pools: tenant.pools.iter().filter(|pool| wanted(&pool.path)).map(|pool| pool.pool.clone()).collect(),
    });
    DesiredState {
        schema_version: SCHEMA_VERSION,
        node_id: "local".into(),
        tenants: tenants.collect(),
        prune_unknown_tenants: false,
        prune_unknown_pools: false,
    }
}

/// Carries a plan out; returns what failed. A build holds up what is done of its own pool only.
async fn execute(paths: &Paths, plan: &Plan, sink: &EventSink, cancel: &CancellationToken) -> Vec<String> {
    let mut failed = Vec::new();
    let mut tell = |error: FleetError| {
        if !error.is_cancelled() {
            failed.push(error.to_string());
        }
    };
    let mut builds: Vec<(&Action, Vec<&Action>)> = Vec::new();
    let mut build_of = HashMap::new();
    for action in &plan.actions {
        if let Action::BuildPool { path } = action {
            build_of.insert(path, builds.len());
            builds.push((action, Vec::new()));
        }
    }
    let (mut instances, mut removals) = (Vec::new(), Vec::new());
    for action in &plan.actions {
        match action {
            Action::BuildPool { .. } => {}
            Action::RemoveTenant { .. } | Action::RemovePool { .. } => removals.push(action),
            Action::CreateTenant { .. }
            | Action::UpdateTenant { .. }
            | Action::CreatePool { .. }
            | Action::UpdatePool { .. } => {
                if let Err(error) = one(paths, action, sink, cancel).await {
                    tell(error);
                }
            }
            _ => match pool_of(action).and_then(|pool| build_of.get(pool)) {
                Some(build) => builds[*build].1.push(action),
                None => instances.push(action),
            },
        }
    }
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get());
    let (building, places) = (Mutex::new(()), Semaphore::new(cpus));
    let act = async |action| {
        // Nobody closes it.
        let _place = places.acquire().await;
        one(paths, action, sink, cancel).await
    };
    let mut running = FuturesUnordered::<LocalBoxFuture<'_, Vec<FleetError>>>::new();
    for action in instances.into_iter().chain(removals) {
        running.push(Box::pin(async { act(action).await.err().into_iter().collect() }));
    }
    for (build, behind) in builds {
        running.push(Box::pin(async {
            let built = {
                let _alone = building.lock().await;
                one(paths, build, sink, cancel).await
            };
            match built {
                Ok(()) => {
                    join_all(behind.into_iter().map(act)).await.into_iter().filter_map(Result::err).collect()
                }
                Err(error) => vec![error],
            }
        }));
    }
    while let Some(errors) = running.next().await {
        errors.into_iter().for_each(&mut tell);
    }
    drop(running);
    failed
}

fn pool_of(action: &Action) -> Option<&PoolPath> {
    match action {
        Action::Create { path, .. } => Some(path),
        Action::Wake { path, .. }
        | Action::Resume { path }
        | Action::Start { path, .. }
        | Action::Stop { path }
        | Action::Warm { path }
        | Action::Sleep { path }
        | Action::Replace { path, .. }
        | Action::Destroy { path } => Some(&path.pool),
        _ => None,
    }
}

async fn one(
    paths: &Paths,
    action: &Action,
    sink: &EventSink,
    cancel: &CancellationToken,
) -> Result<(), FleetError> {
    if cancel.is_cancelled() {
        return Err(RunError::Cancelled.into());
    }
    let mut store = open(paths)?;
    let work = &mut Work { paths, store: &mut store, sink, cancel, asked_by: AskedBy::Plan };
    match action {
        Action::CreateTenant { tenant, network, quotas }
        | Action::UpdateTenant { tenant, network, quotas, .. } => work.set_tenant(&Tenant {
            tenant_id: tenant.clone(),
            network: *network,
            quotas: *quotas,
            pools: Vec::new(),
        }),
        Action::RemoveTenant { tenant, .. } => work.remove_tenant(tenant).await,
        Action::CreatePool { path, pool } | Action::UpdatePool { path, pool, .. } => {
            record::put_pool(work.store, &path.tenant, pool)
        }
        Action::BuildPool { path } => work.build_pool(path, false, None).await.map(drop),
        Action::RemovePool { path, .. } => work.remove_pool(path).await,
        Action::Create { path, to } => create(work, path, *to).await,
        Action::Wake { path, to } => {
            let (tenant, pool) = record::find_pool(work.store, &path.pool)?;
            work.wake(&tenant, &pool, path).await?;
            bring(work, &pool.pool, path, *to).await
        }
        Action::Resume { path } => {
            let (tenant, pool) = record::find_pool(work.store, &path.pool)?;
            work.wake(&tenant, &pool, path).await.map(drop)
        }
        Action::Start { path, to } => {
            let (tenant, pool) = record::find_pool(work.store, &path.pool)?;
            work.start(&tenant, &pool, path).await?;
            bring(work, &pool.pool, path, *to).await
        }
        Action::Stop { path } => {
            let (_, pool) = record::find_pool(work.store, &path.pool)?;
            work.stop(&pool.pool, path).await
        }
        Action::Warm { path } => work.warm(path).await,
        Action::Sleep { path } => {
            let (_, pool) = record::find_pool(work.store, &path.pool)?;
            work.sleep(&pool.pool, path).await
        }
        Action::Replace { path, to, order: ReplaceOrder::NewFirst } => {
            create(work, &path.pool, *to).await?;
            work.destroy(path).await
        }
        Action::Replace { path, to, order: ReplaceOrder::OldFirst } => {
            work.destroy(path).await?;
            create(work, &path.pool, *to).await
        }
        Action::Destroy { path } => work.destroy(path).await,
    }
}

/// Makes an instance. One that does not come up stays as failed, and no other is made for a while.
async fn create(work: &mut Work<'_>, path: &PoolPath, to: Bucket) -> Result<(), FleetError> {
    let (tenant, pool) = record::find_pool(work.store, path)?;
    let held = pool.row.held_until_ms.is_some_and(|until| until > Timestamp::now().as_millisecond());
    if held && pool.pool.desired_counts.total() == 0 {
        // Since it was planned, a command has begun to remove it.
        return Err(FleetError::Refused {
            what: format!("the pool `{path}` is to have no instances any more"),
            help: "reconcile again".into(),
        });
    }
    let instance = work.create(&tenant, &pool)?;
    let started = work.start(&tenant, &pool, &instance.path).await;
    if started.as_ref().is_err_and(|error| !error.is_cancelled()) {
        let until = Timestamp::now().as_millisecond() + pause_ms(1);
        work.store.hold_creation(path.tenant.as_str(), path.pool.as_str(), Some(until))?;
    }
    started?;
    bring(work, &pool.pool, &instance.path, to).await
}

/// Brings a running instance to where it belongs.
async fn bring(work: &mut Work<'_>, pool: &Pool, path: &InstancePath, to: Bucket) -> Result<(), FleetError> {
    match to {
        Bucket::Running => Ok(()),
        Bucket::Warm => work.warm(path).await,
        Bucket::Sleeping => work.sleep(pool, path).await,
    }
}

fn open(paths: &Paths) -> Result<Store, FleetError> {
    Ok(Store::open(&paths.database())?.store)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_one_reconciles_at_a_time_and_who_waits_can_be_told_to_stop() {
        let world = tempfile::tempdir().unwrap();
        let paths = Paths::at(world.path().join("state"), world.path().join("run")).unwrap();
        let cancel = CancellationToken::new();
        let held = alone(&paths, PATIENCE, &cancel).await.unwrap();
        let waited = alone(&paths, Duration::ZERO, &cancel).await;
        assert!(matches!(waited, Err(FleetError::Reconciling)), "{waited:?}");
        let (waited, ()) = tokio::join!(alone(&paths, PATIENCE, &cancel), async { cancel.cancel() });
        assert!(waited.is_err_and(|error| error.is_cancelled()));
        drop(held);
        assert!(alone(&paths, PATIENCE, &cancel).await.is_ok());
    }
}
