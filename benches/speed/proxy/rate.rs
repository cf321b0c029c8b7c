//! Many small things through a proxy.

use anyhow::Result;

use super::fronts::{Fronts, missing};
use super::{Samples, in_turns, judge, load};
use crate::claim::{Claim, median, percentile};
use crate::place::Place;

/// Clients at once.
const CLIENTS: usize = 32;
/// Connections, and requests over a connection, of each client in a round.
const CALLS: usize = 500;
const ASKS: usize = 2000;
/// As good as the better of the others, but for so much.
const SHARE: f64 = 1.0 / 0.95;

/// Connections that come, ask and go.
pub fn measure(place: &Place) -> Result<Claim> {
    let what = "16000 connections with one request each, 32 at once";
    if let Some(why) = missing() {
        return Ok(Claim::skipped(what, why));
    }
    let fronts = Fronts::open(place)?;
    let samples = in_turns(&fronts, |front| load::calls(front.address, CLIENTS, CALLS))?;
    let count = CLIENTS * CALLS;
    let line = |one: &Samples| {
        let rate = count as f64 / median(&one.times).as_secs_f64();
        format!("{:<34} {rate:>9.0} a second, {}", "", cpu(one, count))
    };
    judge(what, SHARE, samples, line)
}

/// Requests over connections that stay.
pub fn measure_asks(place: &Place) -> Result<Claim> {
    let what = "99 of 100 small requests, 32 connections at once";
    if let Some(why) = missing() {
        return Ok(Claim::skipped(what, why));
    }
    let fronts = Fronts::open(place)?;
    let samples = in_turns(&fronts, |front| {
        load::asks(front.address, CLIENTS, ASKS).map(|samples| percentile(&samples, 99))
    })?;
    let line = |one: &Samples| format!("{:<34} {}", "", cpu(one, CLIENTS * ASKS));
    judge(what, SHARE, samples, line)
}

fn cpu(one: &Samples, count: usize) -> String {
    format!("{:.1} us of CPU for each", median(&one.cpu).as_secs_f64() * 1e6 / count as f64)
}
