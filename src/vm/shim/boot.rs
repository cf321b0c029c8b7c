//! From a specification to a guest that is ready.

use std::future::Future;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::endpoint::ssh_greets;
use super::identity;
use super::prepare::Prepared;
use super::protocol::Word;
use super::save::{self, Completing};
use super::volumes::Volumes;
use super::{LeashEnd, ShimError, keep_console};
use crate::artifacts::GUEST_CONTRACT;
use crate::guest::client::{AgentClient, AgentError};
use crate::guest::frames::{Answer, Request};
use crate::host::child::find_program;
use crate::host::firecracker as release;
use crate::host::paths::Paths;
use crate::host::versions;
use crate::vm::console::ConsoleLog;
use crate::vm::disks::{self, UPPER_FILE};
use crate::vm::hypervisor::qemu::{self, tsc};
use crate::vm::hypervisor::{
    Disk, Hypervisor, Launch, MESSAGES_FILE, Machine, Share, firecracker, how_it_ended, last_words,
};
use crate::vm::network::{Addresses, TapPlace};
use crate::vm::snapshot::Snapshot;
use crate::vm::snapshot::fit::Fit;
use crate::vm::snapshot::ready::{self, NotReady};
use crate::vm::spec::HypervisorKind;
use crate::vm::virtiofs::ShareDaemon;

/// How long the guest waits for its ports before it is asked again.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long going on from a snapshot may take before the guest is booted in its place.
const RESTORE_DEADLINE: Duration = Duration::from_secs(20);
/// How long a guest that goes on may take until its agent is met and its clock set.
pub const WAKE_DEADLINE: Duration = Duration::from_secs(30);
/// How long a hypervisor whose channel broke may take to end.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// A booted guest.
pub struct Booted {
    /// The hypervisor.
    pub hypervisor: Box<dyn Hypervisor>,
    /// The agent; none in an image without one.
    pub agent: Option<Agent>,
    /// virtio-fs daemons, which end with the VM.
    pub daemons: Vec<ShareDaemon>,
    /// Disks: the root, the VM's own, volumes.
    pub disks: Vec<Disk>,
    /// Whether it was restored from a snapshot.
    pub restored: bool,
    /// Why it was not restored, where it could have been.
    pub why: Option<String>,
    /// A ready snapshot of it on its way to the disk.
    pub completing: Option<Completing>,
}

/// The guest agent, and the task that carries its frames.
pub struct Agent {
    /// To ask it.
    pub client: AgentClient,
    driver: JoinHandle<Result<(), AgentError>>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

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
    leash: &'a mut LeashEnd,
    lap: Instant,
    deadline: Instant,
    /// What the deadline was made from.
    limit: Duration,
}

