//! Long suites: many boots in a row, kills at random moments. `tests/run --soak` runs them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::{Running, World};

/// Boots in a row.
const BOOTS: usize = 48;
/// Kills in each phase.
const KILLS: usize = 20;

/// Whether the long suites are asked for; says that they are skipped if not.
fn is_asked_for() -> bool {
    let asked = std::env::var_os("MVM_SOAK").is_some_and(|value| value == "1");
    if !asked {
        println!("SKIPPED: MVM_SOAK is not 1");
    }
    asked
}

/// Numbers that look random and are the same for the same seed (splitmix64).
struct Random(u64);

impl Random {
    /// From `MVM_SOAK_SEED`, else from the clock; printed, so that a failure can be had again.
    fn new() -> Self {
        let given = std::env::var("MVM_SOAK_SEED").ok().and_then(|seed| seed.parse().ok());
        let clock = || std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        let seed = given.unwrap_or_else(clock);
        println!("MVM_SOAK_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A time between nothing and `most`.
    fn up_to(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.next() % most.as_micros().max(1) as u64)
    }
}

#[test]
fn many_boots_in_a_row_all_come_up() {
    if !is_asked_for() {
        return;
    }
    let world = World::new();
    let flake = world.example("hello");
    let mut times = Vec::new();
    for boot in 0..BOOTS {
        let begun = Instant::now();
        let args =
            ["run", "--rm", "--boot-timeout", "60", "--flake", flake.to_str().unwrap(), "--", "echo", "up"];
        assert_eq!(world.ok(args), "up\n", "boot {boot}");
        times.push(begun.elapsed());
    }
    times.sort();
    println!(
        "{BOOTS} boots: fastest {:?}, median {:?}, slowest {:?}",
        times[0],
        times[BOOTS / 2],
        times[BOOTS - 1]
    );
    world.expect_nothing_left();
}

/// When a phase begins and how long it lasts: the lines around it.
#[derive(Debug)]
struct Phase {
    name: &'static str,
    /// The line after which it lasts; none when it begins with the process.
    after: Option<&'static str>,
    /// The line at which it ends.
    until: &'static str,
}

const BUILD: Phase = Phase { name: "build", after: None, until: " boot hello" };
const BOOT: Phase = Phase { name: "boot", after: Some(" boot hello"), until: "begun" };
const RUN: Phase = Phase { name: "run", after: Some("begun"), until: "done" };

#[test]
fn a_kill_at_any_moment_of_the_build_leaves_nothing() {
    kills(&BUILD, "user");
}

#[test]
fn a_kill_at_any_moment_of_the_boot_leaves_nothing() {
    kills(&BOOT, "user");
}

#[test]
fn a_kill_at_any_moment_of_the_run_leaves_nothing() {
    kills(&RUN, "user");
}

#[test]
fn a_kill_at_any_moment_of_a_boot_in_tap_mode_leaves_nothing() {
    let Some(namespace) = support::Namespace::new() else { return };
    namespace.enter(|| kills(&BOOT, "tap"));
    assert!(!namespace.ip(&["-o", "link"]).contains("mvm-"));
    assert!(!namespace.run("nft", &["list", "tables"]).contains("mvm"));
}

/// A flake that was never built: each has a text of its own in its image.
fn write_flake(dir: &Path, salt: u64) {
    let text = format!(
        "{{ inputs.mvm.url = \"flake:mvm-offline\"; outputs = {{ mvm, ... }}: {{ packages = mvm.lib.mkGuests {{
             name = \"hello\"; default = \"worker\"; roles.worker.files.\"/etc/salt\" = \"{salt}\"; }}; }}; }}"
    );
    fs::write(dir.join("flake.nix"), text).unwrap();
}

fn kills(phase: &Phase, network: &str) {
    if !is_asked_for() {
        return;
    }
    let mut random = Random::new();
    let world = World::new();
    let flake = world.path("hello");
    fs::create_dir(&flake).unwrap();
    let path = flake.to_str().unwrap();
    let args =
        ["run", "--network", network, "--flake", path, "--", "sh", "-c", "echo begun; sleep 2; echo done"];
    let start = |salt: u64| {
        write_flake(&flake, salt);
        let mut run = Running::start(world.mvm(args));
        if let Some(after) = phase.after {
            run.line(after);
        }
        run
    };
    // Once without a kill, to know how long the phase lasts.
    let mut whole = start(random.next());
    let begun = Instant::now();
    whole.line(phase.until);
    let lasts = begun.elapsed();
    assert!(whole.end().0.success());
    println!("{} in {network} mode lasts {lasts:?}", phase.name);
    for kill in 0..KILLS {
        let moment = random.up_to(lasts);
        println!("kill {kill} after {moment:?}");
        let mut run = start(random.next());
        run.run_for(moment);
        run.signal(Signal::SIGKILL);
        drop(run);
        // The next command works, while what was killed may still be on its way out.
        world.ok(["status"]);
        world.expect_no_process();
        let out = world.ok(["build", "--flake", path]);
        assert!(Path::new(out.trim()).join("manifest.json").exists(), "{out}");
        world.expect_nothing_left();
        let live = ["created", "booting", "running", "paused"];
        let vms = world.vms();
        assert!(!vms.iter().any(|vm| live.contains(&vm["state"].as_str().unwrap())), "{vms:?}");
    }
    assert_eq!(world.ok(["run", "--network", network, "--flake", path, "--", "echo", "up"]), "up\n");
    world.ok(["gc", "--builds"]);
    assert_eq!(fs::read_dir(world.state().join("vms")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(world.state().join("dev/builds")).unwrap().count(), 0);
}

#[test]
fn a_kill_at_any_moment_of_a_build_from_an_mvmfile_leaves_nothing() {
    if !is_asked_for() {
        return;
    }
    if !support::is_root() {
        println!("SKIPPED: building from an Mvmfile takes root");
        return;
    }
    let mut random = Random::new();
    let world = World::new();
    world.ok(["setup", "--yes", "--with", "mvmfile"]);
    let dir = world.path("app");
    fs::create_dir(&dir).unwrap();
    let args = ["build", dir.to_str().unwrap()];
    let start = |random: &mut Random, more: &[&str]| {
        let text = format!("run = ['seq 100000 >/srv/{}']\n", random.next());
        fs::write(dir.join("Mvmfile.toml"), text).unwrap();
        Running::start(world.mvm([&args, more].concat()))
    };
    // The packages by turns with all that comes after them.
    for kill in 0..KILLS {
        let more: &[&str] = if kill % 2 == 0 { &["--rebuild"] } else { &[] };
        let begun = Instant::now();
        assert!(start(&mut random, more).end().0.success());
        let moment = random.up_to(begun.elapsed());
        println!("kill {kill} of build {more:?} after {moment:?}");
        let mut build = start(&mut random, more);
        build.run_for(moment);
        build.signal(Signal::SIGKILL);
        drop(build);
        world.expect_no_process();
        world.ok(args);
        world.ok(["start", "app.elf", "--info", "--json"]);
        let left = fs::read_dir(world.state().join("dev/layers")).unwrap().flatten();
        let left: Vec<_> =
            left.filter(|entry| entry.file_name().to_str().unwrap().starts_with('.')).collect();
        assert!(left.is_empty(), "{left:?}");
        let beside: Vec<_> =
            fs::read_dir(world.path("")).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert!(!beside.iter().any(|name| name.to_str().unwrap().ends_with(".part")), "{beside:?}");
    }
    world.ok(["gc", "--builds"]);
    assert_eq!(fs::read_dir(world.state().join("dev/layers")).unwrap().count(), 1, "the lock alone");
}
