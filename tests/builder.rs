//! Builds in a VM of their own, with a real Nix in a real guest.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use support::{Running, World, wait_until};

/// A flake whose image says where it was built; `script` comes first.
fn flake(world: &World, name: &str, script: &str) -> PathBuf {
    let image =
        "mkdir $out; printf '\\\\177ELFxx' > $out/vmlinux; cat /proc/sys/kernel/hostname > $out/rootfs.ext4";
    world.flake(
        name,
        &format!(
            r#"{{ outputs = {{ self }}: {{ packages.x86_64-linux.default = derivation {{
                name = "{name}"; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/bin";
                salt = "{}"; args = [ "-c" "{script} {image}" ]; }}; }}; }}"#,
            world.state().display(),
        ),
    )
}

fn in_vm<'a>(flake: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    [&["build", "--builder", "vm", "--flake", flake.to_str().unwrap()], more].concat()
}

#[test]
fn a_build_in_a_vm_leaves_the_artifacts_here_and_nothing_else() {
    let world = World::new();
    let first = flake(&world, "first", "");
    let out = world.ok(in_vm(&first, &["--builder-disk", "300M"]));
    let artifacts = Path::new(out.trim());
    assert_eq!(fs::read_to_string(artifacts.join("rootfs.ext4")).unwrap(), "mvm-builder\n");
    world.expect_nothing_left();
    assert!(world.vms().is_empty(), "the VM leaves no record");
    // Nothing changed, nor was it so new that it might have: no VM is needed.
    world.ok(in_vm(&first, &["--builder-disk", "300M"]));
    let output = world.mvm(in_vm(&first, &["--builder-disk", "300M"])).output().unwrap();
    let said = support::stderr(&output);
    assert!(said.contains("source unchanged") && !said.contains("builder VM"), "{said}");

    // A failure is told as by a build on this machine, and the VM is gone as well.
    let failing = flake(&world, "failing", "echo what is wrong; exit 3;");
    let said = world.fails(in_vm(&failing, &["--builder-mem", "768M", "--builder-disk", "300M"]));
    assert!(said.contains("what is wrong") && said.contains("error: cannot build"), "{said}");
    world.expect_nothing_left();

    // Of its own store only so much.
    let large = flake(&world, "large", "dd if=/dev/zero of=zero bs=1M count=400;");
    let said = world.fails(in_vm(&large, &["--builder-mem", "768M", "--builder-disk", "300M"]));
    assert!(said.contains("its store of 300 MiB is full: `--builder-disk 600M`"), "{said}");
    world.expect_nothing_left();

    // What mvm gives it has to find room too.
    let example = world.example("hello");
    let said = world.fails(in_vm(&example, &["--builder-disk", "64M"]));
    assert!(said.contains("its store of 64 MiB is full: `--builder-disk 128M`"), "{said}");
    world.expect_nothing_left();
}

#[test]
fn a_real_image_is_built_in_a_vm_and_boots() {
    let world = World::new();
    let flake = world.example("hello");
    let by_path = format!("path:{}", flake.display());
    let args = ["run", "--network", "user", "--builder", "vm", "--flake", &by_path, "--", "uname"];
    assert_eq!(world.ok(args), "Linux\n");
    world.expect_nothing_left();
}

#[test]
fn a_build_that_is_killed_takes_its_vm_along_and_the_next_one_works() {
    let world = World::new();
    let slow = flake(&world, "slow", "echo begun; sleep 600;");
    let mut build = Running::start(world.mvm(in_vm(&slow, &["--verbose"])));
    build.line("begun");
    flake(&world, "slow", "");
    let mut waiting = Running::start(world.mvm(in_vm(&slow, &[])));
    waiting.line("waiting for another build of this project");
    build.signal(Signal::SIGKILL);
    build.end();
    waiting.line("the builder VM is up");
    let (status, said) = waiting.end();
    assert!(status.success(), "{said}");
    world.expect_nothing_left();

    flake(&world, "slow", "echo begun; sleep 600;");
    let mut build = Running::start(world.mvm(in_vm(&slow, &["--verbose"])));
    build.line("begun");
    build.signal(Signal::SIGINT);
    assert_eq!(build.end().0.code(), Some(130));
    wait_until(support::DEADLINE, "the end of the VM", || world.vms().is_empty());
    world.expect_nothing_left();
}

#[test]
fn what_is_of_the_vm_is_not_taken_without_it() {
    let world = World::empty();
    let said = world.exits(2, ["build", "--builder-mem", "1G"]);
    assert!(said.contains("help: add `--builder vm`"), "{said}");
}
