//! A command in a running guest, and what that guest costs while nothing happens.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::claim::{Claim, Limit, in_turns};
use crate::place::Place;
use crate::process::{self, run};

const NAME: &str = "bench";
/// How long an idle shim is watched.
const IDLE: Duration = Duration::from_secs(5);

/// A running guest; ended when dropped.
pub struct Guest<'a> {
    place: &'a Place,
}

/// How a guest is to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// It boots.
    Cold,
    /// It goes on from the ready snapshot of an earlier one, which is there.
    Restored,
}

impl<'a> Guest<'a> {
    /// Builds and boots the flake. `publish` is as in `mvm run --publish`.
    pub fn boot(place: &'a Place, flake: &str, publish: &str, start: Start) -> Result<Self> {
        let mut command = place.mvm(&["run", "--network", "user", "--detach", "--name", NAME])?;
        if start == Start::Cold {
            command.arg("--cold");
        }
        run(command.args(["--publish", publish, "--flake", flake]))?;
        Ok(Self { place })
    }

    /// What `mvm status` says of it.
    pub fn status(&self) -> Result<serde_json::Value> {
        self.place.vm(NAME)
    }

    /// Stops it in order; how long that took.
    pub fn stop(self) -> Result<Duration> {
        Ok(run(&mut self.place.mvm(&["stop", NAME])?)?.wall)
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        // Whatever went wrong before is what is reported.
        let _ = self.place.mvm(&["destroy", "--force", NAME]).and_then(|mut command| run(&mut command));
    }
}

/// `mvm exec` against `mvm ssh`.
pub fn measure(place: &Place) -> Result<Claim> {
    let flake = place.flake("nix/examples/hello", &[])?;
    let guest = Guest::boot(place, flake.to_str().context("the path is not UTF-8")?, "0:22", Start::Cold)?;
    let exec = || Ok(run(&mut place.mvm(&["exec", NAME, "--", "true"])?)?.wall);
    let ssh = || Ok(run(&mut place.mvm(&["ssh", NAME, "--", "true"])?)?.wall);
    in_turns(1, exec, ssh)?;
    let (ours, theirs) = in_turns(15, exec, ssh)?;
    let stated = costs(&guest)?;
    Ok(Claim {
        what: "mvm exec NAME -- true",
        ours,
        limit: Limit::Share(0.25, "mvm ssh NAME -- true", theirs),
        stated,
    })
}

/// What an idle guest costs the host.
fn costs(guest: &Guest<'_>) -> Result<Vec<String>> {
    let pid = guest.status()?["pid"].as_u64().context("the VM has no shim")?;
    let shim = u32::try_from(pid)?;
    let qemu = *process::children(shim)?.first().context("the shim has no QEMU")?;
    let before = (process::cpu(shim)?, process::cpu(qemu)?);
    thread::sleep(IDLE);
    let after = (process::cpu(shim)?, process::cpu(qemu)?);
    let share = |spent: Duration| spent.as_secs_f64() / IDLE.as_secs_f64() * 100.0;
    let line = |who: &str, pid, spent| {
        let mib = process::memory(pid, "VmRSS").unwrap_or(0) as f64 / 1024.0;
        format!("{who:<34} {mib:>9.1} MiB, {:.2} % of a CPU while idle", share(spent))
    };
    Ok(vec![line("shim", shim, after.0 - before.0), line("QEMU", qemu, after.1 - before.1)])
}
