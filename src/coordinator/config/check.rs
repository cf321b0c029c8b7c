//! What no parser sees: names that lead nowhere, two routes on one listener, times that cannot be.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::{Config, Route};
use crate::event::fault::{Fault, shown};

impl Config {
    /// All that is wrong with it.
    pub(super) fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut fault = |path: String, what: String, help: &str| {
            faults.push(Fault { path, what, help: help.into() });
        };
        let settings = &self.coordinator;
        for (key, time) in [
            ("idle_timeout_secs", settings.idle_timeout),
            ("wake_timeout_secs", settings.wake_timeout),
            ("health_interval_secs", settings.health_interval),
        ] {
            if time == Duration::ZERO {
                fault(format!("coordinator.{key}"), "it is 0".into(), "write at least 1");
            }
        }
        for (key, count) in [
            ("max_connections_per_tenant", settings.max_connections_per_tenant),
            ("max_queued_per_route", settings.max_queued_per_route),
        ] {
            if count == 0 {
                fault(
                    format!("coordinator.{key}"),
                    "it is 0, so that no connection would ever be taken".into(),
                    "write at least 1",
                );
            }
        }
        if let Some(metrics) = settings.metrics.filter(|address| !address.ip().is_loopback()) {
            fault(
                "coordinator.metrics".into(),
                format!("{metrics} is not on loopback: whoever reaches it could read them"),
                "give an address such as 127.0.0.1:9434",
            );
        }
        let mut nodes = HashSet::new();
        for (index, node) in self.nodes.iter().enumerate() {
            let path = format!("nodes[{index}]");
            if !nodes.insert(&node.name) {
                fault(
                    format!("{path}.name"),
                    format!("there is another node `{}`", node.name),
                    "give each its own name",
                );
            }
            if node.address.port() == 0 || node.address.ip().is_unspecified() {
                fault(
                    format!("{path}.address"),
                    format!("nobody can be reached at {}", node.address),
                    "write the address that its agent listens on",
                );
            }
        }
        let mut listens: HashMap<_, usize> = HashMap::new();
        for (index, route) in self.routes.iter().enumerate() {
            let path = format!("routes[{index}]");
            if !nodes.contains(&route.node) {
                let known: Vec<&str> = self.nodes.iter().map(|node| node.name.as_str()).collect();
                let help = match known.as_slice() {
                    [] => "add it as [[nodes]] with name and address".into(),
                    known => format!("known are `{}`", known.join("`, `")),
                };
                fault(format!("{path}.node"), format!("there is no node `{}`", route.node), &help);
            }
            if let Some(other) = listens.insert(route.listen, index) {
                fault(
                    format!("{path}.listen"),
                    format!("routes[{other}] listens on {} already", route.listen),
                    "give each route a listener of its own",
                );
            }
            if Some(route.listen) == settings.metrics {
                fault(
                    format!("{path}.listen"),
                    format!("{} is where metrics are told", route.listen),
                    "give the route another port",
                );
            }
            for (what, help) in route.faults() {
                fault(path.clone(), what, help);
            }
        }
        faults
    }
}

impl Route {
    fn faults(&self) -> Vec<(String, &'static str)> {
        let mut faults = Vec::new();
        if self.listen.port() == 0 {
            faults.push(("listen has port 0, which clients could not know".into(), "write the port"));
        }
        if self.idle_timeout == Some(Duration::ZERO) {
            faults.push(("idle_timeout_secs is 0".into(), "write at least 1"));
        }
        if self.max_connections_per_instance == Some(0) {
            let what = "max_connections_per_instance is 0, so that no connection would ever be taken";
            faults.push((what.into(), "write at least 1, or leave it out for no limit"));
        }
        let is_path = |path: &String| path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic());
        if let Some(path) = self.health_path.as_ref().filter(|path| !is_path(path)) {
            let what = format!("health_path `{}` is no path", shown(path));
            faults.push((what, "write one such as \"/healthz\""));
        }
        faults
    }
}
