//! The keeper of a route: it has instances woken for those who wait, keeps them awake while they are
//! used, and lets them go when nobody is connected.

mod lease;
mod status;
mod wake;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::control::RouteOp;
use super::desk::{Desk, Effect, Refusal, Supply, WaiterId};
use super::member::{Member, Place};
use super::metrics::Metrics;
use super::node::Node;
use super::route::{Ask, Counts, Route, Tenant, View};
use super::status::{RouteStatus, WakeStatus};
use crate::agent::request::LeaseId;
use crate::agent::response::InstanceSummary;
use crate::event::text::in_a_line;
use crate::fleet::ids::{InstancePath, PoolPath};
use lease::{Kept, Leased, Renewed};
use wake::Woke;

/// Asks that wait for a keeper; workers wait in turn then.
const ASKS: usize = 1024;
/// Those who are sent away within so long are told of in one line.
const TELL: Duration = Duration::from_millis(250);
/// Pause between two looks at one that has just woken, while connections wait for it.
const STARTING: Duration = Duration::from_millis(8);
/// Longest pause between two looks at who is idle.
const LOOK: Duration = Duration::from_secs(1);

/// What a keeper goes by; changes with the configuration.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The pool's node.
    pub node: Node,
    /// The tenant.
    pub tenant: Arc<Tenant>,
    /// How long an instance without a connection is kept awake.
    pub idle: Duration,
    /// How long a client waits for an instance at most.
    pub patience: Duration,
    /// Pause between two looks at the pool's instances.
    pub health: Duration,
    /// How long a connection may be silent; none for ever.
    pub silence: Option<Duration>,
    /// Connections of an instance at most.
    pub limit: u32,
    /// Connections that wait at most.
    pub queue: usize,
    /// What the application is asked for; none where the agent is asked alone.
    pub health_path: Option<String>,
}

/// What the loop that serves asks of a keeper.
#[derive(Debug)]
pub enum Wish {
    /// Say how things stand.
    Status(oneshot::Sender<RouteStatus>),
    /// Do something.
    Do(RouteOp, oneshot::Sender<Result<(), String>>),
    /// Let everything go, and end.
    End(oneshot::Sender<()>),
}

/// What came of something that was asked of the agent or an application.
enum Done {
    Woken(Woke),
    Listed { asked: Instant, listed: Result<Vec<InstanceSummary>, String> },
    Renewed { lease: LeaseId, renewed: Renewed },
    Leased { instance: InstancePath, leased: Leased },
    LetGo,
    Felt { member: Arc<Member>, well: bool },
}

/// The keeper of one route.
pub struct Keeper {
    route: Arc<Route>,
    rules: watch::Receiver<Rules>,
    asks: mpsc::Receiver<Ask>,
    wishes: mpsc::Receiver<Wish>,
    view: watch::Sender<Arc<View>>,
    desk: Desk,
    /// Those in the queue, by their number there.
    waiters: HashMap<WaiterId, Waiting>,
    last_waiter: WaiterId,
    kept: Vec<Kept>,
    /// Instances that were given up while somebody was connected.
    lost: Vec<Arc<Member>>,
    /// Those of which a lease is asked for beside a wake.
    leasing: Vec<InstancePath>,
    /// The pool's instances, as the agent told last, and why it did not the last time.
    listing: Vec<InstanceSummary>,
    listed_once: bool,
    trouble: Option<String>,
    looked: Option<Instant>,
    looking: bool,
    work: FuturesUnordered<LocalBoxFuture<'static, Done>>,
    began: Instant,
    draining: bool,
    wakes: u64,
    failed_wakes: u64,
    last_wake: Option<WakeStatus>,
    refused: Option<Refused>,
    metrics: Metrics,
}

/// Connections that were sent away for one reason, and are yet to be logged.
struct Refused {
    why: String,
    count: u64,
    longest: Duration,
    since: Instant,
}

/// Somebody who waits.
enum Waiting {
    Connection {
        since: Instant,
        reply: oneshot::Sender<Result<Place, Refusal>>,
    },
    /// Somebody who only wants an instance awake.
    Order(oneshot::Sender<Result<(), String>>),
}

impl Waiting {
    fn is_gone(&self) -> bool {
        match self {
            Self::Connection { reply, .. } => reply.is_closed(),
            Self::Order(reply) => reply.is_closed(),
        }
    }
}

