//! What `up` waits for, one after the other: agent, coordinator, instances, an answer.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::error::ClusterError;
use super::part::{Part, State};
use super::plan::{self, Plan};
use super::ports;
use super::up::{Answer, Attempt};
use crate::agent::client::{Client, ClientError};
use crate::coordinator::admin;
use crate::coordinator::config::Route;
use crate::coordinator::health;
use crate::event::words::duration;
use crate::fleet::error::FleetError;
use crate::fleet::ids::PoolPath;
use crate::fleet::record::{self, PoolRecord};
use crate::fleet::state::InstanceState;
use crate::host::identity::ProcessId;
use crate::store::Store;

/// How long a part may take until it answers.
const PART: Duration = Duration::from_secs(30);
/// Pause between two tries.
const POLL: Duration = Duration::from_millis(50);
/// Pause between two looks at the pools.
const LOOK: Duration = Duration::from_millis(200);
/// On top of what the coordinator gives a client.
const ON_TOP: Duration = Duration::from_secs(5);

/// How often each pool's image could not be built so far.
#[derive(Debug)]
pub(super) struct Pools(HashMap<PoolPath, u32>);

impl Pools {
    /// Looks at the pools that there are to be. Those that wait after a failure are tried again now: a
    /// person asks.
    pub fn look(plan: &Plan, store: &mut Store) -> Result<Self, ClusterError> {
        let mut failures = HashMap::new();
        for path in plan.pools() {
            let Some(pool) = find(store, &path)? else { continue };
            let (tenant, id) = (path.tenant.as_str(), path.pool.as_str());
            store.retry_pool(tenant, id)?;
            failures.insert(path, pool.row.failures);
        }
        Ok(Self(failures))
    }
}

impl Attempt<'_> {
    /// Waits until the agent takes us.
    pub(super) async fn connect(&self, process: &ProcessId) -> Result<Client, ClusterError> {
        let (identity, authority) = plan::operator(self.paths)?;
        let (name, until) = (plan::name()?, Instant::now() + PART);
        // A packet that comes before it listens is sent again a second later only.
        while !matches!(Part::Agent.look(self.paths), State::Running { .. }) {
            self.lives(Part::Agent, process)?;
            self.patient(Part::Agent, until, "it does not serve yet")?;
            tokio::time::sleep(POLL).await;
        }
        loop {
            match Client::connect(self.plan.agent, &name, &identity, &authority).await {
                Ok(client) => return Ok(client),
                Err(error) => {
                    self.lives(Part::Agent, process)?;
                    let hopeless =
                        !matches!(error, ClientError::Unreachable { .. } | ClientError::Closed { .. });
                    if hopeless {
                        return Err(error.into());
                    }
                    self.patient(Part::Agent, until, &error.to_string())?;
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until the coordinator says that it serves.
    pub(super) async fn serving(&self, process: &ProcessId) -> Result<(), ClusterError> {
        let until = Instant::now() + PART;
        loop {
            match admin::client::status(&self.paths.coordinator_socket()).await {
                Ok(_) => return Ok(()),
                Err(error) => {
                    self.lives(Part::Coordinator, process)?;
                    self.patient(Part::Coordinator, until, &error.to_string())?;
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until a pool has an instance that can be woken.
    pub(super) async fn filled(
        &mut self,
        before: &Pools,
        path: &PoolPath,
        parts: [&ProcessId; 2],
    ) -> Result<(), ClusterError> {
        loop {
            let pool = find(self.store, path)?;
            let row = pool.as_ref().map(|pool| &pool.row);
            let failures = before.0.get(path).copied().unwrap_or(0);
            if let Some(why) = row.filter(|row| row.failures > failures).and_then(|row| row.detail.clone()) {
                return Err(ClusterError::Build { pool: path.clone(), why });
            }
            if pool.as_ref().is_some_and(is_filled) {
                return Ok(());
            }
            self.all_live(parts)?;
            let why = pool.as_ref().and_then(failed);
            self.in_time(|| format!("{path} has no instance"), why)?;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Asks through a route until there is an answer.
    pub(super) async fn answering(
        &mut self,
        route: &Route,
        parts: [&ProcessId; 2],
    ) -> Result<Answer, ClusterError> {
        let address = ports::reached_at(route.listen);
        let path = route.health_path.as_deref().unwrap_or("/");
        let url = format!("http://{address}{path}");
        let each = self.plan.config.coordinator.wake_timeout + ON_TOP;
        loop {
            let begun = Instant::now();
            match health::get(address, path, each.min(self.deadline.at - begun)).await {
                Ok(status) => {
                    let took = begun.elapsed();
                    self.sink.info(format!(
                        "{url} answers from {} after {}: {status}",
                        route.target(),
                        duration(took)
                    ));
                    let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
                    return Ok(Answer { url, status: status.as_u16(), ms });
                }
                Err(error) => {
                    self.all_live(parts)?;
                    let pool = find(self.store, &route.target())?;
                    let why = pool.as_ref().and_then(failed).unwrap_or_else(|| error.to_string());
                    self.in_time(|| format!("{url} does not answer"), Some(why))?;
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn all_live(&self, [agent, coordinator]: [&ProcessId; 2]) -> Result<(), ClusterError> {
        self.lives(Part::Agent, agent)?;
        self.lives(Part::Coordinator, coordinator)
    }

    fn patient(&self, part: Part, until: Instant, why: &str) -> Result<(), ClusterError> {
        if Instant::now() < until.min(self.deadline.at) {
            return Ok(());
        }
        let why = why.lines().next().unwrap_or_default().to_owned();
        Err(ClusterError::Silent { part, after: PART, why, log: part.log(self.paths) })
    }

    fn in_time(&self, what: impl Fn() -> String, why: Option<String>) -> Result<(), ClusterError> {
        if Instant::now() < self.deadline.at {
            return Ok(());
        }
        let why = why.as_deref().and_then(|why| why.lines().next()).map(|why| format!(": {why}"));
        Err(ClusterError::Late { what: what(), after: self.deadline.after, why: why.unwrap_or_default() })
    }
}

fn find(store: &Store, path: &PoolPath) -> Result<Option<PoolRecord>, ClusterError> {
    match record::find_pool(store, path) {
        Ok((_, pool)) => Ok(Some(pool)),
        Err(FleetError::NoTenant(_) | FleetError::NoPool(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether an instance is where it stays until somebody asks for it, or is awake for that.
fn is_filled(pool: &PoolRecord) -> bool {
    let now_ms = Timestamp::now().as_millisecond();
    let running = pool.pool.desired_counts.running > 0;
    pool.instances.iter().any(|instance| match instance.state {
        InstanceState::Sleeping | InstanceState::Warm => true,
        // On its way to sleep otherwise.
        InstanceState::Running => running || instance.wakefulness().lease(now_ms).is_some(),
        _ => false,
    })
}

/// Why an instance of the pool failed last.
fn failed(pool: &PoolRecord) -> Option<String> {
    let failed = pool.instances.iter().filter(|one| one.state == InstanceState::Failed);
    failed.max_by_key(|one| one.row.since_ms).and_then(|one| one.row.detail.clone())
}
