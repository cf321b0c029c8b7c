//! The coordinator of this state, followed over its socket.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Trouble;
use crate::coordinator::admin::client::{self, ClientError};
use crate::coordinator::status::{InstanceStatus, NodeState, NodeStatus, RouteStatus, Status, WakeStatus};
use crate::event::cluster::{BackendInfo, ClusterInfo, NodeInfo, RouteInfo, WakeInfo};
use crate::event::{EventSink, Kind};

/// Pause between two tries to find a coordinator.
const AGAIN: Duration = Duration::from_secs(1);

/// Tells `sink` of the coordinator and its routes whenever they change, until `cancel` fires.
pub async fn follow(socket: PathBuf, sink: EventSink, cancel: CancellationToken) {
    let mut trouble = Trouble::default();
    let following = async {
        loop {
            let mut known = Known::default();
            let followed = match listen(&socket, &mut known, &sink).await {
                // Most machines have none, most of the time.
                Err(ClientError::Absent(_)) => Ok(()),
                // It ended in the midst of a line, or this process was halted for long.
                Err(ClientError::Lost(_)) if known.cluster.is_some() => Ok(()),
                followed => followed,
            };
            if known.cluster.is_some() {
                sink.send(Kind::ClusterGone);
            }
            trouble.told("the coordinator cannot be followed", followed);
            tokio::time::sleep(AGAIN).await;
        }
    };
    tokio::select! {
        () = cancel.cancelled() => {}
        () = following => {}
    }
}

/// Tells of everything until the coordinator ends.
async fn listen(socket: &std::path::Path, known: &mut Known, sink: &EventSink) -> Result<(), ClientError> {
    let mut watch = client::watch(socket).await?;
    while let Some(status) = watch.next().await? {
        known.tell(&status, sink);
    }
    Ok(())
}

/// What was told last.
#[derive(Debug, Default)]
struct Known {
    cluster: Option<ClusterInfo>,
    routes: HashMap<String, RouteInfo>,
}

impl Known {
    fn tell(&mut self, status: &Status, sink: &EventSink) {
        let cluster = of_cluster(status);
        if self.cluster.as_ref() != Some(&cluster) {
            sink.send(Kind::ClusterSeen { cluster: Box::new(cluster.clone()) });
            self.cluster = Some(cluster);
        }
        let routes: HashMap<String, RouteInfo> =
            status.routes.iter().map(of_route).map(|route| (route.listen.clone(), route)).collect();
        for listen in self.routes.keys().filter(|listen| !routes.contains_key(*listen)) {
            sink.send(Kind::RouteGone { listen: listen.clone() });
        }
        for (listen, route) in &routes {
            if self.routes.get(listen) != Some(route) {
                sink.send(Kind::RouteSeen { route: Box::new(route.clone()) });
            }
        }
        self.routes = routes;
    }
}

