//! What a build said, found again. Nothing is booted here.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::PathBuf;

use insta::assert_snapshot;
use mvm::host::child::find_program;
use serde_json::Value;
use support::{Running, World, is_root, stderr, stdout};

/// Whether Nix is there; says that the test is skipped if not.
fn has_nix() -> bool {
    let there = find_program("nix").is_some();
    if !there {
        println!("SKIPPED: nix is not on PATH");
    }
    there
}

/// A flake of an image that `script` makes, like no other's.
fn flake(world: &World, name: &str, script: &str) -> PathBuf {
    let (system, salt) = (format!("{}-linux", std::env::consts::ARCH), world.path("").display().to_string());
    let text = format!(
        "{{ outputs = _: {{ packages.{system}.default = derivation {{ name = \"image\"; system = \"{system}\";
            salt = \"{salt}\"; builder = \"/bin/sh\"; PATH = \"/usr/bin:/bin\"; args = [ \"-c\" \"{script}\" ]; }}; }}; }}"
    );
    world.flake(name, &text)
}

const GOOD: &str =
    "mkdir $out; printf '\\\\177ELFxx' > $out/vmlinux; echo root > $out/rootfs.ext4; echo made";

#[test]
fn a_failed_build_is_shown_again_by_the_command_that_its_error_names() {
    if !has_nix() {
        return;
    }
    let world = World::empty();
    let dir = flake(&world, "bad", "for i in 1 2 3; do echo line $i; done; exit 3");
    let said = world.fails(["build", "--flake", "bad"]);
    let command = said.lines().find_map(|line| line.strip_prefix("help: `mvm ")?.split('`').next()).unwrap();
    assert_eq!(world.ok(command.split(' ')), "line 1\nline 2\nline 3\n");
    // And by its flake, though a good one came after.
    let good = flake(&world, "good", GOOD);
    let built = world.ok(["build", "--flake", "good"]);
    let log = world.ok(["log", dir.to_str().unwrap()]);
    let task = command.split(' ').nth(1).unwrap();
    assert!(log.starts_with(&format!("      log {task} of {}, ", dir.display())), "{log}");
    assert!(log.contains("\nimage> line 1\nimage> line 2\nimage> line 3\n   failed cannot build"), "{log}");
    assert_eq!(world.ok(["log", task]), log);
    // All names of the good one mean the same.
    let log = world.ok(["log"]);
    assert!(log.contains("\nimage> made\n") && log.contains("    built "), "{log}");
    let id = built.trim().rsplit('/').next().unwrap();
    for name in [built.trim(), id, &id[..8], "good", "./good", good.to_str().unwrap()] {
        assert_eq!(world.ok(["log", name]), log, "{name}");
    }
    let json = world.ok(["log", "--json"]);
    let events: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&events[0]["event"], &events[1]["event"]), (&"task_started".into(), &"build_asked".into()));
    // Its record is not all there is.
    fs::remove_dir_all(world.state().join("tasks")).unwrap();
    let kept = world.mvm(["log", &id[..8]]).output().unwrap();
    assert_eq!(stdout(&kept), "made\n", "{}", stderr(&kept));
    assert!(stderr(&kept).starts_with("note: mvm has no record of the build any more"), "{}", stderr(&kept));
}

#[test]
fn what_there_is_no_log_of_is_answered_with_what_there_is() {
    let world = World::empty();
    assert_snapshot!(world.fails(["log"]), @"
    error: there is no record of a build
    help: `mvm build --flake DIR` makes one
    ");
    assert_snapshot!(world.fails(["log", "nowhere/at/all"]), @"
    error: `nowhere/at/all` is neither a build nor a flake
    help: give a build's id, its task (`b-…`), its directory or a flake; `mvm log` alone shows the newest
    ");
    if !has_nix() {
        return;
    }
    flake(&world, "good", GOOD);
    world.ok(["build", "--flake", "good"]);
    let said = world.fails(["log", "zzz"]);
    assert!(said.starts_with("error: there is no record of a build `zzz`\nhelp: "), "{said}");
    assert!(said.contains("  built ") && said.contains("/good"), "{said}");
    let said = world.fails(["log", "--drv", "nothing"]);
    assert!(said.ends_with("help: it built image\n"), "{said}");
}

#[test]
fn a_build_that_goes_on_is_followed_to_its_end() {
    if !has_nix() || !is_root() {
        return;
    }
    let world = World::empty();
    let go = world.path("go");
    flake(
        &world,
        "slow",
        &format!("echo waiting; until [ -e {} ]; do sleep 0.05; done; {GOOD}", go.display()),
    );
    let mut build = Running::start(world.mvm(["--verbose", "build", "--flake", "slow"]));
    build.line("image> waiting");
    assert!(world.ok(["status"]).contains("slow is being built, for "));
    let mut log = Running::start(world.mvm(["log", "-f"]));
    log.line(": running");
    log.line("image> waiting");
    let mut drv = Running::start(world.mvm(["log", "-f", "slow", "--drv", "image"]));
    drv.line("waiting");
    fs::write(go, "").unwrap();
    for (program, last) in [(log, "    built "), (drv, "made"), (build, "/dev/builds/")] {
        let (status, lines) = program.end();
        assert!(status.success() && lines.contains(last), "{lines}");
    }
    assert!(!world.ok(["status"]).contains("is being built"));
}
