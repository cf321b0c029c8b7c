//! Guests that go on from where they were saved, driven by the command line as a user drives it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use support::{DEADLINE, Running, World, http_get, is_root, published, wait_until};

/// Runs a flake for good and returns what mvm said of how it started. What it saved is on disk then.
fn start(world: &World, flake: &Path, name: &str, more: &[&str]) -> String {
    let flake = flake.to_str().unwrap();
    let args = [&["run", "--detach", "--flake", flake, "--name", name], more].concat();
    let output = world.mvm(args).output().unwrap();
    let said = support::stderr(&output);
    assert!(output.status.success(), "{said}");
    wait_until(DEADLINE, "all snapshots complete", || snapshots(world).all(|dir| !is_hidden(&dir)));
    said
}

fn start_user(world: &World, flake: &Path, name: &str, more: &[&str]) -> String {
    start(world, flake, name, &[&["--network", "user"], more].concat())
}

/// What a shell of root's prints in the guest.
fn inside(world: &World, name: &str, script: &str) -> String {
    world.ok(["exec", name, "--user", "root", "--", "sh", "-c", script])
}

/// The ready snapshots, and those being written.
fn snapshots(world: &World) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(world.state().join("dev/snapshots")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

fn is_hidden(dir: &Path) -> bool {
    dir.file_name().unwrap().to_string_lossy().starts_with('.')
}

/// The ready snapshots of which all is on disk.
fn ready(world: &World) -> Vec<PathBuf> {
    snapshots(world).filter(|dir| !is_hidden(dir)).collect()
}

fn listed(world: &World) -> Vec<Value> {
    let list: Value = serde_json::from_str(&world.ok(["snapshot", "ls", "--json"])).unwrap();
    list["snapshots"].as_array().unwrap().clone()
}

/// A second run of the same restores, in this network.
fn a_second_run_restores(network: &str) {
    let world = World::new();
    let flake = world.example("gateway");
    let network = ["--network", network, "-p", "0:8080"];
    let said = start(&world, &flake, "web", &network);
    assert!(said.contains("web booted in") && said.contains("(no ready snapshot yet)"), "{said}");
    world.ok(["stop", "web"]);
    let said = start(&world, &flake, "web", &network);
    assert!(said.contains("web restored in") && said.contains("load "), "{said}");
    assert!(http_get(published(&world.vm("web"))).contains("200 OK"));
    assert_eq!(world.ok(["ssh", "web", "--", "hostname"]), "web\n");
    world.ok(["stop", "web"]);
    world.expect_nothing_left();
}

#[test]
fn a_second_run_restores_in_user_mode() {
    a_second_run_restores("user");
}

#[test]
fn a_second_run_restores_with_a_tap() {
    if is_root() {
        a_second_run_restores("tap");
    }
}

#[test]
fn two_vms_restored_at_once_share_no_key_name_address_or_random_number() {
    let world = World::new();
    let flake = world.example("hello");
    start_user(&world, &flake, "first", &["--disk", "1G"]);
    // Each draws random numbers as soon as it can, and says what time it is for each line it reads.
    let args = |name| {
        let script = "head -c 32 /dev/urandom | base64; hostname; \
                      cat /etc/machine-id /sys/class/net/eth0/address; while read -r _; do \
                      adjtimex | awk '/tv_sec/ {s = $2} /tv_usec/ {printf \"clock %d.%06d\\n\", s, $2}'; done";
        let flake = flake.to_str().unwrap();
        let run = ["run", "--network", "user", "--flake", flake, "--disk", "1G", "--name", name];
        [&run[..], &["--", "sh", "-c", script]].concat()
    };
    let names = ["second", "third"];
    let mut runs = names.map(|name| Running::start(world.mvm(args(name))));
    let mut facts = Vec::new();
    for (run, name) in runs.iter_mut().zip(names) {
        run.line(" restored in ");
        let random = run.line("=");
        run.line(name);
        facts.push([random, run.line(""), run.line(":")]);
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let before = now();
        run.write("\n");
        let clock: f64 = run.line("clock ").trim_start_matches("clock ").parse().unwrap();
        assert!(clock > before - 0.5 && clock < now() + 0.5, "{before} {clock} {}", now());
    }
    let keys = names.map(|name| {
        let id = world.vm(name)["id"].as_str().unwrap().to_owned();
        let known = fs::read_to_string(world.state().join("vms").join(id).join("known_hosts")).unwrap();
        // By ssh, which knows the key it was told: the guest has no other.
        assert_eq!(world.ok(["ssh", name, "--", "hostname"]), format!("{name}\n"));
        known.split_whitespace().last().unwrap().to_owned()
    });
    assert_ne!(keys[0], keys[1]);
    for (one, other) in facts[0].iter().zip(&facts[1]) {
        assert_ne!(one, other);
    }
    for mut run in runs {
        run.close();
        let (status, said) = run.end();
        assert!(status.success(), "{said}");
    }
    world.ok(["stop", "--all"]);
    world.expect_nothing_left();
}

#[test]
fn what_differs_from_the_snapshot_is_said_and_the_guest_boots() {
    let world = World::new();
    let flake = world.example("hello");
    start_user(&world, &flake, "a", &[]);
    let said = start_user(&world, &flake, "b", &["--mem", "320"]);
    assert!(said.contains("b booted in"), "{said}");
    assert!(
        said.contains("(the build's ready snapshot does not fit: memory mib was 256 and is 320)"),
        "{said}"
    );
    let said = start_user(&world, &flake, "c", &["--mem", "320"]);
    assert!(said.contains("c restored in"), "{said}");
    let said = start_user(&world, &flake, "d", &["--cold"]);
    assert!(said.contains("d booted in"), "{said}");
    assert_eq!(ready(&world).len(), 2);
    world.ok(["destroy", "--all", "--force"]);
}

#[test]
fn a_damaged_snapshot_is_refused_before_the_load_kept_and_the_guest_boots() {
    let world = World::new();
    let flake = world.example("hello");
    start_user(&world, &flake, "a", &[]);
    world.ok(["destroy", "--all", "--force"]);
    let dir = ready(&world).pop().unwrap();
    let key = dir.file_name().unwrap().to_str().unwrap()[..12].to_owned();
    let memory = fs::File::options().write(true).open(dir.join("memory")).unwrap();
    memory.set_len(memory.metadata().unwrap().len() / 2).unwrap();
    let said = start_user(&world, &flake, "b", &[]);
    assert!(said.contains("booting afresh: the snapshot cannot be used:"), "{said}");
    assert!(said.contains(&format!("`mvm snapshot rm {key}` removes it")), "{said}");
    assert!(said.contains("b booted in"), "{said}");
    assert_eq!(ready(&world), [dir]);
    world.ok(["snapshot", "rm", &key]);
    let said = start_user(&world, &flake, "c", &[]);
    assert!(said.contains("c booted in") && said.contains("(no ready snapshot yet)"), "{said}");
    let said = start_user(&world, &flake, "d", &[]);
    assert!(said.contains("d restored in"), "{said}");
    world.ok(["destroy", "--all", "--force"]);
}

#[test]
fn a_hypervisor_that_does_not_take_the_snapshot_is_told_and_the_guest_boots() {
    let world = World::new();
    let flake = world.example("hello");
    start_user(&world, &flake, "a", &[]);
    world.ok(["destroy", "--all", "--force"]);
    let dir = ready(&world).pop().unwrap();
    // As it was to all who look, but for what is in it.
    fs::File::options().write(true).open(dir.join("state")).unwrap().write_all_at(b"not QEMU's", 0).unwrap();
    let manifest = dir.join("manifest.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    json["files"].as_array_mut().unwrap().retain(|file| file["path"] != "state");
    fs::write(&manifest, json.to_string()).unwrap();
    let said = start_user(&world, &flake, "b", &[]);
    assert!(said.contains("booting afresh: restoring failed: QEMU does not take the snapshot"), "{said}");
    assert!(said.contains("b booted in"), "{said}");
    assert_eq!(inside(&world, "b", "hostname"), "b\n");
    world.ok(["stop", "b"]);
    world.expect_nothing_left();
}

#[test]
fn a_saved_vm_goes_on_with_its_memory_its_processes_and_its_disks() {
    let world = World::new();
    let flake = world.example("gateway");
    let data = world.path("data");
    fs::create_dir(&data).unwrap();
    let volume = format!("{}:/srv/data:64M", data.display());
    start_user(&world, &flake, "web", &["-p", "0:8080", "-v", &volume]);
    inside(&world, "web", "echo memory >/run/kept; echo disk >/root/kept; echo volume >/srv/data/kept; sync");
    inside(&world, "web", "setsid sh -c 'while :; do sleep 1; done' >/dev/null 2>&1 & echo $! >/run/pid");
    let said = world.mvm(["snapshot", "create", "web"]).output().unwrap();
    assert!(support::stderr(&said).contains("the guest stood still for"), "{said:?}");
    // It went on, and what it does now is not part of the snapshot.
    inside(&world, "web", "echo later >/run/kept; echo later >/root/kept; echo later >/srv/data/kept");
    assert!(http_get(published(&world.vm("web"))).contains("200 OK"));
    assert_eq!(
        world.fails(["snapshot", "restore", "web"]).lines().next(),
        Some("error: the VM `web` is running")
    );
    world.ok(["stop", "web"]);
    let old = world.vm("web");

    for _ in 0..2 {
        assert_eq!(world.ok(["snapshot", "restore", "web"]), "web\n");
        let new = world.vm("web");
        assert_ne!(new["id"], old["id"]);
        assert_eq!(published(&new), published(&old));
        assert!(http_get(published(&new)).contains("200 OK"));
        let kept = "cat /run/kept /root/kept /srv/data/kept; kill -0 $(cat /run/pid) && echo alive";
        assert_eq!(inside(&world, "web", kept), "memory\ndisk\nvolume\nalive\n");
        assert_eq!(world.ok(["ssh", "web", "--", "hostname"]), "web\n");
        let clock: u64 = inside(&world, "web", "date +%s").trim().parse().unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!(now.abs_diff(clock) <= 1, "{now} {clock}");
        inside(&world, "web", "echo later >/run/kept; echo later >/root/kept; echo later >/srv/data/kept");
        world.ok(["stop", "web"]);
    }
    assert_eq!(world.vms().len(), 1, "the old ones are gone");
    world.expect_nothing_left();
}

#[test]
fn a_vm_that_was_restored_can_be_saved_and_stopped_and_goes_on() {
    let world = World::new();
    let flake = world.example("hello");
    start_user(&world, &flake, "a", &[]);
    let said = start_user(&world, &flake, "b", &[]);
    assert!(said.contains("b restored in"), "{said}");
    inside(&world, "b", "echo precious >/run/kept");
    world.ok(["snapshot", "create", "--stop", "b"]);
    assert_eq!(world.vm("b")["state"], "stopped");
    // What is saved is in use: nothing of it is in gc's way.
    world.ok(["stop", "a"]);
    world.ok(["gc"]);
    let kinds = |world: &World| {
        let kinds: Vec<String> =
            listed(world).iter().map(|one| one["kind"].as_str().unwrap().into()).collect();
        kinds
    };
    assert_eq!(kinds(&world), ["vm", "ready"]);
    world.ok(["snapshot", "restore", "b"]);
    assert_eq!(inside(&world, "b", "cat /run/kept"), "precious\n");
    world.ok(["stop", "b"]);
    world.ok(["snapshot", "rm", "b"]);
    assert_eq!(kinds(&world), ["ready"]);
    let said = world.fails(["snapshot", "restore", "b"]);
    assert!(said.contains("there is no snapshot of the VM `b`"), "{said}");
    world.ok(["gc", "--builds"]);
    assert!(ready(&world).is_empty());
    world.expect_nothing_left();
}

#[test]
fn a_snapshot_whose_disk_was_changed_is_refused_and_kept() {
    let world = World::new();
    let flake = world.example("hello");
    let image = world.path("data.ext4");
    let made = world.program("mke2fs").args(["-q", "-t", "ext4"]).arg(&image).arg("16M").status().unwrap();
    assert!(made.success());
    let volume = format!("{}:/srv/data", image.display());
    start_user(&world, &flake, "a", &["-v", &volume]);
    world.ok(["snapshot", "create", "--stop", "a"]);
    let file = fs::File::options().write(true).open(&image).unwrap();
    file.write_all_at(b"changed", 8 * 1024 * 1024).unwrap();
    let said = world.fails(["snapshot", "restore", "a"]);
    assert!(said.contains("data.ext4` was changed since"), "{said}");
    assert_eq!(listed(&world).iter().filter(|one| one["kind"] == "vm").count(), 1);
    // The attempt left nothing that could be taken for the VM.
    assert_eq!(world.vms().len(), 1);
    assert_eq!(fs::read_dir(world.state().join("vms")).unwrap().count(), 1);
    world.expect_nothing_left();
}

#[test]
fn what_cannot_be_saved_is_told_and_goes_on() {
    let world = World::new();
    let flake = world.example("hello");
    start_user(&world, &flake, "a", &["--rm"]);
    let said = world.fails(["snapshot", "create", "--stop", "a"]);
    assert!(said.contains("it was started with `--rm`"), "{said}");
    assert_eq!(inside(&world, "a", "hostname"), "a\n");
    let said = world.fails(["snapshot", "create", "b"]);
    assert!(said.contains("there is no VM named `b`"), "{said}");
    world.ok(["stop", "a"]);
    world.expect_nothing_left();
}

#[test]
fn a_save_that_fails_leaves_a_guest_that_goes_on_and_nothing_on_the_disk() {
    let world = World::new();
    let flake = world.example("hello");
    start_user(&world, &flake, "a", &[]);
    let vm = world.vm("a");
    let kernel = Path::new(vm["spec"]["build_dir"].as_str().unwrap()).join("vmlinux");
    fs::rename(&kernel, kernel.with_extension("away")).unwrap();
    let args = ["snapshot", "create", "a", "--stop"];
    for args in [&args[..3], &args] {
        let said = world.fails(args);
        assert!(said.contains("vmlinux"), "{said}");
        assert_eq!(inside(&world, "a", "hostname"), "a\n");
        assert_eq!(world.vm("a")["state"], "running");
        let dir = world.state().join("vms").join(vm["id"].as_str().unwrap());
        assert!(!dir.join("snapshot").exists() && !dir.join("snapshot.next").exists());
    }
    fs::rename(kernel.with_extension("away"), &kernel).unwrap();
    world.ok(["snapshot", "create", "a", "--stop"]);
    world.expect_nothing_left();
}

#[test]
fn a_vm_that_is_told_to_end_while_it_is_saved_ends_and_leaves_no_half_of_it() {
    let world = World::new();
    let flake = world.example("hello");
    for (name, kill) in [("a", &["--kill"][..]), ("b", &[])] {
        start_user(&world, &flake, name, &[]);
        let dir = world.state().join("vms").join(world.vm(name)["id"].as_str().unwrap());
        let next = dir.join("snapshot.next");
        let mut save = Running::start(world.mvm(["snapshot", "create", name]));
        let begun = || next.exists() || dir.join("snapshot").exists();
        wait_until(DEADLINE, "the saving", begun);
        world.ok([&["stop", name], kill].concat());
        assert_eq!(world.vm(name)["state"], "stopped");
        save.close();
        let (status, said) = save.end();
        // Told to end in time, it is saved first.
        assert!(!kill.is_empty() || status.success(), "{said}");
        assert!(!next.exists());
    }
    world.expect_nothing_left();
}

#[test]
fn a_guest_that_cannot_rehearse_its_start_boots_again_without_a_snapshot() {
    let world = World::new();
    let flake = world.flake(
        "stiff",
        r##"{ inputs.mvm.url = "flake:mvm-offline"; outputs = { mvm, ... }: { packages = mvm.lib.mkGuests {
             name = "stiff"; default = "worker"; roles.worker.files."/etc/mvm/rehearse" = {
             text = "#!/bin/sh\nexit 1\n"; mode = "755"; }; }; }; }"##,
    );
    let said = start_user(&world, &flake, "a", &[]);
    assert!(said.contains("no ready snapshot is taken, and the guest boots again"), "{said}");
    assert!(said.contains("/etc/mvm/rehearse failed") && said.contains("a booted in"), "{said}");
    assert_eq!(inside(&world, "a", "hostname"), "a\n");
    assert!(ready(&world).is_empty());
    world.ok(["stop", "a"]);
    world.expect_nothing_left();
}

