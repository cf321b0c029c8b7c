//! Many bytes through a proxy.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;

use super::fronts::{Fronts, missing};
use super::{Samples, in_turns, judge, load};
use crate::claim::{Claim, median};
use crate::place::Place;

/// Bytes of a round.
const BYTES: u64 = 2 << 30;
/// Several connections.
const SEVERAL: usize = 4;

type Move = fn(SocketAddr, usize, u64) -> Result<Duration>;

/// To one client.
pub fn measure(place: &Place) -> Result<Claim> {
    compare(place, "2 GiB from the backend over 1 connection", load::download, 1)
}

/// To several clients at once.
pub fn measure_several(place: &Place) -> Result<Claim> {
    compare(place, "2 GiB from the backend over 4 connections", load::download, SEVERAL)
}

/// From one client.
pub fn measure_up(place: &Place) -> Result<Claim> {
    compare(place, "2 GiB to the backend over 1 connection", load::upload, 1)
}

fn compare(place: &Place, what: &'static str, carry: Move, connections: usize) -> Result<Claim> {
    if let Some(why) = missing() {
        return Ok(Claim::skipped(what, why));
    }
    let fronts = Fronts::open(place)?;
    let samples = in_turns(&fronts, |front| carry(front.address, connections, BYTES / connections as u64))?;
    let line = |one: &Samples| {
        let gbit = (BYTES * 8) as f64 / median(&one.times).as_secs_f64() / 1e9;
        let cpu = median(&one.cpu).as_secs_f64() / (BYTES as f64 / 1e9);
        format!("{:<34} {gbit:>9.2} Gbit/s, {cpu:.3} s of CPU for a gigabyte", "")
    };
    judge(what, 1.0, samples, line)
}
