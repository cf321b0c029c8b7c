//! However a run ends, nothing is left of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::{DEADLINE, Namespace, Running, World, kill_process, stderr, wait_until};
use crate::{run_user, start_gateway};
use nix::sys::signal::Signal;
use serde_json::Value;

#[test]
fn a_name_in_use_is_refused_and_free_again_once_its_vm_is_over() {
    let world = World::new();
    let flake = world.example("hello");
    world.ok(run_user(&flake, &["--name", "mine", "--detach"]));
    let said = world.fails(run_user(&flake, &["--name", "mine", "--detach"]));
    assert!(said.contains("a VM named `mine` is running already"), "{said}");
    world.ok(["stop", "--all"]);
    world.ok(run_user(&flake, &["--name", "mine", "--detach"]));
}

#[test]
fn a_vm_run_with_rm_leaves_no_record() {
    let world = World::new();
    world.ok(run_user(&world.example("hello"), &["--rm", "--", "true"]));
    assert_eq!(world.vms(), [Value::Null; 0]);
    assert_eq!(fs::read_dir(world.state().join("vms")).unwrap().count(), 0);
}

#[test]
fn a_guest_that_powers_off_by_itself_is_stopped() {
    let world = World::new();
    start_gateway(&world, "user", &[]);
    // The connection may end before the command does.
    let _ = world.mvm(["exec", "gateway", "--user", "root", "--", "poweroff"]).output().unwrap();
    wait_until(DEADLINE, "the end of the VM", || world.vm("gateway")["state"] == "stopped");
    world.expect_nothing_left();
}

/// A flake whose build begins and does not end; its builder's command line bears a mark.
fn endless(world: &World) -> std::path::PathBuf {
    world.flake(
        "endless",
        &format!(
            "{{ inputs.tools = {{ url = \"flake:mvm-host-tools\"; flake = false; }};
                outputs = {{ tools, ... }}: {{ packages.x86_64-linux.default = derivation {{
                  name = \"endless\"; system = \"x86_64-linux\"; builder = \"${{tools}}/build/bin/busybox\";
                  args = [ \"sh\" \"-c\" \"${{tools}}/build/bin/busybox sleep 2147483647; : {}\" ]; }}; }}; }}",
            world.path("mark").display()
        ),
    )
}

#[test]
fn an_interrupt_during_the_build_ends_nix_and_its_builder() {
    let world = World::new();
    let mut run = Running::start(world.mvm(run_user(&endless(&world), &["--", "true"])));
    run.line("build endless");
    wait_until(DEADLINE, "the builder", || {
        world.processes().iter().any(|line| line.contains("sleep 2147483647;"))
    });
    run.signal(Signal::SIGINT);
    let (status, said) = run.end();
    assert_eq!(status.code(), Some(130), "{said}");
    world.expect_nothing_left();
    assert_eq!(fs::read_dir(world.state().join("dev/builds")).unwrap().count(), 0);
}

#[test]
fn who_interrupts_twice_does_not_wait_for_what_takes_its_time_to_end() {
    let world = World::new();
    let [bin, asked, over] = ["bin", "asked", "over"].map(|name| world.path(name));
    fs::create_dir(&bin).unwrap();
    let (touch_asked, touch_over) = (asked.display(), over.display());
    let nix = mvm::host::child::find_program("nix").unwrap();
    let script = format!(
        "#!/bin/sh\ncase \" $* \" in *' build '*) ;; *) exec {} \"$@\" ;; esac\n\
         trap 'trap \"\" INT; touch {touch_asked}; sleep 3; touch {touch_over}; exit 1' INT\n\
         echo begun >&2\nwhile :; do sleep 0.1; done\n",
        nix.display()
    );
    fs::write(bin.join("nix"), script).unwrap();
    fs::set_permissions(bin.join("nix"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = world.mvm(["build", "--verbose", "--flake", world.example("hello").to_str().unwrap()]);
    command.env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
    let mut build = Running::start(command);
    build.line("begun");
    build.signal(Signal::SIGINT);
    wait_until(DEADLINE, "the first to be heard", || asked.exists());
    build.signal(Signal::SIGINT);
    let (status, said) = build.end();
    assert!(status.code() == Some(130) && !over.exists(), "{said}");
    wait_until(DEADLINE, "the end of all", || over.exists());
}

#[test]
fn a_session_that_mvm_is_asked_to_end_is_ended_with_its_guest() {
    let world = World::new();
    let flake = world.example("hello");
    let mut run = Running::start(world.mvm(run_user(&flake, &[])));
    run.write("echo be''gun\n");
    run.line("begun");
    run.signal(Signal::SIGTERM);
    let (status, said) = run.end();
    assert_eq!(status.code(), Some(130), "{said}");
    assert_eq!(world.vm("hello")["state"], "stopped");
    world.expect_nothing_left();
}

#[test]
fn an_interrupt_during_the_boot_ends_the_guest() {
    let world = World::new();
    let flake = world.odd_guest("odd", "exec /bin/busybox sleep 2147483647");
    let mut run = Running::start(world.mvm(run_user(&flake, &["--", "true"])));
    run.line("boot odd");
    run.signal(Signal::SIGINT);
    let (status, said) = run.end();
    assert_eq!(status.code(), Some(130), "{said}");
    world.expect_nothing_left();
    assert!(world.vms().is_empty(), "{:?}", world.vms());
}

#[test]
fn an_interrupt_during_the_command_reaches_the_command_and_ends_the_guest() {
    let world = World::new();
    let flake = world.example("hello");
    let mut run =
        Running::start(world.mvm(run_user(&flake, &["--", "sh", "-c", "echo begun; exec sleep 1000"])));
    run.line("begun");
    run.signal(Signal::SIGINT);
    let (status, said) = run.end();
    assert_eq!(status.code(), Some(130), "{said}");
    world.expect_nothing_left();
}

/// Kills the shim of a running gateway and looks at what the next command makes of it.
fn a_killed_shim_is_noticed(world: &World, network: &str) {
    let vm = start_gateway(world, network, &[]);
    kill_process(&vm["pid"]);
    // Its hypervisor takes a moment to follow.
    wait_until(DEADLINE, "a word about the killed VM", || {
        let output = world.mvm(["status"]).output().unwrap();
        stderr(&output).contains("the VM `gateway` had ended without a word")
    });
    assert_eq!(world.vm("gateway")["state"], "failed");
    world.expect_nothing_left();
    world.ok(["gc"]);
    assert_eq!(world.vms(), [Value::Null; 0]);
}

#[test]
fn a_killed_shim_takes_its_guest_along_and_the_next_command_says_so() {
    a_killed_shim_is_noticed(&World::new(), "user");
}

#[test]
fn a_killed_shim_in_tap_mode_leaves_neither_link_nor_table_behind() {
    let Some(namespace) = Namespace::new() else { return };
    let world = World::new();
    namespace.enter(|| a_killed_shim_is_noticed(&world, "tap"));
    let links = namespace.ip(&["-o", "link"]);
    assert!(!links.contains("mvm-"), "{links}");
    assert_eq!(namespace.run("nft", &["list", "tables"]), "");
}

#[test]
fn a_vm_ends_by_itself_when_the_run_that_holds_it_is_killed() {
    let world = World::new();
    let flake = world.example("hello");
    let mut run =
        Running::start(world.mvm(run_user(&flake, &["--", "sh", "-c", "echo begun; exec sleep 1000"])));
    run.line("begun");
    run.signal(Signal::SIGKILL);
    drop(run);
    wait_until(DEADLINE, "the end of the VM", || world.vm("hello")["state"] == "stopped");
    world.expect_nothing_left();
}
