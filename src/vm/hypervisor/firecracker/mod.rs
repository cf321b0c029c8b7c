//! Firecracker, from 1.7 on.
//!
//! It runs in the VM's directory, and all it is told of are names there: a snapshot holds them as they
//! stand, and each VM that goes on from it finds its own files under them.

mod api;
mod bodies;
pub mod exit;
mod vsock;

use std::fs::OpenOptions;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use hyper::Method;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::{
    Hypervisor, HypervisorError, Launch, MEMORY_FILE, MESSAGES_FILE, Machine, Tap, last_words, memory_fits,
    memory_is_whole,
};
use crate::guest::frames::VSOCK_PORT;
use crate::host::files::remove_file_if_there;
use crate::host::firecracker::{OLDEST, Version};
use api::Place;

/// The hypervisor's name in errors.
const NAME: &str = "Firecracker";
/// Begins the guest kernel's command line. Firecracker ends when the keyboard controller resets the
/// machine, and has no PCI bus; a mouse port is not worth its probing.
pub const COMMAND_LINE: &str =
    "console=ttyS0 reboot=k panic=-1 quiet pci=off i8042.noaux i8042.nomux i8042.dumbkbd";

/// How long it may take until it answers at all.
const START_DEADLINE: Duration = Duration::from_secs(5);
/// How long it may take to read a kernel or a snapshot.
const LOAD_DEADLINE: Duration = Duration::from_secs(20);
/// How long it may take to write a snapshot.
const SAVE_DEADLINE: Duration = Duration::from_secs(120);
/// How long one that broke off may take to end.
const LAST_MOMENT: Duration = Duration::from_secs(1);
/// Pause between two tries to reach it.
const API_POLL: Duration = Duration::from_millis(1);
/// Pause between two tries to reach the guest's agent.
const AGENT_POLL: Duration = Duration::from_millis(20);
/// How long the first try to reach the agent may take: a guest without a driver never answers, nor do
/// some versions right after a resume.
const FIRST_TRY: Duration = Duration::from_millis(100);
/// How long any later one may.
const LONGEST_TRY: Duration = Duration::from_secs(2);

/// A running Firecracker.
#[derive(Debug)]
pub struct Firecracker {
    child: Child,
    place: Place,
    dir: PathBuf,
    version: Version,
    memory_mib: u32,
    tap: Option<String>,
}

/// Starts Firecracker in the VM's directory; the machine too, unless it is to be loaded.
pub async fn start(machine: &Machine<'_>, launch: Launch<'_>) -> Result<Firecracker, HypervisorError> {
    let failed = |reason: String| HypervisorError::Start { name: NAME, reason };
    lay_out(machine).map_err(|error| failed(error.to_string()))?;
    let place = Place::open(machine.dir).map_err(|error| failed(error.to_string()))?;
    let child = spawn(machine)?;
    let dir = machine.dir.to_path_buf();
    let tap = match machine.tap {
        Some(Tap::Named(name)) => Some(name.to_owned()),
        _ => None,
    };
    let memory_mib = machine.spec.memory_mib;
    let mut started = Firecracker { child, place, dir, version: OLDEST, memory_mib, tap };
    let begun = started.begin(machine, launch).await;
    match begun {
        Ok(()) => Ok(started),
        Err(error) => Err(failed(started.give_up(error).await)),
    }
}

/// Puts everything Firecracker is told of under its name in the VM's directory.
fn lay_out(machine: &Machine<'_>) -> io::Result<()> {
    memory_fits(machine.spec.memory_mib)?;
    if !machine.shares.is_empty() {
        return Err(io::Error::other("it shares no directories; give the volume a size"));
    }
    match machine.tap {
        // It would make one of its own, which leads nowhere.
        Some(Tap::Named(name)) => drop(nix::net::if_::if_nametoindex(name).map_err(|errno| {
            io::Error::other(format!("the TAP device `{name}` is not there: {}", errno.desc()))
        })?),
        Some(Tap::Open(_)) => return Err(io::Error::other("it opens a TAP device by its name")),
        None => {}
    }
    // Left by an earlier one, it would refuse to start.
    for stale in [api::SOCKET, vsock::SOCKET, MESSAGES_FILE] {
        remove_file_if_there(&machine.dir.join(stale))?;
    }
    let link = |name: &str, target: &Path| link(machine.dir, name, target);
    link(bodies::KERNEL, machine.kernel)?;
    if let Some(initrd) = machine.initrd {
        link(bodies::INITRD, initrd)?;
    }
    for (index, disk) in machine.disks.iter().enumerate() {
        link(&bodies::drive_name(index), &disk.path)?;
    }
    Ok(())
}

