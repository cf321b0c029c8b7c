//! From a specification to a guest that is ready.

use std::future::Future;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rand_core::RngCore;
use tokio::process::Child;

use super::endpoint::ssh_greets;
use super::prepare::Prepared;
use super::protocol::Word;
use super::{LeashEnd, ShimError, keep_console};
use crate::artifacts::GUEST_CONTRACT;
use crate::guest::client::{AgentClient, AgentError};
use crate::guest::frames::{self, Answer, Personalise, Request, VolumeSource};
use crate::host::child::find_program;
use crate::host::files;
use crate::host::paths::Paths;
use crate::vm::console::ConsoleLog;
use crate::vm::hypervisor::qemu::{self, Disk, Machine, Qemu, Share};
use crate::vm::hypervisor::qmp::Qmp;
use crate::vm::hypervisor::tsc;
use crate::vm::network::{self, dns, mac};
use crate::vm::spec::VolumeSpec;
use crate::vm::virtiofs::{self, ShareDaemon};
use crate::vm::{disks, keys};

/// Pause between two questions whether the guest is ready.
const POLL: Duration = Duration::from_millis(40);
/// How long a hypervisor whose channel broke may take to end.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// A booted guest.
pub struct Booted {
    /// The hypervisor.
    pub child: Child,
    /// Its monitor.
    pub qmp: Qmp,
    /// The agent; none in an image without one.
    pub agent: Option<AgentClient>,
    /// virtio-fs daemons, which end with the VM.
    pub daemons: Vec<ShareDaemon>,
}

/// Boots the guest and waits until it is ready, reporting each step on the leash.
pub async fn boot(paths: &Paths, prepared: &Prepared, leash: &mut LeashEnd) -> Result<Booted, ShimError> {
    let mut clock = Clock(Instant::now());
    let mut volumes = tokio::select! {
        volumes = Volumes::make(paths, prepared) => volumes?,
        _ = leash.detached() => return Err(ShimError::Abandoned),
    };
    let mut booted = start(prepared, &mut volumes).await?;
    clock.lap("spawn", leash).await;
    let spec = &prepared.spec;
    let deadline = Instant::now() + Duration::from_secs(spec.boot_timeout_secs);
    let late = |what: &str| ShimError::Late {
        name: spec.name.to_string(),
        what: what.into(),
        seconds: spec.boot_timeout_secs,
    };
    let Some(agent) = booted.agent.clone() else {
        let warning =
            "the image has no guest agent: it is ready when its ssh server greets, and commands go by ssh";
        leash.say(&Word::Warning { text: warning.into() }).await;
        let Booted { child, qmp, .. } = &mut booted;
        let greeting = ssh_greets(spec.network, qmp);
        watched(child, prepared, leash, deadline, late("did not greet by ssh"), greeting).await?;
        clock.lap("boot", leash).await;
        return Ok(booted);
    };
    let hello =
        watched(&mut booted.child, prepared, leash, deadline, late("did not start its agent"), agent.hello())
            .await?;
    let hello = match hello {
        Ok(hello) => hello,
        Err(error) => return Err(agent_failed(&mut booted, prepared, error).await),
    };
    if hello.contract != GUEST_CONTRACT {
        return Err(ShimError::Contract { found: hello.contract, known: GUEST_CONTRACT });
    }
    clock.lap("boot", leash).await;
    let personalise = Request::Personalise(Box::new(personalise(paths, prepared, &volumes)?));
    let asked = agent.request(personalise);
    let answer =
        watched(&mut booted.child, prepared, leash, deadline, late("did not take its identity"), asked)
            .await?;
    if let Err(error) = answer {
        return Err(agent_failed(&mut booted, prepared, error).await);
    }
    clock.lap("personalise", leash).await;
    let expected = prepared.artifacts.manifest.image.ports.clone();
    let waiting = ready(agent, expected.clone());
    let missing = format!(
        "did not open its ports ({})",
        expected.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
    );
    let waited = watched(&mut booted.child, prepared, leash, deadline, late(&missing), waiting).await?;
    if let Err(error) = waited {
        return Err(agent_failed(&mut booted, prepared, error).await);
    }
    clock.lap("ready", leash).await;
    Ok(booted)
}

/// Time since the last lap.
struct Clock(Instant);

impl Clock {
    async fn lap(&mut self, name: &str, leash: &mut LeashEnd) {
        let ms = self.0.elapsed().as_millis() as u64;
        self.0 = Instant::now();
        leash.say(&Word::Step { name: name.into(), ms }).await;
    }
}

/// Awaits `work`, unless the hypervisor ends, the leash is let go, or the deadline passes first.
async fn watched<T>(
    child: &mut Child,
    prepared: &Prepared,
    leash: &mut LeashEnd,
    deadline: Instant,
    late: ShimError,
    work: impl Future<Output = T>,
) -> Result<T, ShimError> {
    tokio::select! {
        done = work => Ok(done),
        status = child.wait() => Err(died(prepared, status)),
        _ = leash.detached() => Err(ShimError::Abandoned),
        () = tokio::time::sleep_until(deadline.into()) => Err(late),
    }
}

