//! The console's first frame.

use std::time::Duration;

use anyhow::Result;

use crate::claim::{Claim, Limit, stated};
use crate::console::Console;
use crate::place::Place;
use crate::process::run;

/// Tasks whose records are there.
const TASKS: usize = 10;
const ROUNDS: usize = 20;

/// From the start of `mvm tui` to its first whole frame, in a state that was worked in.
pub fn measure(place: &Place) -> Result<Claim> {
    let flake = place.flake("nix/examples/hello", &[])?;
    let flake = flake.to_str().unwrap_or_default();
    for _ in 0..TASKS {
        run(&mut place.mvm(&["build", "--flake", flake])?)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut first, mut known) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        runtime.block_on(async {
            let mut console = Console::open(place.tui(&[]), 120, 40)?;
            let began = console.first_frame().await?;
            first.push(began);
            known.push(began + console.until("the tasks", |screen| screen.contains("hello")).await?);
            console.leave().await
        })?;
    }
    Ok(Claim {
        what: "mvm tui, to its first frame",
        ours: first,
        limit: Limit::Absolute(Duration::from_millis(60)),
        stated: vec![stated("to the tasks of other processes", &known)],
    })
}
