//! Waking: of a pool for the first who come, of one instance more when those awake are full.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::time::timeout;

use super::lease::{Kept, TTL};
use super::{Done, Keeper, Waiting};
use crate::agent::client::ClientError;
use crate::agent::request::{Request, Target};
use crate::agent::response::{FaultCode, Response, Woken};
use crate::coordinator::desk::WakeId;
use crate::coordinator::member::Member;
use crate::coordinator::node::Node;
use crate::coordinator::status::WakeStatus;
use crate::event::text::in_a_line;
use crate::fleet::state::InstanceState;

/// What came of a wake.
pub(super) struct Woke {
    id: WakeId,
    at: Timestamp,
    /// Since when the first of those who wait does.
    first: Instant,
    /// How long it was until the agent was asked, and until it answered.
    queue: Duration,
    agent: Duration,
    result: Result<Woken, Fault>,
}

/// Why there is no instance.
enum Fault {
    /// It makes sense to ask again after a pause.
    Busy(Duration),
    /// It does not.
    Failed(String),
}

impl Keeper {
    /// What can be woken for those who wait: whatever is quickest when nobody is awake, else another.
    pub(super) fn candidate(&self) -> Option<Target> {
        if self.kept.is_empty() {
            return Some(Target::Pool(self.route.target.clone()));
        }
        let rank = |state| match state {
            InstanceState::Running => Some(0),
            InstanceState::Warm => Some(1),
            InstanceState::Sleeping => Some(2),
            InstanceState::Stopped | InstanceState::Ready | InstanceState::Created => Some(3),
            InstanceState::Failed | InstanceState::Destroyed => None,
        };
        let others = self.listing.iter().filter(|one| self.instance(&one.path).is_none());
        let ranked = others.filter_map(|one| Some((rank(one.state)?, one)));
        let best = ranked.min_by_key(|(rank, _)| *rank)?;
        Some(Target::Instance(best.1.path.clone()))
    }

    /// Has an instance woken.
    pub(super) fn wake(&mut self, id: WakeId) {
        let Some(target) = self.candidate() else { return };
        let (node, patience) = {
            let rules = self.rules.borrow();
            (rules.node.clone(), rules.patience)
        };
        let now = Instant::now();
        let since = |waiting: &Waiting| match waiting {
            Waiting::Connection { since, .. } => *since,
            Waiting::Order(_) => now,
        };
        let first = self.waiters.values().map(since).min().unwrap_or(now);
        tracing::info!(route = %self.route.listen, %target, waiting = self.desk.waiting(), "waking");
        self.work.push(Box::pin(async move {
            let at = Timestamp::now();
            let mut asked = Instant::now();
            let result = match timeout(patience, node.client()).await {
                Ok(Ok(client)) => {
                    asked = Instant::now();
                    let answer = client.ask(Request::Wake { target, ttl: TTL }).await;
                    answer.map_err(Fault::from).and_then(woken)
                }
                Ok(Err(why)) => Err(Fault::Failed(why)),
                Err(_) => Err(Fault::Failed(unreachable_words(&node))),
            };
            let (queue, agent) = (asked.saturating_duration_since(first), asked.elapsed());
            Done::Woken(Woke { id, at, first, queue, agent, result })
        }));
    }

    /// Takes note of what came of a wake.
    pub(super) fn woken(&mut self, woke: Woke) {
        let Woke { id, at, first, queue, agent, result } = woke;
        let (waiters, took) = (self.desk.waiting() as u64, first.elapsed());
        if let Err(Fault::Busy(pause)) = &result {
            let pause_ms = pause.as_millis() as u64;
            return self.desk.not_yet(id, pause_ms, self.now_ms());
        }
        self.wakes += 1;
        self.metrics.wake(result.is_ok(), took);
        let ms = |time: Duration| time.as_millis() as u64;
        let mut steps = vec![("queue".to_string(), ms(queue))];
        let (instance, error) = match result {
            Ok(woken) => {
                let inner: u64 = woken.steps.iter().map(|(_, ms)| ms).sum();
                steps.push(("agent".into(), ms(agent).saturating_sub(inner)));
                steps.extend(woken.steps.iter().cloned());
                let path = woken.instance.clone();
                tracing::info!(
                    route = %self.route.listen, instance = %path, endpoint = %woken.endpoint,
                    ms = ms(took), waiting = waiters, "awake"
                );
                if self.desk.woken(id) {
                    self.keep(woken);
                } else {
                    self.let_go(&woken.lease);
                }
                (Some(path), None)
            }
            Err(Fault::Busy(_)) => return,
            Err(Fault::Failed(why)) => {
                self.failed_wakes += 1;
                steps.push(("agent".into(), ms(agent)));
                tracing::error!(
                    route = %self.route.listen, pool = %self.route.target, ms = ms(took), waiting = waiters,
                    error = in_a_line(&why), "the wake failed"
                );
                for effect in self.desk.failed(id, &why, !self.kept.is_empty(), self.now_ms()) {
                    self.carry_out(effect);
                }
                (None, Some(why))
            }
        };
        self.last_wake = Some(WakeStatus { at, instance, ms: ms(took), steps, waiters, error });
        // What the agent tells of the pool is not what it was.
        self.looked = None;
    }

    /// Keeps an instance for the use of connections.
    pub(super) fn keep(&mut self, woken: Woken) {
        match self.kept.iter_mut().find(|kept| kept.member.instance == woken.instance) {
            Some(kept) if kept.member.endpoint == woken.endpoint => kept.lease_anew(woken.lease),
            Some(kept) => {
                // It has been started again since.
                kept.member.close();
                let member = Arc::new(Member::new(woken.instance, woken.endpoint));
                *kept = Kept::new(member, woken.lease);
            }
            None => {
                let member = self.member(&woken);
                self.kept.push(Kept::new(member, woken.lease));
            }
        }
        self.publish();
    }
}

fn unreachable_words(node: &Node) -> String {
    match node.status().error {
        Some(why) => why,
        None => format!("the node `{}` does not answer at {}", node.name, node.address),
    }
}

/// The answer to a wake.
fn woken(answer: Response) -> Result<Woken, Fault> {
    match answer {
        Response::Woken(woken) => Ok(woken),
        other => Err(Fault::Failed(format!("the agent answered `{}`", other.name()))),
    }
}

impl From<ClientError> for Fault {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused(fault) if fault.code == FaultCode::Busy => {
                Self::Busy(Duration::from_millis(fault.retry_ms.unwrap_or(1000).min(10_000)))
            }
            // It comes back, or those who wait run out of patience.
            ClientError::Closed { .. } | ClientError::Stopping { .. } => {
                Self::Busy(Duration::from_millis(200))
            }
            other => Self::Failed(other.to_string()),
        }
    }
}
