//! From a specification to a guest that is ready.

mod launch;
mod restore;

use std::future::Future;
use std::time::{Duration, Instant};

use super::booted::{Booted, LAST_MOMENT, died};
use super::endpoint::ssh_greets;
use super::prepare::Prepared;
use super::protocol::Word;
use super::volumes::Volumes;
use super::{LeashEnd, ShimError, identity, save};
use crate::guest::client::{AgentClient, AgentError};
use crate::guest::frames::{Answer, Request};
use crate::host::paths::Paths;
use crate::host::versions;
use crate::vm::disks::{self, UPPER_FILE};
use crate::vm::hypervisor::{Disk, Launch};
use crate::vm::network::Connecting;
use crate::vm::snapshot::Snapshot;
use crate::vm::snapshot::fit::Fit;
use crate::vm::snapshot::ready::{self, NotReady};
use launch::{launch, program};

/// After so long somebody may want to know what the guest is not ready for.
const NOTICE: Duration = Duration::from_secs(8);
/// How long the guest waits for its ports before it is asked again.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a ready snapshot can do for a VM.
enum Ready {
    /// It goes on from this one.
    Restore(Box<Snapshot>),
    /// It boots: why, and whether one is to be taken.
    Boot { why: Option<String>, take: bool },
}

/// A start under way.
struct Start<'a> {
    paths: &'a Paths,
    prepared: &'a Prepared,
    /// Its network, until it is made.
    connecting: Option<Connecting>,
    leash: &'a mut LeashEnd,
    lap: Instant,
    deadline: Instant,
    /// What the deadline was made from.
    limit: Duration,
}

/// Brings the guest up until it is ready, reporting each step on the leash.
pub async fn boot(
    paths: &Paths,
    prepared: &Prepared,
    connecting: Connecting,
    leash: &mut LeashEnd,
) -> Result<Booted, ShimError> {
    let begun = Instant::now();
    let limit = Duration::from_secs(prepared.spec.boot_timeout_secs);
    let connecting = Some(connecting);
    let mut start = Start { paths, prepared, connecting, leash, lap: begun, deadline: begun + limit, limit };
    if let Some(dir) = &prepared.restore_from {
        return start.go_on_from(dir).await;
    }
    let inherited = prepared.dir.join(UPPER_FILE).exists();
    let mut volumes = start.unless_abandoned(Volumes::make(paths, prepared)).await??;
    let fit = fit(paths, prepared, &volumes.disks[2..]).await?;
    let (why, take) = match start.ready_snapshot(&fit, &volumes, inherited) {
        Ready::Boot { why, take } => (why, take),
        Ready::Restore(snapshot) => match start.restore(&snapshot, &mut volumes).await {
            Ok(booted) => return Ok(booted),
            Err(error @ (ShimError::Abandoned | ShimError::Contract { .. } | ShimError::Network(_))) => {
                return Err(error);
            }
            // Another boot would have no time.
            Err(error) if Instant::now() >= start.deadline => return Err(error),
            Err(error) => {
                let error = error.to_string();
                let reason = error.lines().next().unwrap_or_default();
                let key = &fit.key()[..12];
                (
                    Some(format!(
                        "restoring failed: {reason} (`mvm snapshot rm {key}` removes the snapshot)"
                    )),
                    false,
                )
            }
        },
    };
    if let Some(text) = why.as_ref().filter(|_| !take) {
        start.leash.say(&Word::Warning { text: format!("booting afresh: {text}") }).await;
    }
    let mut booted = start.cold(&fit, &mut volumes, take).await?;
    booted.why = why;
    Ok(booted)
}

/// What a snapshot must be like for the VM with these volumes to go on from it.
pub async fn fit(paths: &Paths, prepared: &Prepared, volumes: &[Disk]) -> Result<Fit, ShimError> {
    let Prepared { spec, artifacts, .. } = prepared;
    let program = program(paths, spec.hypervisor)?;
    let version = versions::version(paths, &program).await.unwrap_or_default();
    let size = |disk: &Disk| std::fs::metadata(&disk.path).map(|meta| meta.len());
    let sizes = volumes.iter().map(size).collect::<std::io::Result<_>>();
    let sizes = sizes.map_err(|source| ShimError::File { path: prepared.dir.clone(), source })?;
    Ok(Fit::of(spec, artifacts, version, sizes))
}

