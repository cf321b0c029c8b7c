//! VMs as records and directories: created, squared with what really runs, ended, removed.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use jiff::Timestamp;
use rand_core::RngCore;
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::process::Command;

use super::network::tap;
use super::shim::client::{self, ClientError};
use super::shim::protocol::{self, Leash, Word};
use super::spec::{Network, VmName, VmSpec};
use crate::host::files;
use crate::host::identity::ProcessId;
use crate::host::paths::Paths;
use crate::store::vms::{VmRow, VmState};
use crate::store::{Store, StoreError};

/// How long a killed VM's processes may take to let go of its lock.
const LET_GO: Duration = Duration::from_secs(10);

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
    Ok(Starting { id: spec.id, name: spec.name, leash: started? })
}

fn spawn(paths: &Paths, spec: &VmSpec) -> Result<BufReader<UnixStream>, LifecycleError> {
    let dir = paths.vm(&spec.id);
    let file = |path: &Path| {
        let path = path.to_path_buf();
        move |source| LifecycleError::File { path, source }
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(file(&dir))?;
    let spec_path = dir.join("spec.json");
    let json = serde_json::to_vec_pretty(spec).map_err(StoreError::from)?;
    files::write_atomic(&spec_path, &json, 0o600).map_err(file(&spec_path))?;
    let log_path = dir.join("shim.log");
    let log = std::fs::File::create(&log_path).map_err(file(&log_path))?;
    let (ours, theirs) = StdUnixStream::pair().map_err(LifecycleError::Spawn)?;
    let program = std::env::current_exe().map_err(LifecycleError::Spawn)?;
    let mut command = Command::new(program);
    command.arg("shim").args([&spec.id, spec.name.as_str()]).args([paths.state(), paths.runtime()]);
    command.current_dir("/").stdin(Stdio::from(OwnedFd::from(theirs)));
    command.stdout(log.try_clone().map_err(LifecycleError::Spawn)?).stderr(log);
    // SAFETY: setsid is async-signal-safe and touches nothing of the parent's.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(io::Error::from));
    }
    command.spawn().map_err(LifecycleError::Spawn)?;
    ours.set_nonblocking(true).map_err(LifecycleError::Spawn)?;
    Ok(BufReader::new(UnixStream::from_std(ours).map_err(LifecycleError::Spawn)?))
}

impl Starting {
    /// What the shim says next; `None` when it ended without a word.
    pub async fn next(&mut self) -> Option<Word> {
        protocol::read(&mut self.leash).await.ok().flatten()
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
            lost_tap |= spec_of(&vm).is_some_and(|spec| spec.network == Network::Tap && spec.egress);
            remove_sockets(paths, &vm.id);
            lost.push(vm.name);
        }
    }
    if lost_tap && nix::unistd::geteuid().is_root() {
        // What is left is an unused table, which the next end of a VM removes as well.
        let _ = tap::sweep();
    }
    Ok(lost)
}

/// Whether a VM's lock is held.
pub fn is_running(paths: &Paths, id: &str) -> bool {
    files::is_locked(&paths.vm(id).join("lock")).unwrap_or(false)
}

/// The specification in a VM's record.
pub fn spec_of(vm: &VmRow) -> Option<VmSpec> {
    serde_json::from_str(&vm.spec).ok()
}

/// The VM with this name or id: the live one, else the newest.
pub fn find(store: &Store, name: &str) -> Result<VmRow, LifecycleError> {
    let vms = store.vms()?;
    let bears = |vm: &&VmRow| vm.name == name || vm.id == name;
    let live = vms.iter().filter(bears).find(|vm| vm.state.is_live());
    if let Some(vm) = live.or_else(|| vms.iter().find(bears)) {
        return Ok(vm.clone());
    }
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
    let asked = match deadline {
        Some(deadline) => client::stop(&socket, deadline).await,
        None => client::kill(&socket).await,
    };
    match asked {
        Ok(()) => {}
        Err(ClientError::Refused(reason)) => return Err(ClientError::Refused(reason).into()),
        // Still booting, so without a socket: its process is told by signal.
        Err(ClientError::Unreachable(_)) => terminate(store, &vm.id)?,
    }
    let wait = async {
        while is_running(paths, &vm.id) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let limit = deadline.unwrap_or_default() + LET_GO;
    tokio::time::timeout(limit, wait).await.map_err(|_| LifecycleError::Stuck(vm.name.clone()))?;
    store.set_vm_state(&vm.id, VmState::Stopped, None)?;
    Ok(())
}

/// Ends a shim that does not listen yet. The hypervisor dies with it.
fn terminate(store: &Store, id: &str) -> Result<(), LifecycleError> {
    let process = store.vm(id)?.and_then(|vm| vm.process);
    let Some(process) = process.filter(|process| process.is_alive() && process.pid != std::process::id())
    else {
        return Ok(());
    };
    // It may have ended since.
    let _ = process.signal(nix::sys::signal::Signal::SIGKILL);
    Ok(())
}

/// Removes a VM that is over, with its disks and its log.
pub fn remove(paths: &Paths, store: &mut Store, vm: &VmRow) -> Result<(), LifecycleError> {
    remove_sockets(paths, &vm.id);
    let dir = paths.vm(&vm.id);
    match std::fs::remove_dir_all(&dir) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(LifecycleError::File { path: dir, source });
        }
        _ => {}
    }
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
