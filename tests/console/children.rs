//! However the console ends, what it started ends with it.

use std::path::PathBuf;

use nix::sys::signal::Signal;

use crate::support::World;
use crate::support::terminal::Terminal;
use crate::{PASTE, expect_restored, open_in};

/// A flake whose builder begins and does not end; its command line names the world.
pub fn endless(world: &World, name: &str) -> PathBuf {
    let mark = world.path("endless");
    let text = format!(
        "{{ outputs = _: {{ packages.x86_64-linux.default = derivation {{
            name = \"endless\"; system = \"x86_64-linux\"; builder = \"/bin/sh\"; PATH = \"/usr/bin:/bin\";
            args = [ \"-c\" \"echo begun; sleep 600; : {}\" ]; }}; }}; }}",
        mark.display()
    );
    world.flake(name, &text)
}

/// Whether a process of this world has `text` in its command line.
pub fn runs(world: &World, text: &str) -> bool {
    world.processes().iter().any(|process| process.contains(text))
}

/// A console with a VM on its leash that boots, and a build that does not end.
fn busy(world: &World) -> Terminal {
    busy_in(world, &[])
}

/// The same, in another environment.
fn busy_in(world: &World, env: &[&str]) -> Terminal {
    let flake = world.example("hello");
    let hello = std::fs::read_to_string(flake.join("flake.nix")).unwrap();
    let mut terminal = open_in(world, env, &["--flake", flake.to_str().unwrap()]);
    terminal.keys("r");
    terminal.wait("the VM's hypervisor", |_| runs(world, "qemu-system"));
    endless(world, "hello");
    terminal.keys("b");
    terminal.wait("the builder", |_| runs(world, "echo begun"));
    std::fs::write(flake.join("flake.nix"), hello).unwrap();
    terminal
}

#[test]
fn whatever_ends_the_console_ends_its_builds_and_vms() {
    let world = World::new();
    let mut terminal = busy(&world);
    terminal.keys("q");
    terminal.see("Quit?");
    terminal.keys("n");
    terminal.miss("Quit?");
    terminal.keys("qy");
    expect_restored(&mut terminal, 0);
    world.expect_nothing_left();

    let mut terminal = busy(&world);
    terminal.keys("?\x03");
    expect_restored(&mut terminal, 0);
    world.expect_nothing_left();

    for signal in [Signal::SIGTERM, Signal::SIGHUP] {
        let mut terminal = busy(&world);
        terminal.signal("mvm", signal);
        expect_restored(&mut terminal, 130);
        world.expect_nothing_left();
    }

    drop(busy(&world));
    world.expect_nothing_left();

    let mut terminal = busy_in(&world, &["MVM_TEST_PANIC=paste"]);
    terminal.keys(PASTE);
    expect_restored(&mut terminal, 101);
    world.expect_nothing_left();

    let mut terminal = busy_in(&world, &["MVM_TEST_PANIC=cancel"]);
    terminal.keys("2c");
    expect_restored(&mut terminal, 101);
    world.expect_nothing_left();

    let mut terminal = busy(&world);
    terminal.signal("mvm", Signal::SIGKILL);
    terminal.end();
    world.expect_no_process();
    // The next command finds what was left behind and squares it.
    world.ok(["status"]);
    world.expect_nothing_left();
    assert!(world.vms().iter().all(|vm| vm["state"] != "running"));
}