fn died(prepared: &Prepared, status: std::io::Result<ExitStatus>) -> ShimError {
    let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
    let words = qemu::last_words(&prepared.dir.join("qemu.log")).map(|words| format!(": {words}"));
    ShimError::Died { how: status + &words.unwrap_or_default() }
}

/// A channel that breaks is mostly the first sign of a hypervisor that ends: then that is said.
async fn agent_failed(booted: &mut Booted, prepared: &Prepared, error: AgentError) -> ShimError {
    match tokio::time::timeout(LAST_MOMENT, booted.child.wait()).await {
        Ok(status) => died(prepared, status),
        Err(_) => ShimError::Agent(error.to_string()),
    }
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

async fn start(prepared: &Prepared, volumes: &mut Volumes) -> Result<Booted, ShimError> {
    let program = find_program(qemu::PROGRAM).ok_or(ShimError::NoHypervisor(qemu::PROGRAM))?;
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
    let machine = Machine {
        program: &program,
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
    let Qemu { mut child, qmp, control } =
        machine.start(&dir.join("qemu.args"), &dir.join("qemu.log")).await?;
    if let Some(output) = child.stdout.take() {
        let log = ConsoleLog::open(dir)
            .map_err(|source| ShimError::File { path: dir.join("console.log"), source })?;
        tokio::spawn(keep_console(output, log));
    }
    let agent = artifacts.has_agent().then(|| {
        let (agent, driver) = AgentClient::start(control);
        // Its end shows in every session.
        tokio::spawn(driver);
        agent
    });
    Ok(Booted { child, qmp, agent, daemons: std::mem::take(&mut volumes.daemons) })
}

/// Disks and shares of a VM, and what the guest is told of them.
struct Volumes {
    disks: Vec<Disk>,
    daemons: Vec<ShareDaemon>,
    guest: Vec<frames::Volume>,
}

impl Volumes {
    async fn make(paths: &Paths, prepared: &Prepared) -> Result<Self, ShimError> {
        let Prepared { spec, artifacts, dir, .. } = prepared;
        let upper = disks::upper(dir, spec.disk_mib).await?;
        let rootfs = artifacts.rootfs.clone();
        let mut volumes = Self {
            disks: vec![Disk { path: rootfs, read_only: true }, Disk { path: upper, read_only: false }],
            daemons: Vec::new(),
            guest: Vec::new(),
        };
        for (index, volume) in spec.volumes.iter().enumerate() {
            volumes.add(paths, prepared, volume, index).await?;
        }
        Ok(volumes)
    }

    async fn add(
        &mut self,
        paths: &Paths,
        prepared: &Prepared,
        volume: &VolumeSpec,
        index: usize,
    ) -> Result<(), ShimError> {
        let source = match virtiofs::program_for(volume) {
            Some(program) => {
                let socket = paths.share_socket(&prepared.spec.id, index);
                let daemon = ShareDaemon::start(&program, &volume.host, socket, index)
                    .map_err(|source| ShimError::File { path: program, source })?;
                let tag = daemon.share().tag;
                self.daemons.push(daemon);
                VolumeSource::Tag(tag)
            }
            None => {
                let disk = disks::volume(volume, &prepared.dir, index).await?;
                self.disks.push(Disk { path: disk.path, read_only: false });
                VolumeSource::Uuid(disk.uuid)
            }
        };
        self.guest.push(frames::Volume { source, target: volume.guest.clone(), read_only: false });
        Ok(())
    }
}

/// Everything that makes this VM differ from others of its image.
fn personalise(paths: &Paths, prepared: &Prepared, volumes: &Volumes) -> Result<Personalise, ShimError> {
    let Prepared { spec, dir, .. } = prepared;
    let file = |path: PathBuf| move |source| ShimError::File { path, source };
    let host_key = keys::host_key().map_err(file(dir.join("known_hosts")))?;
    let (_, user_key) = keys::user_key(paths.state()).map_err(file(paths.state().join("ssh")))?;
    // ssh knows the VM by its id, which is never used again.
    let known = format!("{} {}\n", spec.id, host_key.public);
    files::write_atomic(&dir.join("known_hosts"), known.as_bytes(), 0o600)
        .map_err(file(dir.join("known_hosts")))?;
    let mut entropy = [0; 64];
    rand_core::OsRng.fill_bytes(&mut entropy);
    let gateway = spec.egress.then(|| network::GATEWAY.to_string());
    Ok(Personalise {
        time_ns: u64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or_default(),
        entropy: BASE64_STANDARD.encode(entropy),
        hostname: spec.name.to_string(),
        ssh_host_key: host_key.openssh,
        ssh_host_key_dropbear: host_key.dropbear,
        authorized_keys: vec![user_key],
        network: Some(frames::Network {
            address: network::GUEST_CIDR.into(),
            dns: if spec.egress { dns(spec.network) } else { Vec::new() },
            gateway,
            mac: Some(mac(&spec.id)),
        }),
        volumes: volumes.guest.clone(),
        secrets: Default::default(),
        role: spec.role.clone(),
    })
}
