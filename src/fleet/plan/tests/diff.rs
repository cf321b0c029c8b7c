use serde_json::json;

use super::world::*;
use crate::fleet::plan::actual::{Actual, ActualInstance};
use crate::fleet::plan::plan;
use crate::fleet::policy::Bucket;
use crate::fleet::state::InstanceState::*;

#[test]
fn a_plan_reads_as_a_diff() {
    let pool = |name: &str, flake: &str, counts| json!({ "pool_id": name, "flake_ref": flake, "desired_counts": counts });
    let mut state = desired(json!([
        pool("web", "nix/examples/gateway", json!({ "running": 3, "warm": 1, "sleeping": 1 })),
        pool("workers", "nix/examples/hello", json!({ "running": 1 })),
        pool("broken", "nix/broken", json!({ "running": 2 })),
        pool("held", "f", json!({})),
    ]));
    let mut actual = actual(
        &state,
        vec![
            instance(1, Sleeping),
            instance(2, Warm),
            ActualInstance { retry_at_ms: Some(NOW + 12_300), ..instance(3, Failed) },
        ],
    );
    let tenant = &mut actual.tenants[0];
    tenant.pools[0].pool.desired_counts.running = 1;
    tenant.pools[1].instances = vec![
        ActualInstance { build: "r0".into(), ..instance(0x11, Running) },
        leased(0x12, Running, Bucket::Running, NOW + 1),
        ActualInstance { since_ms: NOW - 1, ..instance(0x13, Running) },
    ];
    tenant.pools[2].build = None;
    tenant.pools[2].build_retry_at_ms = Some(NOW + 80_000);
    tenant.pools[3].held_until_ms = Some(NOW + 600_000);
    let mut old = tenant.pools[0].clone();
    old.pool.pool_id = "old".parse().unwrap();
    tenant.pools.push(old);
    state.prune_unknown_pools = true;
    state.tenants[0].quotas.max_running = 5;
    let planned = plan(&state, &actual, NOW);
    let json = serde_json::to_string_pretty(&planned).unwrap();
    let new = plan(&web(2, 0, 1), &Actual::default(), NOW);
    let nothing =
        plan(&desired(json!([])), &Actual { tenants: vec![recorded(&desired(json!([])).tenants[0])] }, NOW);
    let sleepy = [
        instance(1, Stopped),
        instance(2, Running),
        instance(3, Running),
        leased(4, Running, Bucket::Warm, NOW),
        instance(5, Running),
    ];
    let (less, more) = (web(1, 2, 0), web(2, 0, 1));
    let down = plan(&less, &super::world::actual(&less, sleepy.to_vec()), NOW);
    let old = |number, state| ActualInstance { build: "r0".into(), ..instance(number, state) };
    let rolling =
        [old(1, Running), instance(2, Running), old(3, Sleeping), leased(4, Warm, Bucket::Sleeping, NOW)];
    let roll = plan(&more, &super::world::actual(&more, rolling[..3].to_vec()), NOW);
    let rest = plan(&more, &super::world::actual(&more, rolling[1..].to_vec()), NOW);
    let plans = [planned, new, nothing, down, roll, rest].map(|plan| plan.to_string());
    insta::assert_snapshot!("diff", plans.join("\n\n"));
    insta::assert_snapshot!("json", json);
}
