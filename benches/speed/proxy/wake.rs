//! A sleeping guest that is asked for something, by one client and by many at once.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::bare::{Bare, first_byte};
use super::cluster::Cluster;
use crate::claim::{Claim, Limit, in_turns, stated};
use crate::place::Place;

const ROUNDS: usize = 5;
/// Clients at once, how long each waits at most, and rounds of them.
const STORM: usize = 1000;
const PATIENCE: Duration = Duration::from_secs(120);
const STORMS: usize = 3;
/// Of what the same clients take at a guest that runs.
const SHARE: f64 = 1.2;

/// To the first byte of an answer, against the hypervisor alone.
pub fn measure(place: &Place) -> Result<Claim> {
    let what = "a sleeping guest asked through the coordinator, to the first byte";
    if let Some(why) = no_tap() {
        return Ok(Claim::skipped(what, why));
    }
    let cluster = Cluster::open(place)?;
    // Every other snapshot has its memory in a file: a round is one of each kind.
    let mut kinds = [Kind::default(), Kind::default()];
    for _ in 0..ROUNDS * kinds.len() {
        // By hand first: a wake and the sleep after it leave another snapshot.
        let bare = Bare::learn(place, &cluster.instance)?;
        let kind = &mut kinds[usize::from(bare.is_mapped)];
        kind.theirs.push(bare.start()?);
        let since = Instant::now();
        first_byte(cluster.route)?;
        kind.ours.push(since.elapsed());
        let wake = cluster.status()?.last_wake.context("nothing was woken")?;
        kind.agent.push(Duration::from_millis(wake.ms));
        cluster.sleep()?;
    }
    let mut lines = Vec::new();
    for (kind, name) in kinds.iter().zip(["with its state", "in a file"]) {
        lines.push(stated(&format!("memory {name}: mvm"), &kind.ours));
        lines.push(stated("  until it is awake", &kind.agent));
        lines.push(stated("  by hand", &kind.theirs));
    }
    let [one, other] = kinds;
    let mean = |one: Vec<Duration>, other: Vec<Duration>| {
        one.into_iter().zip(other).map(|(one, other)| (one + other) / 2).collect::<Vec<_>>()
    };
    let limit = Limit::Share(1.25, "the same restores by hand", mean(one.theirs, other.theirs));
    Ok(Claim { what, ours: mean(one.ours, other.ours), limit, stated: lines })
}

/// Wakes of one kind of snapshot.
#[derive(Default)]
struct Kind {
    ours: Vec<Duration>,
    /// Of it, until the coordinator knew where the guest answers.
    agent: Vec<Duration>,
    theirs: Vec<Duration>,
}

/// A thousand clients at a sleeping guest, against one wake and the same thousand at a guest that runs.
pub fn measure_storm(place: &Place) -> Result<Claim> {
    let what = "1000 clients at once at a sleeping guest";
    if let Some(why) = no_tap() {
        return Ok(Claim::skipped(what, why));
    }
    let cluster = Cluster::open(place)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut alone = Vec::new();
    let mut running = Vec::new();
    let ours = || {
        let before = cluster.status()?.wakes;
        let took = runtime.block_on(storm(cluster.route))?;
        let wakes = cluster.status()?.wakes - before;
        ensure!(wakes == 1, "there were {wakes} wakes");
        cluster.sleep()?;
        Ok(took)
    };
    let theirs = || {
        let since = Instant::now();
        first_byte(cluster.route)?;
        alone.push(since.elapsed());
        running.push(runtime.block_on(storm(cluster.route))?);
        cluster.sleep()?;
        Ok(alone[alone.len() - 1] + running[running.len() - 1].mul_f64(SHARE))
    };
    let (ours, theirs) = in_turns(STORMS, ours, theirs)?;
    let stated = vec![stated("one client, asleep", &alone), stated("the 1000, awake", &running)];
    Ok(Claim { what, ours, limit: Limit::Share(1.0, "one, and 1.2 of the 1000 awake", theirs), stated })
}

/// How long it takes until all of them have been answered who come at once.
async fn storm(address: SocketAddr) -> Result<Duration> {
    let since = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..STORM {
        clients.spawn(tokio::time::timeout(PATIENCE, page(address)));
    }
    while let Some(answered) = clients.join_next().await {
        answered?.context("a client was not answered in time")??;
    }
    Ok(since.elapsed())
}

async fn page(address: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer).await {
        // The page was all there: busybox closes before it has read the last empty line.
        Err(error) if error.kind() != io::ErrorKind::ConnectionReset => return Err(error.into()),
        _ => {}
    }
    let text = String::from_utf8_lossy(&answer);
    ensure!(text.starts_with("HTTP/1.") && text.contains("It works."), "an odd answer: `{text}`");
    Ok(())
}

/// Why guests have no networks of their own here, if so.
fn no_tap() -> Option<String> {
    (!nix::unistd::geteuid().is_root()).then(|| "needs root, for guests with networks of their own".into())
}