fn link(dir: &Path, name: &str, target: &Path) -> io::Result<()> {
    let place = dir.join(name);
    remove_file_if_there(&place)?;
    symlink(std::path::absolute(target)?, place)
}

fn spawn(machine: &Machine<'_>) -> Result<Child, HypervisorError> {
    let failed = |error: io::Error| HypervisorError::Start { name: NAME, reason: error.to_string() };
    // Its log is written from the beginning; what it says at its very end comes behind.
    let messages = machine.dir.join(MESSAGES_FILE);
    let words = OpenOptions::new().create(true).append(true).open(&messages).map_err(failed)?;
    let mut command = Command::new(machine.program);
    command.arg("--api-sock").arg(api::SOCKET).arg("--id").arg(&machine.spec.id);
    // Without a log of its own, standard output has only the console. A guest could fill it with warnings.
    command.arg("--log-path").arg(MESSAGES_FILE).args(["--level", "Error"]);
    command.current_dir(machine.dir).process_group(0).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(words);
    let lock = machine.lock.as_raw_fd();
    // SAFETY: prctl, umask and fcntl are async-signal-safe and touch nothing of the parent's.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            umask(Mode::S_IRWXG | Mode::S_IRWXO);
            fcntl(BorrowedFd::borrow_raw(lock), FcntlArg::F_SETFD(FdFlag::empty()))?;
            Ok(())
        });
    }
    let program = machine.program.into();
    command.spawn().map_err(|source| HypervisorError::Spawn { program, source })
}

impl Firecracker {
    async fn begin(&mut self, machine: &Machine<'_>, launch: Launch<'_>) -> Result<(), HypervisorError> {
        let late = HypervisorError::Silent { name: NAME, what: "GET /version".into() };
        let version = tokio::time::timeout(START_DEADLINE, self.answering()).await.unwrap_or(Err(late))?;
        let known = version["firecracker_version"].as_str().unwrap_or_default();
        self.version = Version::parse(known).filter(|version| *version >= OLDEST).ok_or_else(|| {
            let reason = format!("it is version `{known}`, and mvm needs {OLDEST} or newer");
            HypervisorError::Refused { name: NAME, what: "GET /version".into(), reason }
        })?;
        if let Launch::Restore(_) = launch {
            return Ok(());
        }
        for (path, body) in bodies::machine(machine) {
            self.put(&path, body, api::DEADLINE).await?;
        }
        self.put("/actions", json!({ "action_type": "InstanceStart" }), LOAD_DEADLINE).await
    }

    /// Waits until it answers; its socket is there before it listens.
    async fn answering(&mut self) -> Result<Value, HypervisorError> {
        loop {
            let answer = api::ask(&self.place, Method::GET, "/version", None, START_DEADLINE).await;
            match answer {
                Err(HypervisorError::Lost { .. }) if matches!(self.child.try_wait(), Ok(None)) => {
                    tokio::time::sleep(API_POLL).await;
                }
                answer => return answer,
            }
        }
    }

    async fn put(&self, path: &str, body: Value, deadline: Duration) -> Result<(), HypervisorError> {
        api::ask(&self.place, Method::PUT, path, Some(&body), deadline).await.map(drop)
    }

    async fn state(&mut self, state: &str) -> Result<(), HypervisorError> {
        let body = json!({ "state": state });
        let told = api::ask(&self.place, Method::PATCH, "/vm", Some(&body), api::DEADLINE).await.map(drop);
        self.explained(told).await
    }

    /// A connection that broke is mostly the first sign of an end: then that is said.
    async fn explained<T>(&mut self, told: Result<T, HypervisorError>) -> Result<T, HypervisorError> {
        match told {
            Err(HypervisorError::Lost { name, source }) => {
                let source = self.end().await.map_or(source, io::Error::other);
                Err(HypervisorError::Lost { name, source })
            }
            told => told,
        }
    }

