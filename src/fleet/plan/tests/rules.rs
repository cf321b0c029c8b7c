use serde_json::json;

use super::world::*;
use crate::fleet::plan::action::{Action, ReplaceOrder, Why};
use crate::fleet::plan::actual::{Actual, ActualInstance};
use crate::fleet::plan::plan;
use crate::fleet::policy::{Activity, Bucket};
use crate::fleet::state::InstanceState::*;

/// What is done about the pool `web` that wants so many and has these.
fn done(counts: (u32, u32, u32), instances: Vec<ActualInstance>) -> Vec<String> {
    let desired = web(counts.0, counts.1, counts.2);
    words(&plan(&desired, &actual(&desired, instances), NOW))
}

#[test]
fn from_nothing_everything_is_made_in_one_plan() {
    let plan = plan(&web(2, 1, 1), &Actual::default(), NOW);
    let made = [
        "create_tenant",
        "create_pool",
        "build_pool",
        "create running",
        "create running",
        "create warm",
        "create sleeping",
    ];
    assert_eq!(words(&plan), made);
}

#[test]
fn what_is_as_it_is_wished_is_left_alone() {
    let there = vec![instance(1, Running), instance(2, Warm), instance(3, Sleeping), instance(4, Stopped)];
    assert!(done((1, 1, 1), there).is_empty());
}

#[test]
fn sleeping_ones_wake_before_warm_ones_resume_before_stopped_ones_start_before_new_ones() {
    let there = vec![instance(1, Stopped), instance(2, Warm), instance(3, Sleeping)];
    let expected =
        ["wake i-00000003 running", "resume i-00000002", "start i-00000001 running", "create running"];
    assert_eq!(done((4, 0, 0), there), expected);
}

#[test]
fn surplus_stops_then_is_warmed_then_sleeps() {
    let there = (1..=4).map(|number| instance(number, Running)).collect();
    assert_eq!(done((1, 1, 1), there), ["stop i-00000002", "warm i-00000004", "sleep i-00000003"]);
}

#[test]
fn what_is_idle_longest_goes_first() {
    let active = |number, last_work_ms| {
        let activity = Some(Activity { connections: 0, cpu_permille: 0, last_work_ms });
        ActualInstance { activity, ..instance(number, Running) }
    };
    assert_eq!(done((2, 0, 0), vec![active(1, 10), active(2, 5), active(3, 20)]), ["stop i-00000002"]);
}

#[test]
fn surplus_stays_for_its_least_time() {
    let desired = web(0, 0, 1);
    let young = ActualInstance { since_ms: NOW - 29_000, ..instance(1, Running) };
    let plan = plan(&desired, &actual(&desired, vec![young]), NOW);
    assert!(plan.is_empty(), "nothing is created in its place either: {plan}");
    assert_eq!(plan.blocked[0].why, Why::Young { until_ms: NOW + 1_000 });
}

#[test]
fn a_leased_instance_counts_where_it_came_from() {
    let there = vec![leased(1, Running, Bucket::Sleeping, NOW + 1), instance(2, Running)];
    assert!(done((1, 0, 1), there).is_empty());
}

#[test]
fn a_lapsed_lease_leads_back_by_way_of_warm() {
    let lapsed = |state| vec![leased(1, state, Bucket::Sleeping, NOW)];
    assert_eq!(done((0, 0, 1), lapsed(Running)), ["warm i-00000001"]);
    assert_eq!(done((0, 0, 1), lapsed(Warm)), ["sleep i-00000001"]);
    assert!(done((0, 0, 1), vec![leased(1, Running, Bucket::Running, NOW)]).len() == 1);
}

#[test]
fn a_busy_or_pinned_instance_with_a_lapsed_lease_runs_on() {
    let activity = Some(Activity { connections: 1, cpu_permille: 0, last_work_ms: 0 });
    let busy = ActualInstance { activity, ..leased(1, Running, Bucket::Sleeping, NOW) };
    assert!(done((0, 0, 1), vec![busy]).is_empty());
    let mut desired = web(0, 0, 1);
    desired.tenants[0].pools[0].pinned = true;
    let actual = actual(&desired, vec![leased(1, Running, Bucket::Sleeping, NOW)]);
    assert!(plan(&desired, &actual, NOW).is_empty());
}

#[test]
fn an_instance_whose_lease_lapsed_stays_where_it_is_wanted_now() {
    assert_eq!(done((1, 0, 0), vec![leased(1, Running, Bucket::Sleeping, NOW)]), [""; 0]);
}

