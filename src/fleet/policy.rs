//! When an instance that was woken may go back to rest, and how long a fault is left alone. Times are
//! milliseconds of one clock that the caller reads.

use serde::{Deserialize, Serialize};

use super::desired::{Counts, RuntimePolicy};
use super::state::InstanceState;

/// A guest that uses more of a CPU than this works, in thousandths.
pub const BUSY_CPU_PERMILLE: u32 = 50;
/// A guest that worked this recently is not idle yet, ms.
pub const QUIET_MS: i64 = 5_000;

const FIRST_PAUSE_MS: i64 = 5_000;
const LONGEST_PAUSE_MS: i64 = 300_000;

/// The states that a pool's counts speak of, the most awake first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bucket {
    /// Running.
    Running,
    /// Halted in memory.
    Warm,
    /// Saved to disk.
    Sleeping,
}

impl Bucket {
    /// All of them, the most awake first.
    pub const ALL: [Self; 3] = [Self::Running, Self::Warm, Self::Sleeping];

    /// The bucket of a state, if it has one.
    pub fn of(state: InstanceState) -> Option<Self> {
        match state {
            InstanceState::Running => Some(Self::Running),
            InstanceState::Warm => Some(Self::Warm),
            InstanceState::Sleeping => Some(Self::Sleeping),
            _ => None,
        }
    }

    /// The state of an instance in it.
    pub fn state(self) -> InstanceState {
        match self {
            Self::Running => InstanceState::Running,
            Self::Warm => InstanceState::Warm,
            Self::Sleeping => InstanceState::Sleeping,
        }
    }

    /// How many instances `counts` wants in it.
    pub fn wished(self, counts: &Counts) -> u32 {
        match self {
            Self::Running => counts.running,
            Self::Warm => counts.warm,
            Self::Sleeping => counts.sleeping,
        }
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        self.state().as_str()
    }
}

/// What an instance's guest does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    /// Connections to it.
    pub connections: u32,
    /// Use of its CPUs, thousandths of one.
    pub cpu_permille: u32,
    /// When it last was seen to work, ms.
    pub last_work_ms: i64,
}

impl Activity {
    /// Whether nobody is connected and nothing works or did so lately.
    pub fn is_idle(&self, now_ms: i64) -> bool {
        self.connections == 0
            && self.cpu_permille <= BUSY_CPU_PERMILLE
            && now_ms.saturating_sub(self.last_work_ms) >= QUIET_MS
    }
}

/// What the policy looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The instance's state.
    pub state: InstanceState,
    /// Since when, ms.
    pub since_ms: i64,
    /// Where it belongs: how far down it may go.
    pub home: Bucket,
    /// Whether its pool is pinned.
    pub pinned: bool,
    /// Until when it is leased or held, ms; the later of the two.
    pub kept_until_ms: Option<i64>,
    /// What its guest does, where that is known.
    pub activity: Option<Activity>,
}

/// A step down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Demotion {
    /// Halt it in memory.
    Warm,
    /// Save it to disk.
    Sleep,
}

/// Whether an instance that has nothing to do goes a step down: warm first, asleep after that.
pub fn decide(facts: &Facts, policy: &RuntimePolicy, now_ms: i64) -> Option<Demotion> {
    let kept = facts.kept_until_ms.is_some_and(|until| now_ms < until);
    if facts.pinned || kept || now_ms < rests_from(facts.state, facts.since_ms, policy) {
        return None;
    }
    let idle = facts.activity.is_some_and(|activity| activity.is_idle(now_ms));
    match facts.state {
        InstanceState::Running if idle && facts.home > Bucket::Running => Some(Demotion::Warm),
        InstanceState::Warm if facts.home == Bucket::Sleeping => Some(Demotion::Sleep),
        _ => None,
    }
}

