//! `--watch`: builds and guests that follow a flake's sources.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use support::{DEADLINE, Running, World, http_get, published, wait_until};

/// As editors save: a new file takes the old one's place.
fn save(file: &Path, text: &str) {
    let new = file.with_extension("new~");
    fs::write(&new, text).unwrap();
    fs::rename(new, file).unwrap();
}

/// A page that no test has built before: the machine's Nix store outlives them.
fn unseen(world: &World) -> String {
    format!("{}\n", world.state().display())
}

/// A flake whose only output is built until `gate` is there, and fails then.
fn slow_flake(world: &World, text: &str, gate: &Path) -> PathBuf {
    let script = format!("echo begun {text}; while [ ! -e {} ]; do sleep 0.05; done; exit 1", gate.display());
    let flake = format!(
        r#"{{ outputs = {{ self }}: {{ packages.x86_64-linux.default = derivation {{
            name = "slow"; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/usr/bin:/bin";
            args = [ "-c" "{script}" ]; }}; }}; }}"#
    );
    world.flake("slow", &flake)
}

#[test]
fn a_build_follows_its_sources_and_says_what_changed() {
    let world = World::new();
    let flake = world.example("gateway");
    let mut watch = Running::start(world.mvm(["build", "--watch", "--flake", flake.to_str().unwrap()]));
    watch.line("/dev/builds/");
    watch.line("watching ");
    save(&flake.join("www/index.html"), &unseen(&world));
    watch.line("changed www/index.html");
    watch.line("(built)");
    // Nix's own traces and comments change nothing.
    save(&flake.join("flake.nix"), &(fs::read_to_string(flake.join("flake.nix")).unwrap() + "# more\n"));
    watch.line("changed flake.nix");
    watch.line("(same output)");
    save(&flake.join("flake.nix"), "{ broken");
    watch.line("error: cannot build");
    fs::remove_file(flake.join("flake.nix")).unwrap();
    watch.line("the flake is gone");
    watch.signal(Signal::SIGINT);
    let (status, _) = watch.end();
    assert_eq!(status.code(), Some(130));
    world.expect_nothing_left();
}

#[test]
fn a_change_during_a_build_restarts_it_or_waits_for_its_end() {
    let world = World::new();
    let args = |flake: &Path, how: &str| {
        ["build", "--verbose", "--watch", "--on-busy", how, "--flake", flake.to_str().unwrap()]
            .map(String::from)
    };
    let gate = world.path("gate");
    let flake = slow_flake(&world, "first", &gate);
    let mut watch = Running::start(world.mvm(args(&flake, "restart")));
    watch.line("begun first");
    slow_flake(&world, "second", &gate);
    watch.line("cancelled");
    watch.line("begun second");
    watch.signal(Signal::SIGINT);
    assert_eq!(watch.end().0.code(), Some(130));

    let mut watch = Running::start(world.mvm(args(&flake, "wait")));
    watch.line("begun second");
    slow_flake(&world, "third", &gate);
    // Long enough for the change to be heard.
    assert!(watch.run_for(Duration::from_secs(1)));
    fs::write(&gate, "").unwrap();
    watch.line("error: cannot build");
    watch.line("begun third");
    watch.signal(Signal::SIGINT);
    assert_eq!(watch.end().0.code(), Some(130));
    world.expect_nothing_left();
}

#[test]
fn what_git_does_not_track_is_told_of_until_it_is_added() {
    let world = World::new();
    let flake = world.example("gateway");
    let git = |args: &[&str]| {
        assert!(Command::new("git").current_dir(&flake).args(args).status().unwrap().success());
    };
    git(&["init", "-q"]);
    git(&["add", "."]);
    let mut watch = Running::start(world.mvm(["build", "--watch", "--flake", flake.to_str().unwrap()]));
    watch.line("watching ");
    fs::write(flake.join("www/more.html"), unseen(&world)).unwrap();
    watch.line("gateway add www/more.html");
    git(&["add", "."]);
    watch.line("changed .git");
    watch.line("(built)");
    watch.signal(Signal::SIGINT);
    watch.end();
}

/// Asks for a page again and again until `done`; the answers, each whole.
fn visit(address: SocketAddr, done: &AtomicBool) -> Vec<String> {
    let mut answers = Vec::new();
    while !done.load(Ordering::Relaxed) {
        let mut stream = TcpStream::connect(address).expect("nobody is refused");
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        // busybox closes before it has read the last empty line.
        let _ = stream.read_to_end(&mut answer);
        answers.push(String::from_utf8(answer).unwrap());
    }
    answers
}