#[test]
fn what_a_person_did_is_not_undone_by_a_replacement() {
    let held = |state| ActualInstance { held_until_ms: Some(NOW + 1), ..instance(1, state) };
    for state in [Sleeping, Stopped, Warm] {
        assert!(done((1, 0, 1), vec![held(state), instance(2, Sleeping)]).is_empty(), "{state:?}");
    }
    let over = ActualInstance { held_until_ms: Some(NOW), ..instance(1, Stopped) };
    assert_eq!(done((1, 0, 0), vec![over]), ["start i-00000001 running"]);
}

#[test]
fn a_failed_instance_waits_and_no_other_is_made_meanwhile() {
    let failed = |retry| ActualInstance { retry_at_ms: Some(retry), ..instance(1, Failed) };
    assert!(done((1, 0, 0), vec![failed(NOW + 1)]).is_empty());
    assert_eq!(done((1, 0, 0), vec![failed(NOW)]), ["start i-00000001 running"]);
    assert_eq!(done((1, 0, 1), vec![failed(NOW + 1), instance(2, Sleeping)]), ["wake i-00000002 running"]);
}

#[test]
fn one_old_instance_after_the_other_is_replaced() {
    let old = |number, state| ActualInstance { build: "r0".into(), ..instance(number, state) };
    let there = vec![old(1, Running), old(2, Running), old(3, Sleeping)];
    assert_eq!(done((2, 0, 1), there), ["replace i-00000002 running"]);
    assert_eq!(
        done((1, 0, 1), vec![instance(1, Running), old(3, Sleeping)]),
        ["replace i-00000003 sleeping"]
    );
    // Not while something else is to be done, nor what is in use.
    assert_eq!(done((2, 0, 0), vec![old(1, Running)]), ["create running"]);
    let used = ActualInstance { build: "r0".into(), ..leased(1, Running, Bucket::Running, NOW + 1) };
    assert!(done((1, 0, 0), vec![used]).is_empty());
    // A stopped one has nothing to lose.
    assert_eq!(done((1, 0, 0), vec![old(1, Stopped)]), ["create running", "destroy i-00000001"]);
}

#[test]
fn without_room_for_both_only_what_does_not_run_goes_before_its_successor() {
    let old = |state| ActualInstance { build: "r0".into(), ..instance(1, state) };
    let planned = |(running, sleeping), state| {
        let mut desired = web(running, 0, sleeping);
        desired.tenants[0].quotas.max_instances_per_pool = 1;
        plan(&desired, &actual(&desired, vec![old(state)]), NOW)
    };
    let running = planned((1, 0), Running);
    assert!(running.is_empty() && matches!(running.blocked[0].why, Why::Quota { .. }), "{running}");
    let sleeping = planned((0, 1), Sleeping);
    assert!(
        matches!(sleeping.actions[..], [Action::Replace { order: ReplaceOrder::OldFirst, .. }]),
        "{sleeping}"
    );
}

#[test]
fn other_resources_replace_an_instance() {
    let mut desired = web(1, 0, 0);
    let actual = actual(&desired, vec![instance(1, Running)]);
    desired.tenants[0].pools[0].instance_resources.mem_mib = 512;
    assert_eq!(words(&plan(&desired, &actual, NOW)), ["update_pool", "replace i-00000001 running"]);
}

#[test]
fn a_flake_that_does_not_build_holds_neither_its_pool_nor_others() {
    let pool =
        |name, flake| json!({ "pool_id": name, "flake_ref": flake, "desired_counts": { "running": 1 } });
    let desired = desired(json!([pool("a", "broken"), pool("b", "f"), pool("c", "broken")]));
    let mut actual = actual(&desired, vec![]);
    actual.tenants[0].pools[0].build = None;
    actual.tenants[0].pools[2].build.as_mut().unwrap().source.flake_ref = "before".into();
    for pool in [0, 2] {
        actual.tenants[0].pools[pool].build_retry_at_ms = Some(NOW + 5_000);
    }
    let plan = plan(&desired, &actual, NOW);
    // `c` goes on with the revision it has.
    assert_eq!(words(&plan), ["create running", "create running"]);
    assert_eq!(plan.blocked.len(), 2);
}

