//! What the agent counts, for Prometheus (OpenMetrics text).
//!
//! Labels come from fixed lists, so that what is counted stays bounded whatever peers send.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::fleet::state::InstanceState;

/// Counters of one agent; copies count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    requests: Family<Asked, Counter>,
    request_seconds: Family<Kind, Histogram>,
    connections: Gauge,
    refused: Family<Reason, Counter>,
    lost: Counter,
    instances: Family<State, Gauge>,
    rounds: Family<Outcome, Counter>,
    round_seconds: Histogram,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// From 100 µs to about 100 s.
fn histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.0001, 4.0, 11))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("mvm_agent");
        let mut metrics = Self {
            registry: Arc::default(),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(histogram),
            connections: Gauge::default(),
            refused: Family::default(),
            lost: Counter::default(),
            instances: Family::default(),
            rounds: Family::default(),
            round_seconds: histogram(),
        };
        let seconds = || Unit::Seconds;
        registry.register("requests", "Requests by kind and outcome", metrics.requests.clone());
        let times = metrics.request_seconds.clone();
        registry.register_with_unit("request_duration", "From request to answer", seconds(), times);
        registry.register("connections", "Open connections", metrics.connections.clone());
        registry.register("refused_connections", "Refused connections", metrics.refused.clone());
        registry.register("lost_events", "Events that subscribers were too slow for", metrics.lost.clone());
        registry.register("instances", "Instances by state", metrics.instances.clone());
        registry.register("reconcile_rounds", "Rounds of reconciling", metrics.rounds.clone());
        let times = metrics.round_seconds.clone();
        registry.register_with_unit("reconcile_duration", "A round of reconciling", seconds(), times);
        metrics.registry = Arc::new(registry);
        metrics
    }
}

impl Metrics {
    /// How many instances there are in each state.
    pub fn instances(&self, counts: &BTreeMap<InstanceState, u64>) {
        for state in InstanceState::ALL {
            let count = counts.get(&state).copied().unwrap_or_default();
            let labels = State { state: state.as_str() };
            self.instances.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// A round of reconciling is over.
    pub fn round(&self, ok: bool, took: Duration) {
        let outcome = if ok { "ok" } else { "failed" };
        self.rounds.get_or_create(&Outcome { outcome }).inc();
        self.round_seconds.observe(took.as_secs_f64());
    }

    /// All that is counted, as OpenMetrics text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }

    pub(super) fn request(&self, kind: &'static str, outcome: &'static str, took: Duration) {
        self.requests.get_or_create(&Asked { kind, outcome }).inc();
        self.request_seconds.get_or_create(&Kind { kind }).observe(took.as_secs_f64());
    }

    pub(super) fn connections(&self, open: usize) {
        self.connections.set(i64::try_from(open).unwrap_or(i64::MAX));
    }

    pub(super) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&Reason { reason }).inc();
    }

    pub(super) fn lost(&self, events: u64) {
        self.lost.inc_by(events);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_in_the_text() {
        let metrics = Metrics::default();
        metrics.request("wake", "ok", Duration::from_millis(3));
        metrics.clone().request("wake", "ok", Duration::from_millis(3));
        metrics.instances(&[(InstanceState::Warm, 2)].into());
        metrics.round(false, Duration::from_secs(1));
        let text = metrics.text();
        for line in [
            r#"mvm_agent_requests_total{kind="wake",outcome="ok"} 2"#,
            r#"mvm_agent_request_duration_seconds_count{kind="wake"} 2"#,
            r#"mvm_agent_instances{state="warm"} 2"#,
            r#"mvm_agent_instances{state="running"} 0"#,
            r#"mvm_agent_reconcile_rounds_total{outcome="failed"} 1"#,
            "mvm_agent_reconcile_duration_seconds_count 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
