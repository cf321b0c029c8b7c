//! The console while a build says a million lines.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand_core::RngCore;

use crate::claim::{Claim, Limit, millis, percentile};
use crate::console::Console;
use crate::place::Place;
use crate::process;

/// Builds in a row, each of which fills a log of its own: no more than three are kept whole.
const BUILDS: usize = 3;
/// Most memory the console may hold, in MiB: three logs of 64 MiB each, and 64 MiB for the rest.
const MEMORY_MIB: u64 = 256;
/// Most frames a second.
const FRAMES: f64 = 60.0;

const HELP: &str = "Help: j and k scroll";
const PALETTE: &str = "┌ Command ";
const TREE: &str = "─ Derivations ";
const OVERVIEW: &str = "┌ Routes ";
/// A task that goes on.
const UNDER_WAY: &str = "│⏵ ";

/// Keys with what is seen of each; `true` where it comes, else it goes. The last leaves the screen
/// as it was before the first.
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
    console.until("the overview", |screen| screen.contains(OVERVIEW)).await?;
    console.type_in(b"2")?;
    console.until("the builds", |screen| !screen.contains(OVERVIEW)).await?;
    let (mut answers, mut lost) = (Vec::new(), Vec::new());
    let (mut flooded, mut frames) = (Duration::ZERO, 0);
    for build in 0..BUILDS {
        // Another derivation, unknown to earlier runs too.
        fs::write(flake.join("salt"), format!("{} {build}\n", jiff::Timestamp::now()))?;
        console.type_in(b"b")?;
        let pours = |screen: &str| screen.contains(UNDER_WAY) && screen.contains("module_");
        console.until("the log", pours).await?;
        let (since, drawn) = (Instant::now(), console.frames.len());
        while console.text().contains(UNDER_WAY) {
            answers.extend(press_all(&mut console).await?);
        }
        flooded += since.elapsed();
        frames += console.frames.len() - drawn;
        console.until("the end", |screen| screen.contains("lines dropped")).await?;
        let screen = console.text();
        lost.push((
            before(&screen, " log lines came faster").unwrap_or("0").to_owned(),
            before(&screen, " lines dropped").unwrap_or_default().to_owned(),
        ));
    }
    let memory = process::memory(console.id(), "VmHWM").context("no memory is known")? / 1024;
    console.leave().await?;
    let rate = frames as f64 / flooded.as_secs_f64();
    ensure!(memory <= MEMORY_MIB, "the console held {memory} MiB, allowed are {MEMORY_MIB}");
    ensure!(rate <= FRAMES, "{rate:.1} frames a second, allowed are {FRAMES}");
    let (answers, running): (Vec<_>, Vec<_>) = answers.into_iter().unzip();
    let lost: Vec<_> = lost.iter().map(|(channel, all)| format!("{channel} of {all}")).collect();
    Ok(Claim {
        what: "mvm tui, a key among 1 000 000 lines, 200x50",
        ours: answers,
        limit: Limit::Percentile99(Duration::from_millis(50)),
        stated: vec![
            format!("{:<34} {}", "the same, less waits for a CPU", millis(percentile(&running, 99))),
            format!("{:<34} {rate:>9.1}     of {FRAMES} allowed", "frames a second"),
            format!("{:<34} {memory:>9} MiB of {MEMORY_MIB} allowed", "memory at most, three full logs"),
            format!("{:<34} {}", "dropped, before the log of all", lost.join(", ")),
        ],
    })
}

/// Presses all keys, one at a time: how long those took that were answered while lines poured in,
/// and how long without the waits of the console for a CPU, which others may have had.
async fn press_all(console: &mut Console) -> Result<Vec<(Duration, Duration)>> {
    let mut answers = Vec::new();
    for (key, sight, comes) in KEYS {
        let pause = 20 + rand_core::OsRng.next_u32() % 41;
        console.watch(Duration::from_millis(pause.into())).await?;
        ensure!(console.text().contains(sight) != comes, "`{sight}` did not wait for its key");
        let waited = process::waited(console.id())?;
        console.type_in(key)?;
        let took = console.until(sight, |screen| screen.contains(sight) == comes).await?;
        if console.text().contains(UNDER_WAY) {
            answers.push((took, took.saturating_sub(process::waited(console.id())? - waited)));
        }
    }
    Ok(answers)
}

/// The word in front of these.
fn before<'a>(screen: &'a str, words: &str) -> Option<&'a str> {
    screen.split_once(words)?.0.split_whitespace().next_back()
}