#[test]
fn a_critical_pool_gets_what_is_left_of_a_quota() {
    let pool = |name, critical| json!({ "pool_id": name, "flake_ref": "f", "critical": critical, "desired_counts": { "running": 2 } });
    let mut desired = desired(json!([pool("a", false), pool("b", true)]));
    desired.tenants[0].quotas.max_running = 3;
    let plan = plan(&desired, &actual(&desired, vec![]), NOW);
    let pools: Vec<String> = plan
        .actions
        .iter()
        .map(|action| match action {
            Action::Create { path, .. } => path.to_string(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(pools, ["dev/b", "dev/b", "dev/a"]);
    assert_eq!(plan.blocked[0].path, "dev/a");
}

#[test]
fn unknown_tenants_and_pools_go_only_when_asked() {
    let full = desired(json!([{ "pool_id": "a", "flake_ref": "f" }, { "pool_id": "b", "flake_ref": "f" }]));
    let mut actual = actual(&full, vec![instance(1, Running)]);
    let mut other = actual.tenants[0].clone();
    (other.tenant_id, other.network.tenant_net_id) = ("other".parse().unwrap(), 2);
    other.network.ipv4_subnet.base = [10, 240, 2, 0].into();
    actual.tenants.push(other);
    let mut desired = full.clone();
    desired.tenants[0].pools.remove(0);
    assert!(plan(&desired, &actual, NOW).is_empty());
    (desired.prune_unknown_tenants, desired.prune_unknown_pools) = (true, true);
    assert_eq!(words(&plan(&desired, &actual, NOW)), ["remove_tenant", "remove_pool"]);
    actual.tenants[0].pools[0].instances = vec![leased(1, Running, Bucket::Sleeping, NOW + 1)];
    let busy = plan(&desired, &actual, NOW);
    assert_eq!(words(&busy), ["remove_tenant"]);
    assert_eq!(busy.blocked[0].why, Why::Leased { until_ms: NOW + 1 });
}

#[test]
fn a_network_is_one_tenants_at_a_time() {
    let state = web(1, 0, 0);
    let mut actual = actual(&state, vec![]);
    actual.tenants[0].tenant_id = "old".parse().unwrap();
    let mut state = state.clone();
    state.prune_unknown_tenants = true;
    let plan_now = plan(&state, &actual, NOW);
    assert_eq!(words(&plan_now), ["remove_tenant"]);
    assert!(matches!(&plan_now.blocked[0].why, Why::NetworkTaken { by } if by.as_str() == "old"));
    actual.tenants.clear();
    assert_eq!(words(&plan(&state, &actual, NOW))[0], "create_tenant");
}

#[test]
fn a_held_pool_is_left_alone() {
    let mut desired = web(3, 0, 0);
    let mut actual = actual(&desired, vec![instance(1, Failed)]);
    desired.tenants[0].pools[0].flake_ref = "g".into();
    actual.tenants[0].pools[0].held_until_ms = Some(NOW + 1);
    let plan = plan(&desired, &actual, NOW);
    assert!(plan.is_empty() && plan.blocked[0].why.until_ms() == Some(NOW + 1));
}

#[test]
fn stopped_instances_make_way_where_there_is_no_room() {
    let pool = |name, running| json!({ "pool_id": name, "flake_ref": "f", "desired_counts": { "running": running } });
    let mut desired = desired(json!([pool("a", 0), pool("b", 2)]));
    desired.tenants[0].network.ipv4_subnet.prefix = 29;
    let stopped = |number| ActualInstance { since_ms: number as i64, ..instance(number, Stopped) };
    let actual = actual(&desired, (1..=4).map(stopped).collect());
    let plan = plan(&desired, &actual, NOW);
    assert_eq!(words(&plan), ["destroy i-00000001", "destroy i-00000002"]);
}

#[test]
fn what_was_about_to_be_forgotten_is_forgotten() {
    assert_eq!(done((0, 0, 0), vec![instance(1, Destroyed)]), ["destroy i-00000001"]);
}

#[test]
fn no_room_in_the_quota_of_pools_is_told() {
    let mut desired =
        desired(json!([{ "pool_id": "a", "flake_ref": "f" }, { "pool_id": "b", "flake_ref": "f" }]));
    let mut actual = actual(&desired, vec![]);
    actual.tenants[0].pools.truncate(1);
    let manual = actual.tenants[0].pools[0].clone();
    actual.tenants[0].pools.push(manual);
    actual.tenants[0].pools[1].pool.pool_id = "manual".parse().unwrap();
    desired.tenants[0].quotas.max_pools = 2;
    let plan = plan(&desired, &actual, NOW);
    assert!(matches!(plan.blocked[0].why, Why::Quota { quota: "max_pools", .. }), "{plan}");
}
