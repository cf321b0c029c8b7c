use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

const TTL: i64 = 10_000;

fn wake(lease: LeaseId) -> Event {
    Event::Wake { lease, ttl_ms: TTL }
}

const SLEEP: Event = Event::Rest { to: Demotion::Sleep };

#[test]
fn one_wake_serves_all_who_wait() {
    let mut it = Wakefulness::new(InstanceState::Sleeping);
    assert_eq!(it.take(wake(1), 0), [Effect::Wake { op: 1 }]);
    assert_eq!(it.take(wake(2), 10), []);
    let answer = |lease| Effect::Answer { lease, result: Ok(20 + TTL) };
    assert_eq!(it.take(Event::Done { op: 1 }, 20), [answer(1), answer(2)]);
    assert_eq!(it.lease(20), Some(Lease { until_ms: 20 + TTL, from: Bucket::Sleeping }));
}

#[test]
fn a_wake_during_a_sleep_waits_for_it_and_wakes_again() {
    let mut it = Wakefulness::new(InstanceState::Running);
    assert_eq!(it.take(SLEEP, 0), [Effect::Rest { op: 1, to: Demotion::Sleep }]);
    assert_eq!(it.take(wake(7), 10), []);
    assert_eq!(it.take(Event::Done { op: 1 }, 50_000), [Effect::Wake { op: 2 }]);
    assert_eq!(
        it.take(Event::Done { op: 2 }, 60_000),
        [Effect::Answer { lease: 7, result: Ok(60_000 + TTL) }]
    );
}

#[test]
fn a_lease_keeps_it_awake_until_it_lapses_or_is_released() {
    let mut it = Wakefulness::new(InstanceState::Running);
    assert_eq!(it.take(wake(1), 0).len(), 1);
    assert_eq!(it.take(SLEEP, TTL - 1), []);
    assert_eq!(it.take(Event::Renew { lease: 1, ttl_ms: TTL }, TTL - 1), []);
    assert_eq!(it.take(SLEEP, TTL), []);
    assert_eq!(it.take(SLEEP, 2 * TTL - 1).len(), 1);
    let mut it = Wakefulness::new(InstanceState::Running);
    assert_eq!(it.take(wake(1), 0).len(), 1);
    assert_eq!(it.take(Event::Release { lease: 1 }, 1), []);
    assert_eq!(it.take(SLEEP, 2).len(), 1);
}

#[test]
fn a_lapsed_lease_tells_where_it_came_from_until_it_is_there() {
    let mut it = Wakefulness::new(InstanceState::Sleeping);
    let _ = it.take(wake(1), 0);
    let _ = it.take(Event::Done { op: 1 }, 0);
    let _ = it.take(Event::Tick, TTL);
    assert_eq!(it.lease(TTL), Some(Lease { until_ms: TTL, from: Bucket::Sleeping }));
    let _ = it.take(Event::Rest { to: Demotion::Warm }, TTL);
    let _ = it.take(Event::Done { op: 2 }, TTL);
    assert_eq!(it.lease(TTL).unwrap().from, Bucket::Sleeping);
    let _ = it.take(SLEEP, TTL);
    let _ = it.take(Event::Done { op: 3 }, TTL);
    assert_eq!(it.lease(TTL), None);
}

#[test]
fn an_operation_without_end_is_ended() {
    let mut it = Wakefulness::new(InstanceState::Sleeping);
    let _ = it.take(wake(1), 0);
    assert_eq!(it.next_tick_ms(), Some(WAKE_LIMIT_MS));
    let answer = Effect::Answer { lease: 1, result: Err(Refusal::TimedOut) };
    assert_eq!(it.take(Event::Tick, WAKE_LIMIT_MS), [Effect::Kill, answer]);
    // What it says later counts no more.
    assert_eq!(it.take(Event::Done { op: 1 }, WAKE_LIMIT_MS), []);
    assert_eq!(it.phase(), Phase::At { state: InstanceState::Failed });
}

#[test]
fn what_cannot_be_woken_is_refused_at_once() {
    let mut it = Wakefulness::new(InstanceState::Stopped);
    let refusal = Refusal::NotThere(InstanceState::Stopped);
    assert_eq!(it.take(wake(1), 0), [Effect::Answer { lease: 1, result: Err(refusal) }]);
    assert_eq!(it.lease(0), None);
}

