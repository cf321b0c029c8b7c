//! VMs as records and directories: created, squared with what really runs, ended, removed.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use jiff::Timestamp;
use nix::sys::signal::Signal;
use rand_core::RngCore;
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::network::uplink;
use super::shim::client::{self, ClientError};
use super::shim::protocol::{self, Leash, Word};
use super::snapshot::ready;
use super::spec::{Network, VmName, VmSpec};
use crate::host::identity::ProcessId;
use crate::host::paths::Paths;
use crate::host::{child, files};
use crate::store::vms::{VmRow, VmState};
use crate::store::{Store, StoreError};

/// In a VM's directory: its specification.
pub const SPEC_FILE: &str = "spec.json";
/// In a VM's directory: which process its shim is. The database knows it as well, unless it was lost.
pub const PROCESS_FILE: &str = "process.json";

/// How long a killed VM's processes may take to let go of its lock.
const LET_GO: Duration = Duration::from_secs(10);

/// Pause between two looks at a VM that is about to end.
pub const SOON: Duration = Duration::from_millis(5);
/// Pause between two looks at one that may go on for long.
pub const LATER: Duration = Duration::from_millis(500);

/// How long a shim may take to end a VM at once before it is taken for one that hangs.
const AT_ONCE: Duration = Duration::from_secs(3);

/// Why a VM cannot be created, found or ended.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    /// The name is taken.
    #[error("a VM named `{0}` is running already\nhelp: `mvm stop {0}`, or choose another `--name`")]
    NameTaken(VmName),
    /// No such VM.
    #[error("there is no VM named `{name}`\nhelp: {help}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        help: String,
    },
    /// It is over.
    #[error(
        "the VM `{name}` is not running (it is {state})\nhelp: `mvm run` starts a new one; `mvm logs {name}` shows its console"
    )]
    NotRunning {
        /// Its name.
        name: String,
        /// Its state.
        state: &'static str,
    },
    /// A file of the VM.
    #[error("cannot write `{path}`: {source}\nhelp: is the disk full? `mvm gc` frees space")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The shim could not be started.
    #[error("cannot start the VM's process: {0}\nhelp: is the machine out of processes or memory?")]
    Spawn(io::Error),
    /// It does not end.
    #[error("the VM `{0}` does not end\nhelp: `mvm stop --kill {0}`, or see its `shim.log`")]
    Stuck(String),
    /// Its shim.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A VM on its way, held on the leash: dropped before [`Starting::detach`], it ends.
#[derive(Debug)]
pub struct Starting {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: VmName,
    leash: BufReader<UnixStream>,
    shim: Child,
}

/// A new VM id.
pub fn new_id() -> String {
    format!("v-{:08x}", rand_core::OsRng.next_u32())
}

/// Records a VM and starts its shim. `spec.name` is taken as it is when `exact`, else numbered
/// until it is free.
pub fn start(
    paths: &Paths,
    store: &mut Store,
    mut spec: VmSpec,
    exact: bool,
) -> Result<Starting, LifecycleError> {
    let now = Timestamp::now().as_millisecond();
    let wished = spec.name.clone();
    let mut number = 1;
    loop {
        let row = VmRow {
            id: spec.id.clone(),
            name: spec.name.to_string(),
            build: spec.build_dir.file_name().unwrap_or_default().to_string_lossy().into(),
            state: VmState::Created,
            detail: None,
            spec: serde_json::to_string(&spec).map_err(StoreError::from)?,
            process: ProcessId::of(std::process::id()),
            created_ms: now,
            changed_ms: now,
            beside: spec.takes_over.clone(),
        };
        match store.insert_vm(&row)? {
            true => break,
            false if exact => return Err(LifecycleError::NameTaken(wished)),
            false => {
                number += 1;
                spec.name = wished.numbered(number);
            }
        }
    }
    let started = spawn(paths, &spec);
    if let Err(error) = &started {
        // What was begun is taken back.
        let _ = std::fs::remove_dir_all(paths.vm(&spec.id));
        store.set_vm_state(&spec.id, VmState::Failed, Some(&error.to_string()))?;
    }
    let (shim, leash) = started?;
    Ok(Starting { id: spec.id, name: spec.name, leash, shim })
}

