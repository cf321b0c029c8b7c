//! Who waits for an instance, and what is done about it: one wake for all of them.
//!
//! Plain data: everything that happens is a call, and what is to be done comes out as [`Effect`]s.
//! Times are milliseconds of one clock that the caller reads.

use std::collections::VecDeque;

/// Who waits; unique for one desk.
pub type WaiterId = u64;
/// Number of a wake.
pub type WakeId = u64;

/// Pause after a wake that failed, ms; doubled each time while those who wait have others to wait for.
pub const PAUSE_MS: u64 = 500;
/// How often it is doubled at most.
const DOUBLINGS: u32 = 6;
/// A wake that has not come to its end by then never does, ms; longer than an agent takes.
pub const WAKE_LIMIT_MS: u64 = 150_000;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Wake an instance.
    Wake(WakeId),
    /// Forget a wake: whatever comes of it is too late.
    Forget(WakeId),
    /// Give one of the free places to this one.
    Admit(WaiterId),
    /// Send this one away.
    Refuse(WaiterId, Refusal),
}

/// Why somebody gets no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Too many wait already.
    #[error("{0} connections wait already")]
    Full(usize),
    /// It has waited long enough.
    #[error("no instance had a place for it in time")]
    Late,
    /// No instance could be woken.
    #[error("{0}")]
    Failed(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Waiter {
    id: WaiterId,
    until_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Waking {
    id: WakeId,
    limit_ms: u64,
}

/// The queue of a route, and its wake.
#[derive(Debug, Default)]
pub struct Desk {
    /// In the order in which they came.
    waiters: VecDeque<Waiter>,
    waking: Option<Waking>,
    /// No wake before then, ms.
    not_before_ms: u64,
    last_wake: WakeId,
    /// Wakes that failed in a row.
    failures: u32,
}

/// What there is to give.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Supply {
    /// Free places at awake instances.
    pub places: usize,
    /// Whether there is an instance that could be woken.
    pub more: bool,
}

impl Desk {
    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiters.len()
    }

    /// The wake that is under way.
    pub fn waking(&self) -> Option<WakeId> {
        self.waking.map(|waking| waking.id)
    }

    /// Somebody waits from now on, at most `most` of them.
    #[must_use = "effects are to be carried out"]
    pub fn arrive(&mut self, id: WaiterId, until_ms: u64, most: usize) -> Option<Effect> {
        if self.waiters.len() >= most {
            return Some(Effect::Refuse(id, Refusal::Full(self.waiters.len())));
        }
        self.waiters.push_back(Waiter { id, until_ms });
        None
    }

    /// Those do not wait any more.
    pub fn forget(&mut self, is_gone: impl Fn(WaiterId) -> bool) {
        self.waiters.retain(|waiter| !is_gone(waiter.id));
    }

    /// A wake is over: an instance is awake.
    pub fn woken(&mut self, wake: WakeId) -> bool {
        let ours = self.waking.is_some_and(|waking| waking.id == wake);
        if ours {
            (self.waking, self.not_before_ms, self.failures) = (None, 0, 0);
        }
        ours
    }

    /// A wake is over without an instance. Unless there are others awake, everybody is sent away.
    #[must_use = "effects are to be carried out"]
    pub fn failed(&mut self, wake: WakeId, why: &str, others: bool, now_ms: u64) -> Vec<Effect> {
        if self.waking.is_none_or(|waking| waking.id != wake) {
            return Vec::new();
        }
        self.waking = None;
        if others {
            self.not_before_ms = now_ms + (PAUSE_MS << self.failures.min(DOUBLINGS));
            self.failures += 1;
            return Vec::new();
        }
        self.not_before_ms = now_ms + PAUSE_MS;
        let refusal = Refusal::Failed(why.into());
        self.waiters.drain(..).map(|waiter| Effect::Refuse(waiter.id, refusal.clone())).collect()
    }

    /// A wake is over without an instance, and it makes sense to try again after `pause_ms`.
    pub fn not_yet(&mut self, wake: WakeId, pause_ms: u64, now_ms: u64) {
        if self.waking.is_some_and(|waking| waking.id == wake) {
            self.waking = None;
            self.not_before_ms = now_ms + pause_ms;
        }
    }

    /// Gives what there is to those who wait, and sends those away who have waited long enough.
    #[must_use = "effects are to be carried out"]
    pub fn serve(&mut self, supply: Supply, now_ms: u64) -> Vec<Effect> {
        let mut effects = Vec::new();
        if let Some(stuck) = self.waking.take_if(|waking| waking.limit_ms <= now_ms) {
            effects.push(Effect::Forget(stuck.id));
            self.not_before_ms = now_ms + PAUSE_MS;
        }
        let served = supply.places.min(self.waiters.len());
        effects.extend(self.waiters.drain(..served).map(|waiter| Effect::Admit(waiter.id)));
        self.waiters.retain(|waiter| {
            let waits = now_ms < waiter.until_ms;
            if !waits {
                effects.push(Effect::Refuse(waiter.id, Refusal::Late));
            }
            waits
        });
        let wish = !self.waiters.is_empty() && self.waking.is_none() && supply.more;
        if wish && self.not_before_ms <= now_ms {
            self.last_wake += 1;
            self.waking = Some(Waking { id: self.last_wake, limit_ms: now_ms + WAKE_LIMIT_MS });
            effects.push(Effect::Wake(self.last_wake));
        }
        effects
    }

    /// When [`Desk::serve`] has something to do even if nothing happens, ms.
    pub fn next_ms(&self, now_ms: u64) -> Option<u64> {
        let waits = self.waiters.iter().map(|waiter| waiter.until_ms);
        let pauses = !self.waiters.is_empty() && self.waking.is_none() && self.not_before_ms > now_ms;
        let again = pauses.then_some(self.not_before_ms);
        waits.chain(self.waking.map(|waking| waking.limit_ms)).chain(again).min()
    }
}

#[cfg(test)]
mod tests;
