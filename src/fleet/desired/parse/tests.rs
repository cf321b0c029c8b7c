use proptest::prelude::*;
use serde_json::{Value, json};

use crate::fleet::desired::DesiredState;

fn good() -> Value {
    json!({
        "schema_version": 1,
        "node_id": "laptop",
        "tenants": [
            {
                "tenant_id": "dev",
                "network": { "tenant_net_id": 1, "ipv4_subnet": "10.240.1.0/24" },
                "quotas": { "max_running": 4 },
                "pools": [
                    { "pool_id": "gateways", "flake_ref": "nix/examples/gateway",
                      "desired_counts": { "running": 1, "sleeping": 1 } },
                    { "pool_id": "workers", "flake_ref": "nix/examples/hello", "critical": true,
                      "desired_counts": { "running": 1, "warm": 1 } }
                ]
            },
            { "tenant_id": "test", "network": { "tenant_net_id": 2, "ipv4_subnet": "10.240.2.0/24" } }
        ],
        "prune_unknown_pools": true
    })
}

fn put(state: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    match state.pointer_mut(parent) {
        Some(Value::Object(object)) => drop(object.insert(key.into(), value)),
        Some(Value::Array(array)) => array[key.parse::<usize>().unwrap()] = value,
        _ => {}
    }
}

/// What is said of the good state with `value` at `pointer`.
fn said(pointer: &str, value: Value) -> String {
    let mut state = good();
    put(&mut state, pointer, value);
    let text = serde_json::to_string_pretty(&state).unwrap();
    DesiredState::parse(&text).unwrap_err().to_string()
}

#[test]
fn a_good_state_is_read_with_its_defaults() {
    let state = DesiredState::parse(&good().to_string()).unwrap();
    assert_eq!(state.tenants[0].quotas.max_running, 4);
    assert_eq!(state.tenants[0].quotas.max_vcpus, 16);
    assert_eq!(state.tenants[0].pools[1].runtime_policy.min_running_seconds, 30);
    assert!(state.prune_unknown_pools && !state.prune_unknown_tenants);
}

#[test]
fn what_is_not_of_the_schema_is_told_with_its_place() {
    let pool = "/tenants/0/pools/0";
    let counts = format!("{pool}/desired_counts");
    let texts = [
        said("/tenants/0/pols", json!([])),
        said("/frobnicate", json!(1)),
        said(&format!("{counts}/runing"), json!(1)),
        said(&format!("{counts}/running"), json!(-1)),
        said(&format!("{counts}/running"), json!(99_999_999_999u64)),
        said(&format!("{counts}/running"), json!(1.5)),
        said(&format!("{counts}/running"), json!("two")),
        said("/tenants/1/tenant_id", json!("../x")),
        said("/tenants/1/tenant_id", json!("x".repeat(64))),
        said(&format!("{pool}/pool_id"), json!("\u{1b}[31mred")),
        said("/tenants/1/network", json!({ "tenant_net_id": 2 })),
        said("/tenants/1/network", json!({ "tenant_net_id": 70000, "ipv4_subnet": "10.240.2.0/24" })),
        said("/tenants/1/network", json!({ "tenant_net_id": 2, "ipv4_subnet": "10.240.2/24" })),
        said("/tenants/1", json!({ "tenant_id": "test" })),
        said("/tenants/1", json!(null)),
        said("/tenants", json!([{ "tenant_id": "test" }])),
    ];
    insta::assert_snapshot!(texts.join("\n\n"));
}

#[test]
fn what_is_no_json_is_told_with_its_line() {
    let texts =
        ["", "{", "[]", "{\n  \"schema_version\": 1,\n}", "nix", "{\"node_id\": \"a\", \"node_id\": \"b\"}"]
            .map(|text| DesiredState::parse(text).unwrap_err().to_string());
    let more = DesiredState::parse(&format!("{} x", good())).unwrap_err().to_string();
    insta::assert_snapshot!(format!("{}\n\n{more}", texts.join("\n\n")));
}

