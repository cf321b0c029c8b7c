//! The cluster started, or what is missing of it, until the gateways' route answers.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::down;
use super::error::ClusterError;
use super::part::{Part, Started, State};
use super::plan::{Plan, certificate, config_file, desired_file};
use super::progress;
use super::turn;
use super::{ports, ready};
use crate::agent::client::Client;
use crate::agent::pki::Role;
use crate::event::EventSink;
use crate::fleet;
use crate::fleet::ids::PoolPath;
use crate::host::identity::ProcessId;
use crate::host::paths::Paths;
use crate::store::Store;
use crate::vm::lifecycle;

/// How long all of it may take when nobody says otherwise: a first build may be among it.
pub const TIMEOUT: Duration = Duration::from_secs(600);

/// How long an agent that listens elsewhere than it should by now has to end what it does.
const HANDOVER: Duration = Duration::from_secs(40);
/// How long a part that was started in vain has until it is ended by force.
const UNDO: Duration = Duration::from_secs(10);
/// How long putting to rest may take of what was started in vain.
const REST: Duration = Duration::from_secs(60);

/// What runs now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Up {
    /// Parts that did not run before.
    pub started: Vec<Part>,
    /// Where the agent listens.
    pub agent: SocketAddr,
    /// The routes: where clients connect, and to whom they are carried.
    pub routes: Vec<(SocketAddr, PoolPath)>,
    /// The route that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
}

/// An answer through a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// What was asked for.
    pub url: String,
    /// The answer's status.
    pub status: u16,
    /// How long it took, in milliseconds.
    pub ms: u64,
}

/// Until when something is waited for, and how long that is from the beginning.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    /// The moment.
    pub at: Instant,
    /// The whole time.
    pub after: Duration,
}

/// What an attempt works with.
pub(super) struct Attempt<'a> {
    pub plan: &'a Plan,
    pub paths: &'a Paths,
    pub store: &'a mut Store,
    pub sink: &'a EventSink,
    pub deadline: Deadline,
    /// What was started so far.
    pub begun: &'a mut Vec<Started>,
}

/// Starts what does not run, and waits until the route answers. What was started in vain is ended.
pub async fn up(
    within: Duration,
    paths: &Paths,
    store: &mut Store,
    sink: &EventSink,
    cancel: &CancellationToken,
) -> Result<Up, ClusterError> {
    // What is wrong with the files is told at once.
    Plan::read(paths)?;
    let _turn = turn::take(paths, sink, cancel).await?;
    let plan = Plan::read(paths)?;
    let deadline = Deadline { at: Instant::now() + within, after: within };
    let mut begun = Vec::new();
    let result = {
        let (plan, begun) = (&plan, &mut begun);
        let attempt = Attempt { plan, paths, store: &mut *store, sink, deadline, begun };
        tokio::select! {
            result = attempt.run() => result,
            () = cancel.cancelled() => Err(ClusterError::Cancelled),
        }
    };
    if result.is_err() && !begun.is_empty() {
        undo(&begun, &plan, paths, store, sink).await;
    }
    let (up, client) = result?;
    client.close().await;
    Ok(up)
}

/// Ends what was started; what cannot be ended is told, and `down` tries again.
async fn undo(begun: &[Started], plan: &Plan, paths: &Paths, store: &mut Store, sink: &EventSink) {
    sink.phase("stop");
    for started in begun.iter().rev() {
        sink.info(format!("stopping the {} again", started.part));
        if let Err(error) = started.part.end(&started.process, UNDO, paths).await {
            sink.warn(error.to_string());
        }
    }
    // Guests that an earlier agent had woken go on with it; without one they would go on for ever.
    if begun.iter().any(|started| started.part == Part::Agent) {
        let never = CancellationToken::new();
        let pools = plan.pools();
        let rest = down::rest(&pools, paths, store, sink, &never);
        if let Ok(Err(error)) = tokio::time::timeout(REST, rest).await {
            sink.warn(error.to_string());
        }
    }
}

