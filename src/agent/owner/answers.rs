//! What peers are told, and what is done for them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rand_core::RngCore;
use tokio::sync::{broadcast, oneshot};
use tokio_util::sync::CancellationToken;

use super::Done;
use crate::agent::request::{InstanceFilter, LeaseId, Target, Ttl};
use crate::agent::response::{Fault, FaultCode, InstanceSummary, NodeStats, Response, TenantSummary, Woken};
use crate::event::{Event, EventSink, Kind, TaskId, TaskKind};
use crate::fleet::desired::DesiredState;
use crate::fleet::error::FleetError;
use crate::fleet::execute::{self, Activities, Outcome};
use crate::fleet::ids::{InstanceId, InstancePath};
use crate::fleet::lease;
use crate::fleet::policy::Bucket;
use crate::fleet::record::{self, Instance, TenantRecord};
use crate::fleet::state::InstanceState;
use crate::fleet::vm::endpoint;
use crate::fleet::work::{AskedBy, Work};
use crate::host::paths::Paths;
use crate::run;
use crate::run::record::{Recorded, Recorder};
use crate::store::Store;

/// How long a peer whose reconciling has to wait is asked to wait, at least.
const BUSY: std::time::Duration = std::time::Duration::from_secs(1);

fn open(paths: &Paths) -> Result<Store, FleetError> {
    Ok(Store::open(&paths.database())?.store)
}

/// Gives an answer to whom may be gone.
pub fn give(reply: oneshot::Sender<Response>, answer: Result<Response, Fault>) -> Done {
    let _ = reply.send(answer.unwrap_or_else(Response::Error));
    Done::Answered
}

/// Runs an operation as a task: recorded, and told to those who listen.
pub async fn task<T>(
    paths: &Paths,
    events: &broadcast::Sender<Event>,
    kind: TaskKind,
    title: String,
    operate: impl AsyncFnOnce(&EventSink) -> Result<T, FleetError>,
) -> Result<T, Fault> {
    heard(paths, events, kind, title, |_| {}, operate).await
}

/// The same, and `hear` is told first.
async fn heard<T>(
    paths: &Paths,
    events: &broadcast::Sender<Event>,
    kind: TaskKind,
    title: String,
    mut hear: impl FnMut(&Event),
    operate: impl AsyncFnOnce(&EventSink) -> Result<T, FleetError>,
) -> Result<T, Fault> {
    let id = TaskId::new(kind.letter());
    // Without a record the task goes on all the same.
    let recorder = Recorder::new(paths, &id).ok();
    let (sink, stream) = EventSink::new(id);
    let mut recorded = Recorded::new(stream, recorder);
    let shown = async {
        while let Some(event) = recorded.next().await {
            hear(&event);
            // Nobody may listen.
            let _ = events.send(event);
        }
    };
    let mut fault = None;
    let worked = run::task::frame(sink, kind, title, async |sink| {
        operate(sink).await.inspect_err(|error| fault = Some(Fault::from(error)))
    });
    let (result, ()) = tokio::join!(worked, shown);
    result.map_err(|failure| fault.unwrap_or_else(|| Fault::new(FaultCode::Internal, failure.error)))
}

impl From<&FleetError> for Fault {
    fn from(error: &FleetError) -> Self {
        Self::new(code(error), error.to_string())
    }
}

impl From<FleetError> for Fault {
    fn from(error: FleetError) -> Self {
        Self::from(&error)
    }
}

fn code(error: &FleetError) -> FaultCode {
    match error {
        FleetError::NoTenant(_) | FleetError::NoPool(_) | FleetError::NoInstance(_) => FaultCode::NotFound,
        FleetError::Id(_) => FaultCode::BadRequest,
        FleetError::Quota { .. } | FleetError::NoAddress(_) => FaultCode::Quota,
        FleetError::Busy(_) => FaultCode::Busy,
        FleetError::Change { .. }
        | FleetError::Raced(_)
        | FleetError::Leased(_)
        | FleetError::NotBuilt(_)
        | FleetError::Refused { .. } => FaultCode::Conflict,
        FleetError::Run(error) if error.is_late() => FaultCode::Timeout,
        FleetError::Run(error) if error.is_cancelled() => FaultCode::Stopping,
        _ => FaultCode::Internal,
    }
}

fn or_fault(answer: Result<Response, FleetError>) -> Response {
    answer.unwrap_or_else(|error| Response::Error(error.into()))
}

/// Instances in each state.
pub fn counts(fleet: &[TenantRecord]) -> BTreeMap<InstanceState, u64> {
    let mut counts = BTreeMap::new();
    for instance in all(fleet) {
        *counts.entry(instance.state).or_default() += 1;
    }
    counts
}

fn all(fleet: &[TenantRecord]) -> impl Iterator<Item = &Instance> {
    fleet.iter().flat_map(|tenant| &tenant.pools).flat_map(|pool| &pool.instances)
}

