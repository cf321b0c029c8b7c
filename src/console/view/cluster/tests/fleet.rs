//! The fleet of this state on its page.

use jiff::Timestamp;

use crate::console::model::Model;
use crate::console::ui::Ui;
use crate::console::ui::cluster::Part;
use crate::console::ui::page::Page;
use crate::console::view::shot::{NOW, apply, at, draw, text};
use crate::event::cluster::{
    ClusterInfo, CountInfo, InstanceInfo, LeaseInfo, NodeInfo, PoolInfo, QuotaInfo, RevisionInfo,
    SettingInfo, TenantInfo,
};
use crate::event::{Event, Kind, SCHEMA_VERSION, Source, TaskId, TaskKind};

const BUILD: &str = "arqax6pcb4qm3bm5xa7ab4zfndk6g5jz";
const OLDER: &str = "0k2s2k1lyqvj8rbs8rzg1x9zmk2vd3l4";

pub fn tenant(name: &str) -> TenantInfo {
    let quotas = QuotaInfo {
        cpus: 16,
        memory_mib: 8192,
        running: 2,
        warm: 16,
        pools: 16,
        instances: 64,
        disk_gib: 512,
    };
    TenantInfo {
        name: name.into(),
        network: Some("10.240.1.0/24".into()),
        quotas: Some(quotas),
        ..TenantInfo::default()
    }
}

pub fn pool(name: &str, [running, warm, sleeping]: [u32; 3], failure: Option<&str>) -> PoolInfo {
    let settings = SettingInfo {
        flake: "/src/nix/examples/gateway".into(),
        role: Some("gateway".into()),
        cpus: 1,
        memory_mib: 256,
        disk_mib: 1024,
        min_running_secs: 30,
        min_warm_secs: 30,
        drain_secs: 10,
        shutdown_secs: 10,
        pinned: true,
        ..SettingInfo::default()
    };
    let revision = |build: &str, ago| RevisionInfo { build: build.into(), created: at(NOW - ago) };
    PoolInfo {
        name: name.into(),
        desired: running.saturating_add(warm).saturating_add(sleeping),
        counts: Some(CountInfo { running, warm, sleeping }),
        settings: Some(settings),
        revision: Some(BUILD.into()),
        revisions: vec![revision(BUILD, 60), revision(OLDER, 7200)],
        failure: failure.map(Into::into),
        retry: failure.map(|_| at(NOW + 40)),
        held: Some(at(NOW + 12)),
        ..PoolInfo::default()
    }
}

pub fn instance(name: &str, state: &str, created: i64) -> InstanceInfo {
    let failed = state == "failed";
    let why = "the guest was not ready within 120 s\nhelp: `mvm instance logs` shows its console";
    let lease = LeaseInfo { until: at(NOW + 25), from: "sleeping".into() };
    InstanceInfo {
        name: name.into(),
        state: state.into(),
        since: Some(at(NOW - 250)),
        created: Timestamp::from_second(created).ok(),
        revision: Some(if state == "stopped" { OLDER } else { BUILD }.into()),
        cpus: 1,
        memory_mib: 256,
        detail: failed.then(|| why.into()),
        endpoint: (state == "running").then(|| "127.0.0.1:45991".into()),
        address: Some("10.240.1.3".into()),
        vm: Some(format!("v-{name}")),
        doing: None,
        lease: (state == "running").then_some(lease),
        failures: u32::from(failed) * 2,
        retry: failed.then(|| at(NOW + 8)),
        held: None,
    }
}

fn see(model: &mut Model, name: &str, pools: Vec<(PoolInfo, Vec<InstanceInfo>)>) {
    apply(model, Kind::TenantSeen { tenant: Box::new(tenant(name)) });
    for (pool, instances) in pools {
        let names = (name.to_owned(), pool.name.clone());
        apply(model, Kind::PoolSeen { tenant: name.into(), pool: Box::new(pool) });
        for instance in instances {
            let (tenant, pool) = names.clone();
            apply(model, Kind::InstanceSeen { tenant, pool, instance: Box::new(instance) });
        }
    }
}

/// One tenant with a pool of one instance in every state.
fn one() -> Model {
    let mut model = Model::default();
    let states = ["running", "warm", "sleeping", "stopped", "failed"];
    let instances = states.iter().zip(1..);
    let instances = instances.map(|(state, at)| instance(&format!("i-0000000{at}"), state, at)).collect();
    see(&mut model, "dev", vec![(pool("web", [2, 1, 1], None), instances)]);
    let kind =
        Kind::VmState { vm: "v-i-00000001".into(), name: "i-00000001".into(), state: "running".into() };
    let (time, task) = (at(NOW), TaskId::new('f'));
    model.apply(&Event { v: SCHEMA_VERSION, time, task, kind });
    for line in ["booting", "gateway: listening on 8080", "gateway: GET / 200"] {
        let source = Source::Console { vm: "v-i-00000001".into() };
        apply(&mut model, Kind::Log { source, text: line.into() });
    }
    model
}

fn page() -> Ui {
    Ui { page: Page::Cluster, ..Ui::default() }
}

#[test]
fn without_a_fleet_the_page_says_how_to_begin() {
    insta::assert_snapshot!("none_80x24", text(&draw(&Model::default(), &mut page(), false, 80, 24)));
}

