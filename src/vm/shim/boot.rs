//! From a specification to a guest that is ready.

use std::future::Future;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::endpoint::ssh_greets;
use super::identity;
use super::prepare::Prepared;
use super::protocol::Word;
use super::volumes::Volumes;
use super::{LeashEnd, ShimError, keep_console};
use crate::artifacts::GUEST_CONTRACT;
use crate::guest::client::{AgentClient, AgentError};
use crate::guest::frames::{Answer, Request};
use crate::host::child::find_program;
use crate::host::paths::Paths;
use crate::vm::console::ConsoleLog;
use crate::vm::hypervisor::qemu::{self, tsc};
use crate::vm::hypervisor::{Hypervisor, Launch, MESSAGES_FILE, Machine, Share, last_words};
use crate::vm::network::{self, mac};
use crate::vm::spec::HypervisorKind;
use crate::vm::virtiofs::ShareDaemon;

/// Pause between two questions whether the guest is ready.
const POLL: Duration = Duration::from_millis(40);
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

/// A start under way.
struct Start<'a> {
    prepared: &'a Prepared,
    leash: &'a mut LeashEnd,
    lap: Instant,
    deadline: Instant,
}

/// Boots the guest and waits until it is ready, reporting each step on the leash.
pub async fn boot(paths: &Paths, prepared: &Prepared, leash: &mut LeashEnd) -> Result<Booted, ShimError> {
    let begun = Instant::now();
    let deadline = begun + Duration::from_secs(prepared.spec.boot_timeout_secs);
    let mut start = Start { prepared, leash, lap: begun, deadline };
    let mut volumes = tokio::select! {
        volumes = Volumes::make(paths, prepared) => volumes?,
        _ = start.leash.detached() => return Err(ShimError::Abandoned),
    };
    let mut booted = launch(paths, prepared, &mut volumes, Launch::Cold).await?;
    start.lap("spawn").await;
    if !prepared.artifacts.has_agent() {
        start.without_agent(&mut booted).await?;
        return Ok(booted);
    }
    start.meet_agent(&mut booted).await?;
    start.lap("boot").await;
    start.personalise(paths, &volumes, &mut booted).await?;
    start.lap("personalise").await;
    start.ready(&mut booted).await?;
    start.lap("ready").await;
    Ok(booted)
}

