mod fleet;

use proptest::prelude::*;

use crate::console::model::Model;
use crate::console::ui::Ui;
use crate::console::ui::page::Page;
use crate::console::view::shot::{apply, draw, text};
use crate::event::Kind;
use crate::event::cluster::{ClusterInfo, InstanceInfo, NodeInfo, PoolInfo, RouteInfo, TenantInfo, WakeInfo};

fn instance(name: &str, state: &str) -> InstanceInfo {
    InstanceInfo { name: name.into(), state: state.into(), ..InstanceInfo::default() }
}

fn pool(name: &str, desired: u32, instances: Vec<InstanceInfo>) -> PoolInfo {
    let actual = instances.iter().filter(|one| one.state == "running").count() as u32;
    PoolInfo { name: name.into(), desired, actual, instances, ..PoolInfo::default() }
}

fn node(name: &str, state: &str, pools: Vec<PoolInfo>) -> NodeInfo {
    let tenants = vec![TenantInfo { name: "dev".into(), pools, ..TenantInfo::default() }];
    let address = "127.0.0.1:4433".into();
    NodeInfo { name: name.into(), address, state: state.into(), tenants, ..NodeInfo::default() }
}

fn route(listen: &str, state: &str, wake: Option<WakeInfo>) -> RouteInfo {
    RouteInfo {
        listen: listen.into(),
        tenant: "dev".into(),
        pool: "gateways".into(),
        state: state.into(),
        connections: 3,
        rx_bytes: 1229,
        tx_bytes: 82 << 20,
        wake,
        idle_secs: Some(125),
        ..RouteInfo::default()
    }
}

/// Two nodes, two routes.
fn cluster() -> Model {
    let gateways =
        pool("gateways", 2, vec![instance("gateways-1", "running"), instance("gateways-2", "sleeping")]);
    let nodes = vec![
        node("one", "connected", vec![gateways, pool("web", 1, vec![instance("web-1", "running")])]),
        node("two", "lost", vec![]),
    ];
    let (address, state) = ("127.0.0.1:7000".into(), "running".into());
    let info = ClusterInfo { address, state, nodes, ..ClusterInfo::default() };
    let mut model = Model::default();
    apply(&mut model, Kind::ClusterSeen { cluster: Box::new(info) });
    let steps = [("connect", 2), ("restore", 400), ("ready", 49)].map(|(step, ms)| (step.into(), ms));
    let wake = WakeInfo { ms: 451, steps: steps.to_vec(), ..WakeInfo::default() };
    for route in [route("127.0.0.1:8443", "sleeping", Some(wake)), route("127.0.0.1:8080", "open", None)] {
        apply(&mut model, Kind::RouteSeen { route: Box::new(route) });
    }
    model
}

#[test]
fn the_tree_of_two_nodes_can_be_folded() {
    let model = cluster();
    let mut ui = Ui { page: Page::Cluster, ..Ui::default() };
    insta::assert_snapshot!("tree_80x24", text(&draw(&model, &mut ui, false, 80, 24)));
    insta::assert_snapshot!("tree_ascii", text(&draw(&model, &mut ui, true, 60, 16)));
    ui.cluster.move_by(&model, 3);
    ui.cluster.fold(&model);
    insta::assert_snapshot!("tree_folded", text(&draw(&model, &mut ui, false, 80, 14)));
}

#[test]
fn the_overview_gives_a_cluster_its_room() {
    let mut ui = Ui { page: Page::Overview, ..Ui::default() };
    insta::assert_snapshot!("overview_120x40", text(&draw(&cluster(), &mut ui, false, 120, 40)));
    insta::assert_snapshot!("overview_80x24", text(&draw(&cluster(), &mut ui, false, 80, 24)));
}

#[test]
fn without_a_cluster_the_routes_say_so() {
    let mut ui = Ui { page: Page::Routes, ..Ui::default() };
    let shown = text(&draw(&Model::default(), &mut ui, false, 80, 24));
    assert!(shown.contains("No cluster: "), "{shown}");
}

fn event() -> impl Strategy<Value = Kind> {
    (".*", any::<u64>(), 0..9u8).prop_map(|(text, value, sort)| match sort {
        4 => Kind::FleetGone { path: text },
        5 => Kind::TenantSeen { tenant: Box::new(fleet::tenant(&text)) },
        6 => {
            let pool = fleet::pool(&text, [value as u32, 1, 0], Some(&text));
            Kind::PoolSeen { tenant: text, pool: Box::new(pool) }
        }
        7 => {
            let instance = fleet::instance(&text, ["running", "failed", &text][value as usize % 3], 1);
            Kind::InstanceSeen { tenant: text.clone(), pool: text, instance: Box::new(instance) }
        }
        0 | 1 => {
            let instances = vec![instance(&text, &text); (value % 5) as usize];
            let nodes = vec![node(&text, &text, vec![pool(&text, value as u32, instances)]); 2];
            let more = ClusterInfo { error: Some(text.clone()), ..ClusterInfo::default() };
            let cluster = ClusterInfo { address: text.clone(), state: text, nodes, ..more };
            Kind::ClusterSeen { cluster: Box::new(cluster) }
        }
        2 => {
            let steps = vec![(text.clone(), value >> 8)];
            let wake = Some(WakeInfo { ms: value, steps, ..WakeInfo::default() });
            let (rx_bytes, idle_secs) = (value, Some(value));
            let route = RouteInfo { rx_bytes, idle_secs, ..route(&text, &text, wake) };
            Kind::RouteSeen { route: Box::new(route) }
        }
        3 => Kind::RouteGone { listen: text },
        _ => Kind::ClusterGone,
    })
}

proptest! {
    #[test]
    fn no_events_and_no_size_disturb_the_screen(
        events in proptest::collection::vec(event(), 0..20),
        width in 1u16..220, height in 3u16..60, moves in -9isize..9,
    ) {
        let mut model = Model::default();
        let mut ui = Ui::default();
        for event in events {
            apply(&mut model, event);
            ui.cluster.move_by(&model, moves);
            if moves % 2 == 0 {
                ui.cluster.fold(&model);
            }
            ui.routes.move_by(&model, moves);
        }
        for page in [Page::Cluster, Page::Routes, Page::Overview] {
            ui.page = page;
            let buffer = draw(&model, &mut ui, false, width, height);
            prop_assert!(!text(&buffer).chars().any(|c| c.is_control() && c != '\n'));
        }
    }
}
