//! The VM to work in: made, left, found again, made anew.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::process::Command;

use serde_json::Value;
use support::{Running, World, stderr, stdout};

/// `mvm dev` with these arguments, in user mode, which needs no rights.
fn dev(world: &World, args: &[&str]) -> Command {
    world.mvm([&["dev", "--network", "user"], args].concat())
}

/// Runs it to its end; returns what the command in the guest printed.
fn says(world: &World, args: &[&str]) -> String {
    let output = dev(world, args).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    stdout(&output)
}

fn dev_vms(world: &World) -> Vec<Value> {
    world.vms().into_iter().filter(|vm| vm["started_by"] == "dev").collect()
}

#[test]
fn one_command_leads_from_a_prepared_machine_into_the_guest_and_the_next_finds_it_again() {
    let world = World::new();
    assert_eq!(says(&world, &["--", "sh", "-c", "uname -n; echo kept > note"]), "dev\n");
    let made = dev_vms(&world);
    assert_eq!((made.len(), &made[0]["state"]), (1, &"running".into()), "it outlives the session");
    assert_eq!(made[0]["spec"]["memory_mib"], 512);
    assert_eq!(says(&world, &["--", "cat", "note"]), "kept\n");
    assert_eq!(dev_vms(&world), made);

    let flake = world.example("hello");
    world.ok(["run", "--network", "user", "--detach", "--flake", flake.to_str().unwrap()]);
    let status = world.ok(["status"]);
    let line = |name: &str| status.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
    assert!(line("dev ").contains(" dev "), "{status}");
    assert!(line("hello ").contains(" run ") && line("hello ").ends_with("hello"), "{status}");
    assert!(status.contains("Nix ") && status.contains("KVM is "), "{status}");
    assert_eq!(world.vm("hello")["started_by"], "run");
}

#[test]
fn once_stopped_it_comes_back_with_its_disk_until_it_is_recreated() {
    let world = World::new();
    says(&world, &["--", "sh", "-c", "echo kept > note; sync"]);
    world.ok(["stop", "dev"]);
    world.ok(["gc", "--builds"]);
    let output = dev(&world, &["--cpus", "2", "--", "cat", "note"]).output().unwrap();
    assert_eq!(stdout(&output), "kept\n", "{}", stderr(&output));
    assert!(stderr(&output).contains("--recreate makes it anew"), "{}", stderr(&output));
    assert_eq!(says(&world, &["--recreate", "--cpus", "2", "--", "sh", "-c", "nproc; ls"]), "2\n");
    assert_eq!(dev_vms(&world).len(), 1);
}

#[test]
fn saved_it_goes_on_from_there_and_once_it_did_more_it_boots_with_what_it_wrote() {
    let world = World::new();
    says(&world, &["--", "sh", "-c", "echo kept >/tmp/note"]);
    world.ok(["snapshot", "create", "--stop", "dev"]);
    let output = dev(&world, &["--", "sh", "-c", "cat /tmp/note; echo later > note; sync"]).output().unwrap();
    assert_eq!(stdout(&output), "kept\n", "{}", stderr(&output));
    assert!(stderr(&output).contains("goes on from its snapshot"), "{}", stderr(&output));
    world.ok(["stop", "dev"]);
    let output = dev(&world, &["--", "cat", "note"]).output().unwrap();
    assert_eq!(stdout(&output), "later\n", "{}", stderr(&output));
    assert!(stderr(&output).contains("goes back to its snapshot, which is older"), "{}", stderr(&output));
    world.ok(["stop", "dev"]);
    world.ok(["snapshot", "restore", "dev"]);
    assert_eq!(says(&world, &["--", "cat", "/tmp/note"]), "kept\n");
    assert_eq!(dev_vms(&world).len(), 1);
}

#[test]
fn the_exit_code_of_its_command_is_mvms() {
    let world = World::new();
    let output = dev(&world, &["--", "sh", "-c", "exit 7"]).output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
}

#[test]
fn what_never_came_up_is_not_gone_on_with() {
    let world = World::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let said = stderr(&dev(&world, &["-p", &format!("{port}:80"), "--", "true"]).output().unwrap());
    assert!(said.contains(&port.to_string()) && said.contains("help: "), "{said}");
    let output = dev(&world, &["-p", "0:80", "--", "true"]).output().unwrap();
    assert!(output.status.success() && !stderr(&output).contains("--recreate"), "{}", stderr(&output));
    let vms = dev_vms(&world);
    assert_eq!(vms.len(), 1);
    assert!(vms[0]["spec"]["ports"][0].as_str().unwrap().ends_with(":80"), "{vms:?}");
}

#[test]
fn two_at_once_share_one_vm() {
    let world = World::new();
    let both = [(); 2].map(|()| Running::start(dev(&world, &["--", "uname", "-n"])));
    for one in both {
        let (status, lines) = one.end();
        assert!(status.success() && lines.lines().any(|line| line == "dev"), "{lines}");
    }
    assert_eq!(dev_vms(&world).len(), 1);
}

#[test]
fn a_vm_of_a_flake_that_has_its_name_is_left_alone() {
    let world = World::new();
    let flake = world.example("hello");
    world.ok(["run", "--network", "user", "--detach", "--name", "dev", "--flake", flake.to_str().unwrap()]);
    let said = stderr(&dev(&world, &["--", "true"]).output().unwrap());
    assert!(said.contains("error: a VM named `dev` is running that `mvm dev` did not start"), "{said}");
    assert_eq!(world.vm("dev")["state"], "running");
}

#[test]
fn after_bootstrap_nothing_is_left_to_build() {
    let world = World::new();
    let out = world.ok(["bootstrap"]);
    assert!(out.starts_with("ready: `mvm dev`"), "{out}");
    let output = dev(&world, &["--", "true"]).output().unwrap();
    assert!(output.status.success() && stderr(&output).contains(" cached "), "{}", stderr(&output));
}

#[test]
fn setup_with_recreate_builds_the_default_root_file_system_from_scratch() {
    let world = World::empty();
    let output = world.mvm(["setup", "--yes", "--recreate"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let output = world.mvm(["setup", "--yes", "--recreate", "--verbose"]).output().unwrap();
    let said = stderr(&output);
    assert!(
        output.status.success() && said.contains("build dev-rootfs") && said.contains("(built)"),
        "{said}"
    );
}
