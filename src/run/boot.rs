//! From a specification to a guest that is ready, or to why there is none.

use tokio_util::sync::CancellationToken;

use super::machine::MachineChoice;
use crate::artifacts::Artifacts;
use crate::event::{EventSink, Kind};
use crate::host::paths::Paths;
use crate::image::bake::BakeError;
use crate::image::error::BuildError;
use crate::store::Store;
use crate::store::vms::VmRow;
use crate::vm::config::RuntimeConfig;
use crate::vm::console;
use crate::vm::lifecycle::{self, LifecycleError, Starting};
use crate::vm::shim::protocol::Word;
use crate::vm::spec::{MIN_MEMORY_MIB, PortMap, StartedBy, VmName, VmSpec};

/// Memory a guest gets when nobody says otherwise, in MiB.
const DEFAULT_MEMORY_MIB: u32 = 256;
/// Size of the upper disk when nobody says otherwise, in MiB; it is sparse.
const DEFAULT_DISK_MIB: u64 = 4096;
/// How long a guest has until it is ready when nobody says otherwise, in seconds.
const DEFAULT_BOOT_TIMEOUT_SECS: u64 = 120;
/// How many of the console's last lines an error shows: more than a kernel's panic takes, so that
/// what led to it is among them.
const CONSOLE_TAIL: usize = 60;

/// The step with which every start begins.
const FIRST_STEP: &str = "spawn";

/// A VM that is ready, still on the leash.
#[derive(Debug)]
pub struct Running {
    /// The leash.
    pub starting: Starting,
    /// Published ports.
    pub ports: Vec<PortMap>,
}

/// Why there is no running VM.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The build failed.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The app cannot be started.
    #[error(transparent)]
    App(#[from] BakeError),
    /// The VM could not be made.
    #[error(transparent)]
    Lifecycle(#[from] LifecycleError),
    /// The VM's shim gave up.
    #[error("{error}")]
    Boot {
        /// What failed, on what, and what to do next.
        error: String,
        /// Whether a deadline passed.
        late: bool,
        /// Whether the snapshot it was to go on from will never do.
        unusable: bool,
        /// The console's last lines.
        tail: Vec<String>,
    },
    /// Something asked for cannot be had here.
    #[error("{what}\nhelp: {help}")]
    Unavailable {
        /// What.
        what: String,
        /// What to do.
        help: String,
    },
    /// The user had enough.
    #[error("cancelled")]
    Cancelled,
}

impl RunError {
    /// The last lines of the log that matters.
    pub fn tail(&self) -> Vec<String> {
        match self {
            Self::Build(error) => error.tail(),
            Self::Boot { tail, .. } => tail.clone(),
            _ => Vec::new(),
        }
    }

    /// Whether a deadline passed.
    pub fn is_late(&self) -> bool {
        matches!(self, Self::Boot { late: true, .. })
    }

    /// Whether the snapshot to go on from is not there, or will never do.
    pub fn is_unusable(&self) -> bool {
        matches!(self, Self::Boot { unusable: true, .. } | Self::Unavailable { .. })
    }

    /// Whether the user ended it.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Cancelled | Self::Build(BuildError::Cancelled) | Self::App(BakeError::Cancelled))
    }
}

/// The machine for what is asked for. What cannot work is said before anything long is begun.
pub async fn machine_for(config: &RuntimeConfig, paths: &Paths) -> Result<MachineChoice, RunError> {
    let machine = MachineChoice::new(config, paths).await?;
    if let Some(map) = published_twice(&config.ports) {
        let what = format!("the port {} is published twice", map.host);
        return Err(RunError::Unavailable {
            what,
            help: "publish each host port once; mind `ports` in mvm.toml".into(),
        });
    }
    if let Some(volume) = config.volumes.iter().find(|volume| !volume.host.exists()) {
        let help = "give a directory, or a file with an ext4 file system".into();
        return Err(RunError::Unavailable {
            what: format!("the volume `{}` does not exist", volume.host.display()),
            help,
        });
    }
    Ok(machine)
}

/// Starts the VM, under the very name of its specification when `exact`, and waits until its guest is
/// ready. Nothing stays of one that was cancelled.
pub async fn boot(
    paths: &Paths,
    store: &mut Store,
    spec: VmSpec,
    exact: bool,
    sink: &EventSink,
    cancel: &CancellationToken,
) -> Result<Running, RunError> {
    sink.phase(FIRST_STEP);
    let starting = lifecycle::start(paths, store, spec, exact)?;
    let id = starting.id.clone();
    let ready = until_ready(paths, starting, sink, cancel).await;
    if ready.is_err() {
        // Its process may have been killed: what it left is not for the next command to find.
        lifecycle::square(paths, store)?;
    }
    if matches!(ready, Err(RunError::Cancelled)) {
        // It never was: not even its log is of use.
        discard(&id, paths, store)?;
    }
    ready
}

/// Removes what a start that came to nothing left.
pub fn discard(id: &str, paths: &Paths, store: &mut Store) -> Result<(), LifecycleError> {
    match store.vm(id)? {
        Some(vm) => lifecycle::remove(paths, store, &vm),
        None => Ok(()),
    }
}

