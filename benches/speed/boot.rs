//! A cold boot to the ssh banner.

use std::cell::RefCell;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::claim::{Claim, Limit, in_turns, stated};
use crate::guest::{Guest, Start};
use crate::hand::{Hand, banner, free_port};
use crate::place::Place;

/// `mvm run` against the QEMU command line it makes, started by hand.
pub fn measure(place: &Place) -> Result<Claim> {
    let flake = place.flake("nix/examples/hello", &[])?;
    let flake = flake.to_str().context("the path is not UTF-8")?;
    let hand = Hand::learn(place, flake, Start::Cold)?;
    let stops = RefCell::new(Vec::new());
    let ours = || {
        let port = free_port()?;
        let since = Instant::now();
        let guest = Guest::boot(place, flake, &format!("{port}:22"), Start::Cold)?;
        banner(port)?;
        let took = since.elapsed();
        stops.borrow_mut().push(guest.stop()?);
        Ok(took)
    };
    let (ours, theirs) = in_turns(9, ours, || hand.start())?;
    Ok(Claim {
        what: "mvm run, cold, to the ssh banner",
        ours,
        limit: Limit::Share(1.10, "the same QEMU by hand", theirs),
        stated: vec![stated("mvm stop", &stops.take())],
    })
}
