//! Real guests, driven by the command line as a user drives it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod ends;
mod network;
mod odd;
mod seen;
#[path = "../support/mod.rs"]
mod support;
mod volumes;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use support::{
    DEADLINE, Namespace, Running, World, http_get, is_root, published, stderr, stdout, wait_until,
};

/// Arguments of `mvm run` for a flake in user mode, which needs no rights.
fn run_user<'a>(flake: &'a Path, rest: &[&'a str]) -> Vec<&'a str> {
    run_in("user", flake, rest)
}

fn run_in<'a>(network: &'a str, flake: &'a Path, rest: &[&'a str]) -> Vec<&'a str> {
    [&["run", "--network", network, "--flake", flake.to_str().unwrap()], rest].concat()
}

/// Starts the gateway example and leaves it running.
fn start_gateway(world: &World, network: &str, more: &[&str]) -> Value {
    let flake = world.example("gateway");
    let args = [&["--detach", "-p", "0:8080"], more].concat();
    assert_eq!(world.ok(run_in(network, &flake, &args)), "gateway\n");
    world.vm("gateway")
}

#[test]
fn a_first_run_prepares_what_is_missing_and_prints_the_guests_kernel() {
    let world = World::new();
    let out = world.ok(run_user(&world.example("hello"), &["--setup", "--", "uname", "-a"]));
    assert!(out.starts_with("Linux hello "), "{out}");
    assert_eq!(world.vm("hello")["state"], "stopped");
    world.expect_nothing_left();
}

#[test]
fn the_exit_code_of_the_command_is_that_of_run() {
    let world = World::new();
    let output =
        world.mvm(run_user(&world.example("hello"), &["--", "sh", "-c", "exit 7"])).output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
    world.expect_nothing_left();
}

#[test]
fn standard_input_and_output_reach_through_to_the_command() {
    let world = World::new();
    let bytes: Vec<u8> = (0..300_000_u32).map(|number| (number * 7 % 251) as u8).collect();
    let input = world.path("input");
    fs::write(&input, &bytes).unwrap();
    let mut run = world.mvm(run_user(&world.example("hello"), &["--", "cat"]));
    let output = run.stdin(fs::File::open(&input).unwrap()).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(output.stdout == bytes, "{} bytes came back", output.stdout.len());
}

#[test]
fn a_command_that_is_not_there_ends_with_127() {
    let world = World::new();
    let output = world.mvm(run_user(&world.example("hello"), &["--", "no-such-program"])).output().unwrap();
    assert_eq!(output.status.code(), Some(127), "{}", stderr(&output));
}

/// What a user sees of a detached gateway from start to end.
fn a_gateway_is_published_shown_and_stopped(world: &World, network: &str) {
    let vm = start_gateway(world, network, &[]);
    assert_eq!((&vm["state"], &vm["spec"]["network"]), (&"running".into(), &network.into()));
    let address = published(&vm);
    assert!(address.ip().is_loopback());
    let answer = http_get(address);
    assert!(answer.starts_with("HTTP/1.") && answer.contains("200 OK"), "{answer}");

    let status = world.ok(["status"]);
    let port = format!("{}:8080", address.port());
    for word in ["gateway", "running", vm["id"].as_str().unwrap(), &port] {
        assert!(status.contains(word), "no {word} in {status}");
    }
    world.ok(["stop", "gateway"]);
    assert_eq!(world.vm("gateway")["state"], "stopped");
    assert!(world.ok(["status"]).contains("No VM is running"));
    world.expect_nothing_left();
    let again = TcpListener::bind(address);
    assert!(again.is_ok(), "{again:?}");
}

#[test]
fn a_detached_gateway_answers_until_it_is_stopped() {
    a_gateway_is_published_shown_and_stopped(&World::new(), "user");
}

#[test]
fn a_detached_gateway_in_tap_mode_leaves_neither_link_nor_table_behind() {
    let Some(namespace) = Namespace::new() else { return };
    let world = World::new();
    namespace.enter(|| a_gateway_is_published_shown_and_stopped(&world, "tap"));
    let links = namespace.ip(&["-o", "link"]);
    assert!(!links.contains("mvm-"), "{links}");
    assert_eq!(namespace.run("nft", &["list", "tables"]), "");
}

#[test]
fn a_run_in_tap_mode_passes_output_and_exit_code_through() {
    let Some(namespace) = Namespace::new() else { return };
    let world = World::new();
    let args = run_in("tap", &world.example("hello"), &["--", "sh", "-c", "uname; exit 7"]).join("\n");
    let output = namespace.enter(|| world.mvm(args.lines()).output().unwrap());
    assert_eq!((stdout(&output).as_str(), output.status.code()), ("Linux\n", Some(7)), "{}", stderr(&output));
    world.expect_nothing_left();
    assert_eq!(namespace.run("nft", &["list", "tables"]), "");
}