/// What the world does next.
#[derive(Debug, Clone, Copy)]
enum Step {
    Wake(i64),
    Renew(usize),
    Release(usize),
    Pass(i64),
    Rest(Demotion),
    Finish,
    Fail(InstanceState),
    /// A report of an operation that is long over.
    Late(OpId),
    /// The guest ends by itself.
    Die,
    /// The agent is killed; the operation had its effect or had not.
    Crash(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let after =
        vec![InstanceState::Running, InstanceState::Warm, InstanceState::Sleeping, InstanceState::Failed];
    prop_oneof![
        4 => (1i64..20_000).prop_map(Step::Wake),
        2 => (0usize..8).prop_map(Step::Renew),
        2 => (0usize..8).prop_map(Step::Release),
        4 => (0i64..30_000).prop_map(Step::Pass),
        1 => Just(Step::Pass(REST_LIMIT_MS)),
        4 => select(vec![Demotion::Warm, Demotion::Sleep]).prop_map(Step::Rest),
        6 => Just(Step::Finish),
        1 => select(after).prop_map(Step::Fail),
        1 => (0u64..20).prop_map(Step::Late),
        1 => Just(Step::Die),
        1 => any::<bool>().prop_map(Step::Crash),
    ]
}

/// The world around the protocol: the guest, the operation on it, and those who wait or hold leases.
struct World {
    it: Wakefulness,
    now_ms: i64,
    guest: InstanceState,
    running: Option<Effect>,
    next_lease: LeaseId,
    waiting: Vec<LeaseId>,
    /// Leases as their holders know them.
    held: BTreeMap<LeaseId, i64>,
    ttls: BTreeMap<LeaseId, i64>,
}

impl World {
    fn new(state: InstanceState) -> Self {
        Self {
            it: Wakefulness::new(state),
            now_ms: 0,
            guest: state,
            running: None,
            next_lease: 0,
            waiting: Vec::new(),
            held: BTreeMap::new(),
            ttls: BTreeMap::new(),
        }
    }

    fn is_held(&self) -> bool {
        self.held.values().any(|until| self.now_ms < *until)
    }

    fn send(&mut self, event: Event) -> Result<(), TestCaseError> {
        let needed = !self.waiting.is_empty() || self.is_held();
        for effect in self.it.take(event, self.now_ms) {
            match effect {
                Effect::Wake { .. } => {
                    prop_assert!(self.running.is_none(), "two operations at once");
                    prop_assert!(matches!(self.guest, InstanceState::Warm | InstanceState::Sleeping));
                    self.running = Some(effect);
                }
                Effect::Rest { .. } => {
                    prop_assert!(self.running.is_none(), "two operations at once");
                    prop_assert!(matches!(event, Event::Rest { .. }), "sleeps unasked: {event:?}");
                    prop_assert!(!needed, "sleeps while it is needed");
                    self.running = Some(effect);
                }
                Effect::Kill => {
                    (self.running, self.guest) = (None, InstanceState::Failed);
                    self.held.clear();
                }
                Effect::Answer { lease, result } => {
                    let at = self.waiting.iter().position(|waiting| *waiting == lease);
                    prop_assert!(at.is_some(), "answered twice, or nobody asked");
                    self.waiting.swap_remove(at.unwrap());
                    if let Ok(until_ms) = result {
                        prop_assert_eq!(self.guest, InstanceState::Running);
                        prop_assert_eq!(until_ms, self.now_ms + self.ttls[&lease]);
                        self.held.insert(lease, until_ms);
                    }
                }
            }
        }
        self.check()
    }

    fn check(&self) -> Result<(), TestCaseError> {
        // What is said to go on goes on, and the other way round.
        match (self.it.phase(), self.running) {
            (Phase::At { state }, None) => prop_assert_eq!(state, self.guest),
            (Phase::Waking { op, limit_ms }, Some(Effect::Wake { op: running })) => {
                prop_assert!(op == running && self.it.next_tick_ms().is_some_and(|tick| tick <= limit_ms));
            }
            (Phase::Resting { op, limit_ms, .. }, Some(Effect::Rest { op: running, .. })) => {
                prop_assert!(op == running && self.it.next_tick_ms().is_some_and(|tick| tick <= limit_ms));
            }
            other => prop_assert!(false, "{:?}", other),
        }
        // Nobody waits where nothing is on its way.
        prop_assert!(self.waiting.is_empty() || self.running.is_some(), "a wake was lost");
        if self.is_held() && Bucket::of(self.guest).is_some() {
            prop_assert!(self.it.is_needed(self.now_ms), "a lease was lost");
            prop_assert!(self.it.lease(self.now_ms).is_some_and(|lease| self.now_ms < lease.until_ms));
        }
        Ok(())
    }

