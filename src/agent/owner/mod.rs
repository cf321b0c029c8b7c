//! The one loop that owns the fleet: it makes the desired state true and keeps it true, and answers
//! what peers ask. Everything it knows is in the database, so that one that was killed goes on.

mod activity;
mod answers;
pub mod watch;

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::Incoming;
use super::metrics::Metrics;
use super::request::Request;
use super::response::{Fault, NodeInfo, Response};
use crate::event::{Event, Kind, Level, SCHEMA_VERSION, Source, TaskId, TaskKind};
use crate::fleet::desired::DesiredState;
use crate::fleet::error::FleetError;
use crate::fleet::execute::{self, Activities, Outcome};
use crate::fleet::{record, square};
use crate::host::paths::Paths;
use crate::store::Store;
use crate::vm::lifecycle;
use activity::Samples;
use watch::DesiredFile;

/// Pause between two looks at the desired state's file and at what others changed.
const LOOK: Duration = Duration::from_secs(1);
/// Longest pause between two rounds, in which guests may have ended by themselves.
const ROUND: Duration = Duration::from_secs(10);
/// Pause after a round in which something failed.
const RETRY: Duration = Duration::from_secs(5);
/// How long what is under way may take once the agent is to end.
const DRAIN: Duration = Duration::from_secs(30);

/// What an agent works with.
#[derive(Debug)]
pub struct Owner {
    /// Directories.
    pub paths: Paths,
    /// What this node is.
    pub node: NodeInfo,
    /// The desired state's file; without one what the commands have set is desired.
    pub desired: Option<std::path::PathBuf>,
    /// Hears of everything that happens.
    pub events: broadcast::Sender<Event>,
    /// Counts.
    pub metrics: Metrics,
}

/// What came of something that ran beside the loop.
enum Done {
    /// A round of reconciling, that a peer may have asked for.
    Round(Box<Result<Outcome, Fault>>, Instant, Option<oneshot::Sender<Response>>),
    /// An answer to a peer was given.
    Answered,
    /// What guests do.
    Sampled(Samples),
}

/// What runs beside the loop, on its thread.
type Beside = FuturesUnordered<LocalBoxFuture<'static, Done>>;

/// The loop's own state.
struct Rounds {
    /// Whether one is under way.
    busy: bool,
    /// When the next is due at the latest.
    due: Instant,
    /// How many there were, and in how many something failed.
    count: u64,
    failed: u64,
    last: Option<Timestamp>,
}

