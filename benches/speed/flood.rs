//! The console while a build says a million lines.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand_core::RngCore;

use crate::claim::{Claim, Limit};
use crate::console::Console;
use crate::place::Place;
use crate::process;

/// Builds in a row, each of which fills a log of its own.
const BUILDS: usize = 4;
/// Most memory the console may hold, in MiB: three logs of 64 MiB each, and itself.
const MEMORY_MIB: u64 = 256;
/// Most frames a second.
const FRAMES: f64 = 60.0;

const HELP: &str = "Help: every command";
const PALETTE: &str = "┌ Command ";
const TREE: &str = "─ Derivations ";
const OVERVIEW: &str = "┌ Routes ";
/// The build among the tasks while it goes on.
const UNDER_WAY: &str = "│⏵ chatty";

/// Keys in the order they are pressed, with what is seen of each; `true` where it comes, else it goes.
const KEYS: [(&[u8], &str, bool); 8] = [
    (b"?", HELP, true),
    (b"\x1b", HELP, false),
    (b":", PALETTE, true),
    (b"\x1b", PALETTE, false),
    (b"z", TREE, false),
    (b"z", TREE, true),
    (b"1", OVERVIEW, true),
    (b"2", OVERVIEW, false),
];

/// From a key to its answer on the screen while lines pour in.
pub fn measure(place: &Place) -> Result<Claim> {
    let flake = place.flake("benches/speed/chatty", &[("salt", "")])?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(flood(place, &flake))
}

async fn flood(place: &Place, flake: &Path) -> Result<Claim> {
    let path = flake.to_str().context("the path is not UTF-8")?;
    let mut console = Console::open(place.tui(&["--flake", path]), 200, 50)?;
    console.first_frame().await?;
    console.type_in(b"2")?;
    console
        .until("the builds page", |screen| screen.contains("Builds") && !screen.contains(OVERVIEW))
        .await?;
    let (mut answers, mut flooded, mut frames) = (Vec::new(), Duration::ZERO, 0);
    let mut stated = Vec::new();
    let mut keys = KEYS.iter().cycle();
    for build in 0..BUILDS {
        // Another derivation, unknown to earlier runs too.
        fs::write(flake.join("salt"), format!("{} {build}\n", jiff::Timestamp::now()))?;
        console.type_in(b"b")?;
        let pours = |screen: &str| screen.contains(UNDER_WAY) && screen.contains("module_");
        console.until("the log", pours).await?;
        let (since, drawn) = (Instant::now(), console.frames.len());
        loop {
            let pause = 20 + rand_core::OsRng.next_u32() % 41;
            console.watch(Duration::from_millis(pause.into())).await?;
            if !console.text().contains(UNDER_WAY) {
                break;
            }
            let (key, sight, comes) = keys.next().context("a cycle ends")?;
            ensure!(console.text().contains(sight) != *comes, "`{sight}` was there before its key");
            console.type_in(key)?;
            answers.push(console.until(sight, |screen| screen.contains(sight) == *comes).await?);
        }
        flooded += since.elapsed();
        frames += console.frames.len() - drawn;
        stated.push(console.text());
    }
    let memory = process::memory(console.id(), "VmHWM").context("no memory is known")? / 1024;
    for line in stated.iter() {
        eprintln!("{line}");
    }
    eprintln!("{} answers {flooded:?} {frames} frames {memory} MiB", answers.len());
    ensure!(memory <= MEMORY_MIB, "the console held {memory} MiB, allowed are {MEMORY_MIB}");
    let rate = frames as f64 / flooded.as_secs_f64();
    ensure!(rate <= FRAMES, "{rate:.1} frames a second, allowed are {FRAMES}");
    console.leave().await?;
    Ok(Claim {
        what: "mvm tui, a key among 1 000 000 lines",
        ours: answers,
        limit: Limit::Percentile99(Duration::from_millis(50)),
        stated: vec![],
    })
}
