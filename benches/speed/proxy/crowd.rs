//! Many connections that are idle.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::fronts::{Fronts, MVM, missing};
use super::load;
use crate::claim::{Claim, Limit};
use crate::place::Place;

/// Connections: a process may have 20 000 descriptors, and a proxy needs two of them for each.
const CROWD: usize = 8000;
/// Rounds, each with new processes: what was used once is kept by most.
const ROUNDS: usize = 3;
/// What they settle at.
const SETTLE: Duration = Duration::from_millis(500);

/// Memory of a proxy for each of them.
pub fn measure(place: &Place) -> Result<Claim> {
    let what = "memory for each of 8000 idle connections, median of 3";
    if let Some(why) = missing() {
        return Ok(Claim::skipped(what, why));
    }
    let mut all: Vec<(&str, Vec<u64>)> = Vec::new();
    for _ in 0..ROUNDS {
        let fronts = Fronts::open(place)?;
        // Both of HAProxy's are one process.
        for name in [MVM, "haproxy", "nginx"] {
            let front = fronts.all.iter().find(|front| front.name == name).context("it is not there")?;
            let before = front.memory()?;
            let crowd = load::crowd(front.address, CROWD)?;
            thread::sleep(SETTLE);
            let each = front.memory()?.saturating_sub(before) / CROWD as u64;
            drop(crowd);
            match all.iter_mut().find(|(of, _)| *of == name) {
                Some((_, samples)) => samples.push(each),
                None => all.push((name, vec![each])),
            }
            thread::sleep(SETTLE);
        }
    }
    let mut figures = Vec::new();
    for (name, mut samples) in all {
        samples.sort_unstable();
        figures.push((name, samples[samples.len() / 2]));
    }
    let [(_, ours), (_, theirs), (name, other)] = figures[..] else { anyhow::bail!("not all were measured") };
    let stated = vec![format!("{name:<34} {other:>9} bytes")];
    Ok(Claim { what, ours: Vec::new(), limit: Limit::Bytes(ours, "haproxy", theirs), stated })
}
