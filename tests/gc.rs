//! `mvm gc`: what it removes, and what others at work have need of.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use mvm::host::files::Lock;
use mvm::store::Store;
use mvm::store::builds::BuildRow;
use nix::mount::MsFlags;
use support::{World, in_own_mounts, is_root, mount_tmpfs};

#[test]
fn builds_stay_while_somebody_has_one_in_hand() {
    let world = World::new();
    let flake = world.example("hello");
    world.ok(["build", "--flake", flake.to_str().unwrap()]);
    let in_hand = Lock::try_share(&world.state().join("dev/builds.lock")).unwrap().unwrap();
    let output = world.mvm(["gc", "--builds"]).output().unwrap();
    assert!(support::stderr(&output).contains("a build or a start is at work: the builds stay"));
    let count = || fs::read_dir(world.state().join("dev/builds")).unwrap().count();
    assert_eq!(count(), 1);
    // Nor one that the database does not know, or not yet.
    let strange = world.state().join("dev/builds/strange");
    fs::create_dir(&strange).unwrap();
    let old = SystemTime::now() - Duration::from_secs(1200);
    fs::File::open(&strange).unwrap().set_modified(old).unwrap();
    assert!(!world.ok(["gc", "--builds"]).contains("removed directory"));
    drop(in_hand);
    let said = world.ok(["gc", "--builds"]);
    assert!(said.contains("removed build") && said.contains("removed directory strange"), "{said}");
    assert_eq!(count(), 0);
}

#[test]
fn a_collector_at_work_takes_no_build_away_from_a_start() {
    let world = World::new();
    let flake = world.example("hello");
    let run = ["run", "--network", "user", "--flake", flake.to_str().unwrap(), "--", "true"];
    let over = AtomicBool::new(false);
    let collections = thread::scope(|scope| {
        let collector = scope.spawn(|| {
            let mut collections = 0;
            while !over.load(Ordering::Relaxed) {
                world.ok(["gc", "--builds"]);
                collections += 1;
            }
            collections
        });
        let runs: Vec<_> = (0..4).map(|_| world.mvm(run).output().unwrap()).collect();
        over.store(true, Ordering::Relaxed);
        runs.iter().for_each(|run| assert!(run.status.success(), "{}", support::stderr(run)));
        collector.join().unwrap()
    });
    assert!(collections > 4, "{collections}");
    world.expect_nothing_left();
}

#[test]
fn layers_that_nobody_uses_are_collected() {
    let world = World::new();
    let layer = world.state().join("dev/layers/00-packages");
    fs::create_dir_all(layer.join("fs")).unwrap();
    assert!(!world.ok(["gc"]).contains("layer"));
    let old = SystemTime::now() - Duration::from_secs(15 * 24 * 3600);
    fs::File::open(&layer).unwrap().set_modified(old).unwrap();
    // Not while a build may have need of them.
    let at_work = Lock::try_share(&world.state().join("dev/layers/lock")).unwrap().unwrap();
    assert!(!world.ok(["gc"]).contains("removed layer") && layer.exists());
    drop(at_work);
    assert!(world.ok(["gc"]).contains("removed layer 00-packages (not used for 14 days)"));
    assert!(!layer.exists());
}

#[test]
fn a_disk_that_is_full_can_be_freed() {
    if !is_root() {
        return;
    }
    let world = World::empty();
    in_own_mounts(|| {
        mount_tmpfs(&world.state(), "size=40M", MsFlags::empty());
        // With and without another process that has the database open.
        for is_open in [false, true] {
            // Space is kept back, the second time again.
            world.ok(["status"]);
            let mut store = Store::open(&world.state().join("state.db")).unwrap().store;
            store.put_build(&unknown_build()).unwrap();
            let _store = is_open.then_some(store);
            let layer = world.state().join("dev/layers/00-packages");
            fs::create_dir_all(&layer).unwrap();
            // Until the disk says no.
            let _ =
                std::io::copy(&mut std::io::repeat(0), &mut fs::File::create(layer.join("large")).unwrap());
            assert!(is_open || world.fails(["status"]).contains("`mvm gc` frees space"));
            let output = world.mvm(["gc", "--builds"]).output().unwrap();
            let (out, said) = (support::stdout(&output), support::stderr(&output));
            assert!(said.contains("warning: the disk is full"), "{said}");
            assert!(
                out.contains("removed build") && out.contains("removed layer 00-packages"),
                "{out}{said}"
            );
        }
    });
}

fn unknown_build() -> BuildRow {
    let [id, flake, attribute] = ["00000000", "/f", "default"].map(String::from);
    BuildRow { id, flake, attribute, created_ms: 0, used_ms: 0, duration_ms: 0 }
}