#[test]
fn a_guest_is_replaced_with_nobody_refused_and_stays_when_the_build_fails() {
    let world = World::new();
    let flake = world.example("gateway");
    let page = flake.join("www/index.html");
    save(&page, "first\n");
    let args = ["run", "--watch", "--flake", flake.to_str().unwrap(), "-p", "0:8080"];
    let mut watch = Running::start(world.mvm(args));
    watch.line("watching ");
    let (vm, done) = (world.vm("gateway"), AtomicBool::new(false));
    let address = published(&vm);
    assert!(http_get(address).ends_with("first\n"));

    let answers = thread::scope(|scope| {
        let visitor = scope.spawn(|| visit(address, &done));
        save(&page, "second\n");
        watch.line("in its place");
        wait_until(DEADLINE, "the new page", || http_get(address).ends_with("second\n"));
        done.store(true, Ordering::Relaxed);
        visitor.join().unwrap()
    });
    let odd = answers.iter().find(|answer| !answer.ends_with("first\n") && !answer.ends_with("second\n"));
    assert_eq!(odd, None, "of {} answers", answers.len());
    let now = world.vm("gateway");
    assert_ne!(now["id"], vm["id"]);
    assert_eq!((published(&now), world.vms().len()), (address, 1));

    let good = fs::read_to_string(flake.join("flake.nix")).unwrap();
    save(&flake.join("flake.nix"), "{ broken");
    watch.line("error: cannot build");
    assert!(http_get(address).ends_with("second\n"));
    save(&flake.join("flake.nix"), &good);
    watch.line("runs it already");
    // One that does not come up leaves the old one as it is.
    save(&flake.join("mvm.toml"), "boot_timeout_secs = 1\nmemory = \"300M\"\n");
    watch.line("error: the guest");
    assert!(http_get(address).ends_with("second\n"));
    assert_eq!(world.vm("gateway")["id"], now["id"]);
    fs::remove_file(flake.join("mvm.toml")).unwrap();
    watch.line("runs it already");

    watch.signal(Signal::SIGINT);
    assert_eq!(watch.end().0.code(), Some(130));
    assert_eq!(world.vm("gateway")["state"], "stopped");
    world.expect_nothing_left();
}

#[test]
fn a_guest_is_replaced_by_one_of_the_size_that_its_profile_has_now() {
    let world = World::new();
    let flake = world.example("gateway");
    let profiles = flake.join("mvm-profiles.toml");
    let of_size =
        |size: &str| format!("[[profile]]\nname = \"small\"\nattribute = \"minimal\"\nmemory = {size}\n");
    fs::write(&profiles, of_size("192")).unwrap();
    let flake = flake.to_str().unwrap();
    let args = ["run", "--watch", "--network", "user", "--profile", "small", "--flake", flake];
    let mut watch = Running::start(world.mvm(args));
    watch.line("ready gateway");
    assert_eq!(world.vm("gateway")["spec"]["memory_mib"], 192);
    save(&profiles, &of_size("none"));
    watch.line("the profiles in ");
    assert_eq!(world.vm("gateway")["state"], "running");
    save(&profiles, &of_size("224"));
    watch.line("in its place ");
    assert_eq!(world.vm("gateway")["spec"]["memory_mib"], 224);
    watch.signal(Signal::SIGINT);
    assert_eq!(watch.end().0.code(), Some(130));
    world.expect_nothing_left();
}

#[test]
fn a_watch_that_is_killed_while_it_replaces_a_guest_leaves_nothing() {
    let world = World::new();
    let flake = world.example("gateway");
    let args = ["run", "--watch", "--flake", flake.to_str().unwrap(), "-p", "0:8080"];
    let mut watch = Running::start(world.mvm(args));
    watch.line("watching ");
    save(&flake.join("www/index.html"), "second\n");
    watch.line("boot gateway");
    wait_until(DEADLINE, "the new guest", || world.vms().iter().any(|vm| vm["state"] == "booting"));
    watch.signal(Signal::SIGKILL);
    watch.end();
    wait_until(DEADLINE, "the end of both", || {
        world.vms().iter().all(|vm| vm["state"] != "running" && vm["state"] != "booting")
    });
    world.expect_nothing_left();
    let out = world.ok(["run", "--flake", flake.to_str().unwrap(), "--", "cat", "/srv/www/index.html"]);
    assert_eq!(out, "second\n");
}
