//! A build with nothing changed.

use anyhow::{Context, Result};

use crate::claim::{Claim, Limit, in_turns};
use crate::place::Place;
use crate::process::run;

/// `mvm build` against `nix build`, both of what is built already.
pub fn measure(place: &Place) -> Result<Claim> {
    let flake = place.flake("nix/examples/hello", &[])?;
    let path = flake.to_str().context("the path is not UTF-8")?;
    let ours = || Ok(run(&mut place.mvm(&["build", "--flake", path])?)?.wall);
    let theirs = || Ok(run(&mut place.nix_build(&flake)?)?.wall);
    // Builds, and fills every cache there is.
    in_turns(2, ours, theirs)?;
    let (ours, theirs) = in_turns(31, ours, theirs)?;
    Ok(Claim {
        what: "mvm build, nothing changed",
        ours,
        limit: Limit::Share(0.25, "nix build, nothing changed", theirs),
        stated: Vec::new(),
    })
}
