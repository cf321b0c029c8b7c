//! For tests: how a coordinator with three routes may stand.

use serde_json::json;

use super::Status;

/// One route that runs, one that sleeps, one whose node is down.
pub(crate) fn status() -> Status {
    let began = "2026-11-28T12:00:00Z";
    let instances = json!([
        { "path": "dev/gateways/i-00000001", "state": "running", "endpoint": "127.0.0.1:40001",
          "connections": 2, "leased": true, "healthy": true },
        { "path": "dev/gateways/i-00000002", "state": "sleeping", "connections": 0, "leased": false },
    ]);
    let wake = json!({ "at": began, "instance": "dev/gateways/i-00000001", "ms": 451, "waiters": 2,
        "steps": [["queue", 1], ["agent", 12], ["restore", 380], ["ready", 58]] });
    let failed = json!({ "at": began, "ms": 60000, "waiters": 1, "steps": [["queue", 60000]],
        "error": "the agent does not answer" });
    let nodes = json!([
        { "name": "one", "address": "127.0.0.1:4433", "state": "connected" },
        { "name": "two", "address": "127.0.0.1:4434", "state": "down", "error": "connection refused" },
    ]);
    let routes = json!([
        { "listen": "127.0.0.1:8443", "tenant": "dev", "pool": "gateways", "node": "one", "state": "running",
          "connections": 3, "queued": 1, "accepted": 10, "refused": 2, "rx_bytes": 1229,
          "tx_bytes": 85983232u64, "wakes": 5, "failed_wakes": 1, "last_wake": wake, "instances": instances },
        route("127.0.0.1:8080", "workers", "sleeping"),
        { "listen": "127.0.0.1:9000", "tenant": "dev", "pool": "api", "node": "two", "state": "unreachable",
          "connections": 0, "queued": 0, "accepted": 1, "refused": 1, "rx_bytes": 0, "tx_bytes": 0,
          "wakes": 1, "failed_wakes": 1, "last_wake": failed, "instances": [],
          "error": "the agent of `two` does not answer: connection refused" },
    ]);
    let status = json!({ "v": 1, "version": "0.1.0", "pid": 4242, "started": began,
        "config": "/s/cluster/coordinator.toml", "draining": false, "connections": 3, "nodes": nodes,
        "routes": routes });
    serde_json::from_value(status).unwrap()
}

fn route(listen: &str, pool: &str, state: &str) -> serde_json::Value {
    json!({ "listen": listen, "tenant": "dev", "pool": pool, "node": "one", "state": state,
        "connections": 0, "queued": 0, "accepted": 0, "refused": 0, "rx_bytes": 0, "tx_bytes": 0,
        "wakes": 0, "failed_wakes": 0, "instances": [] })
}