fn spawn(paths: &Paths, spec: &VmSpec) -> Result<(Child, BufReader<UnixStream>), LifecycleError> {
    let dir = paths.vm(&spec.id);
    let file = |path: &Path| {
        let path = path.to_path_buf();
        move |source| LifecycleError::File { path, source }
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(file(&dir))?;
    let spec_path = dir.join(SPEC_FILE);
    let json = serde_json::to_vec_pretty(spec).map_err(StoreError::from)?;
    files::write_atomic(&spec_path, &json, 0o600).map_err(file(&spec_path))?;
    let log_path = dir.join("shim.log");
    let log = std::fs::File::create(&log_path).map_err(file(&log_path))?;
    let (ours, theirs) = StdUnixStream::pair().map_err(LifecycleError::Spawn)?;
    let program = std::env::current_exe().map_err(LifecycleError::Spawn)?;
    let mut command = Command::new(child::RUNNING);
    command
        .arg0(program)
        .arg("shim")
        .args([&spec.id, spec.name.as_str()])
        .args([paths.state(), paths.runtime()]);
    command.current_dir("/").stdin(Stdio::from(OwnedFd::from(theirs)));
    command.stdout(log.try_clone().map_err(LifecycleError::Spawn)?).stderr(log);
    // SAFETY: setsid and close_range are async-signal-safe and touch nothing of the parent's.
    unsafe {
        command.pre_exec(|| {
            nix::unistd::setsid()?;
            child::keep_only_standard_streams();
            Ok(())
        });
    }
    let shim = command.spawn().map_err(LifecycleError::Spawn)?;
    ours.set_nonblocking(true).map_err(LifecycleError::Spawn)?;
    let leash = UnixStream::from_std(ours).map_err(LifecycleError::Spawn)?;
    Ok((shim, BufReader::new(leash)))
}

impl Starting {
    /// What the shim says next; `None` when it ended without a word.
    pub async fn next(&mut self) -> Option<Word> {
        protocol::read(&mut self.leash).await.ok().flatten()
    }

    /// Lets go of the leash and waits, within bounds, until nothing of the VM runs any more.
    pub async fn end(self, paths: &Paths) {
        let Self { id, leash, mut shim, .. } = self;
        drop(leash);
        let ended = async {
            // Killed, it may leave the hypervisor behind for a moment.
            let _ = shim.wait().await;
            over(paths, &id, SOON).await;
        };
        // One that hangs is left to the next command, which squares what it finds.
        let _ = tokio::time::timeout(LET_GO, ended).await;
    }

    /// Lets the VM live on its own.
    pub async fn detach(mut self) -> io::Result<()> {
        protocol::write(&mut self.leash, &Leash::Detach).await
    }
}

/// Squares the records with the locks that are held: a VM whose shim is gone is marked as failed
/// and what it shared is removed. Returns the names of those.
pub fn square(paths: &Paths, store: &mut Store) -> Result<Vec<String>, LifecycleError> {
    let mut lost = Vec::new();
    let mut lost_tap = false;
    for vm in store.vms()?.into_iter().filter(|vm| vm.state.is_live()) {
        // A shim without the lock yet is starting, or its maker is about to start it.
        if is_running(paths, &vm.id) || vm.process.as_ref().is_some_and(ProcessId::is_alive) {
            continue;
        }
        // It may have ended in order since the list was read.
        if store.set_vm_state(&vm.id, VmState::Failed, Some("its process ended without a word"))? {
            lost_tap |= shares_the_host(&vm);
            remove_sockets(paths, &vm.id);
            // Should it stay, `mvm gc` finds it.
            let _ = ready::abandon(paths, &vm.id);
            lost.push(vm.name);
        }
    }
    if lost_tap && nix::unistd::geteuid().is_root() {
        // What is left is an unused table, which the next end of a VM removes as well.
        let _ = uplink::sweep();
    }
    Ok(lost)
}

/// Records again the VMs of which only the directories are known, after the database was lost. Those that
/// run are taken over; returns the names of all. Where all are known it reads no more than the list.
pub fn adopt(paths: &Paths, store: &mut Store) -> Result<Vec<String>, LifecycleError> {
    let mut adopted = Vec::new();
    let known = store.vm_ids()?;
    for entry in std::fs::read_dir(paths.vms()).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(|id| known.contains(id)) {
            continue;
        }
        let file = entry.path().join(SPEC_FILE);
        let json = std::fs::read(&file).unwrap_or_default();
        let Ok(spec) = serde_json::from_slice::<VmSpec>(&json) else { continue };
        // One that was made since the list was read is known; one that was removed has no directory any
        // more, as its record is the last that goes.
        if entry.file_name() != spec.id.as_str() || store.vm(&spec.id)?.is_some() || !file.exists() {
            continue;
        }
        let now = Timestamp::now().as_millisecond();
        let row = VmRow {
            id: spec.id.clone(),
            name: spec.name.to_string(),
            build: spec.build_dir.file_name().unwrap_or_default().to_string_lossy().into(),
            state: if is_running(paths, &spec.id) { VmState::Running } else { VmState::Stopped },
            detail: None,
            spec: serde_json::to_string(&spec).map_err(StoreError::from)?,
            process: serde_json::from_slice(
                &std::fs::read(entry.path().join(PROCESS_FILE)).unwrap_or_default(),
            )
            .ok()
            .filter(ProcessId::is_alive),
            created_ms: now,
            changed_ms: now,
            beside: None,
        };
        if store.insert_vm(&row)? {
            adopted.push(row.name);
        }
    }
    Ok(adopted)
}

/// Whether a VM's lock is held.
pub fn is_running(paths: &Paths, id: &str) -> bool {
    // What cannot be looked at is left alone.
    files::is_locked(&paths.vm(id).join("lock")).unwrap_or(true)
}

/// Waits until a VM is over: until nobody holds its lock. Looks again after each `pause`.
pub async fn over(paths: &Paths, id: &str, pause: Duration) {
    while is_running(paths, id) {
        tokio::time::sleep(pause).await;
    }
}

