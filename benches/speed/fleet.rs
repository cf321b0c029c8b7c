//! A pool's instances woken together, and an agent with nothing to do.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mvm::agent::pki::Role;
use mvm::host::node;

use crate::claim::{Claim, Limit};
use crate::guest::Start;
use crate::hand::Hand;
use crate::place::Place;
use crate::process::{self, run};

/// Instances that are woken.
const TOGETHER: u32 = 10;
/// How long the agent is watched, and has before.
const IDLE: Duration = Duration::from_secs(20);
const SETTLE: Duration = Duration::from_secs(5);
/// Most CPU it may take, of one core, and most memory.
const SHARE: f64 = 0.005;
const MOST_MIB: f64 = 30.0;

/// Ten sleeping instances woken by one command, against as many waves of restores by hand as the cores
/// allow, each of them as slow as the slowest.
pub fn measure(place: &Place) -> Result<Claim> {
    let flake = place.flake("nix/examples/hello", &[])?;
    let flake = flake.to_str().context("the path is not UTF-8")?;
    let hand = Hand::learn(place, flake, Start::Restored)?;
    let waves = TOGETHER.div_ceil(node::cpus());
    run(&mut place.mvm(&["tenant", "create", "bench"])?)?;
    let policy = ["--min-running", "0", "--min-warm", "0"];
    run(place.mvm(&["pool", "create", "bench/ten", "--flake", flake])?.args(policy))?;
    let scale = |running: u32, sleeping: u32| -> Result<Duration> {
        let (running, sleeping) = (running.to_string(), sleeping.to_string());
        let counts = ["--running", &running, "--sleeping", &sleeping];
        Ok(run(place.mvm(&["pool", "scale", "bench/ten"])?.args(counts))?.wall)
    };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        scale(0, TOGETHER)?;
        ours.push(scale(TOGETHER, 0)?);
        let by_hand = (0..TOGETHER).map(|_| hand.start()).collect::<Result<Vec<_>>>()?;
        theirs.push(by_hand.into_iter().max().unwrap_or_default() * waves);
    }
    run(&mut place.mvm(&["tenant", "destroy", "bench", "--force"])?)?;
    let stated = vec![format!("{:<34} {waves} waves on {} cores", "ten at once", node::cpus())];
    let limit = Limit::Share(1.5, "the slowest by hand, in waves", theirs);
    Ok(Claim { what: "mvm pool scale, ten sleeping instances woken together", ours, limit, stated })
}

/// CPU time and memory of an agent that has nothing to do.
pub fn measure_idle(place: &Place) -> Result<Claim> {
    place.certify(&[Role::Node], &"bench".parse()?)?;
    let mut command = place.mvm(&["agent", "serve", "--listen", "127.0.0.1:0"])?;
    let mut agent = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let watched = watch(&mut agent);
    // By its own wish, so that nothing of it stays.
    let pid = nix::unistd::Pid::from_raw(i32::try_from(agent.id())?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
    agent.wait()?;
    let (spent, mib) = watched?;
    ensure!(mib <= MOST_MIB, "the agent has {mib:.1} MiB, and may have {MOST_MIB:.0}");
    Ok(Claim {
        what: "mvm agent serve, nothing happens for 20 s, CPU time",
        ours: vec![spent],
        limit: Limit::Absolute(IDLE.mul_f64(SHARE)),
        stated: vec![format!("{:<34} {mib:>9.1} MiB in use, limit {MOST_MIB:.0}", "the agent")],
    })
}

fn watch(agent: &mut Child) -> Result<(Duration, f64)> {
    let output = agent.stdout.take().context("it has no output")?;
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line)?;
    ensure!(line.contains("listens on"), "it does not listen, but says `{line}`");
    sleep(SETTLE);
    let (before, since) = (process::cpu(agent.id())?, Instant::now());
    sleep(IDLE.saturating_sub(since.elapsed()));
    let spent = process::cpu(agent.id())? - before;
    let kib = process::memory(agent.id(), "VmRSS").context("it has ended")?;
    Ok((spent, kib as f64 / 1024.0))
}
