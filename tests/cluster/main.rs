//! The dev cluster as a user has it: real agent, coordinator and guests, killed and started again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod place;
#[path = "../support/mod.rs"]
mod support;
mod traffic;

use std::fs;
use std::net::TcpListener;

use nix::sys::signal::Signal;
use place::{Cluster, answers, free_udp};
use serde_json::Value;
use support::{DEADLINE, Running, http_get, wait_until};

#[test]
fn a_request_wakes_a_guest_which_sleeps_when_nobody_asks_and_down_leaves_nothing() {
    let cluster = Cluster::new();
    let files = ["coordinator.toml", "desired.json", "flakes/gateway/flake.nix", "pki/ca.pem"];
    let before = files.map(|file| fs::read(cluster.file(file)).unwrap());
    let said = cluster.up();
    assert!(said.contains(&format!("http://{}/", cluster.gateways)), "{said}");
    assert!(http_get(cluster.gateways).contains("200 OK"));
    assert_eq!(cluster.states(), ["running", "running"]);
    cluster.expect_asleep();
    wait_until(DEADLINE, "a route that says so", || cluster.route()["state"] == "sleeping");
    let wakes = cluster.route()["wakes"].as_u64().unwrap();
    assert!(http_get(cluster.gateways).contains("Hello from a microVM"));
    let (gateway, route) = (cluster.gateway(), cluster.route());
    assert_eq!((&gateway["state"], &gateway["leased"]), (&"running".into(), &true.into()), "{gateway}");
    assert_eq!(
        (&route["wakes"], &route["last_wake"]["waiters"]),
        (&(wakes + 1).into(), &1.into()),
        "{route}"
    );
    let told = cluster.world.ok(["dev", "cluster", "status"]);
    assert!(told.contains("dev/gateways/i-") && told.contains(&cluster.gateways.to_string()), "{told}");
    assert!(cluster.world.ok(["status"]).contains("The cluster runs"));
    let logs = cluster.world.ok(["dev", "cluster", "logs"]);
    assert!(logs.contains("\nagent       ") && logs.contains("\ncoordinator "), "{logs}");
    // What runs is left alone.
    let pids = |status: &Value| (status["agent"]["pid"].clone(), status["coordinator"]["pid"].clone());
    let running = pids(&cluster.status());
    cluster.up();
    assert_eq!(pids(&cluster.status()), running);
    cluster.down();
    cluster.expect_nothing();
    assert_eq!(files.map(|file| fs::read(cluster.file(file)).unwrap()), before, "what is the user's stays");
    assert!(cluster.world.ok(["pool", "list"]).starts_with("No pools"));
    assert_eq!(cluster.states(), ["stopped", "stopped"]);
    cluster.down();
    // And again, from what is left.
    cluster.up();
    assert!(http_get(cluster.gateways).contains("200 OK"));
    cluster.world.ok(["dev", "cluster", "down", "--purge"]);
    cluster.expect_nothing();
    assert_eq!(fs::read_dir(cluster.world.state().join("dev/builds")).unwrap().count(), 0);
}

#[test]
fn what_is_killed_or_half_there_is_mended_by_up() {
    let cluster = Cluster::new();
    // Somebody started one of the two by hand, with the cluster's files.
    let (desired, agent) = (cluster.file("desired.json"), cluster.agent.to_string());
    let by_hand = ["agent", "serve", "--listen", &agent, "--desired", desired.to_str().unwrap()];
    let mut by_hand = Running::start(cluster.world.mvm(by_hand));
    by_hand.line("listens on");
    assert_eq!(cluster.states(), ["running", "stopped"]);
    assert!(cluster.world.ok(["status"]).contains("not whole"));
    cluster.up();
    assert_eq!(cluster.states(), ["running", "running"]);
    by_hand.signal(Signal::SIGKILL);
    by_hand.end();
    cluster.up();
    for parts in [&["agent"][..], &["coordinator"], &["coordinator", "agent"]] {
        parts.iter().for_each(|part| cluster.kill(part));
        let crashed = cluster.status();
        assert!(parts.iter().all(|part| crashed[part]["state"] == "crashed"), "{crashed}");
        let said = cluster.world.mvm(["dev", "cluster", "up"]).output().unwrap();
        let said = support::stderr(&said);
        assert!(said.contains("had ended without a word"), "{said}");
        assert_eq!(cluster.states(), ["running", "running"]);
        assert!(http_get(cluster.gateways).contains("200 OK"), "after the end of {parts:?}");
    }
    // A guest's own process.
    let instance = cluster.gateway()["path"].as_str().unwrap().rsplit('/').next().unwrap().to_string();
    support::kill_process(&cluster.world.vm(&instance)["pid"]);
    wait_until(DEADLINE, "an answer of another guest", || answers(cluster.gateways));
    cluster.up();
    // All at once, and nobody starts it again.
    cluster.kill("agent");
    cluster.kill("coordinator");
    cluster.down();
    cluster.expect_nothing();
}

