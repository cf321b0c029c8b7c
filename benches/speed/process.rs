//! Child processes, timed, with what they cost.

use std::fs;
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// No command measured here takes longer.
const DEADLINE: Duration = Duration::from_secs(120);
/// How often a process's memory is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// What a command cost.
#[derive(Debug, Clone, Copy)]
pub struct Spent {
    /// From its start to its end.
    pub wall: Duration,
    /// User and system time, its children's included.
    pub cpu: Duration,
    /// Most memory it held itself at once, in KiB, as seen every few milliseconds.
    pub peak_kib: u64,
}

/// Runs a command that has to succeed.
pub fn run(command: &mut Command) -> Result<Spent> {
    let line = format!("{command:?}");
    let since = Instant::now();
    let child = command.spawn().with_context(|| format!("cannot start {line}"))?;
    let pid = child.id() as libc::pid_t;
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || {
        let waited = wait(pid);
        // Nobody waits any more after the deadline.
        let _ = sender.send((since.elapsed(), waited));
    });
    let mut peak_kib = 0;
    let (wall, (code, cpu)) = loop {
        match ended.recv_timeout(LOOK) {
            Ok(ended) => break ended,
            Err(RecvTimeoutError::Timeout) if since.elapsed() < DEADLINE => {
                peak_kib = peak_kib.max(memory(child.id(), "VmHWM").unwrap_or(0));
            }
            Err(_) => {
                kill(Pid::from_raw(pid), Signal::SIGKILL)?;
                bail!("{line} did not end within {} s", DEADLINE.as_secs());
            }
        }
    };
    if code != Some(0) {
        bail!("{line} failed");
    }
    Ok(Spent { wall, cpu, peak_kib })
}

/// Waits for a child: its exit code, and its user and system time.
fn wait(pid: libc::pid_t) -> (Option<i32>, Duration) {
    let mut status = 0;
    // SAFETY: all zeroes is a valid `rusage`.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to locals that live longer than the call.
    let waited = unsafe { libc::wait4(pid, &mut status, 0, &mut usage) };
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec as u64) + Duration::from_micros(time.tv_usec as u64)
    };
    let code = (waited == pid && libc::WIFEXITED(status)).then(|| libc::WEXITSTATUS(status));
    (code, time(usage.ru_utime) + time(usage.ru_stime))
}

/// A figure of a process's memory in KiB: `VmRSS` now, `VmHWM` at most.
pub fn memory(pid: u32, what: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// Memory in KiB that no other process has a share in: pages it wrote, and of files what it alone maps.
pub fn own_memory(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let private = text.lines().filter(|line| line.starts_with("Private_"));
    Ok(private.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum())
}

/// CPU time of a process's threads so far.
pub fn cpu(pid: u32) -> Result<Duration> {
    let mut nanos = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        nanos += text.split(' ').next().unwrap_or_default().parse::<u64>()?;
    }
    Ok(Duration::from_nanos(nanos))
}

/// How long a process's first thread has waited for a CPU so far, ready to run.
pub fn waited(pid: u32) -> Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/schedstat"))?;
    let nanos = text.split(' ').nth(1).context("no time is known")?;
    Ok(Duration::from_nanos(nanos.parse()?))
}

/// The children of a process's first thread.
pub fn children(pid: u32) -> Result<Vec<u32>> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    text.split_whitespace().map(|pid| Ok(pid.parse()?)).collect()
}
