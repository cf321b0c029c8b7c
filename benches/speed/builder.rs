//! Builds in the builder VM.

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use jiff::Timestamp;

use crate::claim::{Claim, Limit, in_turns, stated};
use crate::guest::{Guest, Start};
use crate::place::Place;
use crate::process::run;

/// A build of a changed source in the VM, which was used before, against one on this machine and a boot.
pub fn measure(place: &Place) -> Result<Claim> {
    let flake = place.flake("nix/examples/gateway", &[("www/index.html", "first\n")])?;
    let flag = flake.to_str().context("the path is not UTF-8")?;
    let in_vm = ["build", "--flake", flag, "--builder", "vm"];
    // Twice: the first makes its image and its store, the second has a snapshot to go on from.
    for _ in 0..2 {
        change(&flake)?;
        run(&mut place.mvm(&in_vm)?)?;
    }
    let ours = || {
        change(&flake)?;
        let begun = Instant::now();
        run(&mut place.mvm(&in_vm)?)?;
        Ok(begun.elapsed())
    };
    let (builds, boots) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
    let theirs = || {
        change(&flake)?;
        let begun = Instant::now();
        run(&mut place.mvm(&["build", "--flake", flag])?)?;
        let build = begun.elapsed();
        let begun = Instant::now();
        let guest = Guest::boot(place, flag, "0:22", Start::Cold)?;
        let boot = begun.elapsed();
        guest.stop()?;
        builds.borrow_mut().push(build);
        boots.borrow_mut().push(boot);
        Ok(build + boot)
    };
    let (ours, theirs) = in_turns(5, ours, theirs)?;
    Ok(Claim {
        what: "mvm build --builder vm, of a changed source",
        ours,
        limit: Limit::Share(1.3, "on this machine, and one boot", theirs),
        stated: vec![stated("on this machine", &builds.take()), stated("one boot", &boots.take())],
    })
}

fn change(flake: &Path) -> Result<()> {
    Ok(fs::write(flake.join("www/index.html"), format!("{}\n", Timestamp::now().as_nanosecond()))?)
}