impl Keeper {
    /// The keeper of a route, and the route as workers see it.
    pub fn new(
        listen: SocketAddr,
        target: PoolPath,
        rules: watch::Receiver<Rules>,
        wishes: mpsc::Receiver<Wish>,
        metrics: Metrics,
    ) -> (Self, Arc<Route>) {
        let (ask, asks) = mpsc::channel(ASKS);
        let (view, seen) = watch::channel(Arc::new(seen(&rules.borrow(), Vec::new(), false)));
        let route =
            Route { listen, target, counts: Counts::default(), view: seen, asks: ask, freed: Notify::new() };
        let route = Arc::new(route);
        let keeper = Self {
            route: Arc::clone(&route),
            rules,
            asks,
            wishes,
            view,
            desk: Desk::default(),
            waiters: HashMap::new(),
            last_waiter: 0,
            kept: Vec::new(),
            lost: Vec::new(),
            leasing: Vec::new(),
            listing: Vec::new(),
            listed_once: false,
            trouble: None,
            looked: None,
            looking: false,
            work: FuturesUnordered::new(),
            began: Instant::now(),
            draining: false,
            wakes: 0,
            failed_wakes: 0,
            last_wake: None,
            refused: None,
            metrics,
        };
        (keeper, route)
    }

    /// Keeps the route until it is told to end.
    pub async fn run(mut self) {
        let route = Arc::clone(&self.route);
        loop {
            self.step();
            let pause = self.pause();
            tokio::select! {
                Some(ask) = self.asks.recv() => {
                    self.asked(ask);
                    while let Ok(ask) = self.asks.try_recv() {
                        self.asked(ask);
                    }
                }
                () = route.freed.notified() => {}
                Some(done) = self.work.next(), if !self.work.is_empty() => self.done(done),
                changed = self.rules.changed() => match changed {
                    Ok(()) => self.publish(),
                    Err(_) => break,
                },
                wish = self.wishes.recv() => match wish {
                    Some(Wish::Status(reply)) => drop(reply.send(self.status())),
                    Some(Wish::Do(op, reply)) => self.order(op, reply),
                    Some(Wish::End(reply)) => {
                        self.end().await;
                        let _ = reply.send(());
                        return;
                    }
                    None => break,
                },
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.end().await;
    }

    /// Does whatever is due.
    fn step(&mut self) {
        self.look();
        self.see_to_leases();
        self.serve();
        if self.refused.as_ref().is_some_and(|refused| refused.since.elapsed() >= TELL) {
            self.tell_refused();
        }
    }

    /// How long nothing is due unless something happens.
    fn pause(&self) -> Duration {
        let now = self.now_ms();
        let desk = self.desk.next_ms(now).map(|at| Duration::from_millis(at.saturating_sub(now).max(1)));
        let health = self.rules.borrow().health;
        let look = match self.looked {
            _ if self.looking => LOOK,
            Some(looked) => health.saturating_sub(looked.elapsed()),
            None => Duration::ZERO,
        };
        // While something is awake it is seen to often; what is asleep needs nobody.
        let often = if self.kept.is_empty() { look } else { look.min(LOOK) };
        let tell = self.refused.is_some().then_some(TELL);
        let starting = self.desk.waiting() > 0 && self.is_starting();
        desk.into_iter()
            .chain(tell)
            .chain(starting.then_some(STARTING))
            .chain([often.max(Duration::from_millis(10))])
            .min()
            .unwrap_or(LOOK)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn asked(&mut self, ask: Ask) {
        match ask {
            Ask::Place { since, reply } => self.wait(Waiting::Connection { since, reply }),
            Ask::Refused { why, waited } => self.refused(why, waited),
            Ask::Dead { member, why } => self.lose(&member, &format!("nobody answers there: {why}")),
        }
    }

    fn wait(&mut self, waiting: Waiting) {
        let (patience, most) = {
            let rules = self.rules.borrow();
            (rules.patience, rules.queue)
        };
        if self.desk.waiting() >= most {
            self.forget_gone();
            // Those in front may have places.
            self.serve();
        }
        self.last_waiter += 1;
        let (id, now) = (self.last_waiter, self.now_ms());
        let waited = match &waiting {
            Waiting::Connection { since, .. } => since.elapsed(),
            Waiting::Order(_) => Duration::ZERO,
        };
        let left = u64::try_from(patience.saturating_sub(waited).as_millis()).unwrap_or(u64::MAX);
        self.waiters.insert(id, waiting);
        if let Some(effect) = self.desk.arrive(id, now.saturating_add(left), most) {
            self.carry_out(effect);
        }
    }

    fn forget_gone(&mut self) {
        self.waiters.retain(|_, waiting| !waiting.is_gone());
        let waiters = &self.waiters;
        self.desk.forget(|id| !waiters.contains_key(&id));
    }

    /// Serves those who wait with what there is.
    fn serve(&mut self) {
        let (limit, mut places) = (self.rules.borrow().limit, Vec::new());
        let members: Vec<_> = self.members();
        while places.len() < self.desk.waiting() {
            let Some(place) = Place::take(&members, limit, &self.route) else { break };
            places.push(place);
        }
        // One more is not needed for those whom one that has just woken will take.
        let more = !self.is_starting() && self.candidate().is_some();
        if more && self.desk.waiting() > places.len() && self.desk.waking().is_none() {
            // Nobody is woken for those who have gone.
            self.forget_gone();
        }
        let supply = Supply { places: places.len(), more };
        for effect in self.desk.serve(supply, self.now_ms()) {
            match effect {
                Effect::Admit(id) => {
                    let place = places.pop();
                    if let (Some(waiting), Some(place)) = (self.waiters.remove(&id), place) {
                        match waiting {
                            // One who has gone leaves the place again, which wakes this loop.
                            Waiting::Connection { reply, .. } => drop(reply.send(Ok(place))),
                            Waiting::Order(reply) => drop(reply.send(Ok(()))),
                        }
                    }
                }
                other => self.carry_out(other),
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Wake(id) => self.wake(id),
            Effect::Refuse(id, why) => {
                let Some(waiting) = self.waiters.remove(&id) else { return };
                match waiting {
                    Waiting::Connection { since, reply } => {
                        let (waited, word) = (since.elapsed(), why.to_string());
                        if reply.send(Err(why)).is_ok() {
                            self.refused(word, waited);
                        }
                    }
                    Waiting::Order(reply) => drop(reply.send(Err(why.to_string()))),
                }
            }
            // Its outcome is not waited for by anybody, and its number is known no more.
            Effect::Forget(_) | Effect::Admit(_) => {}
        }
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Woken(woke) => self.woken(woke),
            Done::Listed { asked, listed } => self.listed(asked, listed),
            Done::Renewed { lease, renewed } => self.renewed(&lease, renewed),
            Done::Leased { instance, leased } => self.leased(&instance, leased),
            Done::Felt { member, well } => {
                if member.set_well(well) {
                    let (route, instance) = (self.route.listen, &member.instance);
                    match well {
                        true => tracing::info!(%route, %instance, "its application answers again"),
                        false => tracing::warn!(%route, %instance, "its application does not answer"),
                    }
                }
            }
            Done::LetGo => self.looked = None,
        }
    }

    fn order(&mut self, op: RouteOp, reply: oneshot::Sender<Result<(), String>>) {
        match op {
            RouteOp::Wake => self.wait(Waiting::Order(reply)),
            RouteOp::Sleep => self.sleep(reply),
            RouteOp::Drain | RouteOp::Resume => {
                self.draining = op == RouteOp::Drain;
                self.publish();
                let _ = reply.send(Ok(()));
            }
        }
    }

    fn is_starting(&self) -> bool {
        let limit = self.rules.borrow().limit;
        self.kept.iter().any(|kept| kept.member.is_starting(limit))
    }

    /// Takes note of a connection that was sent away.
    fn refused(&mut self, why: String, waited: Duration) {
        match &mut self.refused {
            Some(refused) if refused.why == why => {
                refused.count += 1;
                refused.longest = refused.longest.max(waited);
            }
            _ => {
                self.tell_refused();
                self.refused = Some(Refused { why, count: 1, longest: waited, since: Instant::now() });
            }
        }
    }

    /// Logs those who were sent away, many in one line.
    fn tell_refused(&mut self) {
        if let Some(refused) = self.refused.take() {
            tracing::warn!(
                route = %self.route.listen, pool = %self.route.target, connections = refused.count,
                waited_ms = refused.longest.as_millis() as u64, error = in_a_line(&refused.why),
                "got no instance"
            );
        }
    }

    /// Tells the workers how things stand.
    fn publish(&self) {
        self.view.send_replace(Arc::new(seen(&self.rules.borrow(), self.members(), self.draining)));
    }
}

fn seen(rules: &Rules, members: Vec<Arc<Member>>, draining: bool) -> View {
    View { members, limit: rules.limit, silence: rules.silence, draining, tenant: Arc::clone(&rules.tenant) }
}
