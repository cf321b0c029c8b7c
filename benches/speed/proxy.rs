//! The coordinator as a proxy, beside HAProxy in TCP mode and nginx's stream module: all on loopback, each
//! with a process of its own between the same clients and the same backend.

pub mod backend;
mod bare;
pub mod bulk;
mod cluster;
pub mod crowd;
pub mod fronts;
mod load;
pub mod rate;
pub mod wake;

use std::time::Duration;

use anyhow::{Context, Result};

use crate::claim::{Claim, Limit, median, stated};
use fronts::{Front, Fronts};

/// Rounds of a claim.
const ROUNDS: usize = 5;

/// What one way through cost, each time.
struct Samples {
    name: &'static str,
    times: Vec<Duration>,
    /// CPU time of the proxy alone.
    cpu: Vec<Duration>,
}

/// Has all of them take turns; another one begins each round.
fn in_turns(fronts: &Fronts, mut measure: impl FnMut(&Front) -> Result<Duration>) -> Result<Vec<Samples>> {
    let new = |front: &Front| Samples { name: front.name, times: Vec::new(), cpu: Vec::new() };
    let mut samples: Vec<_> = fronts.all.iter().map(new).collect();
    let count = fronts.all.len();
    for round in 0..ROUNDS {
        for index in (0..count).map(|index| (index + round) % count) {
            let front = &fronts.all[index];
            let before = front.cpu()?;
            samples[index].times.push(measure(front)?);
            samples[index].cpu.push(front.cpu()?.saturating_sub(before));
        }
    }
    Ok(samples)
}

/// Ours against such a share of the better of the others; `line` is said of each.
fn judge(
    what: &'static str,
    share: f64,
    samples: Vec<Samples>,
    line: impl Fn(&Samples) -> String,
) -> Result<Claim> {
    let stated = samples.iter().flat_map(|one| [stated(one.name, &one.times), line(one)]).collect();
    let mut ours = None;
    let mut others = Vec::new();
    for one in samples {
        match one.name {
            fronts::MVM => ours = Some(one.times),
            fronts::DIRECT => {}
            _ => others.push(one),
        }
    }
    let best = others.into_iter().min_by_key(|one| median(&one.times)).context("there are no others")?;
    let ours = ours.context("mvm was not measured")?;
    Ok(Claim { what, ours, limit: Limit::Share(share, best.name, best.times), stated })
}
