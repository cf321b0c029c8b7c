//! A coordinator's status in words.

use std::time::Duration;

use crate::coordinator::status::{NodeState, RouteState, RouteStatus, Status, WakeStatus};
use crate::event::text::strip;
use crate::event::words::{duration, short_bytes};

use super::super::fleet;

/// The routes as a table, and below it what is wrong.
pub fn table(status: &Status) -> Vec<String> {
    let mut lines = if status.routes.is_empty() {
        vec![format!("No routes: `{}` has none.", status.config)]
    } else {
        fleet::lines(
            ["LISTEN", "TARGET", "STATE", "CONN", "QUEUED", "IN", "OUT", "WAKES", "LAST WAKE", "IDLE"],
            status.routes.iter().map(row),
        )
    };
    lines.extend(troubles(status));
    // What agents say is in it.
    lines.iter().map(|line| strip(line)).collect()
}

fn row(route: &RouteStatus) -> [String; 10] {
    let wakes = match route.failed_wakes {
        0 => route.wakes.to_string(),
        failed => format!("{}, {failed} failed", route.wakes),
    };
    [
        route.listen.to_string(),
        format!("{}/{}", route.tenant, route.pool),
        route.state.as_str().into(),
        route.connections.to_string(),
        route.queued.to_string(),
        short_bytes(route.rx_bytes),
        short_bytes(route.tx_bytes),
        wakes,
        route.last_wake.as_ref().map_or_else(|| "-".into(), wake),
        route.idle_secs.map_or_else(|| "-".into(), |seconds| duration(Duration::from_secs(seconds))),
    ]
}

/// A wake: `451 ms: queue 1, agent 12, restore 380, ready 58`.
pub fn wake(wake: &WakeStatus) -> String {
    let took = duration(Duration::from_millis(wake.ms));
    if wake.error.is_some() {
        return format!("failed after {took}");
    }
    let steps: Vec<String> = wake.steps.iter().map(|(step, ms)| format!("{step} {ms}")).collect();
    if steps.is_empty() { took } else { format!("{took}: {}", steps.join(", ")) }
}

/// What is wrong, a line each.
fn troubles(status: &Status) -> Vec<String> {
    let mut lines = Vec::new();
    if status.draining {
        lines.push(format!("draining: it ends with the last of {} connections", status.connections));
    }
    if let Some(error) = &status.config_error {
        lines.push(format!("{} is not in force: {}", status.config, brief(error)));
    }
    for node in &status.nodes {
        let state = match node.state {
            NodeState::Connected => continue,
            NodeState::Connecting => "is being connected to",
            NodeState::Down => "does not answer",
            NodeState::Refused => "refuses, or is another",
        };
        let error = node.error.as_deref().map(|error| format!(": {}", brief(error))).unwrap_or_default();
        lines.push(format!("node {} at {} {state}{error}", node.name, node.address));
    }
    for route in &status.routes {
        let wake = route.last_wake.as_ref().and_then(|wake| wake.error.as_ref());
        let wake = wake.map(|error| format!("last wake failed: {}", brief(error)));
        for error in route.error.as_deref().map(brief).into_iter().chain(wake) {
            lines.push(format!("{}: {error}", route.listen));
        }
    }
    lines
}

/// An error on one line.
fn brief(error: &str) -> String {
    error.lines().collect::<Vec<_>>().join("; ")
}

/// What has changed of the routes' states, a line each; everything is news at first.
pub fn changes(before: Option<&Status>, now: &Status) -> Vec<String> {
    let was = |route: &RouteStatus| -> Option<RouteState> {
        before?.routes.iter().find(|old| old.listen == route.listen).map(|old| old.state)
    };
    let changed = now.routes.iter().filter(|route| was(route) != Some(route.state)).map(|route| {
        let words = words(route);
        format!("{} {}/{} {}{words}", route.listen, route.tenant, route.pool, route.state.as_str())
    });
    let old = before.into_iter().flat_map(|before| &before.routes);
    let gone = old.filter(|old| now.routes.iter().all(|route| route.listen != old.listen));
    let gone = gone.map(|route| format!("{} {}/{} gone", route.listen, route.tenant, route.pool));
    changed.chain(gone).map(|line| strip(&line)).collect()
}

/// What belongs to a route's state.
fn words(route: &RouteStatus) -> String {
    let text = match (&route.error, route.state) {
        (Some(error), _) => Some(brief(error)),
        (None, RouteState::Running | RouteState::Idle) => {
            route.last_wake.as_ref().map(|last| format!("last wake {}", wake(last)))
        }
        (None, _) => None,
    };
    text.map(|text| format!(": {text}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::status::sample;

    #[test]
    fn the_table_shows_each_route_and_below_it_what_is_wrong() {
        let mut status = sample::status();
        status.routes[0].idle_secs = Some(125);
        status.config_error = Some("it is not valid\nhelp: mend it".into());
        insta::assert_snapshot!(table(&status).join("\n"));
    }

    #[test]
    fn only_changes_of_a_state_are_told() {
        let before = sample::status();
        let mut now = before.clone();
        now.routes[0].connections = 1000;
        assert_eq!(changes(Some(&before), &now), [""; 0]);
        now.routes[1].state = RouteState::Waking;
        now.routes.remove(2);
        assert_eq!(
            changes(Some(&before), &now),
            ["127.0.0.1:8080 dev/workers waking", "127.0.0.1:9000 dev/api gone"]
        );
        assert_eq!(
            changes(None, &before)[0],
            "127.0.0.1:8443 dev/gateways running: last wake 451 ms: queue 1, agent 12, restore 380, ready 58"
        );
    }
}
