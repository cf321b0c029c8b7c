//! A VM saved and gone on from, by keys.

use crate::day::{in_guest, see_state};
use crate::support::World;
use crate::{expect_restored, open};

#[test]
fn a_vm_is_saved_ended_and_goes_on_with_what_it_had_in_memory() {
    let world = World::new();
    let flake = world.example("hello");
    let root = |script: &str| world.ok(["exec", "hello", "--user", "root", "--", "sh", "-c", script]);
    let mut terminal = open(&world, &["--flake", flake.to_str().unwrap()]);
    terminal.keys("r");
    terminal.see("^B then");
    in_guest(&mut terminal, "hello");
    root("echo first > /run/file");
    terminal.keys("\x023");
    see_state(&mut terminal, "hello", "running");
    terminal.see("snapshot   none");
    let first = world.vm("hello")["id"].clone();

    terminal.keys("K");
    terminal.see("saved hello in");
    terminal.see(" old");
    terminal.see("SNAP");
    root("echo second > /run/file");
    terminal.keys("x");
    see_state(&mut terminal, "hello", "stopped");
    terminal.see("L restore");
    terminal.keys("L");
    see_state(&mut terminal, "hello", "running");
    terminal.see("restored in");
    assert_eq!(root("cat /run/file"), "first\n");
    assert_ne!(world.vm("hello")["id"], first);
    assert_eq!(world.vms().len(), 1, "the old VM is still there");

    // Saved and ended at once, after a word of confirmation.
    root("echo third > /run/file");
    terminal.keys("Z");
    terminal.see("Save hello and end it");
    terminal.keys("y");
    see_state(&mut terminal, "hello", "stopped");
    terminal.see("L restore");
    terminal.keys("2");
    terminal.see("save hello");
    terminal.see("the guest stood still for");
    terminal.keys("3L");
    see_state(&mut terminal, "hello", "running");
    assert_eq!(root("cat /run/file"), "third\n");

    // It lives on when the console ends, which therefore asks nothing.
    terminal.keys("q");
    expect_restored(&mut terminal, 0);
    assert_eq!(world.vm("hello")["state"], "running");
    world.ok(["stop", "hello"]);
    world.expect_nothing_left();
}