#[test]
fn a_vm_that_is_killed_while_it_is_saved_leaves_nothing_and_the_next_run_works() {
    let world = World::new();
    let flake = world.example("hello");
    for _ in 0..3 {
        let mut run = Running::start({
            let flake = flake.to_str().unwrap();
            world.mvm(["run", "--network", "user", "--detach", "--flake", flake, "--name", "a"])
        });
        let half = || snapshots(&world).any(|dir| is_hidden(&dir));
        wait_until(Duration::from_secs(60), "the saving", half);
        let shim = world.vm("a")["pid"].as_u64().unwrap();
        kill(Pid::from_raw(shim as i32), Signal::SIGKILL).unwrap();
        run.close();
        run.end();
        world.expect_nothing_left();
        // A process that was killed lets go of its lock a moment after it is nowhere to be seen.
        wait_until(DEADLINE, "the next command to mend it", || {
            world.ok(["status"]);
            !half()
        });
    }
    let said = start_user(&world, &flake, "b", &[]);
    assert!(said.contains("b booted in") || said.contains("b restored in"), "{said}");
    world.ok(["destroy", "--all", "--force"]);
}

#[test]
fn twenty_restored_vms_leave_nothing_behind() {
    let world = World::new();
    let flake = world.example("hello");
    let network = if is_root() { "tap" } else { "user" };
    start(&world, &flake, "a", &["--network", network]);
    world.ok(["destroy", "--all", "--force"]);
    let snapshots = mvm::host::files::disk_usage(&world.state().join("dev"));
    for _ in 0..20 {
        let said = start(&world, &flake, "a", &["--network", network, "--rm"]);
        assert!(said.contains("a restored in"), "{said}");
        world.ok(["stop", "a"]);
    }
    world.expect_nothing_left();
    assert_eq!(fs::read_dir(world.state().join("vms")).unwrap().count(), 0);
    assert_eq!(mvm::host::files::disk_usage(&world.state().join("dev")), snapshots);
}
