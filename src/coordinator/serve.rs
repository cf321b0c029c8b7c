//! The loop that serves: it begins and ends routes as the configuration says, and does what it is told.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::config::{self, Config};
use super::control::Order;
use super::descriptors::Descriptors;
use super::keeper::{Keeper, Rules, Wish};
use super::listen::listen;
use super::metrics::Metrics;
use super::node::{Credentials, Node};
use super::route::{Listening, Route, Tenant};
use super::status::{RouteState, RouteStatus, SCHEMA_VERSION, Status};
use super::worker::{Job, Worker};
use crate::agent::pki::PeerName;
use crate::event::text::in_a_line;
use crate::fleet::ids::{PoolPath, TenantId};

/// Most threads that carry; more than that many cores are not worth having for it.
const WORKERS: usize = 8;
/// Wishes that wait for a keeper.
const WISHES: usize = 16;
/// How long a keeper has to give leases back at the end.
const FAREWELL: Duration = Duration::from_secs(4);
/// How long a keeper has to say how things stand.
const ANSWER: Duration = Duration::from_secs(1);
/// Pause between two looks whether all connections have ended.
const LOOK: Duration = Duration::from_millis(20);

/// A coordinator that serves. Its keepers are tasks of the `LocalSet` that it is in.
pub struct Coordinator {
    file: PathBuf,
    config: Config,
    config_error: Option<String>,
    credentials: Credentials,
    workers: Vec<Worker>,
    descriptors: Descriptors,
    tenants: HashMap<TenantId, Arc<Tenant>>,
    nodes: HashMap<PeerName, Node>,
    routes: BTreeMap<SocketAddr, Running>,
    /// Routes that are no more, whose last connections go on.
    leaving: Vec<Running>,
    metrics: Metrics,
    started: Timestamp,
    draining: bool,
}

/// A route that is served.
struct Running {
    target: PoolPath,
    node: PeerName,
    route: Arc<Route>,
    rules: watch::Sender<Rules>,
    wishes: mpsc::Sender<Wish>,
    stop: CancellationToken,
    keeper: JoinHandle<()>,
    /// Why it does not listen.
    closed: Option<String>,
}

