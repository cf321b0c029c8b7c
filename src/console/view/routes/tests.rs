use crate::console::model::Model;
use crate::console::ui::Ui;
use crate::console::ui::page::Page;
use crate::console::view::shot::{NOW, apply, at, draw, text};
use crate::event::Kind;
use crate::event::cluster::{BackendInfo, RouteInfo, WakeInfo};

fn route(listen: &str, pool: &str, state: &str) -> RouteInfo {
    let names = [listen, "dev", pool, state, "one"].map(String::from);
    let [listen, tenant, pool, state, node] = names;
    RouteInfo { listen, tenant, pool, state, node, ..RouteInfo::default() }
}

fn backend(name: &str, state: &str, connections: u64) -> BackendInfo {
    let runs = state == "running";
    BackendInfo {
        name: name.into(),
        state: state.into(),
        endpoint: runs.then(|| "127.0.0.1:40001".into()),
        connections,
        leased: runs,
        healthy: runs.then_some(true),
    }
}

fn wake() -> WakeInfo {
    let steps = [("queue", 1), ("agent", 12), ("restore", 380), ("ready", 58)];
    WakeInfo {
        ms: 451,
        steps: steps.map(|(step, ms)| (step.into(), ms)).to_vec(),
        at: Some(at(NOW - 190)),
        instance: Some("i-00000001".into()),
        waiters: 2,
        error: None,
    }
}

/// A route at each place of the way, and one that fails.
fn model() -> Model {
    let busy = RouteInfo {
        connections: 3,
        accepted: 10,
        refused: 2,
        rx_bytes: 1229,
        tx_bytes: 82 << 20,
        wakes: 5,
        failed_wakes: 1,
        wake: Some(wake()),
        instances: vec![backend("i-00000001", "running", 2), backend("i-00000002", "sleeping", 0)],
        ..route("127.0.0.1:8443", "gateways", "running")
    };
    let idle = RouteInfo {
        listen: "127.0.0.1:8444".into(),
        pool: "web".into(),
        state: "idle".into(),
        connections: 0,
        idle_secs: Some(125),
        instances: vec![backend("i-00000003", "running", 0)],
        ..busy.clone()
    };
    let waking =
        RouteInfo { connections: 7, queued: 7, accepted: 7, ..route("127.0.0.1:8445", "workers", "waking") };
    let error = "the agent of `two` does not answer: connection refused".to_owned();
    let failed = WakeInfo {
        ms: 60_000,
        steps: vec![("queue".into(), 60_000)],
        at: Some(at(NOW - 3)),
        error: Some(error.clone()),
        ..WakeInfo::default()
    };
    let failing = RouteInfo {
        wakes: 1,
        failed_wakes: 1,
        node: "two".into(),
        accepted: 1,
        refused: 1,
        wake: Some(failed),
        error: Some(error),
        ..route("127.0.0.1:9000", "api", "unreachable")
    };
    let mut model = Model::default();
    for route in [busy, idle, waking, failing, route("127.0.0.1:8080", "docs", "sleeping")] {
        apply(&mut model, Kind::RouteSeen { route: Box::new(route) });
    }
    model
}

#[test]
fn the_way_of_a_request_is_shown_at_every_place_of_it() {
    let model = model();
    let mut ui = Ui { page: Page::Routes, ..Ui::default() };
    for name in ["sleeping", "running", "idle", "waking", "failing"] {
        insta::assert_snapshot!(format!("{name}_80x24"), text(&draw(&model, &mut ui, false, 80, 24)));
        insta::assert_snapshot!(format!("{name}_200x50"), text(&draw(&model, &mut ui, false, 200, 50)));
        ui.routes.move_by(&model, 1);
    }
    ui.routes.select("127.0.0.1:8443");
    insta::assert_snapshot!("running_ascii", text(&draw(&model, &mut ui, true, 80, 24)));
}

#[test]
fn of_many_routes_those_around_the_selected_one_are_shown() {
    let mut model = Model::default();
    for port in 8000..8100 {
        let route = route(&format!("127.0.0.1:{port}"), "web", "sleeping");
        apply(&mut model, Kind::RouteSeen { route: Box::new(route) });
    }
    let mut ui = Ui { page: Page::Routes, ..Ui::default() };
    ui.routes.select("127.0.0.1:8050");
    let shown = text(&draw(&model, &mut ui, false, 80, 24));
    assert!(
        shown.contains("│127.0.0.1:8050") && shown.contains("┌ 127.0.0.1:8050 to dev/web on one"),
        "{shown}"
    );
}
