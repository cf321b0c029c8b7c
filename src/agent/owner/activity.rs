//! What guests do, asked of their agents now and then: those that were woken go back to rest when they
//! have nothing to do.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream;
use jiff::Timestamp;

use crate::fleet::execute::Activities;
use crate::fleet::ids::InstanceId;
use crate::fleet::policy::{Activity, BUSY_CPU_PERMILLE};
use crate::fleet::record;
use crate::fleet::state::InstanceState;
use crate::guest::frames::{Answer, Request};
use crate::host::paths::Paths;
use crate::store::Store;
use crate::vm::lifecycle;
use crate::vm::shim::client;

/// Pause between two rounds of questions.
const PAUSE: Duration = Duration::from_secs(2);
/// How long a guest may take for its answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Guests asked at once.
const AT_ONCE: usize = 16;

/// What was last heard of each guest that was woken.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    last: HashMap<InstanceId, Sample>,
    taken: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    cpu_us: u64,
    activity: Activity,
}

impl Samples {
    /// Whether it is time to ask again.
    pub fn are_due(&self) -> bool {
        self.taken.is_none_or(|taken| taken.elapsed() >= PAUSE)
    }

    /// Whether anybody was asked.
    pub fn are_any(&self) -> bool {
        !self.last.is_empty()
    }

    /// What the planner is told.
    pub fn activities(&self) -> Activities {
        self.last.iter().map(|(id, sample)| (id.clone(), sample.activity)).collect()
    }

    /// Asks all guests again that run because they were woken.
    pub async fn again(self, paths: &Paths) -> Self {
        let awake = awake(paths);
        let ask = |id: InstanceId| {
            let before = self.last.get(&id).copied();
            async move { ask(paths, &id, before).await.map(|sample| (id, sample)) }
        };
        let answers: Vec<_> =
            stream::iter(awake.into_iter().map(ask)).buffer_unordered(AT_ONCE).collect().await;
        Self { last: answers.into_iter().flatten().collect(), taken: Some(Instant::now()) }
    }
}

/// Instances that run and would rest.
fn awake(paths: &Paths) -> Vec<InstanceId> {
    let Ok(opened) = Store::open(&paths.database()) else { return Vec::new() };
    let now_ms = Timestamp::now().as_millisecond();
    let fleet = record::load(&opened.store).unwrap_or_default();
    let instances = fleet.into_iter().flat_map(|tenant| tenant.pools).flat_map(|pool| pool.instances);
    let woken = instances.filter(|instance| {
        instance.state == InstanceState::Running && instance.wakefulness().lease(now_ms).is_some()
    });
    woken.map(|instance| instance.path.instance).collect()
}

/// One that does not answer is not known to be idle: it is left out, and what was known of it with it.
async fn ask(paths: &Paths, id: &InstanceId, before: Option<Sample>) -> Option<Sample> {
    let vm = lifecycle::find_running(&Store::open(&paths.database()).ok()?.store, id.as_str()).ok()?;
    let socket = paths.shim_socket(&vm.id);
    let asked = async { client::agent(&socket).await.ok()?.request(Request::Stats).await.ok() };
    let Answer::Stats { cpu_busy_us, connections, .. } =
        tokio::time::timeout(PATIENCE, asked).await.ok()??
    else {
        return None;
    };
    let at = Instant::now();
    let now_ms = Timestamp::now().as_millisecond();
    let cpu_permille = before.map_or(0, |before| {
        let busy = cpu_busy_us.saturating_sub(before.cpu_us);
        let passed = at.duration_since(before.at).as_micros().max(1);
        u32::try_from(u128::from(busy) * 1000 / passed).unwrap_or(u32::MAX)
    });
    let works = connections > 0 || cpu_permille > BUSY_CPU_PERMILLE;
    let last_work_ms = match before {
        Some(before) if !works => before.activity.last_work_ms,
        // Who was just woken has had something to do.
        _ => now_ms,
    };
    Some(Sample { at, cpu_us: cpu_busy_us, activity: Activity { connections, cpu_permille, last_work_ms } })
}
