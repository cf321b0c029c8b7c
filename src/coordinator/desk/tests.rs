use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const SLEEPING: Supply = Supply { places: 0, more: true };

fn waiting(count: u64) -> Desk {
    let mut desk = Desk::default();
    for id in 0..count {
        assert_eq!(desk.arrive(id, 1000 + id, 100), None);
    }
    desk
}

#[test]
fn one_wake_is_for_all_who_wait() {
    let mut desk = waiting(3);
    assert_eq!(desk.serve(SLEEPING, 0), [Effect::Wake(1)]);
    assert_eq!(desk.arrive(3, 2000, 100), None);
    assert_eq!(desk.serve(SLEEPING, 1), []);
    assert!(desk.woken(1));
    let admitted: Vec<_> = (0..4).map(Effect::Admit).collect();
    assert_eq!(desk.serve(Supply { places: 9, more: false }, 2), admitted);
}

#[test]
fn a_wake_that_fails_sends_all_away_unless_others_are_awake() {
    let refused = |id| Effect::Refuse(id, Refusal::Failed("no room".into()));
    let mut desk = waiting(2);
    assert_eq!(desk.serve(SLEEPING, 0), [Effect::Wake(1)]);
    assert_eq!(desk.failed(1, "no room", true, 1), []);
    assert_eq!(desk.serve(SLEEPING, 1), []);
    assert_eq!(desk.serve(SLEEPING, 1 + PAUSE_MS), [Effect::Wake(2)]);
    assert_eq!(desk.failed(2, "no room", false, 600), [refused(0), refused(1)]);
    assert_eq!(desk.waiting(), 0);
}

#[test]
fn a_first_one_who_goes_strands_nobody() {
    let mut desk = waiting(2);
    assert_eq!(desk.serve(SLEEPING, 0), [Effect::Wake(1)]);
    desk.forget(|id| id == 0);
    assert!(desk.woken(1));
    assert_eq!(desk.serve(Supply { places: 1, more: false }, 1), [Effect::Admit(1)]);
}

#[test]
fn places_are_given_in_order_and_who_waits_too_long_is_sent_away() {
    let mut desk = waiting(3);
    let one = Supply { places: 1, more: false };
    assert_eq!(desk.serve(one, 10), [Effect::Admit(0)]);
    assert_eq!(desk.next_ms(10), Some(1001));
    assert_eq!(desk.serve(Supply::default(), 1001), [Effect::Refuse(1, Refusal::Late)]);
    assert_eq!(desk.serve(one, 1001), [Effect::Admit(2)]);
    assert_eq!(desk.next_ms(1001), None);
}

#[test]
fn no_more_wait_than_may() {
    let mut desk = waiting(2);
    assert_eq!(desk.arrive(2, 5000, 2), Some(Effect::Refuse(2, Refusal::Full(2))));
    assert_eq!(desk.waiting(), 2);
}

#[test]
fn a_wake_of_which_nothing_is_heard_is_forgotten_and_tried_again() {
    let mut desk = Desk::default();
    assert_eq!(desk.arrive(0, u64::MAX, 1), None);
    assert_eq!(desk.serve(SLEEPING, 0), [Effect::Wake(1)]);
    assert_eq!(desk.next_ms(0), Some(WAKE_LIMIT_MS));
    assert_eq!(desk.serve(SLEEPING, WAKE_LIMIT_MS), [Effect::Forget(1)]);
    assert!(!desk.woken(1));
    assert_eq!(desk.serve(SLEEPING, WAKE_LIMIT_MS + PAUSE_MS), [Effect::Wake(2)]);
}

#[derive(Debug, Clone)]
enum Step {
    Arrive(u64),
    Leave(usize),
    Woken,
    Failed(bool),
    NotYet(u64),
    Serve(usize, bool),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1u64..5000).prop_map(Step::Arrive),
        (0usize..8).prop_map(Step::Leave),
        Just(Step::Woken),
        any::<bool>().prop_map(Step::Failed),
        (0u64..2000).prop_map(Step::NotYet),
        (0usize..4, any::<bool>()).prop_map(|(places, more)| Step::Serve(places, more)),
        (1u64..200_000).prop_map(Step::Pass),
    ]
}

proptest! {
    /// Whatever happens: everybody who came is waiting, was admitted, was refused or has gone; nobody
    /// twice; there is one wake at a time; and with time everybody is served or sent away.
    #[test]
    fn everybody_has_an_end_and_there_is_one_wake_at_a_time(steps in prop::collection::vec(step(), 0..60)) {
        let mut desk = Desk::default();
        let (mut now, mut next) = (0u64, 0u64);
        let (mut waiting, mut open): (BTreeSet<u64>, Option<u64>) = Default::default();
        let take = |effects: Vec<Effect>, waiting: &mut BTreeSet<u64>, open: &mut Option<u64>| {
            for effect in effects {
                match effect {
                    Effect::Admit(id) | Effect::Refuse(id, _) => prop_assert!(waiting.remove(&id)),
                    Effect::Wake(id) => prop_assert!(open.replace(id).is_none()),
                    Effect::Forget(id) => prop_assert_eq!(open.take(), Some(id)),
                }
            }
            Ok(())
        };
        for step in steps {
            let mut effects = Vec::new();
            match step {
                Step::Arrive(patience) => {
                    waiting.insert(next);
                    effects.extend(desk.arrive(next, now + patience, 5));
                    next += 1;
                }
                Step::Leave(index) => {
                    if let Some(gone) = waiting.iter().nth(index).copied() {
                        desk.forget(|id| id == gone);
                        waiting.remove(&gone);
                    }
                }
                Step::Woken => {
                    let wake = open.take();
                    prop_assert!(wake.is_none_or(|wake| desk.woken(wake)));
                }
                Step::Failed(others) => {
                    if let Some(wake) = open.take() {
                        effects = desk.failed(wake, "no", others, now);
                        prop_assert!(others || effects.len() == waiting.len());
                    }
                }
                Step::NotYet(pause) => {
                    if let Some(wake) = open.take() {
                        desk.not_yet(wake, pause, now);
                    }
                }
                Step::Serve(places, more) => effects = desk.serve(Supply { places, more }, now),
                Step::Pass(time) => now += time,
            }
            take(effects, &mut waiting, &mut open)?;
            prop_assert_eq!(desk.waiting(), waiting.len());
            prop_assert_eq!(desk.waking(), open);
            prop_assert!(desk.waiting() <= 5);
        }
        // Nothing more is heard of the world.
        for _ in 0..20 {
            let Some(due) = desk.next_ms(now) else { break };
            now = now.max(due);
            let effects = desk.serve(SLEEPING, now);
            take(effects, &mut waiting, &mut open)?;
        }
        prop_assert!(waiting.is_empty());
    }
}