/// What the node does.
pub fn stats(store: &Store, rounds: u64, failed_rounds: u64, last_round: Option<Timestamp>) -> Response {
    let stats = || {
        let fleet = record::load(store)?;
        let now_ms = Timestamp::now().as_millisecond();
        let mut stats = NodeStats { rounds, failed_rounds, last_round, ..NodeStats::default() };
        stats.instances = counts(&fleet);
        for pool in fleet.iter().flat_map(|tenant| &tenant.pools) {
            let live = pool.instances.iter().filter(|one| one.state.is_live()).count() as u32;
            stats.vcpus += live * pool.pool.instance_resources.vcpus;
            stats.mem_mib += u64::from(live) * u64::from(pool.pool.instance_resources.mem_mib);
        }
        stats.leases = all(&fleet).filter(|one| one.wakefulness().is_needed(now_ms)).count() as u64;
        Ok(Response::NodeStats(stats))
    };
    or_fault(stats())
}

/// The tenants.
pub fn tenants(store: &Store) -> Response {
    let tenants = record::load(store).map(|fleet| {
        let summary = |tenant: &TenantRecord| TenantSummary {
            tenant: tenant.id.clone(),
            pools: tenant.pools.len() as u32,
            instances: counts(std::slice::from_ref(tenant)),
        };
        Response::Tenants { tenants: fleet.iter().map(summary).collect() }
    });
    or_fault(tenants)
}

/// The instances that are asked for.
pub fn instances(store: &Store, filter: &InstanceFilter) -> Response {
    let list = || {
        let fleet = record::load(store)?;
        let now_ms = Timestamp::now().as_millisecond();
        let summaries = all(&fleet).filter(|one| filter.takes(&one.path)).map(|one| {
            Ok(InstanceSummary {
                path: one.path.clone(),
                state: one.state,
                since: Timestamp::from_millisecond(one.row.since_ms).unwrap_or_default(),
                endpoint: endpoint(store, &one.path)?,
                revision: Some(one.row.build.clone()),
                leased: one.wakefulness().is_needed(now_ms),
                at_home: one.wakefulness().lease(now_ms).is_none_or(|lease| lease.from.state() == one.state),
            })
        });
        let summaries = summaries.collect::<Result<Vec<_>, FleetError>>()?;
        Ok(Response::instances(summaries, filter))
    };
    or_fault(list())
}

/// Whether a desired state from a peer is one.
pub fn checked(desired: &DesiredState) -> Result<(), Fault> {
    let bad = |error: String| Fault::new(FaultCode::BadRequest, error);
    let text = serde_json::to_string(desired).map_err(|error| bad(error.to_string()))?;
    DesiredState::parse(&text).map(drop).map_err(|error| bad(error.to_string()))
}

/// What would be done.
pub fn preview(store: &Store, desired: &DesiredState) -> Response {
    let plan = execute::preview(store, desired, &Activities::new());
    or_fault(plan.map(|plan| Response::Reconciled { plan: serde_json::json!({ "plans": [plan] }) }))
}

/// Another round is under way.
pub fn busy() -> Response {
    Response::Error(Fault::busy("the node is reconciling already", BUSY))
}

/// What was done.
pub fn reconciled(result: Result<Outcome, Fault>) -> Response {
    match result {
        Ok(outcome) => Response::Reconciled {
            plan: serde_json::json!({ "plans": outcome.plans, "failed": outcome.failed }),
        },
        Err(fault) => Response::Error(fault),
    }
}

/// Has an instance run for a lease's time.
pub async fn wake(
    paths: &Paths,
    events: &broadcast::Sender<Event>,
    target: Target,
    ttl: Ttl,
    cancel: &CancellationToken,
) -> Result<Response, Fault> {
    let mut store = open(paths)?;
    let path = match target {
        Target::Instance(path) => path,
        Target::Pool(path) => {
            let (_, pool) = record::find_pool(&store, &path)?;
            let best = pool.instances.iter().min_by_key(|one| readiness(one.state));
            best.filter(|one| readiness(one.state) < LAST).map(|one| one.path.clone()).ok_or_else(|| {
                FleetError::Refused {
                    what: format!("the pool `{path}` has no instance that could be woken"),
                    help: format!("`mvm pool scale {path} --sleeping 1` makes one"),
                }
            })?
        }
    };
    let (tenant, pool) = record::find_pool(&store, &path.pool)?;
    let lease = rand_core::OsRng.next_u64();
    let ttl_ms = ttl.get().as_millis() as i64;
    let quiet = EventSink::new(TaskId::new('f')).0;
    let mut work = Work { paths, store: &mut store, sink: &quiet, cancel, asked_by: AskedBy::Peer };
    let state = record::find_instance(work.store, &path)?.state;
    let wish = lease::Event::Wake { lease, ttl_ms };
    // From here on nobody puts it to rest. One that is to be booted cannot be leased before.
    if Bucket::of(state).is_some() {
        work.note(&path, &[wish])?;
    }
    let mut took = Vec::new();
    let woken = match state {
        InstanceState::Running => work.wake(&tenant, &pool, &path).await.map_err(Fault::from),
        _ => {
            let title = format!("wake {path}");
            let mut store = open(paths)?;
            let steps = |event: &Event| {
                if let Kind::VmStarted { steps, .. } = &event.kind {
                    took.clone_from(steps);
                }
            };
            let woken = heard(paths, events, TaskKind::Fleet, title, steps, async |sink| {
                Work { paths, store: &mut store, sink, cancel, asked_by: AskedBy::Peer }
                    .wake(&tenant, &pool, &path)
                    .await
            });
            woken.await
        }
    };
    let mut work = Work { paths, store: &mut store, sink: &quiet, cancel, asked_by: AskedBy::Peer };
    let state = record::find_instance(work.store, &path)?.state;
    // What was noted before stays as it was.
    let settled = match &woken {
        Ok(_) => vec![lease::Event::Observed { state }, wish],
        Err(_) => vec![lease::Event::Observed { state }, lease::Event::Release { lease }],
    };
    work.note(&path, &settled)?;
    let endpoint = woken?.ok_or_else(|| FleetError::Refused {
        what: format!("{path} runs, but its image has no port that could answer"),
        help: "name its ports in `mkGuest { ports = [ … ]; }`".into(),
    })?;
    Ok(Response::Woken(Woken { lease: named(&path.instance, lease), instance: path, endpoint, steps: took }))
}