#[test]
fn what_is_changed_is_taken_in_and_a_new_image_rolled_out() {
    let mut cluster = Cluster::new();
    cluster.up();
    let old = cluster.gateway();
    fs::write(cluster.file("flakes/gateway/www/index.html"), "another page\n").unwrap();
    cluster.world.ok(["pool", "build", "dev/gateways"]);
    wait_until(DEADLINE, "another instance", || {
        let now = cluster.gateway();
        now["path"] != old["path"] && now["state"] == "sleeping"
    });
    assert!(http_get(cluster.gateways).contains("another page"));
    // An address: the coordinator takes it in by itself, and `up` starts the agent again.
    let before = cluster.status()["agent"]["pid"].clone();
    cluster.agent = free_udp();
    cluster.init(&["--recreate"]);
    cluster.up();
    let agent = cluster.status()["agent"].clone();
    assert_eq!(agent["address"], cluster.agent.to_string());
    assert_ne!(agent["pid"], before);
    assert!(http_get(cluster.gateways).contains("another page"));
    cluster.down();
    cluster.expect_nothing();
}

#[test]
fn a_start_that_fails_or_is_broken_off_leaves_nothing_running() {
    let cluster = Cluster::new();
    let up = ["dev", "cluster", "up"];
    let holder = TcpListener::bind(cluster.gateways).unwrap();
    let taken = cluster.world.fails(up);
    let me = format!("(process {})", std::process::id());
    assert!(
        taken.contains(&format!("cannot listen on {}", cluster.gateways)) && taken.contains(&me),
        "{taken}"
    );
    drop(holder);
    cluster.world.expect_no_process();
    let mut strange = Running::start(cluster.world.mvm(["agent", "serve", "--listen", "127.0.0.1:0"]));
    strange.line("listens on");
    let refused = cluster.world.fails(up);
    assert!(refused.contains("started with other files") && refused.contains("kill "), "{refused}");
    strange.signal(Signal::SIGTERM);
    strange.end();
    let flake = cluster.file("flakes/gateway/flake.nix");
    let good = fs::read(&flake).unwrap();
    fs::write(&flake, "{ outputs = { ... }: { packages = throw \"no such thing\"; }; }").unwrap();
    let broken = cluster.world.fails(up);
    assert!(
        broken.contains("`dev/gateways` cannot be built") && broken.contains("no such thing"),
        "{broken}"
    );
    cluster.world.expect_no_process();
    fs::write(&flake, good).unwrap();
    let config = fs::read_to_string(cluster.file("coordinator.toml")).unwrap();
    fs::write(cluster.file("coordinator.toml"), config.replace("\nidle_timeout_secs", "\nidle_timeout"))
        .unwrap();
    let wrong = cluster.world.fails(up);
    assert!(wrong.contains("unknown key `idle_timeout`"), "{wrong}");
    fs::write(cluster.file("coordinator.toml"), config).unwrap();
    let mut broken_off = Running::start(cluster.world.mvm(up));
    broken_off.line("boot");
    broken_off.signal(Signal::SIGINT);
    let (status, said) = broken_off.end();
    assert_eq!(status.code(), Some(130), "{said}");
    cluster.world.expect_no_process();
    // A guest that never listens.
    let good = fs::read_to_string(&flake).unwrap();
    assert!(good.contains("exec httpd"));
    fs::write(&flake, good.replace("exec httpd", "exec sleep 1000; exec httpd")).unwrap();
    cluster.down();
    let late = cluster.world.exits(124, ["dev", "cluster", "up", "--timeout", "5"]);
    assert!(late.contains("dev/gateways has no instance within 5.0 s"), "{late}");
    cluster.world.expect_no_process();
    fs::write(&flake, good).unwrap();
    cluster.down();
    cluster.up();
    assert!(http_get(cluster.gateways).contains("200 OK"));
    cluster.down();
    cluster.expect_nothing();
}
