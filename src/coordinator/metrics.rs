//! What a coordinator counts, for Prometheus (OpenMetrics text).
//!
//! All but how long wakes took is read off its status. Labels come from the configuration and from
//! fixed lists, so that what is counted stays bounded whatever clients do.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::status::{NodeState, RouteState, RouteStatus, Status};
use crate::fleet::state::InstanceState;

/// Wakes of one coordinator; copies count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    wakes: Family<Outcome, Histogram>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    listen: String,
    tenant: String,
    pool: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Wakes {
    listen: String,
    tenant: String,
    pool: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InState {
    listen: String,
    tenant: String,
    pool: String,
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Node {
    node: String,
}

/// From 1 ms to about 4 min.
fn histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 19))
}

impl Default for Metrics {
    fn default() -> Self {
        Self { wakes: Family::new_with_constructor(histogram) }
    }
}

impl Metrics {
    /// A wake is over: it took so long from its first client on.
    pub fn wake(&self, ok: bool, took: Duration) {
        let outcome = if ok { "ok" } else { "failed" };
        self.wakes.get_or_create(&Outcome { outcome }).observe(took.as_secs_f64());
    }

    /// All that is counted, as OpenMetrics text.
    pub fn text(&self, status: &Status) -> String {
        let mut registry = Registry::with_prefix("mvm_coordinator");
        let took = self.wakes.clone();
        registry.register_with_unit("wake_duration", "How long clients waited", Unit::Seconds, took);
        let draining = Gauge::<i64>::default();
        draining.set(status.draining.into());
        registry.register("draining", "Whether it ends with the last connection", draining);
        nodes(status, &mut registry);
        counts(&status.routes, &mut registry);
        states(&status.routes, &mut registry);
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = text::encode(&mut text, &registry);
        text
    }
}

fn nodes(status: &Status, registry: &mut Registry) {
    let up = Family::<Node, Gauge>::default();
    for node in &status.nodes {
        let labels = Node { node: node.name.as_str().into() };
        up.get_or_create(&labels).set((node.state == NodeState::Connected).into());
    }
    registry.register("node_up", "Whether the node's agent answers", up);
}

/// What is counted of each route.
fn counts(routes: &[RouteStatus], registry: &mut Registry) {
    type Read = fn(&RouteStatus) -> u64;
    let gauges: [(&str, &str, Read); 2] = [
        ("connections", "Open connections", |route| route.connections),
        ("queued_connections", "Connections that wait for an instance", |route| route.queued),
    ];
    for (name, help, read) in gauges {
        let family = Family::<Route, Gauge>::default();
        for route in routes {
            family.get_or_create(&labels(route)).set(signed(read(route)));
        }
        registry.register(name, help, family);
    }
    let counters: [(&str, &str, Option<Unit>, Read); 4] = [
        ("accepted_connections", "Connections so far", None, |route| route.accepted),
        ("refused_connections", "Connections closed without an instance", None, |route| route.refused),
        ("received", "What came from clients", Some(Unit::Bytes), |route| route.rx_bytes),
        ("sent", "What went to clients", Some(Unit::Bytes), |route| route.tx_bytes),
    ];
    for (name, help, unit, read) in counters {
        let family = Family::<Route, Counter>::default();
        for route in routes {
            family.get_or_create(&labels(route)).inc_by(read(route));
        }
        match unit {
            Some(unit) => registry.register_with_unit(name, help, unit, family),
            None => registry.register(name, help, family),
        }
    }
    let wakes = Family::<Wakes, Counter>::default();
    for route in routes {
        let Route { listen, tenant, pool } = labels(route);
        let failed = route.failed_wakes;
        for (outcome, count) in [("ok", route.wakes.saturating_sub(failed)), ("failed", failed)] {
            let (listen, tenant, pool) = (listen.clone(), tenant.clone(), pool.clone());
            wakes.get_or_create(&Wakes { listen, tenant, pool, outcome }).inc_by(count);
        }
    }
    registry.register("wakes", "Wakes by outcome", wakes);
}

/// In which state routes and their instances are.
fn states(routes: &[RouteStatus], registry: &mut Registry) {
    let (in_state, instances) = (Family::<InState, Gauge>::default(), Family::<InState, Gauge>::default());
    let labelled = |route: &RouteStatus, state| {
        let Route { listen, tenant, pool } = labels(route);
        InState { listen, tenant, pool, state }
    };
    for route in routes {
        for state in RouteState::ALL {
            let here = state == route.state;
            in_state.get_or_create(&labelled(route, state.as_str())).set(here.into());
        }
        for state in InstanceState::ALL {
            let count = route.instances.iter().filter(|one| one.state == state.as_str()).count();
            instances.get_or_create(&labelled(route, state.as_str())).set(signed(count as u64));
        }
    }
    registry.register("route_state", "Whether the route is in the state", in_state);
    registry.register("instances", "Instances of the route's pool by state", instances);
}

fn labels(route: &RouteStatus) -> Route {
    Route { listen: route.listen.to_string(), tenant: route.tenant.to_string(), pool: route.pool.to_string() }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::status::sample::status;

    #[test]
    fn what_is_counted_is_in_the_text() {
        let metrics = Metrics::default();
        metrics.wake(true, Duration::from_millis(451));
        metrics.clone().wake(true, Duration::from_millis(20));
        let text = metrics.text(&status());
        let route = r#"listen="127.0.0.1:8443",tenant="dev",pool="gateways""#;
        for line in [
            r#"mvm_coordinator_wake_duration_seconds_count{outcome="ok"} 2"#,
            r#"mvm_coordinator_wake_duration_seconds_bucket{le="0.512",outcome="ok"} 2"#,
            "mvm_coordinator_draining 0",
            r#"mvm_coordinator_node_up{node="one"} 1"#,
            r#"mvm_coordinator_node_up{node="two"} 0"#,
            &format!("mvm_coordinator_connections{{{route}}} 3"),
            &format!("mvm_coordinator_queued_connections{{{route}}} 1"),
            &format!("mvm_coordinator_accepted_connections_total{{{route}}} 10"),
            &format!("mvm_coordinator_refused_connections_total{{{route}}} 2"),
            &format!("mvm_coordinator_received_bytes_total{{{route}}} 1229"),
            &format!("mvm_coordinator_sent_bytes_total{{{route}}} 85983232"),
            &format!("mvm_coordinator_wakes_total{{{route},outcome=\"ok\"}} 4"),
            &format!("mvm_coordinator_wakes_total{{{route},outcome=\"failed\"}} 1"),
            &format!("mvm_coordinator_route_state{{{route},state=\"running\"}} 1"),
            &format!("mvm_coordinator_route_state{{{route},state=\"sleeping\"}} 0"),
            &format!("mvm_coordinator_instances{{{route},state=\"sleeping\"}} 1"),
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
