//! Pools of real guests, driven by the command line as a user drives it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;

use mvm::fleet::step::{KILL_AT, STEPS};
use serde_json::Value;
use support::{World, http_get};

/// A tenant `dev` with a pool `dev/web` of an example, whose instances may change state at once.
fn world(example: &str) -> World {
    let world = World::new();
    let flake = world.example(example);
    world.ok(["tenant", "create", "dev"]);
    let flake = flake.to_str().unwrap();
    let policy = ["--min-running", "0", "--min-warm", "0", "--shutdown-timeout", "5"];
    world.ok([&["pool", "create", "dev/web", "--flake", flake], &policy[..]].concat());
    world
}

fn counts(running: u32, warm: u32, sleeping: u32) -> Vec<String> {
    let numbers = [("--running", running), ("--warm", warm), ("--sleeping", sleeping)];
    let flags = numbers.into_iter().flat_map(|(name, number)| [name.to_string(), number.to_string()]);
    ["pool", "scale", "dev/web"].map(String::from).into_iter().chain(flags).collect()
}

fn instances(world: &World) -> Vec<Value> {
    let list: Value = serde_json::from_str(&world.ok(["instance", "list", "--json"])).unwrap();
    list["instances"].as_array().unwrap().clone()
}

fn in_state(world: &World, state: &str) -> Vec<Value> {
    instances(world).into_iter().filter(|instance| instance["state"] == state).collect()
}

fn path(instance: &Value) -> &str {
    instance["instance"].as_str().unwrap()
}

/// Processes that run guests.
fn guests(world: &World) -> usize {
    world.processes().iter().filter(|line| line.contains(" mvm shim ") || line.contains("/mvm shim ")).count()
}

/// There are so many instances in each state, a process behind each live one, and nothing else.
fn expect(world: &World, running: usize, warm: usize, sleeping: usize) {
    let count = |state| in_state(world, state).len();
    let all = instances(world);
    assert_eq!((count("running"), count("warm"), count("sleeping")), (running, warm, sleeping), "{all:#?}");
    // Those that are too many keep their disks.
    assert_eq!(all.len(), running + warm + sleeping + count("stopped"), "{all:#?}");
    let vms = fs::read_dir(world.state().join("vms")).unwrap().count();
    assert_eq!(vms, all.len(), "one directory of a VM each: {all:#?}");
    assert_eq!(guests(world), running + warm, "{:#?}", world.processes());
}

#[test]
fn a_pool_has_running_warm_and_sleeping_guests_and_a_woken_one_remembers() {
    let world = world("gateway");
    world.ok(counts(2, 1, 1));
    expect(&world, 2, 1, 1);
    for running in in_state(&world, "running") {
        let endpoint = running["endpoint"].as_str().unwrap().parse().unwrap();
        assert!(http_get(endpoint).contains("200 OK"));
    }
    let one = in_state(&world, "running").remove(0);
    world.ok(["instance", "ssh", path(&one), "-l", "root", "--", "sh", "-c", "echo kept >/run/note"]);
    world.ok(["instance", "sleep", path(&one)]);
    expect(&world, 1, 1, 2);
    let endpoint = world.ok(["instance", "wake", path(&one)]);
    assert!(http_get(endpoint.trim().parse().unwrap()).contains("200 OK"));
    assert_eq!(world.ok(["instance", "ssh", path(&one), "-l", "root", "--", "cat", "/run/note"]), "kept\n");
    // Its VM is not to be worked on behind the fleet's back.
    let name = path(&one).rsplit_once('/').unwrap().1.to_string();
    for command in [&["destroy", "--force"][..], &["snapshot", "create"], &["snapshot", "restore"]] {
        let refused = world.fails(command.iter().copied().chain([name.as_str()]));
        assert!(refused.contains("is that of the instance dev/"), "{refused}");
    }
    let saved = in_state(&world, "sleeping").remove(0);
    let saved = path(&saved).rsplit_once('/').unwrap().1.to_string();
    assert!(world.fails(["snapshot", "rm", &saved]).contains("is that of the instance dev/"));
    world.ok(["snapshot", "rm", "--all", "--force"]);
    expect(&world, 2, 1, 1);
    // What is as it should be is left alone.
    assert_eq!(world.ok(counts(2, 1, 1)).lines().last(), Some("nothing to do"));
    world.ok(["tenant", "destroy", "dev", "--force"]);
    assert!(!world.ok(["tenant", "list", "--json"]).contains("dev"));
    world.expect_nothing_left();
}

