//! A start from a ready snapshot.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::claim::{Claim, Limit, in_turns, stated};
use crate::guest::{Guest, Start};
use crate::hand::{Hand, banner, free_port};
use crate::place::Place;
use crate::process::{self, run};

/// `mvm run` restored against `mvm run` that boots the same guest.
pub fn measure(place: &Place) -> Result<Claim> {
    let flake = prepare(place)?;
    let start = |how: Start| {
        let port = free_port()?;
        let since = Instant::now();
        let guest = Guest::boot(place, &flake, &format!("{port}:22"), how)?;
        banner(port)?;
        let took = since.elapsed();
        guest.stop()?;
        Ok(took)
    };
    let (ours, theirs) = in_turns(11, || start(Start::Restored), || start(Start::Cold))?;
    let mut to_the_end = Vec::new();
    for _ in 0..5 {
        let mut command = place.mvm(&["run", "--network", "user", "--flake", &flake, "--", "true"])?;
        to_the_end.push(run(&mut command)?.wall);
    }
    Ok(Claim {
        what: "mvm run, restored, to the ssh banner",
        ours,
        limit: Limit::Share(0.15, "mvm run --cold", theirs),
        stated: vec![stated("mvm run -- true, to its end", &to_the_end)],
    })
}

/// `mvm run` restored against the same restore and personalise by hand.
pub fn measure_bare(place: &Place) -> Result<Claim> {
    let flake = prepare(place)?;
    let hand = Hand::learn(place, &flake, Start::Restored)?;
    let ours = || {
        let port = free_port()?;
        let since = Instant::now();
        let guest = Guest::boot(place, &flake, &format!("{port}:22"), Start::Restored)?;
        banner(port)?;
        let took = since.elapsed();
        guest.stop()?;
        Ok(took)
    };
    let (ours, theirs) = in_turns(11, ours, || hand.start())?;
    Ok(Claim {
        what: "mvm run, restored, to the ssh banner",
        ours,
        limit: Limit::Share(1.30, "the same restore by hand", theirs),
        stated: memory(place, &flake)?,
    })
}

/// The flake, with a ready snapshot of its guest.
fn prepare(place: &Place) -> Result<String> {
    let flake = place.flake("nix/examples/hello", &[])?;
    let flake = flake.to_str().context("the path is not UTF-8")?.to_owned();
    Guest::boot(place, &flake, "0:22", Start::Restored)?.stop()?;
    Ok(flake)
}

/// What a guest that was restored beside another of its snapshot adds, and what one that booted does.
fn memory(place: &Place, flake: &str) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for (what, name, cold) in [
        ("QEMU, restored", "one", false),
        ("QEMU, a second of it", "two", false),
        ("QEMU, booted", "three", true),
    ] {
        let mut command =
            place.mvm(&["run", "--network", "user", "--detach", "--name", name, "--flake", flake])?;
        run(command.args(cold.then_some("--cold")))?;
        let shim = place.vm(name)?["pid"].as_u64().context("the VM has no shim")?;
        let qemu = *process::children(u32::try_from(shim)?)?.first().context("the shim has no QEMU")?;
        // What it settles at.
        std::thread::sleep(Duration::from_secs(1));
        let own = process::own_memory(qemu)?;
        let all = process::memory(qemu, "VmRSS").unwrap_or(0);
        let mib = |kib: u64| kib as f64 / 1024.0;
        lines.push(format!("{what:<34} {:>9.1} MiB of its own, of {:.1} MiB in use", mib(own), mib(all)));
    }
    run(&mut place.mvm(&["destroy", "--all", "--force"])?)?;
    Ok(lines)
}
