//! Who is awake and for how long: the protocol of waking and putting to sleep, for one instance.
//!
//! A wake is a lease. Everything that happens is an [`Event`]; what is to be done about it comes out as
//! [`Effect`]s. There is at most one operation at a time, each with a number, and what an older one
//! reports no longer counts. The whole is written down before its effects are carried out, so that an
//! agent that comes up again goes on from it with [`Event::Observed`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::plan::actual::Lease;
use super::policy::{Bucket, Demotion};
use super::state::InstanceState;

/// A wake may take so long, ms.
pub const WAKE_LIMIT_MS: i64 = 120_000;
/// Draining, warming and saving may take so long together, ms.
pub const REST_LIMIT_MS: i64 = 300_000;
/// A lease lasts no longer than this without being renewed, ms.
pub const LONGEST_LEASE_MS: i64 = 3_600_000;

/// A wake request, and the lease that it is answered with; unique for one instance.
pub type LeaseId = u64;
/// Number of an operation.
pub type OpId = u64;

/// What an instance is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// It is in a state.
    At {
        /// The state.
        state: InstanceState,
    },
    /// It is being woken or resumed.
    Waking {
        /// The operation.
        op: OpId,
        /// When that is given up, ms.
        limit_ms: i64,
    },
    /// It is going a step down.
    Resting {
        /// The operation.
        op: OpId,
        /// Where to.
        to: Demotion,
        /// When that is given up, ms.
        limit_ms: i64,
    },
}

/// One lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    /// How long from the answer on, ms.
    ttl_ms: i64,
    /// Its end, ms; none while the request waits for its answer.
    until_ms: Option<i64>,
}

/// The protocol's state for one instance. It is plain data, kept with the instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wakefulness {
    phase: Phase,
    /// Where it was before it was woken, until it is there again.
    home: Option<Bucket>,
    leases: BTreeMap<LeaseId, Held>,
    /// The last number given to an operation.
    last_op: OpId,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Somebody needs the instance running.
    Wake {
        /// The request.
        lease: LeaseId,
        /// How long from the answer on, ms.
        ttl_ms: i64,
    },
    /// It is still needed.
    Renew {
        /// The lease.
        lease: LeaseId,
        /// How long from now on, ms.
        ttl_ms: i64,
    },
    /// It is not needed any more.
    Release {
        /// The lease.
        lease: LeaseId,
    },
    /// Time has passed.
    Tick,
    /// The agent wants it a step down: the policy allows it, or it is one too many.
    Rest {
        /// The step.
        to: Demotion,
    },
    /// An operation did what it was to do.
    Done {
        /// The operation.
        op: OpId,
    },
    /// An operation failed and left the instance in a state.
    Failed {
        /// The operation.
        op: OpId,
        /// What it is now.
        state: InstanceState,
    },
    /// What is true: after the agent came up, or when something else changed the instance. Whatever
    /// operation there was is over.
    Observed {
        /// What it is now.
        state: InstanceState,
    },
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Wake or resume the instance.
    Wake {
        /// The operation.
        op: OpId,
    },
    /// Drain it and take it a step down.
    Rest {
        /// The operation.
        op: OpId,
        /// The step.
        to: Demotion,
    },
    /// Its operation takes too long: end the instance's process, and record it as failed.
    Kill,
    /// Answer a wake request.
    Answer {
        /// The request.
        lease: LeaseId,
        /// Until when the lease lasts, ms, or why there is none.
        result: Result<i64, Refusal>,
    },
}

/// Why there is no lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// It neither runs nor can it be woken.
    #[error("the instance is {state} and cannot be woken", state = .0.as_str())]
    NotThere(InstanceState),
    /// It was tried, and it is in this state now.
    #[error("waking the instance failed; it is {state}", state = .0.as_str())]
    WakeFailed(InstanceState),
    /// It took too long.
    #[error("the instance took too long and was ended")]
    TimedOut,
}

impl Wakefulness {
    /// Of an instance in a state that nobody has woken.
    pub fn new(state: InstanceState) -> Self {
        Self { phase: Phase::At { state }, home: None, leases: BTreeMap::new(), last_op: 0 }
    }

    /// What it is doing.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The lease as the planner counts it: the longest one, valid or lapsed, while the instance is not
    /// where it came from. A request that waits keeps the instance until it is answered.
    pub fn lease(&self, now_ms: i64) -> Option<Lease> {
        let end = |held: &Held| held.until_ms.unwrap_or(now_ms.saturating_add(held.ttl_ms.max(1)));
        let until_ms = self.leases.values().map(end).max().unwrap_or(now_ms);
        self.home.map(|from| Lease { until_ms, from })
    }

    /// Whether a request waits or a lease is valid.
    pub fn is_needed(&self, now_ms: i64) -> bool {
        self.leases.values().any(|held| held.until_ms.is_none_or(|until| now_ms < until))
    }

    /// Forgets requests that wait for an answer, as nobody does after those who took them in are gone.
    pub fn forget_waiting(&mut self) {
        self.leases.retain(|_, held| held.until_ms.is_some());
    }

    /// Whether this lease is valid.
    pub fn holds(&self, lease: LeaseId, now_ms: i64) -> bool {
        self.leases.get(&lease).and_then(|held| held.until_ms).is_some_and(|until| now_ms < until)
    }

    /// When [`Event::Tick`] is due, ms.
    pub fn next_tick_ms(&self) -> Option<i64> {
        let limit = match self.phase {
            Phase::Waking { limit_ms, .. } | Phase::Resting { limit_ms, .. } => Some(limit_ms),
            Phase::At { .. } => None,
        };
        limit.into_iter().chain(self.leases.values().filter_map(|held| held.until_ms)).min()
    }