#[test]
fn secrets_reach_instances_at_their_next_start_and_nobody_else() {
    let world = world("hello");
    let file = world.path("value");
    fs::write(&file, "first-value").unwrap();
    world.ok(["tenant", "secrets", "set", "dev", "token", "--file", file.to_str().unwrap()]);
    world.ok(counts(1, 0, 0));
    let one = instances(&world).remove(0);
    let read = || world.ok(["instance", "ssh", path(&one), "-l", "root", "--", "cat", "/run/secrets/token"]);
    assert_eq!(read(), "first-value");
    let write = ["instance", "ssh", path(&one), "-l", "root", "--", "touch", "/run/secrets/x"];
    assert!(world.fails(write).contains("Read-only"));
    fs::write(&file, "other-value").unwrap();
    world.ok(["tenant", "secrets", "set", "dev", "token", "--file", file.to_str().unwrap()]);
    assert_eq!(read(), "first-value");
    world.ok(["instance", "stop", path(&one)]);
    world.ok(["instance", "start", path(&one)]);
    assert_eq!(read(), "other-value");
    assert!(!world.ok(["tenant", "info", "dev", "--json"]).contains("value"));
    world.ok(["instance", "stop", path(&one)]);
    let told = |dir: &str| files_with(&world.state().join(dir), b"other-value");
    for dir in ["tasks", "vms"] {
        assert_eq!(told(dir), Vec::<std::path::PathBuf>::new());
    }
    world.ok(["tenant", "destroy", "dev", "--force"]);
}

/// Files below `dir` with these bytes in them, up to a size that logs and records have.
fn files_with(dir: &std::path::Path, bytes: &[u8]) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, bytes));
        } else if entry.metadata().unwrap().len() < 1 << 20 {
            let content = fs::read(&path).unwrap();
            found.extend(content.windows(bytes.len()).any(|window| window == bytes).then_some(path));
        }
    }
    found
}

#[test]
fn a_command_killed_at_any_step_is_made_good_by_the_next() {
    let world = world("hello");
    world.ok(counts(1, 0, 0));
    let mut killed = Vec::new();
    for step in STEPS {
        let mut run = |args: &[String]| {
            let output = world.mvm(args).env(KILL_AT, step).output().unwrap();
            if !output.status.success() {
                killed.push(step);
            }
        };
        for (running, warm, sleeping) in [(1, 1, 1), (2, 0, 0), (0, 0, 1)] {
            let args = counts(running as u32, warm as u32, sleeping as u32);
            run(&args);
            world.ok(&args);
            expect(&world, running, warm, sleeping);
        }
        let all = instances(&world).into_iter().map(|one| path(&one).to_string());
        let head = ["instance", "destroy", "--force"].map(String::from).into_iter();
        run(&head.chain(all).collect::<Vec<_>>());
        world.ok(counts(0, 0, 0));
    }
    killed.dedup();
    assert_eq!(killed, STEPS, "each step is come to");
    world.ok(["tenant", "destroy", "dev", "--force"]);
    world.expect_nothing_left();
}

#[test]
fn a_quota_holds_for_what_is_started_by_hand_as_well() {
    let world = world("hello");
    world.ok(counts(1, 0, 1));
    world.ok(["tenant", "update", "dev", "--max-running", "1"]);
    let sleeping = in_state(&world, "sleeping").remove(0);
    let refused = world.fails(["instance", "wake", path(&sleeping)]);
    assert!(refused.contains("max_running is 1, 1 are used and 2 needed"), "{refused}");
    world.ok(["instance", "stop", path(&in_state(&world, "running")[0])]);
    world.ok(["instance", "wake", path(&sleeping)]);
    world.ok(["tenant", "destroy", "dev", "--force"]);
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    let world = world("hello");
    for (args, said) in [
        (vec!["tenant", "create", "../x"], "is not valid"),
        (vec!["pool", "create", "dev/web", "--flake", "."], "already"),
        (vec!["pool", "create", "other/web", "--flake", "."], "there is no tenant `other`"),
        (vec!["pool", "create", "dev/new"], "needs a flake"),
        (vec!["tenant", "create", "ci", "--subnet", "10.240.1.0/24"], "collides"),
        (vec!["tenant", "create", "ci", "--subnet", "192.168.0.0/24"], "not below 10.240.0.0/12"),
        (vec!["pool", "scale", "dev/web", "--running", "65"], "64 instances of one pool"),
        (vec!["pool", "scale", "dev/web", "--running=-1"], "invalid value"),
        (vec!["pool", "rollback", "dev/web"], "no earlier revision"),
        (vec!["instance", "wake", "dev/web/i-00000000"], "there is no instance"),
        (vec!["instance", "sleep", "dev/web"], "is not valid"),
    ] {
        let output = world.mvm(&args).output().unwrap();
        let error = support::stderr(&output);
        assert!(!output.status.success() && error.contains(said), "{args:?}: {error}");
    }
    assert_eq!(instances(&world), Vec::<Value>::new());
    assert_eq!(world.vms(), Vec::<Value>::new());
}