impl Attempt<'_> {
    async fn run(mut self) -> Result<(Up, Client), ClusterError> {
        lifecycle::square(self.paths, self.store)?;
        fleet::square::square(self.paths, self.store)?;
        // Both are looked at before either is started: where one cannot be, neither is.
        let coordinator = self.ours(Part::Coordinator).await?;
        let mut agent = self.ours(Part::Agent).await?;
        if let Some((process, listen)) = &agent
            && listen.is_some_and(|listen| listen != self.plan.agent)
        {
            self.sink.info(format!("the agent is to listen on {} now: it is started again", self.plan.agent));
            Part::Agent.end(process, HANDOVER, self.paths).await?;
            agent = None;
        }
        if agent.is_none() {
            ports::agent(self.plan.agent, self.paths)?;
        }
        if coordinator.is_none() {
            ports::coordinator(&self.plan.config, self.paths)?;
        }
        let pools = ready::Pools::look(self.plan, self.store)?;
        self.sink.phase("agent");
        let agent = match agent {
            Some((process, _)) => process,
            None => self.start_agent()?,
        };
        let client = self.connect(&agent).await?;
        let sink = self.sink;
        let waiting = async {
            sink.phase("coordinator");
            let coordinator = match coordinator {
                Some((process, _)) => process,
                None => self.start_coordinator()?,
            };
            self.serving(&coordinator).await?;
            let answer = match self.plan.front() {
                None => None,
                Some((route, _)) => {
                    self.filled(&pools, &route.target(), [&agent, &coordinator]).await?;
                    sink.phase("route");
                    Some(self.answering(route, [&agent, &coordinator]).await?)
                }
            };
            let started = self.begun.iter().map(|started| started.part).collect();
            let routes = self.plan.config.routes.iter();
            let routes = routes.map(|route| (ports::reached_at(route.listen), route.target())).collect();
            Ok(Up { started, agent: self.plan.agent, routes, answer })
        };
        let up = tokio::select! {
            up = waiting => up,
            () = progress::pass(&client, sink) => Err(ClusterError::Cancelled),
        };
        Ok((up?, client))
    }

    /// The process of a part that runs, and where it was told to listen.
    async fn ours(&self, part: Part) -> Result<Option<(ProcessId, Option<SocketAddr>)>, ClusterError> {
        match part.look(self.paths) {
            State::Running { process, record } => {
                if record.is_none() {
                    self.sink.info(format!("the {part} runs already, as process {}", process.pid));
                }
                Ok(Some((process, record.and_then(|record| record.listen))))
            }
            State::Starting(record) => Ok(Some((record.process, record.listen))),
            State::Stopped => Ok(None),
            State::Crashed => {
                self.sink.info(format!("the {part} had ended without a word; it is started again"));
                Ok(None)
            }
            State::Stranger(process) => {
                let who = process.as_ref().map_or("its process cannot be told".into(), |process| {
                    format!("process {}", process.pid)
                });
                let how = process.map_or_else(String::new, |process| format!(" (`kill {}`)", process.pid));
                Err(ClusterError::Stranger { part, who, how })
            }
        }
    }

    fn start_agent(&mut self) -> Result<ProcessId, ClusterError> {
        let mut arguments: Vec<OsString> = vec!["--listen".into(), self.plan.agent.to_string().into()];
        arguments.extend(["--desired".into(), desired_file(self.paths).into()]);
        arguments.extend(["--tls-identity".into(), certificate(self.paths, Role::Node)?.into()]);
        self.start(Part::Agent, &arguments, Some(self.plan.agent))
    }

    fn start_coordinator(&mut self) -> Result<ProcessId, ClusterError> {
        let arguments = ["--config".into(), config_file(self.paths).into()];
        self.start(Part::Coordinator, &arguments, None)
    }

    fn start(
        &mut self,
        part: Part,
        arguments: &[OsString],
        listen: Option<SocketAddr>,
    ) -> Result<ProcessId, ClusterError> {
        let started = part.start(arguments, listen, self.paths)?;
        let process = started.process.clone();
        self.begun.push(started);
        Ok(process)
    }

    /// Says so where a part is no more.
    pub(super) fn lives(&self, part: Part, process: &ProcessId) -> Result<(), ClusterError> {
        if process.is_alive() {
            return Ok(());
        }
        let since = self.begun.iter().find(|started| started.part == part).map_or(0, |started| started.since);
        Err(ClusterError::Died { part, log: part.log(self.paths), tail: part.tail(since, self.paths) })
    }
}