#[test]
fn what_cannot_be_is_told_all_at_once() {
    let text = json!({
        "schema_version": 2,
        "node_id": "My Laptop",
        "tenants": [
            {
                "tenant_id": "dev",
                "network": { "tenant_net_id": 0, "ipv4_subnet": "10.240.1.7/24" },
                "quotas": { "max_vcpus": 4, "max_mem_mib": 512, "max_running": 2, "max_warm": 0,
                            "max_pools": 1, "max_instances_per_pool": 4, "max_disk_gib": 1 },
                "pools": [
                    { "pool_id": "web", "flake_ref": " ", "profile": "",
                      "desired_counts": { "running": 2, "warm": 2, "sleeping": 1 } },
                    { "pool_id": "web", "flake_ref": "--option",
                      "instance_resources": { "vcpus": 0, "mem_mib": 1, "data_disk_mib": 99999999 },
                      "runtime_policy": { "min_running_seconds": 99999999999u64 } }
                ]
            },
            { "tenant_id": "dev", "network": { "tenant_net_id": 7, "ipv4_subnet": "192.168.0.0/24" } },
            { "tenant_id": "a", "network": { "tenant_net_id": 7, "ipv4_subnet": "10.240.0.0/8" } },
            { "tenant_id": "b", "network": { "tenant_net_id": 8, "ipv4_subnet": "10.241.0.0/16" } },
            { "tenant_id": "c", "network": { "tenant_net_id": 9, "ipv4_subnet": "10.241.9.0/29" },
              "pools": [{ "pool_id": "p", "flake_ref": "f", "desired_counts": { "running": 5 } }] },
            { "tenant_id": "d", "network": { "tenant_net_id": 10, "ipv4_subnet": "10.255.0.0/15" } }
        ]
    });
    let error = DesiredState::parse(&text.to_string()).unwrap_err();
    let all: Vec<String> = error.faults.iter().map(ToString::to_string).collect();
    assert!(error.to_string().ends_with(&format!("and {} more", all.len() - 20)), "{error}");
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn the_greatest_numbers_are_refused_and_do_not_overflow() {
    let counts = json!({ "running": u32::MAX, "warm": u32::MAX, "sleeping": u32::MAX });
    let resources = json!({ "vcpus": u32::MAX, "mem_mib": u32::MAX, "data_disk_mib": u64::MAX });
    let mut state = good();
    for pool in 0..2 {
        state["tenants"][0]["pools"][pool]["desired_counts"] = counts.clone();
        state["tenants"][0]["pools"][pool]["instance_resources"] = resources.clone();
    }
    assert!(DesiredState::parse(&state.to_string()).is_err());
}

#[test]
fn networks_that_touch_do_not_overlap() {
    let mut state = good();
    state["tenants"][1]["network"]["ipv4_subnet"] = json!("10.240.0.0/24");
    assert!(DesiredState::parse(&state.to_string()).is_ok());
    state["tenants"][1]["network"]["ipv4_subnet"] = json!("10.240.0.0/23");
    assert!(DesiredState::parse(&state.to_string()).is_err());
}

/// Any JSON that looks somewhat like a desired state.
fn somewhat() -> impl Strategy<Value = Value> {
    let numbers = prop_oneof![
        Just(json!(0)),
        Just(json!(1)),
        Just(json!(-1)),
        Just(json!(u64::MAX)),
        any::<u32>().prop_map(|n| json!(n))
    ];
    let texts = prop_oneof![
        Just("dev".to_owned()),
        Just("10.240.1.0/24".to_owned()),
        "10\\.24[0-9]\\.[0-9]{1,3}\\.0/[0-9]{1,3}",
        ".{0,8}"
    ];
    let leaf = prop_oneof![
        numbers,
        texts.prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        Just(Value::Null)
    ];
    let paths = prop::sample::select(vec![
        "/schema_version",
        "/node_id",
        "/tenants",
        "/tenants/0/tenant_id",
        "/tenants/0/network/tenant_net_id",
        "/tenants/1/network/ipv4_subnet",
        "/tenants/0/quotas/max_running",
        "/tenants/0/quotas/max_vcpus",
        "/tenants/0/pools/0/pool_id",
        "/tenants/0/pools/0/desired_counts/running",
        "/tenants/0/pools/1/flake_ref",
        "/tenants/0/pools/1/instance_resources",
        "/tenants/0/pools/1/desired_counts/warm",
        "/x\u{1b}`",
    ]);
    prop::collection::vec((paths, leaf), 0..4).prop_map(|changes| {
        let mut state = good();
        for (path, value) in changes {
            put(&mut state, path, value);
        }
        state
    })
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text: String, head in 0usize..600) {
        let _ = DesiredState::parse(&text);
        let good = good().to_string();
        let _ = DesiredState::parse(&format!("{}{text}", &good[..head.min(good.len())]));
    }

    #[test]
    fn what_is_read_is_written_and_read_again_alike(state in somewhat()) {
        match DesiredState::parse(&state.to_string()) {
            Ok(state) => {
                let text = serde_json::to_string_pretty(&state).unwrap();
                prop_assert_eq!(DesiredState::parse(&text).unwrap(), state);
            }
            Err(error) => {
                prop_assert!(!error.faults.is_empty());
                let clean = error.faults.iter().all(|fault| !fault.to_string().contains('\u{1b}'));
                prop_assert!(clean, "{:?}", error);
            }
        }
    }
}
