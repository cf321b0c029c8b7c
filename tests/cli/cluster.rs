//! The words of the cluster.

use crate::support::stdout;
use crate::{said, world};
use insta::assert_snapshot;

#[test]
fn every_command_of_the_cluster_explains_itself() {
    let world = world();
    for command in ["init", "up", "status", "down", "logs"] {
        let help = world.ok(["dev", "cluster", command, "--help"]);
        let usage = format!("Usage: mvm dev cluster {command}");
        assert!(help.contains(&usage) && help.contains("Examples:"), "{help}");
    }
    assert!(world.ok(["completions", "bash"]).contains("dev__subcmd__cluster__subcmd__up"));
}

#[test]
fn a_cluster_that_was_never_made_is_told_and_nothing_of_it_is_begun() {
    let world = world();
    assert_snapshot!(said(&world, &["dev", "cluster", "up"]), @"
    exit 1
    error: there is no cluster in this state: `[DIR]/state/cluster/coordinator.toml` is missing
    help: `mvm dev cluster init` writes what is missing
    ");
    assert_snapshot!(said(&world, &["dev", "cluster", "down"]), @"
    exit 0
    nothing of the cluster runs
    ");
    assert_snapshot!(said(&world, &["dev", "cluster", "logs"]), @"
    exit 0
    note: nothing was logged yet; `mvm dev cluster up` starts who does
    ");
    let output = world.mvm(["dev", "cluster", "status"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("There is no cluster in this state."));
    let json: serde_json::Value = serde_json::from_str(&world.ok(["status", "--json"])).unwrap();
    assert!(json["cluster"].is_null(), "{json}");
    assert!(!world.state().join("cluster").exists());
}

#[test]
fn wrong_words_of_the_cluster_are_told() {
    let world = world();
    assert_snapshot!(said(&world, &["dev", "cluster", "init", "--listen", "0.0.0.0:80"]), @"
    exit 2
    error: the gateways' address cannot be 0.0.0.0:80: a dev cluster is for this machine only
    help: give another, such as 127.0.0.1:8443
    ");
    assert_snapshot!(said(&world, &["dev", "cluster", "init", "--agent", "localhost"]), @"
    exit 2
    error: invalid value 'localhost' for '--agent <ADDR>': invalid socket address syntax

    For more information, try '--help'.
    ");
    // What is for the dev VM is not for the cluster.
    let mixed = said(&world, &["dev", "--recreate", "cluster", "up"]);
    assert!(mixed.starts_with("exit 2"), "{mixed}");
}

#[test]
fn the_files_of_a_cluster_are_written_once_and_told_as_they_are() {
    let world = world();
    let init = || -> serde_json::Value {
        serde_json::from_str(&world.ok(["dev", "cluster", "init", "--json"])).unwrap()
    };
    let (first, second) = (init(), init());
    let was = |told: &serde_json::Value, what: &str| {
        let files = told["files"].as_array().unwrap();
        files.len() == 8 && files.iter().all(|file| file["was"] == what)
    };
    assert!(was(&first, "missing"), "{first}");
    assert!(was(&second, "same"), "{second}");
    assert!(world.ok(["coordinator", "check"]).starts_with("2 routes, 1 node"));
    assert!(world.ok(["agent", "certs", "status"]).contains("coordinator  dev"));
    let status = world.ok(["status"]);
    assert!(status.contains("The cluster does not run; `mvm dev cluster up` starts it."), "{status}");
}
