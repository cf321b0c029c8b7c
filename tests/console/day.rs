//! What a user does in the console: build, run, work in a guest, stop it, leave.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rusqlite::Connection;

use crate::support::terminal::Terminal;
use crate::support::{World, kill_process};
use crate::{expect_restored, open};

/// Types into the guest until it shows that it was read: what is typed before the shell is ready is lost.
pub fn in_guest(terminal: &mut Terminal, text: &str) {
    // The words of the answer are not those that are typed.
    terminal.keys(&format!("echo {text}-from-'guest'\r"));
    terminal.see(&format!("{text}-from-guest"));
}

/// Waits for a VM's line to say this.
pub fn see_state(terminal: &mut Terminal, name: &str, state: &str) {
    terminal.wait(&format!("{name} {state}"), |terminal| {
        terminal.text().lines().any(|line| line.contains(name) && line.contains(state))
    });
}

/// How many tasks are over, by their records.
fn ended_tasks(world: &World) -> usize {
    let records = fs::read_dir(world.state().join("tasks")).unwrap().flatten();
    records.filter(|record| fs::read_to_string(record.path()).unwrap().contains("task_ended")).count()
}

/// Selects a VM in the table, which has the live ones first and of these the newest.
fn select(terminal: &mut Terminal, world: &World, name: &str) {
    let mut vms = world.vms();
    vms.sort_by_key(|vm| vm["state"] != "running");
    let row = vms.iter().position(|vm| vm["name"] == name).unwrap();
    terminal.keys("3g");
    terminal.keys(&"j".repeat(row));
}

#[test]
fn a_flake_is_built_run_worked_in_and_stopped() {
    let world = World::new();
    let flake = world.example("hello");
    let mut terminal = open(&world, &["--flake", flake.to_str().unwrap()]);
    terminal.keys("b");
    terminal.see("✔");
    terminal.keys("R3");
    see_state(&mut terminal, "hello", "running");

    // A store that somebody holds holds up the work, but not the screen.
    let holder = Connection::open(world.state().join("state.db")).unwrap();
    holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
    terminal.keys("b");
    let began = Instant::now();
    for (key, title) in [("6", "No session"), ("3", "hello"), (":", "Command")] {
        terminal.keys(key);
        terminal.see(title);
    }
    terminal.keys("\x1b");
    terminal.miss("Command");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    holder.execute_batch("ROLLBACK").unwrap();
    drop(holder);
    terminal.wait("the end of the build", |_| ended_tasks(&world) == 3);

    // Another process starts a VM.
    world.ok(["run", "--network", "user", "--detach", "--name", "other", "--flake", flake.to_str().unwrap()]);
    see_state(&mut terminal, "other", "running");

    select(&mut terminal, &world, "hello");
    terminal.keys("s");
    terminal.see("^B then");
    in_guest(&mut terminal, "hello");
    // Twice the prefix is the prefix itself, which the guest's terminal echoes.
    terminal.keys("echo reads-'now'; cat\r");
    terminal.see("reads-now");
    terminal.keys("\x02\x02\r");
    terminal.wait("^B in the guest", |terminal| terminal.text().lines().any(|line| line.trim() == "^B"));
    terminal.keys("\x04");
    in_guest(&mut terminal, "again");
    terminal.keys("\x02x");
    terminal.see("End the session");
    terminal.keys("y");
    terminal.see("No session");

    // A VM that dies while its terminal is open.
    select(&mut terminal, &world, "other");
    terminal.keys("s");
    in_guest(&mut terminal, "other");
    kill_process(&world.vm("other")["pid"]);
    terminal.see("ended with");
    terminal.keys("3");
    see_state(&mut terminal, "other", "failed");

    select(&mut terminal, &world, "hello");
    terminal.keys("x");
    see_state(&mut terminal, "hello", "stopped");
    terminal.keys("q");
    expect_restored(&mut terminal, 0);
    world.expect_nothing_left();
}

#[test]
fn a_run_opens_a_session_by_itself_and_ends_with_the_console() {
    let world = World::new();
    let flake = world.example("hello");
    let mut terminal = open(&world, &["--flake", flake.to_str().unwrap()]);
    terminal.keys("r");
    terminal.see("^B then");
    in_guest(&mut terminal, "leashed");
    assert_eq!(world.vm("hello")["state"], "running");
    terminal.keys("\x02q");
    terminal.see("Quit?");
    terminal.keys("y");
    expect_restored(&mut terminal, 0);
    assert_eq!(world.vm("hello")["state"], "stopped");
    world.expect_nothing_left();

    // One without a word: the VM ends all the same.
    let mut terminal = open(&world, &["--flake", flake.to_str().unwrap()]);
    terminal.keys("r");
    terminal.see("^B then");
    terminal.signal("mvm", Signal::SIGKILL);
    terminal.end();
    world.expect_no_process();
    world.ok(["status"]);
    world.expect_nothing_left();
}