impl Owner {
    /// Runs until `stop`; instances go on running then.
    pub async fn run(
        self,
        mut incoming: mpsc::Receiver<Incoming>,
        stop: CancellationToken,
    ) -> Result<(), FleetError> {
        let mut store = Store::open(&self.paths.database())?.store;
        answers::forget_waiting(&mut store)?;
        let mut file = self.desired.clone().map(DesiredFile::new);
        let cancel = CancellationToken::new();
        let mut work = Beside::new();
        let mut samples = Samples::default();
        let mut sampling = false;
        let mut rounds = Rounds { busy: false, due: Instant::now(), count: 0, failed: 0, last: None };
        let mut version = store.data_version()?;
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                asked = incoming.recv() => match asked {
                    Some(asked) => self.take(asked, &mut store, &mut work, &mut rounds, &cancel),
                    None => break,
                },
                Some(done) = work.next(), if !work.is_empty() => match done {
                    Done::Round(result, begun, reply) => {
                        self.ended(*result, begun, reply, &mut rounds, &store);
                        version = store.data_version()?;
                    }
                    Done::Sampled(sampled) => {
                        (samples, sampling) = (sampled, false);
                        if samples.are_any() {
                            // Who has nothing to do any more goes back to rest.
                            rounds.due = Instant::now();
                        }
                    }
                    Done::Answered => {}
                },
                _ = look.tick() => {
                    if let Some(file) = &mut file {
                        match file.look() {
                            Ok(true) => rounds.due = Instant::now(),
                            Ok(false) => {}
                            Err(error) => self.tell(Level::Warning, error),
                        }
                    }
                    let now = store.data_version()?;
                    if now != version {
                        version = now;
                        rounds.due = Instant::now();
                    }
                    if !sampling && samples.are_due() {
                        sampling = true;
                        let (paths, taken) = (self.paths.clone(), samples.clone());
                        work.push(Box::pin(async move { Done::Sampled(taken.again(&paths).await) }));
                    }
                    if !rounds.busy && Instant::now() >= rounds.due {
                        let desired = file.as_ref().map(|file| file.desired.clone());
                        self.begin(desired, samples.activities(), &mut store, &mut work, &mut rounds, &cancel)?;
                    }
                }
            }
        }
        // What was begun is ended in order; what takes too long is given up, and leaves nothing half.
        let drained = async { while work.next().await.is_some() {} };
        if tokio::time::timeout(DRAIN, drained).await.is_err() {
            cancel.cancel();
            while work.next().await.is_some() {}
        }
        Ok(())
    }

    /// Begins a round, if there is anything to do.
    fn begin(
        &self,
        desired: Option<DesiredState>,
        activities: Activities,
        store: &mut Store,
        work: &mut Beside,
        rounds: &mut Rounds,
        cancel: &CancellationToken,
    ) -> Result<(), FleetError> {
        let begun = Instant::now();
        rounds.due = begun + ROUND;
        lifecycle::square(&self.paths, store)?;
        for text in square::square(&self.paths, store)? {
            self.tell(Level::Info, format!("{text}, as was found"));
        }
        let fleet = record::load(store)?;
        self.metrics.instances(&answers::counts(&fleet));
        let desired = desired.unwrap_or_else(|| execute::recorded(&fleet, None));
        let plan = execute::preview(store, &desired, &activities)?;
        if plan.is_empty() {
            let in_time = |until: i64| Duration::from_millis((until - plan.now_ms).max(100).unsigned_abs());
            let next = plan.blocked.iter().filter_map(|blocked| blocked.why.until_ms()).map(in_time).min();
            rounds.due = begun + next.unwrap_or(ROUND).min(ROUND);
            return Ok(());
        }
        self.reconcile(desired, activities, None, work, rounds, cancel);
        Ok(())
    }

    /// Reconciles as a task, beside the loop.
    fn reconcile(
        &self,
        desired: DesiredState,
        activities: Activities,
        reply: Option<oneshot::Sender<Response>>,
        work: &mut Beside,
        rounds: &mut Rounds,
        cancel: &CancellationToken,
    ) {
        rounds.busy = true;
        let begun = Instant::now();
        let (paths, events, cancel) = (self.paths.clone(), self.events.clone(), cancel.clone());
        work.push(Box::pin(async move {
            let title = "reconcile".to_string();
            let outcome = answers::task(&paths, &events, TaskKind::Fleet, title, async |sink| {
                execute::reconcile(&paths, &desired, &activities, sink, &cancel).await
            });
            Done::Round(Box::new(outcome.await), begun, reply)
        }));
    }

    fn ended(
        &self,
        result: Result<Outcome, Fault>,
        begun: Instant,
        reply: Option<oneshot::Sender<Response>>,
        rounds: &mut Rounds,
        store: &Store,
    ) {
        rounds.busy = false;
        rounds.count += 1;
        rounds.last = Some(Timestamp::now());
        let ok = result.as_ref().is_ok_and(|outcome| outcome.failed.is_empty());
        rounds.failed += u64::from(!ok);
        self.metrics.round(ok, begun.elapsed());
        if let Ok(fleet) = record::load(store) {
            self.metrics.instances(&answers::counts(&fleet));
        }
        // What is left, or has to wait, is seen by the next plan; what failed has its time.
        rounds.due = Instant::now() + if ok { Duration::ZERO } else { RETRY };
        match &result {
            Ok(outcome) => outcome.failed.iter().for_each(|what| self.tell(Level::Warning, what.clone())),
            Err(fault) => self.tell(Level::Warning, fault.message.clone()),
        }
        if let Some(reply) = reply {
            // Who asked may be gone.
            let _ = reply.send(answers::reconciled(result));
        }
    }

    /// Tells those who listen.
    fn tell(&self, level: Level, text: String) {
        let kind = Kind::Log { source: Source::Mvm { level }, text };
        let event = Event { v: SCHEMA_VERSION, time: Timestamp::now(), task: TaskId::machine(), kind };
        // Nobody may.
        let _ = self.events.send(event);
    }

    /// Answers a peer, at once or beside the loop.
    fn take(
        &self,
        asked: Incoming,
        store: &mut Store,
        work: &mut Beside,
        rounds: &mut Rounds,
        cancel: &CancellationToken,
    ) {
        let Incoming { request, reply, .. } = asked;
        let (paths, events, cancel) = (self.paths.clone(), self.events.clone(), cancel.clone());
        let answer = match request {
            Request::NodeInfo => Response::NodeInfo(self.node.clone()),
            Request::NodeStats => answers::stats(store, rounds.count, rounds.failed, rounds.last),
            Request::TenantList => answers::tenants(store),
            Request::InstanceList(filter) => answers::instances(store, &filter),
            Request::Renew { lease, ttl } => answers::renew(&paths, store, &lease, ttl, &cancel),
            Request::Release { lease } => answers::release(&paths, store, &lease, &cancel),
            Request::Wake { target, ttl } => {
                work.push(Box::pin(async move {
                    answers::give(reply, answers::wake(&paths, &events, target, ttl, &cancel).await)
                }));
                return;
            }
            Request::Sleep { instance } => {
                work.push(Box::pin(async move {
                    answers::give(reply, answers::sleep(&paths, &events, instance, &cancel).await)
                }));
                return;
            }
            Request::Reconcile { desired, dry_run } => match answers::checked(&desired) {
                Err(fault) => Response::Error(fault),
                Ok(()) if dry_run => answers::preview(store, &desired),
                Ok(()) if rounds.busy => answers::busy(),
                Ok(()) => {
                    let activities = Activities::new();
                    self.reconcile(*desired, activities, Some(reply), work, rounds, &cancel);
                    return;
                }
            },
            // The server answers these itself.
            Request::Hello | Request::Subscribe => return,
        };
        // Who asked may be gone.
        let _ = reply.send(answer);
    }
}
