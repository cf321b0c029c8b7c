//! The detached process that owns one VM.
//!
//! A shim holds an exclusive lock on the VM's directory (liveness is that lock), the hypervisor
//! (which dies with it), the console's pipe, the monitor, the agent's channel and the published
//! ports. Commands talk to it over a socket; the command that started it holds a leash: until it
//! says [`protocol::Leash::Detach`], its end is the VM's end.

pub mod client;
pub mod protocol;

mod boot;
mod booted;
mod endpoint;
mod handover;
mod identity;
mod prepare;
mod relay;
mod save;
mod serve;
mod volumes;

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;

use tokio::io::{AsyncRead, AsyncReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::signal::unix::{SignalKind, signal};

use crate::host::files;
use crate::host::identity::ProcessId;
use crate::host::paths::Paths;
use crate::store::vms::VmState;
use crate::store::{Store, StoreError};
use crate::vm::hypervisor::HypervisorError;
use crate::vm::network::{self, Connecting};
use crate::vm::snapshot::SnapshotError;
use crate::vm::spec::VmSpec;
use crate::vm::{console, disks};
use prepare::Prepared;
use protocol::{Leash, Word};

/// Why a shim could not bring its VM up, or how the VM ended.
#[derive(Debug, thiserror::Error)]
pub enum ShimError {
    /// Another process owns the VM.
    #[error("another process owns the VM `{0}`\nhelp: see `mvm status`")]
    Owned(String),
    /// The specification is unusable.
    #[error("the VM's specification `{path}` cannot be read: {source}\nhelp: `mvm destroy` the VM")]
    Spec {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: std::io::Error,
    },
    /// A file or socket of the VM cannot be made.
    #[error("cannot make `{path}`: {source}\nhelp: is the disk full? `mvm gc` frees space")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The hypervisor is not there.
    #[error("`{0}` is not installed\nhelp: run `mvm setup`")]
    NoHypervisor(&'static str),
    /// The hypervisor ended during the start.
    #[error(
        "the hypervisor ended before the guest was ready ({how})\nhelp: `mvm logs` shows the guest's console"
    )]
    Died {
        /// Its exit status and last words.
        how: String,
    },
    /// The guest did not come up in time.
    #[error(
        "the guest `{name}` {what} within {seconds} s\nhelp: `boot_timeout_secs` in mvm.toml (or --boot-timeout) gives it longer"
    )]
    Late {
        /// The VM's name.
        name: String,
        /// What it failed to do, e.g. `did not start its agent`.
        what: String,
        /// The deadline.
        seconds: u64,
    },
    /// The agent refused, or its channel broke.
    #[error("the guest agent: {0}\nhelp: `mvm logs` shows the guest's console")]
    Agent(String),
    /// The image needs another mvm.
    #[error(
        "the image speaks guest contract {found}, this mvm speaks {known}\nhelp: run `mvm setup` and build the image again"
    )]
    Contract {
        /// The image's.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// Somebody ended it before it was up.
    #[error("the VM `{0}` was stopped while it booted\nhelp: `mvm run` starts a new one")]
    Stopped(String),
    /// The command that started the VM went away.
    #[error("the command that started the VM went away")]
    Abandoned,
    /// A thread of this process.
    #[error("a thread of the VM's process failed: {0}\nhelp: see the VM's `shim.log`")]
    Thread(#[from] tokio::task::JoinError),
    /// It cannot be saved.
    #[error("the VM cannot be saved: {0}\nhelp: it was started so; `mvm run` starts another")]
    Unsavable(&'static str),
    /// A snapshot.
    #[error("{0}\nhelp: {help}", help = snapshot_help(.0))]
    Snapshot(#[from] SnapshotError),
    /// Disks.
    #[error(transparent)]
    Disk(#[from] disks::DiskError),
    /// Network.
    #[error(transparent)]
    Network(#[from] network::NetworkError),
    /// Ports.
    #[error(transparent)]
    Port(#[from] network::ports::PortError),
    /// The hypervisor.
    #[error(transparent)]
    Hypervisor(#[from] HypervisorError),
    /// Database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn snapshot_help(error: &SnapshotError) -> &'static str {
    match error {
        SnapshotError::File { .. } => "is the disk full? `mvm gc` frees space",
        _ => "`mvm run` boots a new VM; the snapshot is kept",
    }
}

/// The end of the leash that the shim holds.
struct LeashEnd {
    words: OwnedWriteHalf,
    /// `Some(true)` once detached; ends with `None` when the other end is gone.
    orders: BufReader<OwnedReadHalf>,
}

impl LeashEnd {
    /// Tells the command that started the VM; it may be gone.
    async fn say(&mut self, word: &Word) {
        // Nobody listening is found out by reading.
        let _ = protocol::write(&mut self.words, word).await;
    }

    /// Waits for the order to detach (true) or for the other end to go away (false).
    async fn detached(&mut self) -> bool {
        matches!(protocol::read::<Leash>(&mut self.orders).await, Ok(Some(Leash::Detach)))
    }
}

impl ShimError {
    /// Whether the snapshot to go on from will do at no other time either.
    fn is_for_good(&self) -> bool {
        use SnapshotError::{Changed, Format, Misfit, None};
        let load = |error: &HypervisorError| matches!(error, HypervisorError::Load { .. });
        match self {
            Self::Snapshot(error) => matches!(error, None { .. } | Format { .. } | Misfit(_) | Changed(_)),
            Self::Hypervisor(error) => load(error),
            _ => false,
        }
    }
}

/// Runs the VM `id` until it is over. Standard input is the leash.
pub fn main(paths: &Paths, id: &str) -> Result<(), ShimError> {
    let leash = std::io::stdin().as_fd().try_clone_to_owned();
    // Before any thread is made: a namespace belongs to a thread.
    let prepared = Prepared::new(paths, id);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let (leash, runtime) = match (leash, runtime) {
        (Ok(leash), Ok(runtime)) => (StdUnixStream::from(leash), runtime),
        (Err(source), _) | (_, Err(source)) => return Err(ShimError::File { path: "leash".into(), source }),
    };
    runtime.block_on(async {
        let stream = leash.set_nonblocking(true).and_then(|()| UnixStream::from_std(leash));
        let stream = stream.map_err(|source| ShimError::File { path: "leash".into(), source })?;
        let (orders, words) = stream.into_split();
        let mut leash = LeashEnd { words, orders: BufReader::new(orders) };
        let result = match prepared {
            Ok((prepared, connecting)) => run(paths, prepared, connecting, &mut leash).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &result {
            match error {
                ShimError::Stopped(_) | ShimError::Abandoned => record(paths, id, VmState::Stopped, None),
                error => record(paths, id, VmState::Failed, Some(&error.to_string())),
            }
            let late = matches!(error, ShimError::Late { .. });
            let unusable = error.is_for_good();
            leash.say(&Word::Failed { error: error.to_string(), late, unusable }).await;
        }
        result
    })
}

async fn run(
    paths: &Paths,
    prepared: Prepared,
    connecting: Connecting,
    leash: &mut LeashEnd,
) -> Result<(), ShimError> {
    let spec = prepared.spec.clone();
    let result = run_inside(paths, &prepared, connecting, leash).await;
    clean_up(paths, &prepared);
    let result = match result {
        Ok(ended) => {
            record(paths, &spec.id, ended.state, ended.detail.as_deref());
            let failed = |detail| format!("the VM `{}` is over: {detail}", spec.name);
            let word = match ended.detail.map(failed) {
                Some(error) => Word::Failed { error, late: false, unusable: false },
                None => Word::Ended,
            };
            leash.say(&word).await;
            Ok(())
        }
        Err(error) => Err(error),
    };
    if spec.remove && result.is_ok() {
        forget(paths, &spec);
    }
    result
}

async fn run_inside(
    paths: &Paths,
    prepared: &Prepared,
    connecting: Connecting,
    leash: &mut LeashEnd,
) -> Result<serve::Ended, ShimError> {
    let fail = |source| ShimError::File { path: "signals".into(), source };
    let mut terminate = signal(SignalKind::terminate()).map_err(fail)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(fail)?;
    // A hypervisor that was started already dies with this process.
    let machine = tokio::select! {
        booted = boot::boot(paths, prepared, connecting, leash) => booted?,
        _ = terminate.recv() => return Err(ShimError::Stopped(prepared.spec.name.to_string())),
        _ = interrupt.recv() => return Err(ShimError::Stopped(prepared.spec.name.to_string())),
    };
    serve::serve(paths, prepared, machine, leash).await
}

/// Removes what is only of use while the VM lives.
fn clean_up(paths: &Paths, prepared: &Prepared) {
    let id = &prepared.spec.id;
    remove(&paths.shim_socket(id));
    if let Some(tap) = &prepared.tap
        && let Err(error) = tap.leave()
    {
        eprintln!("mvm shim: {error}");
    }
}

/// Writes the VM's state down. Its end must not fail for a full disk: the next command squares it.
fn record(paths: &Paths, id: &str, state: VmState, detail: Option<&str>) {
    let written =
        Store::open(&paths.database()).and_then(|mut opened| opened.store.set_vm_state(id, state, detail));
    if let Err(error) = written {
        eprintln!("mvm shim: {error}");
    }
}

fn forget(paths: &Paths, spec: &VmSpec) {
    let removed = std::fs::remove_dir_all(paths.vm(&spec.id));
    let forgotten = Store::open(&paths.database()).and_then(|mut opened| opened.store.remove_vm(&spec.id));
    for error in
        [removed.err().map(|e| e.to_string()), forgotten.err().map(|e| e.to_string())].into_iter().flatten()
    {
        eprintln!("mvm shim: {error}");
    }
}

fn remove(path: &std::path::Path) {
    if let Err(error) = files::remove_file_if_there(path) {
        eprintln!("mvm shim: {}: {error}", path.display());
    }
}

/// Copies the guest's console into its log until the guest is over.
async fn keep_console(mut output: impl AsyncRead + Unpin, mut log: console::ConsoleLog) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match output.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            // A full disk must not stop the guest: its console is lost meanwhile.
            Ok(count) => drop(log.write(&buffer[..count])),
        }
    }
    if log.has_open_line() {
        drop(log.finish_line());
    }
}

/// The shim's own identity.
fn own_identity() -> Option<ProcessId> {
    ProcessId::of(std::process::id())
}