impl Start<'_> {
    /// Tells what a step took that ends here.
    async fn lap(&mut self, name: &str) {
        let ms = self.lap.elapsed().as_millis() as u64;
        self.lap = Instant::now();
        self.leash.say(&Word::Step { name: name.into(), ms }).await;
    }

    async fn without_agent(&mut self, booted: &mut Booted) -> Result<(), ShimError> {
        let text =
            "the image has no guest agent: it is ready when its ssh server greets, and commands go by ssh";
        self.leash.say(&Word::Warning { text: text.into() }).await;
        let network = self.prepared.spec.network;
        let greets = ssh_greets(network, &mut *booted.hypervisor);
        let late = self.late("did not greet by ssh");
        tokio::select! {
            greets = greets => greets.map_err(|status| died(self.prepared, Ok(status)))?,
            _ = self.leash.detached() => return Err(ShimError::Abandoned),
            () = tokio::time::sleep_until(self.deadline.into()) => return Err(late),
        }
        self.lap("boot").await;
        Ok(())
    }

    /// Connects to the agent and waits until it says what it is.
    async fn meet_agent(&mut self, booted: &mut Booted) -> Result<(), ShimError> {
        let late = self.late("did not start its agent");
        let stream = tokio::select! {
            connected = booted.hypervisor.control() => connected?,
            _ = self.leash.detached() => return Err(ShimError::Abandoned),
            () = tokio::time::sleep_until(self.deadline.into()) => return Err(late),
        };
        let (client, driver) = AgentClient::start(stream);
        // Its end shows in every session.
        let agent = Agent { client: client.clone(), driver: tokio::spawn(driver) };
        let hello = self.asked(booted, late, client.hello()).await?;
        if hello.contract != GUEST_CONTRACT {
            return Err(ShimError::Contract { found: hello.contract, known: GUEST_CONTRACT });
        }
        booted.agent = Some(agent);
        Ok(())
    }

    async fn personalise(
        &mut self,
        paths: &Paths,
        volumes: &Volumes,
        booted: &mut Booted,
    ) -> Result<(), ShimError> {
        let Some(agent) = booted.agent.as_ref().map(|agent| agent.client.clone()) else { return Ok(()) };
        let who = identity::personalise(paths, self.prepared, volumes)?;
        let late = self.late("did not take its identity");
        self.asked(booted, late, agent.request(Request::Personalise(Box::new(who)))).await.map(drop)
    }

    /// Waits until all ports of the image's listen.
    async fn ready(&mut self, booted: &mut Booted) -> Result<(), ShimError> {
        let Some(agent) = booted.agent.as_ref().map(|agent| agent.client.clone()) else { return Ok(()) };
        let expected = self.prepared.artifacts.manifest.image.ports.clone();
        let ports: Vec<String> = expected.iter().map(u16::to_string).collect();
        let late = self.late(&format!("did not open its ports ({})", ports.join(", ")));
        self.asked(booted, late, ready(agent, expected)).await
    }

    fn late(&self, what: &str) -> ShimError {
        let spec = &self.prepared.spec;
        ShimError::Late { name: spec.name.to_string(), what: what.into(), seconds: spec.boot_timeout_secs }
    }

    /// Awaits what the agent is asked, unless the hypervisor ends, the leash is let go, or the deadline
    /// passes first.
    async fn asked<T>(
        &mut self,
        booted: &mut Booted,
        late: ShimError,
        work: impl Future<Output = Result<T, AgentError>>,
    ) -> Result<T, ShimError> {
        let answer = tokio::select! {
            answer = work => answer,
            status = booted.hypervisor.child().wait() => return Err(died(self.prepared, status)),
            _ = self.leash.detached() => return Err(ShimError::Abandoned),
            () = tokio::time::sleep_until(self.deadline.into()) => return Err(late),
        };
        match answer {
            Ok(answer) => Ok(answer),
            // A channel that breaks is mostly the first sign of a hypervisor that ends: then that is said.
            Err(error) => match tokio::time::timeout(LAST_MOMENT, booted.hypervisor.child().wait()).await {
                Ok(status) => Err(died(self.prepared, status)),
                Err(_) => Err(ShimError::Agent(error.to_string())),
            },
        }
    }
}

fn died(prepared: &Prepared, status: std::io::Result<ExitStatus>) -> ShimError {
    let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
    let words = last_words(&prepared.dir.join(MESSAGES_FILE)).map(|words| format!(": {words}"));
    ShimError::Died { how: status + &words.unwrap_or_default() }
}

/// Asks the agent until all expected ports listen.
async fn ready(agent: AgentClient, expected: Vec<u16>) -> Result<(), AgentError> {
    loop {
        match agent.request(Request::Ready).await {
            Ok(Answer::Ready { ports, .. }) if expected.iter().all(|port| ports.contains(port)) => {
                return Ok(());
            }
            Ok(_) => tokio::time::sleep(POLL).await,
            Err(error) => return Err(error),
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
    let mut command_line = String::from("console=ttyS0 reboot=t panic=-1 quiet");
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
        command_line +=
            &format!(" root=/dev/vda ro ip={}::{}:255.255.255.0::eth0:off", network::GUEST, network::GATEWAY);
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
        mac: &mac(&spec.id),
        tap: prepared.tap.as_ref().map(|tap| tap.tap.as_fd()),
        lock: prepared.lock.as_fd(),
    };
    let mut hypervisor: Box<dyn Hypervisor> = match spec.hypervisor {
        HypervisorKind::Qemu => Box::new(qemu::start(&machine, how).await?),
        HypervisorKind::Firecracker => return Err(ShimError::NoHypervisor("firecracker")),
    };
    if let Some(output) = hypervisor.child().stdout.take() {
        let log = ConsoleLog::open(dir)
            .map_err(|source| ShimError::File { path: dir.join("console.log"), source })?;
        tokio::spawn(keep_console(output, log));
    }
    Ok(Booted { hypervisor, agent: None, daemons: std::mem::take(&mut volumes.daemons) })
}

/// Where the hypervisor is.
fn program(_paths: &Paths, kind: HypervisorKind) -> Result<PathBuf, ShimError> {
    match kind {
        HypervisorKind::Qemu => find_program(qemu::PROGRAM).ok_or(ShimError::NoHypervisor(qemu::PROGRAM)),
        HypervisorKind::Firecracker => Err(ShimError::NoHypervisor("firecracker")),
    }
}