    /// How it ended, and its last words, when it does within a moment.
    async fn end(&mut self) -> Option<String> {
        let ended = tokio::time::timeout(LAST_MOMENT, self.child.wait()).await.ok()?;
        let how = ended.map_or_else(|error| error.to_string(), exit::words);
        let words = last_words(&self.dir.join(MESSAGES_FILE)).map(|words| format!(": {words}"));
        Some(format!("it ended ({how}){}", words.unwrap_or_default()))
    }

    /// Ends it: why it does not do what it was started for. What it had open, others can open then.
    async fn give_up(&mut self, error: HypervisorError) -> String {
        let reason = match error {
            HypervisorError::Refused { what, reason, .. } => format!("{what}: {reason}"),
            HypervisorError::Silent { what, .. } => format!("no answer to {what}"),
            HypervisorError::Lost { source, .. } => self.end().await.unwrap_or_else(|| source.to_string()),
            error => error.to_string(),
        };
        // It may have ended by itself.
        drop(self.child.kill().await);
        reason
    }
}

#[async_trait]
impl Hypervisor for Firecracker {
    fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    async fn control(&mut self) -> Result<UnixStream, HypervisorError> {
        let mut patience = FIRST_TRY;
        loop {
            match tokio::time::timeout(patience, vsock::connect(&self.place, VSOCK_PORT)).await {
                Ok(Ok(stream)) => return Ok(stream),
                // Nobody listens yet.
                Ok(Err(_)) => {}
                // A guest that is slow must have its time in the end.
                Err(_) => patience = LONGEST_TRY.min(2 * patience),
            }
            if !matches!(self.child.try_wait(), Ok(None)) {
                let source = io::ErrorKind::NotConnected.into();
                return self.explained(Err(HypervisorError::Lost { name: NAME, source })).await;
            }
            tokio::time::sleep(AGENT_POLL).await;
        }
    }

    async fn load(&mut self, dir: &Path) -> Result<(), HypervisorError> {
        let whole = memory_is_whole(&dir.join(MEMORY_FILE), self.memory_mib);
        let linked =
            whole.and_then(|()| link(&self.dir, bodies::SNAPSHOT, dir).map_err(|error| error.to_string()));
        linked.map_err(|reason| HypervisorError::Load { name: NAME, reason })?;
        let loaded =
            self.put("/snapshot/load", bodies::load(self.version, self.tap.as_deref()), LOAD_DEADLINE).await;
        match loaded {
            Ok(()) => Ok(()),
            Err(error) => Err(HypervisorError::Load { name: NAME, reason: self.give_up(error).await }),
        }
    }

    async fn pause(&mut self) -> Result<(), HypervisorError> {
        self.state("Paused").await
    }

    async fn resume(&mut self) -> Result<(), HypervisorError> {
        self.state("Resumed").await
    }

    async fn save(&mut self, dir: &Path) -> Result<(), HypervisorError> {
        let memory = dir.join(MEMORY_FILE);
        let file = |source| HypervisorError::File { path: memory.clone(), source };
        link(&self.dir, bodies::SNAPSHOT, dir).map_err(file)?;
        let saved = self.put("/snapshot/create", bodies::create(), SAVE_DEADLINE).await;
        self.explained(saved).await.map_err(|error| match error {
            // Mostly for want of space.
            HypervisorError::Refused { reason, .. } => file(io::Error::other(reason)),
            error => error,
        })
    }

    async fn power_button(&mut self) -> Result<(), HypervisorError> {
        let pressed = self.put("/actions", json!({ "action_type": "SendCtrlAltDel" }), api::DEADLINE).await;
        self.explained(pressed).await
    }

    async fn forward(&mut self, _: u16) -> Result<SocketAddr, HypervisorError> {
        let reason = "it has no user-mode networking; use `--network tap`".into();
        Err(HypervisorError::Refused { name: NAME, what: "forward".into(), reason })
    }
}

impl Drop for Firecracker {
    fn drop(&mut self) {
        // It leaves its sockets behind; the next one removes them where this fails.
        for socket in [api::SOCKET, vsock::SOCKET] {
            drop(remove_file_if_there(&self.dir.join(socket)));
        }
    }
}