#[test]
fn a_tenant_a_pool_and_each_instance_tell_all_about_themselves() {
    let model = one();
    let mut ui = page();
    insta::assert_snapshot!("tenant_80x24", text(&draw(&model, &mut ui, false, 80, 24)));
    ui.cluster.move_by(&model, 1);
    insta::assert_snapshot!("pool_200x50", text(&draw(&model, &mut ui, false, 200, 50)));
    ui.cluster.move_by(&model, 1);
    insta::assert_snapshot!("instance_80x24", text(&draw(&model, &mut ui, false, 80, 24)));
    insta::assert_snapshot!("instance_200x50", text(&draw(&model, &mut ui, false, 200, 50)));
    ui.cluster.select("dev/web/i-00000004");
    insta::assert_snapshot!("stopped_ascii", text(&draw(&model, &mut ui, true, 80, 24)));
    ui.cluster.select("dev/web/i-00000005");
    insta::assert_snapshot!("failed_200x50", text(&draw(&model, &mut ui, false, 200, 50)));
}

#[test]
fn the_fleet_of_this_state_hangs_below_the_node_of_its_cluster() {
    let mut model = one();
    let near = NodeInfo {
        name: "dev".into(),
        address: "127.0.0.1:4433".into(),
        state: "connected".into(),
        here: true,
        ..NodeInfo::default()
    };
    let far = NodeInfo {
        name: "far".into(),
        address: "10.0.0.7:4433".into(),
        state: "down".into(),
        error: Some("connection refused".into()),
        ..NodeInfo::default()
    };
    let cluster = ClusterInfo {
        address: "127.0.0.1".into(),
        state: "serving".into(),
        nodes: vec![near, far],
        pid: Some(4242),
        started: Some(at(NOW - 3700)),
        version: Some("0.1.0".into()),
        config: Some("/s/cluster/coordinator.toml".into()),
        error: Some("unknown key `idel`, line 2".into()),
    };
    apply(&mut model, Kind::ClusterSeen { cluster: Box::new(cluster) });
    let mut ui = page();
    insta::assert_snapshot!("coordinator_80x24", text(&draw(&model, &mut ui, false, 80, 24)));
    ui.cluster.select("@/far");
    insta::assert_snapshot!("node_200x50", text(&draw(&model, &mut ui, false, 200, 50)));
}

#[test]
fn a_pool_that_cannot_be_built_says_why() {
    let mut model = Model::default();
    let why = "the build of mvm-gateway failed: builder exited with 1\nhelp: `mvm log` shows all of it";
    let never = PoolInfo { revision: None, revisions: vec![], ..pool("api", [1, 0, 0], Some(why)) };
    let web = (pool("web", [1, 0, 0], Some(why)), vec![instance("i-00000001", "running", 1)]);
    see(&mut model, "dev", vec![(never, vec![]), web]);
    let mut ui = page();
    ui.cluster.move_by(&model, 1);
    insta::assert_snapshot!("failing_80x24", text(&draw(&model, &mut ui, false, 80, 24)));
    insta::assert_snapshot!("failing_200x50", text(&draw(&model, &mut ui, false, 200, 50)));
}

#[test]
fn of_many_tenants_those_around_the_selected_row_are_shown() {
    let mut model = Model::default();
    for number in 0..100 {
        let name = |at| format!("i-{number:06x}{at:02x}");
        let instances = (0..100).map(|at| instance(&name(at), "sleeping", at)).collect();
        see(&mut model, &format!("tenant-{number:02}"), vec![(pool("web", [0, 0, 100], None), instances)]);
    }
    let mut ui = page();
    assert_eq!(ui.cluster.tree(&model).len(), 100 * 102);
    ui.cluster.move_by(&model, 5000);
    insta::assert_snapshot!("many_80x24", text(&draw(&model, &mut ui, false, 80, 24)));
    ui.cluster.fold_all(&model);
    insta::assert_snapshot!("many_folded_80x24", text(&draw(&model, &mut ui, false, 80, 24)));
}

#[test]
fn what_is_being_done_is_told_where_it_is_done() {
    let mut model = one();
    for title in ["sleep dev/web/i-00000001", "build the pool dev/web"] {
        let kind = Kind::TaskStarted { kind: TaskKind::Fleet, title: title.into() };
        model.apply(&Event { v: SCHEMA_VERSION, time: at(NOW), task: TaskId::new('f'), kind });
    }
    let shown = text(&draw(&model, &mut page(), false, 100, 24));
    let line = |of: &str| shown.lines().find(|line| line.contains(of)).unwrap().to_owned();
    assert!(line("i-00000001").contains("⏵ sleep"), "{shown}");
    let waking = InstanceInfo { doing: Some("waking".into()), ..instance("i-00000003", "sleeping", 3) };
    let (tenant, pool, instance) = ("dev".into(), "web".into(), Box::new(waking));
    apply(&mut model, Kind::InstanceSeen { tenant, pool, instance });
    let woken = text(&draw(&model, &mut page(), false, 100, 24));
    assert!(woken.lines().any(|line| line.contains("i-00000003") && line.contains("⏵ waking")), "{woken}");
    assert!(line(" web ").contains("⏵ build") && !line("i-00000002").contains('⏵'), "{shown}");
}

#[test]
fn a_part_that_has_the_keys_can_fill_the_page() {
    let model = one();
    let mut ui = Ui { zoomed: true, ..page() };
    ui.cluster.select("dev/web/i-00000001");
    for (part, words) in [(Part::Tree, "sleeping"), (Part::Detail, "endpoint"), (Part::Console, "GET / 200")]
    {
        ui.cluster.part = part;
        let shown = text(&draw(&model, &mut ui, false, 80, 24));
        assert_eq!(shown.matches('┌').count(), 1, "{shown}");
        assert!(shown.contains(words), "{shown}");
    }
    // There is no console of a pool: the tree has the keys.
    ui.cluster.select("dev/web");
    assert!(text(&draw(&model, &mut ui, false, 80, 24)).contains("┌ Cluster"));
}