/// States in the order in which it is quickest to have an instance run.
fn readiness(state: InstanceState) -> u8 {
    match state {
        InstanceState::Running => 0,
        InstanceState::Warm => 1,
        InstanceState::Sleeping => 2,
        InstanceState::Stopped | InstanceState::Ready | InstanceState::Created => 3,
        InstanceState::Failed => 4,
        InstanceState::Destroyed => LAST,
    }
}

/// One that is about to go.
const LAST: u8 = 5;

/// Puts an instance to sleep, if nobody needs it.
pub async fn sleep(
    paths: &Paths,
    events: &broadcast::Sender<Event>,
    path: InstancePath,
    cancel: &CancellationToken,
) -> Result<Response, Fault> {
    let mut store = open(paths)?;
    let (_, pool) = record::find_pool(&store, &path.pool)?;
    let instance = record::find_instance(&store, &path)?;
    if instance.state == InstanceState::Sleeping {
        return Ok(Response::Slept);
    }
    let title = format!("sleep {path}");
    let slept = task(paths, events, TaskKind::Fleet, title, async |sink| {
        Work { paths, store: &mut store, sink, cancel, asked_by: AskedBy::Peer }
            .sleep(&pool.pool, &path)
            .await
    });
    slept.await.map(|()| Response::Slept)
}

/// Forgets requests to wake that an agent which is gone did not come to answer.
pub fn forget_waiting(store: &mut Store) -> Result<(), FleetError> {
    for row in store.instances()?.into_iter().filter(|row| row.lease.is_some()) {
        let mut awake = record::parse(row.clone())?.wakefulness();
        awake.forget_waiting();
        store.change_lease(&row.id, |_| Ok((serde_json::to_string(&awake)?, ())))?;
    }
    Ok(())
}

/// A lease's name: the instance, and a number.
fn named(instance: &InstanceId, lease: lease::LeaseId) -> LeaseId {
    // It is of the letters that a lease's name has.
    format!("{instance}-{lease:016x}").parse().unwrap_or_else(|_| unreachable!("{instance}"))
}

fn lease_of(store: &Store, name: &LeaseId) -> Option<(InstancePath, lease::LeaseId)> {
    let (instance, number) = name.as_str().rsplit_once('-')?;
    let number = u64::from_str_radix(number, 16).ok()?;
    let row = store.instance(instance).ok()??;
    Some((record::parse(row).ok()?.path, number))
}

fn no_lease(name: &LeaseId) -> Response {
    let message = format!("there is no lease `{name}`, or it has lapsed\nhelp: wake the instance again");
    Response::error(FaultCode::NotFound, message)
}

/// Keeps a lease.
pub fn renew(
    paths: &Paths,
    store: &mut Store,
    name: &LeaseId,
    ttl: Ttl,
    cancel: &CancellationToken,
) -> Response {
    let Some((path, lease)) = lease_of(store, name) else { return no_lease(name) };
    let sink = EventSink::new(TaskId::new('f')).0;
    let ttl_ms = ttl.get().as_millis() as i64;
    let noted = Work { paths, store, sink: &sink, cancel, asked_by: AskedBy::Peer }
        .note(&path, &[lease::Event::Renew { lease, ttl_ms }]);
    match noted {
        Ok((_, awake)) if awake.holds(lease, Timestamp::now().as_millisecond()) => Response::Renewed,
        Ok(_) => no_lease(name),
        Err(error) => Response::Error(error.into()),
    }
}

/// Gives a lease back.
pub fn release(paths: &Paths, store: &mut Store, name: &LeaseId, cancel: &CancellationToken) -> Response {
    let Some((path, lease)) = lease_of(store, name) else { return no_lease(name) };
    let sink = EventSink::new(TaskId::new('f')).0;
    let noted = Work { paths, store, sink: &sink, cancel, asked_by: AskedBy::Peer }
        .note(&path, &[lease::Event::Release { lease }]);
    or_fault(noted.map(|_| Response::Released))
}