/// Brings the guest up until it is ready, reporting each step on the leash.
pub async fn boot(paths: &Paths, prepared: &Prepared, leash: &mut LeashEnd) -> Result<Booted, ShimError> {
    let begun = Instant::now();
    let limit = Duration::from_secs(prepared.spec.boot_timeout_secs);
    let mut start = Start { paths, prepared, leash, lap: begun, deadline: begun + limit, limit };
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
            Err(error @ (ShimError::Abandoned | ShimError::Contract { .. })) => return Err(error),
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
        let mut booted = launch(self.paths, self.prepared, volumes, Launch::Cold).await?;
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

    /// Goes on from a ready snapshot. What is left of a failure is not in the way of a boot.
    async fn restore(&mut self, snapshot: &Snapshot, volumes: &mut Volumes) -> Result<Booted, ShimError> {
        let restored = self.try_restore(snapshot, volumes).await;
        if restored.is_err() {
            self.forget_upper();
            self.lap = Instant::now();
        }
        restored
    }

    async fn try_restore(&mut self, snapshot: &Snapshot, volumes: &mut Volumes) -> Result<Booted, ShimError> {
        self.copy_disks(snapshot).await?;
        let mut booted = self.load(snapshot, volumes, RESTORE_DEADLINE).await?;
        let personalised = async {
            self.personalise(volumes, &mut booted).await?;
            self.ready(&mut booted).await
        };
        let personalised = personalised.await;
        if personalised.is_err() {
            // It may have ended by itself.
            drop(booted.hypervisor.child().kill().await);
        }
        personalised.map(|()| booted)
    }

    /// Goes on from the snapshot of a VM.
    async fn go_on_from(&mut self, dir: &Path) -> Result<Booted, ShimError> {
        let snapshot = Snapshot::open(dir)?;
        let fit = fit(self.paths, self.prepared, &[]).await?;
        // The volumes come with it, or are a user's own: their files are looked at one by one.
        snapshot.check(&Fit { volumes: snapshot.manifest.fit.volumes.clone(), ..fit })?;
        self.copy_disks(&snapshot).await?;
        save::take_known_hosts(dir, self.prepared)?;
        let mut volumes = Volumes::make(self.paths, self.prepared).await?;
        let mut booted = self.load(&snapshot, &mut volumes, self.limit).await?;
        let late = self.late("did not wake");
        self.ask(&mut booted, late, async |agent| agent.request(wake()).await.map(drop)).await?;
        self.lap("wake").await;
        self.ready(&mut booted).await?;
        Ok(booted)
    }

    /// Gives the VM the disks of a snapshot. They may be large: the leash is minded meanwhile.
    async fn copy_disks(&mut self, snapshot: &Snapshot) -> Result<(), ShimError> {
        let (snapshot, to) = (snapshot.clone(), self.prepared.dir.clone());
        let copied = tokio::task::spawn_blocking(move || snapshot.copy_disks(&to));
        Ok(self.unless_abandoned(copied).await???)
    }

    /// Has a hypervisor go on from what was saved, until the agent is met.
    async fn load(
        &mut self,
        snapshot: &Snapshot,
        volumes: &mut Volumes,
        limit: Duration,
    ) -> Result<Booted, ShimError> {
        let how = Launch::Restore(&snapshot.dir);
        let mut booted = launch(self.paths, self.prepared, volumes, how).await?;
        self.lap("spawn").await;
        let loaded = self.within(limit, async |start| {
            let late = start.late("did not load its snapshot");
            let loaded = async {
                booted.hypervisor.load(&snapshot.dir).await?;
                Ok(booted.hypervisor.resume().await?)
            };
            tokio::select! {
                loaded = loaded => loaded,
                _ = start.leash.detached() => Err(ShimError::Abandoned),
                () = tokio::time::sleep_until(start.deadline.into()) => Err(late),
            }?;
            start.meet_agent(&mut booted).await
        });
        if let Err(error) = loaded.await {
            // It may have ended by itself. What it had open, others can open then.
            drop(booted.hypervisor.child().kill().await);
            return Err(error);
        }
        self.lap("load").await;
        booted.restored = true;
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
        let ports: Vec<String> = expected.iter().map(u16::to_string).collect();
        let late = self.late(&format!("did not open its ports ({})", ports.join(", ")));
        self.ask(booted, late, async |agent| until_ready(agent, expected).await).await?;
        self.lap("ready").await;
        Ok(())
    }

    fn late(&self, what: &str) -> ShimError {
        let spec = &self.prepared.spec;
        ShimError::Late { name: spec.name.to_string(), what: what.into(), seconds: self.limit.as_secs() }
    }

    /// Asks the agent something, unless the hypervisor ends, the leash is let go, or the deadline
    /// passes first.
    async fn ask(
        &mut self,
        booted: &mut Booted,
        late: ShimError,
        question: impl AsyncFnOnce(AgentClient) -> Result<(), AgentError>,
    ) -> Result<(), ShimError> {
        let Some(agent) = booted.client() else { return Ok(()) };
        tokio::select! {
            answer = question(agent) => match answer {
                Ok(()) => Ok(()),
                Err(error) => Err(booted.agent_failed(self.prepared, error).await),
            },
            status = booted.hypervisor.child().wait() => Err(died(self.prepared, status)),
            _ = self.leash.detached() => Err(ShimError::Abandoned),
            () = tokio::time::sleep_until(self.deadline.into()) => Err(late),
        }
    }
}

/// Brings a guest that stood still up to now.
pub fn wake() -> Request {
    Request::Wake { time_ns: identity::now_ns(), entropy: identity::entropy() }
}

impl Booted {
    /// To ask the agent.
    pub fn client(&self) -> Option<AgentClient> {
        self.agent.as_ref().map(|agent| agent.client.clone())
    }

    /// Has a machine go on that stood still, its agent met and its clock set.
    pub async fn go_on(&mut self, prepared: &Prepared) -> Result<(), ShimError> {
        self.hypervisor.resume().await?;
        let woken = async {
            if self.agent.is_none() {
                self.meet_agent(prepared).await?;
            }
            let Some(agent) = self.client() else { return Ok(()) };
            agent.request(wake()).await.map(drop).map_err(|error| ShimError::Agent(error.to_string()))
        };
        let late = |_| ShimError::Agent("it does not answer".into());
        tokio::time::timeout(WAKE_DEADLINE, woken).await.map_err(late)?
    }

    /// Connects to the agent and waits until it says what it is. The caller sets the deadline.
    pub async fn meet_agent(&mut self, prepared: &Prepared) -> Result<(), ShimError> {
        if !prepared.artifacts.has_agent() {
            return Ok(());
        }
        let control = self.hypervisor.control().await;
        if control.is_err()
            && let Ok(Some(status)) = self.hypervisor.child().try_wait()
        {
            return Err(died(prepared, Ok(status)));
        }
        let control = control?;
        let (client, driver) = AgentClient::start(control);
        // Its end shows in every session.
        let agent = Agent { client, driver: tokio::spawn(driver) };
        let hello = tokio::select! {
            hello = agent.client.hello() => hello,
            status = self.hypervisor.child().wait() => return Err(died(prepared, status)),
        };
        match hello {
            Ok(hello) if hello.contract == GUEST_CONTRACT => self.agent = Some(agent),
            Ok(hello) => return Err(ShimError::Contract { found: hello.contract, known: GUEST_CONTRACT }),
            Err(error) => return Err(self.agent_failed(prepared, error).await),
        }
        Ok(())
    }

