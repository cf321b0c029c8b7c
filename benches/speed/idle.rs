//! A console nobody touches.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::claim::{Claim, Limit};
use crate::console::Console;
use crate::guest::{Guest, Start};
use crate::place::Place;
use crate::process;

/// How long it is watched.
const IDLE: Duration = Duration::from_secs(20);
/// How long it has to come to rest.
const SETTLE: Duration = Duration::from_secs(3);
/// Most CPU it may take, of one core.
const SHARE: f64 = 0.005;

/// CPU time of `mvm tui` while nothing changes; and beside a guest that idles.
pub fn measure(place: &Place) -> Result<Claim> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (alone, bytes, _) = runtime.block_on(watch(place, "No VM"))?;
    ensure!(bytes == 0, "nothing changed, yet {bytes} bytes went to the terminal");
    let flake = place.flake("nix/examples/hello", &[])?;
    let guest = Guest::boot(place, flake.to_str().context("the path is not UTF-8")?, "0:22", Start::Cold)?;
    let (beside, bytes, frames) = runtime.block_on(watch(place, "running"))?;
    guest.stop()?;
    Ok(Claim {
        what: "mvm tui, nothing changes for 20 s, CPU time",
        ours: vec![alone],
        limit: Limit::Absolute(IDLE.mul_f64(SHARE)),
        stated: vec![format!(
            "{:<34} {:>9.1} ms, {frames} frames, {bytes} bytes",
            "beside an idle guest",
            beside.as_secs_f64() * 1000.0
        )],
    })
}

/// Opens the console, has it come to rest, and watches it: CPU time, bytes written, frames.
async fn watch(place: &Place, sight: &str) -> Result<(Duration, u64, usize)> {
    let mut console = Console::open(place.tui(&[]), 120, 40)?;
    console.until(sight, |screen| screen.contains(sight)).await?;
    console.watch(SETTLE).await?;
    let before = (process::cpu(console.id())?, console.bytes, console.frames.len());
    console.watch(IDLE).await?;
    let spent = process::cpu(console.id())? - before.0;
    let watched = (spent, console.bytes - before.1, console.frames.len() - before.2);
    console.leave().await?;
    Ok(watched)
}