/// From when an instance that came into `state` at `since_ms` may leave it for a deeper one, ms.
pub fn rests_from(state: InstanceState, since_ms: i64, policy: &RuntimePolicy) -> i64 {
    let seconds = match state {
        InstanceState::Running => policy.min_running_seconds,
        InstanceState::Warm => policy.min_warm_seconds,
        _ => 0,
    };
    since_ms.saturating_add(i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000))
}

/// How long to wait after so many failures in a row, ms: 5 s, doubling, 5 min at most.
pub fn pause_ms(failures: u32) -> i64 {
    match failures {
        0 => 0,
        _ => FIRST_PAUSE_MS.saturating_mul(1 << (failures - 1).min(16)).min(LONGEST_PAUSE_MS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const POLICY: RuntimePolicy = RuntimePolicy {
        min_running_seconds: 30,
        min_warm_seconds: 60,
        drain_timeout_seconds: 10,
        graceful_shutdown_seconds: 10,
    };

    fn idle(state: InstanceState) -> Facts {
        let activity = Some(Activity { connections: 0, cpu_permille: 0, last_work_ms: 0 });
        Facts { state, since_ms: 0, home: Bucket::Sleeping, pinned: false, kept_until_ms: None, activity }
    }

    #[test]
    fn an_idle_instance_is_warm_first_and_asleep_after_that() {
        let (running, warm) = (idle(InstanceState::Running), idle(InstanceState::Warm));
        assert_eq!(decide(&running, &POLICY, 30_000), Some(Demotion::Warm));
        assert_eq!(decide(&warm, &POLICY, 60_000), Some(Demotion::Sleep));
        assert_eq!(decide(&Facts { home: Bucket::Warm, ..warm }, &POLICY, 60_000), None);
        assert_eq!(decide(&Facts { home: Bucket::Running, ..running }, &POLICY, 60_000), None);
    }

    #[test]
    fn no_state_is_left_before_its_least_time() {
        assert_eq!(decide(&idle(InstanceState::Running), &POLICY, 29_999), None);
        assert_eq!(decide(&idle(InstanceState::Warm), &POLICY, 59_999), None);
    }

    #[test]
    fn connections_work_and_work_just_done_keep_an_instance_running() {
        let rest = Activity { connections: 0, cpu_permille: 0, last_work_ms: 0 };
        for activity in [
            Activity { connections: 1, ..rest },
            Activity { cpu_permille: BUSY_CPU_PERMILLE + 1, ..rest },
            Activity { last_work_ms: 60_000 - QUIET_MS + 1, ..rest },
        ] {
            let facts = Facts { activity: Some(activity), ..idle(InstanceState::Running) };
            assert_eq!(decide(&facts, &POLICY, 60_000), None, "{activity:?}");
        }
    }

    #[test]
    fn pauses_grow_to_an_end() {
        let pauses: Vec<i64> = (0..9).map(pause_ms).collect();
        assert_eq!(pauses, [0, 5_000, 10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000]);
        assert_eq!(pause_ms(u32::MAX), LONGEST_PAUSE_MS);
    }

    proptest! {
        #[test]
        fn what_is_pinned_or_kept_never_goes_down(
            state in prop::sample::select(&InstanceState::ALL[..]), since_ms: i64, now_ms: i64, pinned: bool,
            until: Option<i64>, home in prop::sample::select(&Bucket::ALL[..]), connections: u32,
            min in 0u64..u64::MAX,
        ) {
            let activity = Some(Activity { connections, cpu_permille: 0, last_work_ms: since_ms });
            let facts = Facts { state, since_ms, home, pinned, kept_until_ms: until, activity };
            let policy = RuntimePolicy { min_running_seconds: min, min_warm_seconds: min, ..POLICY };
            if let Some(demotion) = decide(&facts, &policy, now_ms) {
                prop_assert!(!pinned && until.is_none_or(|until| until <= now_ms));
                prop_assert!(home > Bucket::of(state).unwrap());
                prop_assert_eq!(demotion == Demotion::Sleep, state == InstanceState::Warm);
            }
        }
    }
}
