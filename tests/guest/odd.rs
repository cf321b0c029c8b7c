//! Guests that do not come up as they should, or not by the usual way.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::{Running, World, in_own_mounts, is_root, mount_tmpfs, stderr, stdout};
use crate::{run_user, start_gateway};
use nix::mount::MsFlags;
use serde_json::Value;

#[test]
fn a_guest_that_never_seals_ends_with_124_at_the_deadline_with_its_last_lines() {
    let world = World::new();
    let flake =
        world.odd_guest("odd", "echo waiting for a bus > /dev/console; exec /bin/busybox sleep 2147483647");
    let said = world.exits(124, run_user(&flake, &["--boot-timeout", "8", "--", "true"]));
    assert!(said.contains("the guest `odd` did not start its agent within 8 s"), "{said}");
    assert!(said.contains("waiting for a bus") && said.contains("help: "), "{said}");
    assert_eq!(world.vm("odd")["state"], "failed");
    world.expect_nothing_left();
}

#[test]
fn a_guest_that_dies_at_boot_fails_at_once_with_its_last_lines() {
    let world = World::new();
    let flake = world.odd_guest("odd", "echo no more > /dev/console; exit 1");
    let said = world.fails(run_user(&flake, &["--", "true"]));
    assert!(said.contains("the hypervisor ended before the guest was ready"), "{said}");
    assert!(said.contains("no more"), "{said}");
    world.expect_nothing_left();
}

#[test]
fn what_a_guest_writes_on_its_console_does_not_steer_the_terminal() {
    let world = World::new();
    let flake = world.odd_guest("odd", "printf 'a\\033]0;title\\007b\\033[2Jc\\n' > /dev/console; exit 1");
    let said = world.fails(run_user(&flake, &["--", "true"]));
    assert!(said.contains("abc") && !said.contains('\x1b'), "{said:?}");
    let log = world.ok(["logs", "odd"]);
    assert!(log.contains("abc") && !log.contains('\x1b'), "{log:?}");
}

#[test]
fn a_guest_whose_port_stays_closed_ends_with_124_at_the_deadline_and_names_the_port() {
    let world = World::new();
    let flake = world.flake(
        "shut",
        "{ inputs.mvm.url = \"flake:mvm-offline\"; outputs = { mvm, ... }: { packages = mvm.lib.mkGuests {
             name = \"shut\"; default = \"worker\"; roles.worker.ports = [ 9999 ]; }; }; }",
    );
    let said = world.exits(124, run_user(&flake, &["--boot-timeout", "10", "--", "true"]));
    assert!(
        said.contains("the guest `shut` did not listen on port 9999 of its addresses within 10 s"),
        "{said}"
    );
    world.expect_nothing_left();
}

#[test]
fn less_memory_than_the_image_needs_is_refused_before_anything_boots() {
    let world = World::new();
    let flake = world.flake(
        "big",
        "{ inputs.mvm.url = \"flake:mvm-offline\"; outputs = { mvm, ... }: { packages = mvm.lib.mkGuests {
             name = \"big\"; default = \"worker\"; roles.worker.minMemMib = 512; }; }; }",
    );
    let said = world.fails(run_user(&flake, &["--mem", "256", "--", "true"]));
    assert!(said.contains("the image needs 512 MiB of memory, and 256 MiB are asked for"), "{said}");
    assert!(said.contains("help: give at least `--mem 512`"), "{said}");
    assert_eq!(world.vms(), [Value::Null; 0]);
}

#[test]
fn more_memory_than_the_machine_has_is_refused() {
    let world = World::new();
    let said = world.fails(run_user(&world.example("hello"), &["--mem", "1023G", "--", "true"]));
    assert!(said.contains("1047552 MiB of memory are more than this machine's"), "{said}");
    assert_eq!(world.vm("hello")["state"], "failed");
    world.expect_nothing_left();
}

#[test]
fn the_least_memory_mvm_accepts_is_enough_to_boot() {
    let world = World::new();
    assert_eq!(world.ok(run_user(&world.example("hello"), &["--mem", "96", "--", "echo", "up"])), "up\n");
}

#[test]
fn a_full_disk_is_an_error_and_space_is_all_it_takes_to_go_on() {
    if !is_root() {
        return;
    }
    let world = World::empty();
    let flake = world.example("hello");
    in_own_mounts(|| {
        mount_tmpfs(&world.state(), "size=48M", MsFlags::empty());
        world.prepare();
        let ballast = world.state().join("ballast");
        let fill = || {
            let mut file = fs::File::create(&ballast).unwrap();
            // Until the disk says no.
            let _ = std::io::copy(&mut std::io::repeat(0), &mut file);
        };
        world.ok(["status"]);
        fill();
        let said = world.fails(["build", "--flake", flake.to_str().unwrap()]);
        assert!(
            said.contains("disk is full") || said.contains("No space left") || said.contains("disk full"),
            "{said}"
        );
        fs::remove_file(&ballast).unwrap();
        world.ok(["build", "--flake", flake.to_str().unwrap()]);
        fill();
        let said = world.fails(run_user(&flake, &["--", "true"]));
        assert!(said.contains("help: ") && said.contains("full"), "{said}");
        fs::remove_file(&ballast).unwrap();
        assert_eq!(world.ok(run_user(&flake, &["--", "echo", "up"])), "up\n");
        world.expect_nothing_left();
    });
}

#[test]
fn a_stop_that_the_guest_ignores_is_enforced_at_its_deadline() {
    let world = World::new();
    start_gateway(&world, "user", &[]);
    let mut follow = Running::start(world.mvm(["logs", "--follow", "gateway"]));
    let freeze = "kill -STOP $(pidof mvm-guest); echo frozen > /dev/console";
    let _frozen = Running::start(world.mvm(["exec", "gateway", "--user", "root", "--", "sh", "-c", freeze]));
    follow.line("frozen");
    let begun = Instant::now();
    world.ok(["stop", "--timeout", "1", "gateway"]);
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(world.vm("gateway")["state"], "stopped");
}

#[test]
fn an_image_without_the_agent_is_reached_by_ssh_and_mvm_says_so() {
    let world = World::new();
    let flake = world.flake("agentless", include_str!("../support/agentless.nix"));
    let (_, key) = mvm::vm::keys::user_key(&world.state()).unwrap();
    fs::write(flake.join("key.pub"), key + "\n").unwrap();
    let output = world.mvm(run_user(&flake, &["--", "sh", "-c", "uname; exit 6"])).output().unwrap();
    let said = stderr(&output);
    assert_eq!((stdout(&output).as_str(), output.status.code()), ("Linux\n", Some(6)), "{said}");
    assert!(said.contains("the image has no guest agent"), "{said}");
    world.expect_nothing_left();
}