fn of_cluster(status: &Status) -> ClusterInfo {
    let mut addresses: Vec<String> =
        status.routes.iter().map(|route| route.listen.ip().to_string()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    // With several on loopback, nothing tells which of them has this state.
    let mut near = status.nodes.iter().filter(|node| node.address.ip().is_loopback());
    let here = near.next().filter(|_| near.next().is_none()).map(|node| &node.name);
    ClusterInfo {
        address: addresses.join(" "),
        state: if status.draining { "draining" } else { "serving" }.into(),
        nodes: status.nodes.iter().map(|node| of_node(node, here == Some(&node.name))).collect(),
        pid: Some(status.pid),
        started: Some(status.started),
        version: Some(status.version.clone()),
        config: Some(status.config.clone()),
        error: status.config_error.clone(),
    }
}

fn of_node(node: &NodeStatus, here: bool) -> NodeInfo {
    let state = match node.state {
        NodeState::Connecting => "connecting",
        NodeState::Connected => "connected",
        NodeState::Down => "down",
        NodeState::Refused => "refused",
    };
    NodeInfo {
        name: node.name.to_string(),
        address: node.address.to_string(),
        state: state.into(),
        // Of others, no more than what routes tell is known.
        tenants: Vec::new(),
        here,
        error: node.error.clone(),
    }
}

fn of_route(route: &RouteStatus) -> RouteInfo {
    RouteInfo {
        listen: route.listen.to_string(),
        tenant: route.tenant.to_string(),
        pool: route.pool.to_string(),
        node: route.node.to_string(),
        state: route.state.as_str().into(),
        connections: route.connections,
        queued: route.queued,
        accepted: route.accepted,
        refused: route.refused,
        rx_bytes: route.rx_bytes,
        tx_bytes: route.tx_bytes,
        wakes: route.wakes,
        failed_wakes: route.failed_wakes,
        wake: route.last_wake.as_ref().map(of_wake),
        idle_secs: route.idle_secs,
        instances: route.instances.iter().map(of_instance).collect(),
        error: route.error.clone(),
    }
}

fn of_wake(wake: &WakeStatus) -> WakeInfo {
    WakeInfo {
        ms: wake.ms,
        steps: wake.steps.clone(),
        at: Some(wake.at),
        instance: wake.instance.as_ref().map(|path| path.instance.to_string()),
        waiters: wake.waiters,
        error: wake.error.clone(),
    }
}

fn of_instance(instance: &InstanceStatus) -> BackendInfo {
    BackendInfo {
        name: instance.path.instance.to_string(),
        state: instance.state.clone(),
        endpoint: instance.endpoint.map(|endpoint| endpoint.to_string()),
        connections: instance.connections,
        leased: instance.leased,
        healthy: instance.healthy,
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::coordinator::admin;
    use crate::coordinator::control::Order;
    use crate::coordinator::metrics::Metrics;
    use crate::coordinator::status::{RouteState, sample};
    use crate::event::TaskId;

    fn told(known: &mut Known, status: &Status) -> Vec<String> {
        let (sink, mut events) = EventSink::new(TaskId::machine());
        known.tell(status, &sink);
        let mut told: Vec<String> = std::iter::from_fn(|| events.try_next())
            .map(|event| match event.kind {
                Kind::ClusterSeen { cluster } => format!("cluster {}", cluster.state),
                Kind::RouteSeen { route } => format!("{} {}", route.listen, route.state),
                Kind::RouteGone { listen } => format!("{listen} gone"),
                other => panic!("{other:?}"),
            })
            .collect();
        told.sort();
        told
    }

    #[test]
    fn only_what_has_changed_is_told() {
        let (mut known, mut status) = (Known::default(), sample::status());
        let all = ["127.0.0.1:8080 sleeping", "127.0.0.1:8443 running", "127.0.0.1:9000 unreachable"];
        assert_eq!(told(&mut known, &status), [&all[..], &["cluster serving"]].concat());
        assert_eq!(told(&mut known, &status), [""; 0]);
        status.routes[1].state = RouteState::Waking;
        status.routes.remove(2);
        assert_eq!(told(&mut known, &status), ["127.0.0.1:8080 waking", "127.0.0.1:9000 gone"]);
        status.draining = true;
        assert_eq!(told(&mut known, &status), ["cluster draining"]);
    }

    #[test]
    fn the_only_node_on_loopback_is_this_machine() {
        let mut status = sample::status();
        let here = |status: &Status| -> Vec<bool> {
            of_cluster(status).nodes.iter().map(|node| node.here).collect()
        };
        assert_eq!(here(&status), [false, false]);
        status.nodes[0].address = "10.0.0.7:4433".parse().unwrap();
        assert_eq!(here(&status), [false, true]);
    }

    #[tokio::test]
    async fn a_coordinator_is_found_whenever_there_is_one_and_gone_when_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("c.sock");
        let (sink, mut events) = EventSink::new(TaskId::machine());
        let cancel = CancellationToken::new();
        let following = tokio::spawn(follow(socket.clone(), sink, cancel.clone()));
        let (orders, mut asked) = mpsc::channel::<Order>(1);
        tokio::spawn(async move {
            while let Some(order) = asked.recv().await {
                if let Order::Status(reply) = order {
                    let _ = reply.send(sample::status());
                }
            }
        });
        for _ in 0..2 {
            let stop = CancellationToken::new();
            let listener = admin::listen(&socket).unwrap();
            let server =
                tokio::spawn(admin::serve(listener, orders.clone(), Metrics::default(), stop.clone()));
            let mut routes = 0;
            while routes < 3 {
                let event = events.next().await.unwrap();
                routes += usize::from(matches!(event.kind, Kind::RouteSeen { .. }));
            }
            stop.cancel();
            server.await.unwrap();
            assert_eq!(events.next().await.unwrap().kind, Kind::ClusterGone);
        }
        cancel.cancel();
        following.await.unwrap();
    }
}