impl Coordinator {
    /// A coordinator without routes yet.
    pub fn new(
        file: PathBuf,
        credentials: Credentials,
        descriptors: &Descriptors,
        metrics: Metrics,
    ) -> std::io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = (0..cores.min(WORKERS)).map(|index| Worker::start(index, descriptors.clone()));
        Ok(Self {
            file,
            config: Config {
                coordinator: config::Settings::default(),
                nodes: Vec::new(),
                routes: Vec::new(),
            },
            config_error: None,
            credentials,
            workers: workers.collect::<std::io::Result<_>>()?,
            descriptors: descriptors.clone(),
            tenants: HashMap::new(),
            nodes: HashMap::new(),
            routes: BTreeMap::new(),
            leaving: Vec::new(),
            metrics,
            started: Timestamp::now(),
            draining: false,
        })
    }

    /// Makes the configuration true; what was begun under the one before goes on. Returns what does not
    /// listen, and why.
    pub fn apply(&mut self, config: Config) -> Vec<String> {
        let old = std::mem::replace(&mut self.config, config);
        self.config_error = None;
        let config = self.config.clone();
        let fixed = |config: &Config| {
            let settings = &config.coordinator;
            (settings.metrics, settings.tls_identity.clone(), settings.tls_ca.clone())
        };
        if !self.routes.is_empty() && fixed(&old) != fixed(&config) {
            tracing::warn!(
                "`metrics`, `tls_identity` and `tls_ca` are used as they are now from the next start on"
            );
        }
        for route in &config.routes {
            let tenant = self.tenants.entry(route.tenant_id.clone()).or_default();
            tenant.limit.store(config.coordinator.max_connections_per_tenant, Ordering::Relaxed);
        }
        for node in config.nodes.iter().filter(|node| !old.nodes.contains(node)) {
            let (node, kept) = Node::new(node, self.credentials.clone());
            tokio::task::spawn_local(kept);
            self.nodes.insert(node.name.clone(), node);
        }
        let wished: HashMap<_, _> = config.routes.iter().map(|route| (route.listen, route)).collect();
        let gone = |running: &Running| {
            // Leases are of one node.
            let same =
                |route: &&config::Route| route.target() == running.target && route.node == running.node;
            wished.get(&running.route.listen).is_none_or(|route| !same(route))
        };
        let gone: Vec<_> =
            self.routes.iter().filter(|(_, running)| gone(running)).map(|(listen, _)| *listen).collect();
        for listen in gone {
            if let Some(running) = self.routes.remove(&listen) {
                tracing::info!(route = %listen, pool = %running.target, "the route is no more");
                running.stop.cancel();
                self.leaving.push(running);
            }
        }
        let faults = config.routes.iter().filter_map(|route| self.route(route)).collect();
        // Nobody asks them any more.
        self.nodes.retain(|name, _| config.nodes.iter().any(|node| node.name == *name));
        faults
    }

    /// Begins or changes a route; why it does not listen, if so.
    fn route(&mut self, route: &config::Route) -> Option<String> {
        let rules = self.rules(route)?;
        if let Some(running) = self.routes.get_mut(&route.listen) {
            running.rules.send_replace(rules);
            if running.closed.is_some() {
                running.closed =
                    open((&self.workers, &self.descriptors), &running.route, &running.stop, false).err();
            }
            return running.closed.clone();
        }
        let (rules, keeps_to) = watch::channel(rules);
        let (wishes, hears) = mpsc::channel(WISHES);
        let (keeper, shared) =
            Keeper::new(route.listen, route.target(), keeps_to, hears, self.metrics.clone());
        let stop = CancellationToken::new();
        // Whoever led here before may just be closing.
        let again = self.leaving.iter().any(|running| running.route.listen == route.listen);
        let closed = open((&self.workers, &self.descriptors), &shared, &stop, again).err();
        match &closed {
            None => tracing::info!(route = %route.listen, pool = %route.target(), "listening"),
            Some(error) => tracing::error!(route = %route.listen, error = in_a_line(error), "cannot listen"),
        }
        let keeper = tokio::task::spawn_local(keeper.run());
        let (target, node) = (route.target(), route.node.clone());
        let running =
            Running { target, node, route: shared, rules, wishes, stop, keeper, closed: closed.clone() };
        self.routes.insert(route.listen, running);
        closed
    }

    fn rules(&self, route: &config::Route) -> Option<Rules> {
        let settings = &self.config.coordinator;
        let silence = route.connection_idle_timeout.unwrap_or(settings.connection_idle_timeout);
        Some(Rules {
            // The configuration was checked for both.
            node: self.nodes.get(&route.node)?.clone(),
            tenant: Arc::clone(self.tenants.get(&route.tenant_id)?),
            idle: route.idle_timeout.unwrap_or(settings.idle_timeout),
            patience: settings.wake_timeout,
            health: settings.health_interval,
            silence: (silence > Duration::ZERO).then_some(silence),
            limit: route.max_connections_per_instance.unwrap_or(u32::MAX),
            queue: settings.max_queued_per_route as usize,
            health_path: route.health_path.clone(),
        })
    }

    /// Reads the file again. What cannot be used leaves everything as it is.
    pub fn reload(&mut self) -> Result<(), String> {
        let faults = match Config::read(&self.file) {
            Ok(config) if config == self.config && self.routes.values().all(|one| one.closed.is_none()) => {
                self.config_error = None;
                return Ok(());
            }
            Ok(config) => self.apply(config),
            Err(error) => vec![error.to_string()],
        };
        match faults.is_empty() {
            true => {
                tracing::info!(file = %self.file.display(), routes = self.routes.len(), "the configuration is in force");
                Ok(())
            }
            false => {
                let error = faults.join("\n");
                let told = in_a_line(&error);
                tracing::error!(error = told, "the configuration is not in force as it is written");
                self.config_error = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Does what it is told.
    pub async fn take(&mut self, order: Order) {
        match order {
            Order::Status(reply) => {
                let status = self.status().await;
                // Who asked may be gone.
                let _ = reply.send(status);
            }
            Order::Reload(reply) => drop(reply.send(self.reload())),
            Order::Route { listen, op, reply } => match self.routes.get(&listen) {
                None => {
                    let known: Vec<_> = self.routes.keys().map(SocketAddr::to_string).collect();
                    let error =
                        format!("there is no route on {listen}\nhelp: there are {}", known.join(", "));
                    let _ = reply.send(Err(error));
                }
                Some(running) => {
                    let (wishes, wish) = (running.wishes.clone(), Wish::Do(op, reply));
                    // It may take as long as a wake does.
                    drop(tokio::task::spawn_local(async move { wishes.send(wish).await }));
                }
            },
        }
    }

    /// How things stand.
    pub async fn status(&mut self) -> Status {
        self.leaving.retain(|running| !running.keeper.is_finished());
        let mut routes = Vec::new();
        for running in self.routes.values() {
            let (reply, answer) = oneshot::channel();
            let asked = async {
                running.wishes.send(Wish::Status(reply)).await.ok()?;
                answer.await.ok()
            };
            let told = tokio::time::timeout(ANSWER, asked).await.ok().flatten();
            routes.extend(told.map(|told| RouteStatus {
                state: if running.closed.is_some() { RouteState::Closed } else { told.state },
                error: running.closed.clone().or(told.error),
                ..told
            }));
        }
        Status {
            v: SCHEMA_VERSION,
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            started: self.started,
            config: self.file.display().to_string(),
            config_error: self.config_error.clone(),
            draining: self.draining,
            connections: self.connections(),
            nodes: self
                .config
                .nodes
                .iter()
                .filter_map(|node| Some(self.nodes.get(&node.name)?.status()))
                .collect(),
            routes,
        }
    }

    /// How many routes listen.
    pub fn listening(&self) -> usize {
        self.routes.values().filter(|running| running.closed.is_none()).count()
    }

    /// Open connections.
    pub fn connections(&self) -> u64 {
        let all = self.routes.values().chain(&self.leaving);
        all.map(|running| u64::from(running.route.counts.open.load(Ordering::Relaxed))).sum()
    }

    /// Tries again what could not be listened on, and lets keepers go whose routes are no more, with their
    /// last connections.
    pub fn tidy(&mut self) {
        for running in self.routes.values_mut().filter(|running| running.closed.is_some()) {
            running.closed =
                open((&self.workers, &self.descriptors), &running.route, &running.stop, false).err();
            if running.closed.is_none() {
                tracing::info!(route = %running.route.listen, pool = %running.target, "listening");
                self.config_error = None;
            }
        }
        for running in self.leaving.extract_if(.., |running| running.route.is_over()) {
            // Its keeper ends with what it hears from, and gives its leases back.
            drop(running.wishes);
        }
    }

    /// Takes nothing new from now on.
    pub fn drain(&mut self) {
        self.draining = true;
        self.routes.values().for_each(|running| running.stop.cancel());
    }

    /// How long connections may take to end by themselves.
    pub fn drain_timeout(&self) -> Duration {
        self.config.coordinator.drain_timeout
    }

    /// Waits until there is no connection any more.
    pub async fn drained(&self) {
        while !self.routes.values().chain(&self.leaving).all(|running| running.route.is_over()) {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Cuts what is left, and gives all leases back.
    pub async fn end(self) {
        drop(self.workers);
        let running = self.routes.into_values().chain(self.leaving);
        let ends = running.map(|running| async move {
            let (reply, ended) = oneshot::channel();
            if running.wishes.send(Wish::End(reply)).await.is_ok() {
                let _ = ended.await;
            }
        });
        // A lease that is not given back lapses.
        let _ = tokio::time::timeout(FAREWELL, futures_util::future::join_all(ends)).await;
    }
}

/// Has the workers listen for a route; where we do so already, `again`.
fn open(
    (workers, descriptors): (&[Worker], &Descriptors),
    route: &Arc<Route>,
    stop: &CancellationToken,
    again: bool,
) -> Result<(), String> {
    let full = || "this process has as many files open as it may\nhelp: raise `ulimit -n`".to_string();
    let taken: Option<Vec<_>> = workers.iter().map(|_| descriptors.take(1)).collect();
    let taken = taken.ok_or_else(full)?;
    let sockets = listen(route.listen, workers.len(), again).map_err(|error| error.to_string())?;
    for ((worker, socket), descriptor) in workers.iter().zip(sockets).zip(taken) {
        let listening = Listening::new(route, descriptor);
        worker.listen(Job { socket, route: Arc::clone(route), stop: stop.clone(), listening });
    }
    Ok(())
}
