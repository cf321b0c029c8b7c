//! A build that says a million lines.

use std::cell::Cell;
use std::fs;

use anyhow::{Context, Result};

use crate::claim::{Claim, Limit, in_turns, stated};
use crate::place::Place;
use crate::process::run;

/// Most memory `mvm build` may hold, whatever a builder says, in MiB.
const MEMORY_MIB: u64 = 128;

/// `mvm build` against `nix build` with its output sent to `/dev/null`, both really building.
pub fn measure(place: &Place) -> Result<Claim> {
    let flake = place.flake("benches/speed/chatty", &[("salt", "")])?;
    let path = flake.to_str().context("the path is not UTF-8")?;
    let number = Cell::new(0);
    // Each time another derivation, unknown to earlier runs too.
    let change = || {
        number.set(number.get() + 1);
        fs::write(flake.join("salt"), format!("{} {}\n", jiff::Timestamp::now(), number.get()))
    };
    let peak = Cell::new(0);
    let ours = || {
        change()?;
        let spent = run(&mut place.mvm(&["build", "--flake", path])?)?;
        peak.set(peak.get().max(spent.peak_kib / 1024));
        Ok(spent.wall)
    };
    let theirs = || {
        change()?;
        Ok(run(&mut place.nix_build(&flake)?)?.wall)
    };
    let (ours, theirs) = in_turns(7, ours, theirs)?;
    // mvm has Nix keep its own log uncompressed where Nix builds by itself; so much is due to that.
    let alike = || {
        change()?;
        let mut nix = place.nix_build(&flake)?;
        Ok(run(nix.env("NIX_CONFIG", "substituters =\ncompress-build-log = false"))?.wall)
    };
    let alike: Vec<_> = std::iter::repeat_with(alike).take(3).collect::<Result<_>>()?;
    anyhow::ensure!(peak.get() <= MEMORY_MIB, "mvm held {} MiB, allowed are {MEMORY_MIB}", peak.get());
    Ok(Claim {
        what: "mvm build, 1 000 000 log lines",
        ours,
        limit: Limit::Share(1.05, "nix build >/dev/null", theirs),
        stated: vec![
            format!("{:<34} {:>9} MiB  of {MEMORY_MIB} allowed", "memory of mvm at most", peak.get()),
            stated("nix with its log uncompressed, too", &alike),
        ],
    })
}