    /// The state that the running operation leads to.
    fn result(&self) -> InstanceState {
        match self.running {
            Some(Effect::Rest { to, .. }) => to.state(),
            _ => InstanceState::Running,
        }
    }

    fn op(&self) -> Option<OpId> {
        match self.running {
            Some(Effect::Wake { op } | Effect::Rest { op, .. }) => Some(op),
            _ => None,
        }
    }

    fn finish(&mut self) -> Result<(), TestCaseError> {
        let Some(op) = self.op() else { return Ok(()) };
        (self.guest, self.running) = (self.result(), None);
        self.send(Event::Done { op })
    }

    fn lease(&self, index: usize) -> Option<LeaseId> {
        self.held.keys().nth(index % self.held.len().max(1)).copied()
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Wake(ttl_ms) => {
                self.next_lease += 1;
                let lease = self.next_lease;
                self.waiting.push(lease);
                self.ttls.insert(lease, ttl_ms);
                self.send(Event::Wake { lease, ttl_ms })
            }
            Step::Renew(index) => {
                let Some(lease) = self.lease(index) else { return Ok(()) };
                let until = self.held[&lease];
                if self.now_ms < until {
                    self.held.insert(lease, until.max(self.now_ms + TTL));
                }
                self.send(Event::Renew { lease, ttl_ms: TTL })
            }
            Step::Release(index) => {
                let Some(lease) = self.lease(index) else { return Ok(()) };
                self.held.remove(&lease);
                self.send(Event::Release { lease })
            }
            Step::Pass(ms) => {
                self.now_ms += ms;
                self.send(Event::Tick)
            }
            Step::Rest(to) => self.send(Event::Rest { to }),
            Step::Finish => self.finish(),
            Step::Fail(state) => {
                let Some(op) = self.op() else { return Ok(()) };
                (self.guest, self.running) = (state, None);
                if state == InstanceState::Failed {
                    self.held.clear();
                }
                self.send(Event::Failed { op, state })
            }
            Step::Late(op) if self.op() == Some(op) => Ok(()),
            Step::Late(op) => self.send(Event::Done { op }),
            Step::Die => {
                (self.guest, self.running) = (InstanceState::Failed, None);
                self.held.clear();
                self.send(Event::Observed { state: self.guest })
            }
            Step::Crash(had_effect) => {
                if self.running.is_some() && had_effect {
                    self.guest = self.result();
                }
                self.running = None;
                let text = serde_json::to_string(&self.it).unwrap();
                self.it = serde_json::from_str(&text).unwrap();
                self.send(Event::Observed { state: self.guest })
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn whatever_happens_no_wake_is_lost_and_nothing_sleeps_while_it_is_needed(
        state in select(&InstanceState::ALL[..7]), steps in prop::collection::vec(step(), 0..60),
    ) {
        let mut world = World::new(state);
        for step in steps {
            world.step(step)?;
        }
        // Whatever is under way ends, everyone is answered.
        for _ in 0..3 {
            world.finish()?;
        }
        prop_assert!(world.waiting.is_empty() && world.running.is_none());
        // And once all leases have lapsed, it goes to sleep when it is asked to.
        world.step(Step::Pass(LONGEST_LEASE_MS))?;
        world.step(Step::Rest(Demotion::Sleep))?;
        world.finish()?;
        if Bucket::of(world.guest).is_some() {
            prop_assert_eq!(world.guest, InstanceState::Sleeping);
            prop_assert_eq!(world.it.lease(world.now_ms), None);
        }
    }

    #[test]
    fn nothing_is_on_its_way_for_ever(
        state in select(&InstanceState::ALL[..7]), steps in prop::collection::vec(step(), 0..40),
    ) {
        let mut world = World::new(state);
        for step in steps {
            world.step(step)?;
        }
        // No operation ever reports again.
        for _ in 0..4 {
            world.step(Step::Pass(REST_LIMIT_MS))?;
        }
        let phase = world.it.phase();
        prop_assert!(matches!(phase, Phase::At { .. }), "{:?}", phase);
        prop_assert!(world.waiting.is_empty());
    }
}