#[test]
fn a_second_build_says_cached_prints_the_same_path_and_starts_no_nix() {
    let mut world = World::new();
    let (bin, calls) = (world.path("bin"), world.path("calls"));
    fs::create_dir(&bin).unwrap();
    let path = std::env::var("PATH").unwrap();
    for name in ["nix", "nix-store", "nix-daemon"] {
        let real = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.exists()).unwrap();
        let script =
            format!("#!/bin/sh\necho $0 >> '{}'\nexec '{}' \"$@\"\n", calls.display(), real.display());
        fs::write(bin.join(name), script).unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    world.env("PATH", format!("{}:{path}", bin.display()));
    let flake = world.example("hello");
    let build = || {
        let before = fs::read_to_string(&calls).unwrap_or_default().lines().count();
        let output = world.mvm(["build", "--flake", flake.to_str().unwrap()]).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let started = fs::read_to_string(&calls).unwrap().lines().count() - before;
        (stdout(&output), stderr(&output), started)
    };
    let (first, said, started) = build();
    assert!(started > 0, "{said}");
    // A source so new that it may change unseen is not relied upon: that takes a moment.
    wait_until(DEADLINE, "a build without Nix", || build().2 == 0);
    let (second, said, started) = build();
    assert_eq!((&second, started), (&first, 0));
    assert!(said.contains("cached"), "{said}");
    assert!(Path::new(first.trim()).join("vmlinux").exists());
}

#[test]
fn ssh_opens_as_mvm_or_as_root_and_passes_the_exit_code() {
    let world = World::new();
    start_gateway(&world, "user", &[]);
    assert_eq!(world.ok(["ssh", "gateway", "--", "whoami"]), "mvm\n");
    assert_eq!(world.ok(["ssh", "gateway", "--user", "root", "--", "id", "-u"]), "0\n");
    // Words stay words on their way through ssh's shell.
    assert_eq!(world.ok(["ssh", "gateway", "--", "echo", "a  b", "$HOME", "'"]), "a  b $HOME '\n");
    let output = world.mvm(["ssh", "gateway", "--", "sh", "-c", "exit 9"]).output().unwrap();
    assert_eq!(output.status.code(), Some(9), "{}", stderr(&output));
}

#[test]
fn exec_runs_as_the_user_in_the_directory_and_with_the_variables_asked_for() {
    let world = World::new();
    start_gateway(&world, "user", &[]);
    assert_eq!(world.ok(["exec", "gateway", "--", "sh", "-c", "whoami; pwd"]), "mvm\n/home/mvm\n");
    assert_eq!(world.ok(["exec", "gateway", "--", "sudo", "-n", "id", "-u"]), "0\n");
    let args = ["exec", "gateway", "--user", "root", "--workdir", "/srv", "-e", "A=1 2", "--", "sh", "-c"];
    let out = world.ok(args.iter().chain(&["whoami; pwd; echo \"$A\""]));
    assert_eq!(out, "root\n/srv\n1 2\n");
    let mut cat = world.mvm(["exec", "gateway", "--", "cat"]);
    let mut cat = Running::start({
        cat.stdin(Stdio::piped());
        cat
    });
    cat.write("through\n");
    cat.line("through");
    cat.close();
    assert!(cat.end().0.success());
    let output = world.mvm(["exec", "gateway", "--", "sh", "-c", "echo oops >&2; exit 5"]).output().unwrap();
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(5), "oops\n"));
}

#[test]
fn logs_show_the_console_from_a_time_on_and_follow_it_to_its_end() {
    let world = World::new();
    start_gateway(&world, "user", &[]);
    let mut follow = Running::start(world.mvm(["logs", "--follow", "gateway"]));
    world.ok(["exec", "gateway", "--user", "root", "--", "sh", "-c", "echo marker > /dev/console"]);
    follow.line("marker");
    assert!(world.ok(["logs", "gateway"]).contains("marker\n"));
    assert!(world.ok(["logs", "--since", "1h", "gateway"]).contains("marker\n"));
    assert_eq!(world.ok(["logs", "--since", "0s", "gateway"]), "");
    let json: Value = serde_json::from_str(
        world.ok(["logs", "--json", "gateway"]).lines().find(|line| line.contains("marker")).unwrap(),
    )
    .unwrap();
    assert_eq!((&json["v"], &json["vm"], &json["text"]), (&1.into(), &"gateway".into(), &"marker".into()));
    world.ok(["stop", "gateway"]);
    let (status, said) = follow.end();
    assert!(status.success(), "{said}");
    assert!(world.ok(["logs", "gateway"]).contains("marker\n"), "the log stays when the VM is over");
}

#[test]
fn a_user_without_rights_runs_a_guest_with_nix_through_its_daemon() {
    if !is_root() {
        return;
    }
    let mut world = World::of_user(61_234);
    let socket = world.path("nix.sock");
    let mut daemon = Command::new("nix-daemon");
    // No build users: the test's daemon builds as itself.
    daemon.args(["--option", "build-users-group", "", "--option", "sandbox", "false"]);
    daemon.env("NIX_DAEMON_SOCKET_PATH", &socket);
    let _daemon = Running::start(daemon);
    wait_until(DEADLINE, "the daemon's socket", || socket.exists());
    world.env("NIX_DAEMON_SOCKET_PATH", socket);
    let flake = world.example("hello");
    let out = world.ok([
        "run",
        "--setup",
        "--flake",
        flake.to_str().unwrap(),
        "--",
        "sh",
        "-c",
        "uname; sudo -n id -u",
    ]);
    assert_eq!(out, "Linux\n0\n");
    assert_eq!(world.vm("hello")["spec"]["network"], "user");
    let said = world.fails(run_in("tap", &flake, &["--", "true"]));
    assert!(said.contains("tap networking needs root"), "{said}");
}