impl Start<'_> {
    /// Tells what a step took that ends here.
    async fn lap(&mut self, name: &str) {
        let ms = self.lap.elapsed().as_millis() as u64;
        self.lap = Instant::now();
        self.leash.say(&Word::Step { name: name.into(), ms }).await;
    }

    async fn unless_abandoned<T>(&mut self, work: impl Future<Output = T>) -> Result<T, ShimError> {
        tokio::select! {
            done = work => Ok(done),
            _ = self.leash.detached() => Err(ShimError::Abandoned),
        }
    }

    fn ready_snapshot(&self, fit: &Fit, volumes: &Volumes, inherited: bool) -> Ready {
        let never = |why: &str| Ready::Boot { why: Some(why.into()), take: false };
        match () {
            () if self.prepared.spec.cold || inherited || !self.prepared.artifacts.has_agent() => {
                Ready::Boot { why: None, take: false }
            }
            () if !volumes.daemons.is_empty() => never("a shared directory cannot be part of a snapshot"),
            () if fit.version.is_empty() => never("the hypervisor does not say its version"),
            () => match ready::find(self.paths, fit) {
                Ok(snapshot) => Ready::Restore(Box::new(snapshot)),
                Err(NotReady::Unusable(why)) => Ready::Boot { why: Some(why), take: false },
                Err(NotReady::Missing(why)) => match ready::room(self.paths, fit) {
                    Ok(()) => Ready::Boot { why: Some(why), take: true },
                    Err(full) => never(&full),
                },
            },
        }
    }

    /// Boots the guest; with `take` it is saved at the seal.
    async fn cold(&mut self, fit: &Fit, volumes: &mut Volumes, take: bool) -> Result<Booted, ShimError> {
        let mut booted = self.sealed(volumes).await?;
        if !self.prepared.artifacts.has_agent() {
            return Ok(booted);
        }
        if take {
            match self.rehearse(&mut booted).await {
                Ok(()) => self.take(fit, &mut booted).await?,
                Err(error @ ShimError::Abandoned) => return Err(error),
                Err(error) => {
                    let error = error.to_string();
                    let reason = error.lines().next().unwrap_or_default();
                    let text = format!("no ready snapshot is taken, and the guest boots again: {reason}");
                    self.leash.say(&Word::Warning { text }).await;
                    // It may have ended by itself. What it leaves must be gone before the next one begins.
                    drop(booted.hypervisor.child().kill().await);
                    drop(booted);
                    self.forget_upper();
                    booted = self.sealed(volumes).await?;
                }
            }
        }
        self.personalise(volumes, &mut booted).await?;
        self.ready(&mut booted).await?;
        Ok(booted)
    }

    /// Boots the guest until its agent is met, or without one until it is up.
    async fn sealed(&mut self, volumes: &mut Volumes) -> Result<Booted, ShimError> {
        let (dir, mib) = (&self.prepared.dir, self.prepared.spec.disk_mib);
        self.unless_abandoned(disks::upper(dir, mib)).await??;
        let mut booted = self.launch(volumes, Launch::Cold).await?;
        self.lap("spawn").await;
        if !self.prepared.artifacts.has_agent() {
            self.without_agent(&mut booted).await?;
            return Ok(booted);
        }
        self.meet_agent(&mut booted).await?;
        self.lap("boot").await;
        Ok(booted)
    }

    /// Has the guest do all that its copies need not do again. Half the time that is left is for a boot
    /// without it.
    async fn rehearse(&mut self, booted: &mut Booted) -> Result<(), ShimError> {
        let limit = self.deadline.saturating_duration_since(Instant::now()) / 2;
        let deadline_ms = Some(limit.saturating_sub(LAST_MOMENT).as_millis() as u64);
        self.within(limit, async |start| {
            let late = start.late("did not rehearse its start");
            let request = Request::Rehearse { deadline_ms };
            start.ask(booted, late, async |agent| agent.request(request).await.map(drop)).await
        })
        .await
    }

    /// Keeps a ready snapshot of a guest that rehearsed, if that can be.
    async fn take(&mut self, fit: &Fit, booted: &mut Booted) -> Result<(), ShimError> {
        match save::ready(self.paths, self.prepared, fit, booted).await {
            Ok(completing) => booted.completing = Some(completing),
            Err(error) => {
                let text = format!("no ready snapshot could be taken: {error}");
                self.leash.say(&Word::Warning { text }).await;
            }
        }
        self.meet_agent(booted).await?;
        self.lap("snapshot").await;
        Ok(())
    }

    /// Does something within a limit of its own.
    async fn within<T>(
        &mut self,
        limit: Duration,
        work: impl AsyncFnOnce(&mut Self) -> Result<T, ShimError>,
    ) -> Result<T, ShimError> {
        let whole = (self.deadline, self.limit);
        if Instant::now() + limit < self.deadline {
            (self.deadline, self.limit) = (Instant::now() + limit, limit);
        }
        let done = work(self).await;
        (self.deadline, self.limit) = whole;
        done
    }

    /// Its own disk is made anew for the next boot; it may not even be there.
    fn forget_upper(&self) {
        drop(std::fs::remove_file(self.prepared.dir.join(UPPER_FILE)));
    }

    /// Starts the hypervisor, and waits until it has a network.
    async fn launch(&mut self, volumes: &mut Volumes, how: Launch<'_>) -> Result<Booted, ShimError> {
        let mut booted = launch(self.paths, self.prepared, volumes, how).await?;
        // Not to be given up in the middle: what is half made cannot be removed. It takes a few milliseconds,
        // in which the hypervisor started.
        if let Some(connecting) = self.connecting.take()
            && let Err(error) = connecting.made()
        {
            // It may have ended by itself.
            drop(booted.hypervisor.child().kill().await);
            return Err(error.into());
        }
        Ok(booted)
    }

    async fn without_agent(&mut self, booted: &mut Booted) -> Result<(), ShimError> {
        let text =
            "the image has no guest agent: it is ready when its ssh server greets, and commands go by ssh";
        self.leash.say(&Word::Warning { text: text.into() }).await;
        let greets = ssh_greets(&self.prepared.spec, &mut *booted.hypervisor);
        let late = self.late("did not greet by ssh");
        tokio::select! {
            greets = greets => greets.map_err(|status| died(self.prepared, Ok(status)))?,
            _ = self.leash.detached() => return Err(ShimError::Abandoned),
            () = tokio::time::sleep_until(self.deadline.into()) => return Err(late),
        }
        self.lap("boot").await;
        Ok(())
    }

    async fn meet_agent(&mut self, booted: &mut Booted) -> Result<(), ShimError> {
        let late = self.late("did not start its agent");
        tokio::select! {
            met = booted.meet_agent(self.prepared) => met,
            _ = self.leash.detached() => Err(ShimError::Abandoned),
            () = tokio::time::sleep_until(self.deadline.into()) => Err(late),
        }
    }

    async fn personalise(&mut self, volumes: &Volumes, booted: &mut Booted) -> Result<(), ShimError> {
        let who = identity::personalise(self.paths, self.prepared, volumes)?;
        let late = self.late("did not take its identity");
        let request = Request::Personalise(Box::new(who));
        self.ask(booted, late, async |agent| agent.request(request).await.map(drop)).await?;
        self.lap("personalise").await;
        Ok(())
    }

    /// Waits until all ports of the image's listen.
    async fn ready(&mut self, booted: &mut Booted) -> Result<(), ShimError> {
        let expected = self.prepared.artifacts.manifest.image.ports.clone();
        let (begun, mut told) = (Instant::now(), false);
        let mut missing = expected.clone();
        while !missing.is_empty() {
            let ports: Vec<String> = missing.iter().map(u16::to_string).collect();
            let ports = ports.join(" and ");
            if begun.elapsed() > NOTICE && !std::mem::replace(&mut told, true) {
                let name = &self.prepared.spec.name;
                let text = format!(
                    "the guest does not listen on port {ports} of its addresses yet; `mvm logs {name}` shows its console"
                );
                self.leash.say(&Word::Warning { text }).await;
            }
            let late = self.late(&format!("did not listen on port {ports} of its addresses"));
            missing = self.ask(booted, late, async |agent| still_missing(agent, &expected).await).await?;
        }
        self.lap("ready").await;
        Ok(())
    }

    fn late(&self, what: &str) -> ShimError {
        let spec = &self.prepared.spec;
        ShimError::Late { name: spec.name.to_string(), what: what.into(), seconds: self.limit.as_secs() }
    }

    /// Asks the agent something, unless the hypervisor ends, the leash is let go, or the deadline
    /// passes first.
    async fn ask<T: Default>(
        &mut self,
        booted: &mut Booted,
        late: ShimError,
        question: impl AsyncFnOnce(AgentClient) -> Result<T, AgentError>,
    ) -> Result<T, ShimError> {
        let Some(agent) = booted.client() else { return Ok(T::default()) };
        tokio::select! {
            answer = question(agent) => match answer {
                Ok(answer) => Ok(answer),
                Err(error) => Err(booted.agent_failed(self.prepared, error).await),
            },
            status = booted.hypervisor.child().wait() => Err(died(self.prepared, status)),
            _ = self.leash.detached() => Err(ShimError::Abandoned),
            () = tokio::time::sleep_until(self.deadline.into()) => Err(late),
        }
    }
}

/// Asks the agent which of the expected ports nobody listens on; it answers as soon as there is none.
async fn still_missing(agent: AgentClient, expected: &[u16]) -> Result<Vec<u16>, AgentError> {
    let wait_ms = PATIENCE.as_millis() as u64;
    match agent.request(Request::Ready { ports: expected.to_vec(), wait_ms }).await? {
        Answer::Ready { ports, .. } => {
            Ok(expected.iter().copied().filter(|port| !ports.contains(port)).collect())
        }
        _ => Err(AgentError::Protocol("the answer is to another question".into())),
    }
}