    /// Takes an event in. Write the result down before carrying the effects out, in their order.
    #[must_use = "effects are to be carried out"]
    pub fn take(&mut self, event: Event, now_ms: i64) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Wake { lease, ttl_ms } => {
                let ttl_ms = ttl_ms.clamp(1, LONGEST_LEASE_MS);
                self.leases.entry(lease).or_insert(Held { ttl_ms, until_ms: None }).ttl_ms = ttl_ms;
                self.home = self.home.or(self.bucket());
            }
            Event::Renew { lease, ttl_ms } => {
                // A lapsed lease is gone: who held it asks for another, and is told where that is.
                let held = self.leases.get_mut(&lease);
                if let Some(until) =
                    held.and_then(|held| held.until_ms.as_mut()).filter(|until| now_ms < **until)
                {
                    *until = (*until).max(now_ms.saturating_add(ttl_ms.clamp(1, LONGEST_LEASE_MS)));
                }
            }
            Event::Release { lease } => drop(self.leases.remove(&lease)),
            Event::Tick => self.give_up(now_ms, &mut effects),
            Event::Rest { to } => self.rest(to, now_ms, &mut effects),
            Event::Done { op } => match self.phase {
                Phase::Waking { op: current, .. } if op == current => self.be(InstanceState::Running),
                Phase::Resting { op: current, to, .. } if op == current => self.be(to.state()),
                _ => {}
            },
            Event::Failed { op, state } => match self.phase {
                Phase::Waking { op: current, .. } if op == current => {
                    self.refuse(Refusal::WakeFailed(state), &mut effects);
                    self.be(state);
                }
                Phase::Resting { op: current, .. } if op == current => self.be(state),
                _ => {}
            },
            Event::Observed { state } => self.be(state),
        }
        self.leases.retain(|_, held| held.until_ms.is_none_or(|until| now_ms < until));
        self.serve(now_ms, &mut effects);
        self.come_home();
        effects
    }

    /// Takes note of a state; whatever operation there was is over.
    fn be(&mut self, state: InstanceState) {
        self.phase = Phase::At { state };
    }

    /// The bucket that it is in or on its way to.
    fn bucket(&self) -> Option<Bucket> {
        match self.phase {
            Phase::At { state } => Bucket::of(state),
            Phase::Waking { .. } => Some(Bucket::Running),
            Phase::Resting { to, .. } => Bucket::of(to.state()),
        }
    }

    fn next_op(&mut self) -> OpId {
        self.last_op += 1;
        self.last_op
    }

    /// Answers those who wait, or begins what they wait for. What is on its way down goes all the way
    /// first.
    fn serve(&mut self, now_ms: i64, effects: &mut Vec<Effect>) {
        let Phase::At { state } = self.phase else { return };
        match state {
            InstanceState::Running => {
                for (lease, held) in self.leases.iter_mut().filter(|(_, held)| held.until_ms.is_none()) {
                    let until_ms = now_ms.saturating_add(held.ttl_ms);
                    held.until_ms = Some(until_ms);
                    effects.push(Effect::Answer { lease: *lease, result: Ok(until_ms) });
                }
            }
            // One that is leased is kept awake, whoever changed that.
            InstanceState::Warm | InstanceState::Sleeping if self.is_needed(now_ms) => {
                let op = self.next_op();
                self.phase = Phase::Waking { op, limit_ms: now_ms.saturating_add(WAKE_LIMIT_MS) };
                effects.push(Effect::Wake { op });
            }
            InstanceState::Warm | InstanceState::Sleeping => {}
            state => {
                self.refuse(Refusal::NotThere(state), effects);
                self.leases.clear();
            }
        }
    }

    /// Answers those who wait with a refusal.
    fn refuse(&mut self, why: Refusal, effects: &mut Vec<Effect>) {
        self.leases.retain(|lease, held| {
            if held.until_ms.is_none() {
                effects.push(Effect::Answer { lease: *lease, result: Err(why) });
            }
            held.until_ms.is_some()
        });
    }

    fn rest(&mut self, to: Demotion, now_ms: i64, effects: &mut Vec<Effect>) {
        let Phase::At { state } = self.phase else { return };
        let is_down = Bucket::of(state).is_some_and(|bucket| bucket.state() < to.state());
        if is_down && !self.is_needed(now_ms) {
            let op = self.next_op();
            self.phase = Phase::Resting { op, to, limit_ms: now_ms.saturating_add(REST_LIMIT_MS) };
            effects.push(Effect::Rest { op, to });
        }
    }

    /// Ends an operation that takes too long.
    fn give_up(&mut self, now_ms: i64, effects: &mut Vec<Effect>) {
        if let Phase::Waking { limit_ms, .. } | Phase::Resting { limit_ms, .. } = self.phase
            && limit_ms <= now_ms
        {
            effects.push(Effect::Kill);
            self.refuse(Refusal::TimedOut, effects);
            self.be(InstanceState::Failed);
        }
    }

    /// Forgets where it came from once it is there, or cannot come there.
    fn come_home(&mut self) {
        if let Phase::At { state } = self.phase
            && self.leases.is_empty()
            && self.home.is_some_and(|home| Bucket::of(state).is_none_or(|bucket| bucket >= home))
        {
            self.home = None;
        }
    }
}

impl Demotion {
    /// The state that it leads to.
    pub fn state(self) -> InstanceState {
        match self {
            Self::Warm => InstanceState::Warm,
            Self::Sleep => InstanceState::Sleeping,
        }
    }
}

#[cfg(test)]
mod tests;