/// The specification in a VM's record.
pub fn recorded(vm: &VmRow) -> Result<VmSpec, RunError> {
    let spec = lifecycle::spec_of(vm).ok_or_else(|| RunError::Unavailable {
        what: format!("the record of the VM `{}` cannot be read", vm.name),
        help: "`mvm run` boots a new one".into(),
    })?;
    // Whose place it was to take is no matter any more.
    Ok(VmSpec { takes_over: None, ..spec })
}

/// Refuses a name that a VM has which runs.
pub fn refuse_taken(store: &Store, name: &VmName) -> Result<(), RunError> {
    match lifecycle::find(store, name.as_str()) {
        Ok(vm) if vm.state.is_live() => Err(LifecycleError::NameTaken(name.clone()).into()),
        _ => Ok(()),
    }
}

async fn until_ready(
    paths: &Paths,
    mut starting: Starting,
    sink: &EventSink,
    cancel: &CancellationToken,
) -> Result<Running, RunError> {
    let (id, name) = (starting.id.clone(), starting.name.to_string());
    let state = |state: &str| Kind::VmState { vm: id.clone(), name: name.clone(), state: state.into() };
    sink.send(state("booting"));
    let (mut steps, mut phase) = (Vec::new(), FIRST_STEP);
    loop {
        let word = tokio::select! {
            word = starting.next() => word,
            () = cancel.cancelled() => {
                starting.end(paths).await;
                sink.send(state("stopped"));
                return Err(RunError::Cancelled);
            }
        };
        match word {
            Some(Word::Step { name, ms }) => {
                let next = after(&name);
                if std::mem::replace(&mut phase, next) != next {
                    sink.phase(next);
                }
                steps.push((name, ms));
            }
            Some(Word::Warning { text }) => sink.warn(text),
            Some(Word::Ready { ports, restored, why }) => {
                sink.send(state("running"));
                sink.send(Kind::VmStarted {
                    vm: id.clone(),
                    name: name.clone(),
                    how: if restored { "restored" } else { "booted" }.into(),
                    why,
                    steps,
                });
                return Ok(Running { starting, ports });
            }
            failed => {
                starting.end(paths).await;
                sink.send(state("failed"));
                let (error, late, unusable) = match failed {
                    Some(Word::Failed { error, late, unusable }) => (error, late, unusable),
                    _ => (ended_silently(paths, &id, &name), false, false),
                };
                return Err(RunError::Boot {
                    error,
                    late,
                    unusable,
                    tail: console::tail(&paths.vm(&id), CONSOLE_TAIL),
                });
            }
        }
    }
}

/// What is under way once a step has ended.
fn after(step: &str) -> &'static str {
    match step {
        FIRST_STEP => "boot",
        "boot" | "snapshot" | "load" => "personalise",
        _ => "ready",
    }
}

fn ended_silently(paths: &Paths, id: &str, name: &str) -> String {
    let log = paths.vm(id).join("shim.log");
    format!("the process of the VM `{name}` ended without a word\nhelp: see {}", log.display())
}

/// A port of the host's that is to lead to two places.
pub fn published_twice(ports: &[PortMap]) -> Option<&PortMap> {
    let twice = |index: usize, map: &PortMap| {
        ports[..index].iter().any(|earlier| earlier.host == map.host && map.host.port() != 0)
    };
    ports.iter().enumerate().find(|(index, map)| twice(*index, map)).map(|(_, map)| map)
}

/// What is to be booted, as the flags and files say that are about the machine.
pub fn spec(
    config: &RuntimeConfig,
    name: VmName,
    artifacts: &Artifacts,
    machine: &MachineChoice,
) -> Result<VmSpec, RunError> {
    let least = artifacts.manifest.image.min_mem_mib.unwrap_or(MIN_MEMORY_MIB);
    let memory_mib = config.memory_mib.unwrap_or(DEFAULT_MEMORY_MIB.max(least));
    if memory_mib < least {
        return Err(RunError::Unavailable {
            what: format!("the image needs {least} MiB of memory, and {memory_mib} MiB are asked for"),
            help: format!("give at least `--mem {least}`"),
        });
    }
    Ok(VmSpec {
        id: lifecycle::new_id(),
        name,
        build_dir: artifacts.dir.clone(),
        cpus: config.cpus.unwrap_or(1),
        memory_mib,
        disk_mib: config.disk_mib.unwrap_or(DEFAULT_DISK_MIB),
        kernel_args: config.kernel_args.clone(),
        ports: config.ports.clone(),
        volumes: config.volumes.clone(),
        network: machine.network,
        egress: config.egress.unwrap_or(true),
        kvm: machine.kvm,
        role: None,
        boot_timeout_secs: config.boot_timeout_secs.unwrap_or(DEFAULT_BOOT_TIMEOUT_SECS),
        remove: false,
        hypervisor: machine.hypervisor,
        cold: false,
        started_by: StartedBy::Run,
        restore_from: None,
        takes_over: None,
        instance: None,
        secrets: None,
        tenant: None,
    })
}
