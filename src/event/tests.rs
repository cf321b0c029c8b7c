use super::*;

#[test]
fn ids_given_at_once_differ_and_sort_by_their_order() {
    let ids: Vec<String> = (0..100).map(|_| TaskId::new('t').as_str().to_owned()).collect();
    assert!(ids.is_sorted_by(|a, b| a < b));
}

#[test]
fn an_id_tells_when_it_was_given_and_whether_by_this_process() {
    let id = TaskId::new('b');
    assert_eq!(TaskId::parse(id.as_str()), Some(id.clone()));
    assert!(id.is_own());
    let other = TaskId::parse("r-0019abcdef0-ffff").expect("an id");
    assert_eq!(other.given_ms(), Some(0x19abcdef0));
    assert_eq!(TaskId::machine().given_ms(), None);
    for text in ["", "machine", "é-1-1", "b-1", "b--", "b-xyz-1", "b-1-xyz", "b-99999999999999999-1"] {
        assert_eq!(TaskId::parse(text), None, "{text}");
    }
}

#[test]
fn an_event_is_one_flat_json_object_with_a_version() {
    let (sink, mut stream) = EventSink::new(TaskId::new('t'));
    sink.phase("boot");
    let event = stream.try_next().expect("an event");
    let json = serde_json::to_value(&event).expect("json");
    assert_eq!(json["v"], 1);
    assert_eq!(json["event"], "phase");
    assert_eq!(json["name"], "boot");
    let back: Event = serde_json::from_value(json).expect("parses back");
    assert_eq!(back, event);
}

#[test]
fn routes_of_earlier_recordings_are_read() {
    let route = r#"{ "event": "route_seen", "route": { "listen": "l", "tenant": "t", "pool": "p",
        "state": "sleeping", "connections": 0, "rx_bytes": 0, "tx_bytes": 0, "wake": { "ms": 1, "steps": [] } } }"#;
    assert!(matches!(serde_json::from_str(route), Ok(Kind::RouteSeen { .. })));
    let cluster = r#"{ "event": "cluster_seen", "cluster": { "address": "a", "state": "running", "nodes": [
        { "name": "n", "address": "a", "state": "lost", "tenants": [] } ] } }"#;
    assert!(matches!(serde_json::from_str(cluster), Ok(Kind::ClusterSeen { .. })));
}

#[test]
fn a_cluster_and_its_routes_come_back_from_json_as_they_were() {
    let steps = vec![("restore".into(), 400)];
    let wake = cluster::WakeInfo { ms: 451, steps, ..cluster::WakeInfo::default() };
    let route = RouteInfo { listen: "127.0.0.1:8443".into(), wake: Some(wake), ..RouteInfo::default() };
    let node = cluster::NodeInfo { name: "dev".into(), ..cluster::NodeInfo::default() };
    let cluster = ClusterInfo { state: "running".into(), nodes: vec![node], ..ClusterInfo::default() };
    let (sink, mut stream) = EventSink::new(TaskId::machine());
    sink.send(Kind::ClusterSeen { cluster: Box::new(cluster) });
    sink.send(Kind::RouteSeen { route: Box::new(route) });
    sink.send(Kind::ClusterGone);
    while let Some(event) = stream.try_next() {
        let json = serde_json::to_string(&event).expect("json");
        assert_eq!(serde_json::from_str::<Event>(&json).expect("parses back"), event);
    }
}