/// The specification in a VM's record.
pub fn spec_of(vm: &VmRow) -> Option<VmSpec> {
    serde_json::from_str(&vm.spec).ok()
}

/// The VM with this name or id: the live one, else the newest.
pub fn find(store: &Store, name: &str) -> Result<VmRow, LifecycleError> {
    let mut found = store.vms_named(name)?;
    found.extend(store.vm(name)?);
    let live = found.iter().position(|vm| vm.state.is_live());
    if !found.is_empty() {
        return Ok(found.swap_remove(live.unwrap_or(0)));
    }
    let vms = store.vms()?;
    let names: Vec<&str> = vms.iter().filter(|vm| vm.state.is_live()).map(|vm| vm.name.as_str()).collect();
    let help = match names.as_slice() {
        [] => "no VM is running; `mvm run --flake DIR` starts one".into(),
        names => format!("running are: {}", names.join(", ")),
    };
    Err(LifecycleError::Unknown { name: name.into(), help })
}

/// The running VM with this name or id.
pub fn find_running(store: &Store, name: &str) -> Result<VmRow, LifecycleError> {
    let vm = find(store, name)?;
    match vm.state.is_live() {
        true => Ok(vm),
        false => Err(LifecycleError::NotRunning { name: vm.name, state: vm.state.as_str() }),
    }
}

/// Ends a VM and waits until nothing of it runs. No deadline ends it at once.
pub async fn stop(
    paths: &Paths,
    store: &mut Store,
    vm: &VmRow,
    deadline: Option<Duration>,
) -> Result<(), LifecycleError> {
    let socket = paths.shim_socket(&vm.id);
    let limit = deadline.map_or(AT_ONCE, |deadline| deadline + LET_GO);
    let ask = async {
        match deadline {
            Some(deadline) => client::stop(&socket, deadline).await,
            None => client::kill(&socket).await,
        }
    };
    let asked = match tokio::time::timeout(limit, ask).await {
        Ok(asked) => asked,
        // A shim that hangs takes no orders; without one it is ended, and the hypervisor with it.
        Err(_) if deadline.is_none() => Ok(terminate(store, &vm.id, Signal::SIGKILL).await?),
        Err(_) => return Err(LifecycleError::Stuck(vm.name.clone())),
    };
    match asked {
        Ok(()) => {}
        Err(ClientError::Refused(reason)) => return Err(ClientError::Refused(reason).into()),
        // Still booting, so without a socket: its process is told by signal.
        Err(ClientError::Unreachable(_)) => terminate(store, &vm.id, Signal::SIGTERM).await?,
    }
    tokio::time::timeout(LET_GO, over(paths, &vm.id, SOON))
        .await
        .map_err(|_| LifecycleError::Stuck(vm.name.clone()))?;
    store.set_vm_state(&vm.id, VmState::Stopped, None)?;
    Ok(())
}

/// Ends a shim that does not listen yet, or not any more. The hypervisor dies with it.
async fn terminate(store: &mut Store, id: &str, signal: Signal) -> Result<(), LifecycleError> {
    let until = tokio::time::Instant::now() + LET_GO;
    let mut vm = loop {
        let Some(vm) = store.vm(id)?.filter(|vm| vm.state.is_live()) else { return Ok(()) };
        // Until the shim takes over, the process is the command that starts the VM: not ours to end.
        let starting = vm.state == VmState::Created && vm.process.as_ref().is_some_and(ProcessId::is_alive);
        if !starting || tokio::time::Instant::now() > until {
            break vm;
        }
        tokio::time::sleep(SOON).await;
    };
    let Some(process) = vm.process.take().filter(|_| vm.state != VmState::Created) else { return Ok(()) };
    // It may have ended since.
    let _ = process.signal(signal);
    while process.is_alive() {
        if tokio::time::Instant::now() > until {
            let _ = process.signal(Signal::SIGKILL);
            break;
        }
        tokio::time::sleep(SOON).await;
    }
    if shares_the_host(&vm) && nix::unistd::geteuid().is_root() {
        // What is left is an unused table, which the next end of a VM removes as well.
        let _ = uplink::sweep();
    }
    Ok(())
}

/// Whether a VM that was killed leaves something on the host that others share.
fn shares_the_host(vm: &VmRow) -> bool {
    spec_of(vm).is_some_and(|spec| spec.network == Network::Tap && spec.egress)
}

/// Removes a VM that is over, with its disks and its log.
pub fn remove(paths: &Paths, store: &mut Store, vm: &VmRow) -> Result<(), LifecycleError> {
    remove_sockets(paths, &vm.id);
    let dir = paths.vm(&vm.id);
    files::remove_dir_if_there(&dir).map_err(|source| LifecycleError::File { path: dir, source })?;
    Ok(store.remove_vm(&vm.id)?)
}

/// Sockets of a shim that is gone, its shared directories' included.
fn remove_sockets(paths: &Paths, id: &str) {
    for entry in std::fs::read_dir(paths.runtime()).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(id) {
            // Gone already is as good.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