    /// A channel that breaks is mostly the first sign of a hypervisor that ends: then that is said.
    async fn agent_failed(&mut self, prepared: &Prepared, error: AgentError) -> ShimError {
        match tokio::time::timeout(LAST_MOMENT, self.hypervisor.child().wait()).await {
            Ok(status) => died(prepared, status),
            Err(_) => ShimError::Agent(error.to_string()),
        }
    }
}

fn died(prepared: &Prepared, status: std::io::Result<ExitStatus>) -> ShimError {
    let how = |status| how_it_ended(prepared.spec.hypervisor, status);
    let status = status.map_or_else(|error| error.to_string(), how);
    let words = last_words(&prepared.dir.join(MESSAGES_FILE)).map(|words| format!(": {words}"));
    ShimError::Died { how: status + &words.unwrap_or_default() }
}

/// Asks the agent until all expected ports listen.
async fn until_ready(agent: AgentClient, expected: Vec<u16>) -> Result<(), AgentError> {
    loop {
        let wait_ms = PATIENCE.as_millis() as u64;
        match agent.request(Request::Ready { ports: expected.clone(), wait_ms }).await? {
            Answer::Ready { ports, .. } if expected.iter().all(|port| ports.contains(port)) => return Ok(()),
            Answer::Ready { .. } => {}
            _ => return Err(AgentError::Protocol("the answer is to another question".into())),
        }
    }
}

/// Starts the hypervisor, with the guest's console going into its log.
async fn launch(
    paths: &Paths,
    prepared: &Prepared,
    volumes: &mut Volumes,
    how: Launch<'_>,
) -> Result<Booted, ShimError> {
    let Prepared { spec, artifacts, dir, .. } = prepared;
    let addresses = Addresses::of(spec);
    let mut command_line = String::from(match spec.hypervisor {
        HypervisorKind::Qemu => qemu::COMMAND_LINE,
        HypervisorKind::Firecracker => firecracker::COMMAND_LINE,
    });
    if !spec.kvm
        && let Some(khz) = tsc::khz().await
    {
        command_line += &format!(" tsc_early_khz={khz}");
    }
    for argument in &spec.kernel_args {
        command_line.push(' ');
        command_line += argument;
    }
    if !artifacts.has_agent() {
        // Without an agent the kernel itself has to take the address.
        let Addresses { guest, prefix, gateway, .. } = &addresses;
        let netmask = Ipv4Addr::from(u32::MAX << (32 - prefix));
        command_line += &format!(" root=/dev/vda ro ip={guest}::{gateway}:{netmask}::eth0:off");
    }
    let shares: Vec<Share> = volumes.daemons.iter().map(ShareDaemon::share).collect();
    let program = program(paths, spec.hypervisor)?;
    let machine = Machine {
        program: &program,
        dir,
        spec,
        kernel: &artifacts.kernel,
        initrd: artifacts.initrd.as_deref(),
        command_line: &command_line,
        disks: &volumes.disks,
        shares: &shares,
        mac: &addresses.mac,
        tap: prepared.tap.as_ref().map(TapPlace::device),
        lock: prepared.lock.as_fd(),
    };
    let mut hypervisor: Box<dyn Hypervisor> = match spec.hypervisor {
        HypervisorKind::Qemu => Box::new(qemu::start(&machine, how).await?),
        HypervisorKind::Firecracker => Box::new(firecracker::start(&machine, how).await?),
    };
    if let Some(output) = hypervisor.child().stdout.take() {
        let log = ConsoleLog::open(dir)
            .map_err(|source| ShimError::File { path: dir.join("console.log"), source })?;
        tokio::spawn(keep_console(output, log));
    }
    Ok(Booted {
        hypervisor,
        agent: None,
        daemons: std::mem::take(&mut volumes.daemons),
        disks: volumes.disks.clone(),
        restored: false,
        why: None,
        completing: None,
    })
}

/// Where the hypervisor is.
fn program(paths: &Paths, kind: HypervisorKind) -> Result<PathBuf, ShimError> {
    match kind {
        HypervisorKind::Qemu => find_program(qemu::PROGRAM).ok_or(ShimError::NoHypervisor(qemu::PROGRAM)),
        HypervisorKind::Firecracker => release::find(paths).ok_or(ShimError::NoHypervisor(release::PROGRAM)),
    }
}
