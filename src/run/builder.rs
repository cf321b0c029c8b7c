//! Builds in a VM of their own: booted when Nix is first needed, gone when the build is over.
//!
//! The project is mounted in it, its store lies on a disk that stays, and the image that was built is copied
//! out. What comes from it is a guest's word: bounded, and nothing of it gets into this machine's store.

pub mod disk;
mod guest;

use std::cell;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use walkdir::WalkDir;

use super::boot::{RunError, boot, machine_for, spec};
use super::machine::MachineChoice;
use super::request::BuilderWish;
use super::wish::{BuildWish, WishError};
use crate::event::words::duration;
use crate::event::{EventSink, TaskId};
use crate::guest::client::AgentError;
use crate::host::builder;
use crate::host::inputs::FlakeInputs;
use crate::host::paths::Paths;
use crate::host::tools::ToolsError;
use crate::image::build as image_build;
use crate::image::elsewhere::Elsewhere;
use crate::image::hold::InHand;
use crate::image::nix::Ran;
use crate::image::{BuildError, BuildRequest};
use crate::store::vms::VmRow;
use crate::store::{Store, StoreError};
use crate::vm::config::RuntimeConfig;
use crate::vm::lifecycle::{self, LifecycleError};
use crate::vm::shim::client::{self, ClientError};
use crate::vm::spec::{HypervisorKind, NetworkChoice, StartedBy, VmName, VmSpec, VolumeSpec};
use disk::{Disk, DiskFault};
use guest::{TMP, Up, bounded};

/// Where it has the project, and its store.
const SOURCE: &str = "/src";
const STORE: &str = "/nix";
/// Most files and bytes of a project that is copied instead of being shared, and the size of its disk.
const SMALL_FILES: usize = 2000;
const SMALL: u64 = 32 << 20;
const COPY_MIB: u64 = 128;
/// Least memory of the VM, in MiB; its flake says so too.
pub const MIN_MEMORY_MIB: u32 = 512;
/// What programs in it say of a full disk, in the C library's words.
const NO_ROOM: &str = "No space left on device";
/// Pause between two looks at a VM that another build has.
const POLL: Duration = Duration::from_millis(100);

/// Why the VM does not build.
#[derive(Debug, thiserror::Error)]
pub enum BuilderError {
    /// Its tools cannot be laid out.
    #[error(transparent)]
    Tools(#[from] ToolsError),
    /// Its image.
    #[error(transparent)]
    Wish(#[from] WishError),
    /// It does not come up.
    #[error("the builder VM: {0}")]
    Run(#[from] RunError),
    /// Its disk.
    #[error(transparent)]
    Disk(#[from] DiskFault),
    /// Its process.
    #[error("the builder VM: {0}")]
    Client(#[from] ClientError),
    /// Its agent.
    #[error("the builder VM: {0}\nhelp: `--builder-mem` gives it more memory, if that is what it lacked")]
    Agent(#[from] AgentError),
    /// It says nothing.
    #[error(
        "the builder VM does not answer\nhelp: build again; `--builder-cpus 1` if it had several and no KVM"
    )]
    Silent,
    /// mvm's own inputs do not get into its store.
    #[error(
        "cannot copy mvm's own inputs into the builder VM: {0}\nhelp: `mvm doctor` checks the Nix installation"
    )]
    Give(String),
    /// The same for lack of something.
    #[error("cannot copy mvm's own inputs into the builder VM\nhelp: {0}")]
    Lack(String),
    /// It says too much.
    #[error("the builder VM answers with more than {0} bytes\nhelp: see what the build prints and yields")]
    TooMuch(u64),
    /// The sources are no part of this machine's files.
    #[error(
        "cannot mount `{0}` in the builder VM: its path holds a `:`\nhelp: move the flake, or build it with `--builder host`"
    )]
    Source(PathBuf),
    /// Git's files are somewhere else.
    #[error(
        "`{0}` is a linked worktree or a submodule: the builder VM would not see its repository\nhelp: build it with `--builder host`"
    )]
    Worktree(PathBuf),
    /// A file of mvm's own.
    #[error("cannot write `{path}`: {source}\nhelp: free some space or mend its permissions")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its end.
    #[error(transparent)]
    Lifecycle(#[from] LifecycleError),
}

impl From<BuilderError> for BuildError {
    fn from(error: BuilderError) -> Self {
        match error {
            BuilderError::Run(error) if error.is_cancelled() => Self::Cancelled,
            error => Self::Elsewhere(error.to_string()),
        }
    }
}

/// Builds what `request` asks for, or finds it built: in a VM if one is wished for, else on this machine.
pub async fn build(
    request: &BuildRequest,
    wish: Option<BuilderWish>,
    paths: &Paths,
    store: &mut Store,
    sink: &EventSink,
    cancel: &CancellationToken,
) -> Result<InHand, BuildError> {
    let Some(wish) = wish else { return image_build::build(request, paths, store, sink, cancel).await };
    let (up, lack) = (OnceCell::new(), cell::OnceCell::new());
    let place = Builder { request, wish, paths, sink, cancel, up, lack };
    let built = image_build::build_at(Some(&place), request, paths, store, sink, cancel).await;
    if let Some(up) = place.up.into_inner() {
        up.running.starting.end(paths).await;
    }
    match (built, place.lack.into_inner()) {
        // What Nix says of it leads nowhere.
        (Err(BuildError::Nix { flake, message, log, .. }), Some(help)) => {
            Err(BuildError::Nix { flake, message, help, log })
        }
        (built, _) => built,
    }
}

/// The VM, once it is needed.
#[derive(Debug)]
struct Builder<'a> {
    request: &'a BuildRequest,
    wish: BuilderWish,
    paths: &'a Paths,
    sink: &'a EventSink,
    cancel: &'a CancellationToken,
    up: OnceCell<Up>,
    /// What it had too little of.
    lack: cell::OnceCell<String>,
}

#[async_trait(?Send)]
impl Elsewhere for Builder<'_> {
    async fn run(
        &self,
        args: Vec<OsString>,
        hear: &mut dyn for<'b> FnMut(&'b [u8]),
    ) -> Result<Ran, BuildError> {
        let up = self.up().await?;
        let words = args.iter().map(|arg| arg.to_string_lossy().into_owned());
        let argv = ["nix".to_string()].into_iter().chain(words).collect();
        let (mut stdout, mut full) = (Vec::new(), false);
        let mut heard = |bytes: &[u8]| {
            // What was written is gone by the time it has failed.
            full |= memchr::memmem::find(bytes, NO_ROOM.as_bytes()).is_some();
            hear(bytes);
        };
        let ok = up.exec(argv, self.dir(), &mut |bytes| bounded(&mut stdout, bytes), &mut heard).await? == 0;
        if !ok && let Some(lack) = up.lack(self.wish, full).await? {
            self.lack.get_or_init(|| format!("the builder VM: {lack}"));
        }
        Ok(Ran { ok, stdout })
    }

    async fn copy(&self, file: &Path, to: &Path, most: u64) -> Result<bool, BuildError> {
        let up = self.up().await?;
        let real = up.ask(&["readlink", "-f", &file.to_string_lossy()]).await?.1;
        if let Some(own) = own_file(&self.request.inputs, Path::new(real.trim_end())) {
            // The kernel, for one: what mvm gave it need not come back. A link would change the file's state.
            let copied = tokio::fs::copy(own, to).await;
            copied.map_err(|source| BuilderError::File { path: to.into(), source })?;
            return Ok(true);
        }
        Ok(up.copy(file, to, most.min(self.wish.disk_mib << 20)).await?)
    }
}

impl Builder<'_> {
    async fn up(&self) -> Result<&Up, BuilderError> {
        self.up.get_or_try_init(|| self.boot()).await
    }

    async fn boot(&self) -> Result<Up, BuilderError> {
        self.sink.phase("builder");
        let mut volumes = Vec::new();
        if let Some(tree) = self.request.flake.tree() {
            if tree.git && tree.root.join(".git").is_file() {
                return Err(BuilderError::Worktree(tree.root.clone()));
            }
            // A copy on a disk lets the VM go on from a ready snapshot, which a shared directory does not.
            let size_mib = is_small(&tree.root).then_some(COPY_MIB);
            volumes.push(VolumeSpec { read_only: true, size_mib, ..volume(&tree.root, SOURCE)? });
        }
        let mut disk = self.disk().await?;
        let begun = Instant::now();
        disk.make(self.wish.disk_mib).await?;
        volumes.insert(0, volume(&disk.path, STORE)?);
        let flake = builder::lay_out(self.paths).await?;
        // A state inside a git work tree is no part of it.
        let wish = BuildWish { flake: format!("path:{}", flake.display()), ..BuildWish::default() };
        let mut config =
            RuntimeConfig { memory_mib: Some(self.wish.memory_mib), volumes, ..RuntimeConfig::default() };
        let choice = MachineChoice::new(&config, self.paths).await?;
        // Nix asks for things, and nobody asks for Nix: no link nor table of this machine is needed for that.
        if choice.hypervisor == HypervisorKind::Qemu {
            config.network = Some(NetworkChoice::User);
        }
        // Where several are emulated, one was seen to wait for ever for another's answer; and one is up sooner.
        config.cpus = Some(self.wish.cpus.unwrap_or(if choice.kvm { 2 } else { 1 }));
        let (machine, image) = (machine_for(&config, self.paths).await?, wish.request(self.paths).await?);
        // What it says is of that VM, which is nobody's concern unless it fails.
        let (aside, _) = EventSink::new(TaskId::new('r'));
        let mut store = Store::open(&self.paths.database())?.store;
        for left in store.vms()?.iter().filter(|vm| vm.state.is_live() && has(vm, &disk.path)) {
            // Of a build that was killed: it is about to end.
            lifecycle::stop(self.paths, &mut store, left, None).await?;
        }
        let built = image_build::build(&image, self.paths, &mut store, &aside, self.cancel).await;
        let InHand { artifacts, held } = built.map_err(RunError::from)?;
        let name = VmName::near(&image.flake.short_name());
        let spec = spec(&config, name, &artifacts, &machine)?;
        let spec = VmSpec { remove: true, started_by: StartedBy::Builder, ..spec };
        let running = boot(self.paths, &mut store, spec, false, &aside, self.cancel).await?;
        drop(held);
        let agent = client::agent(&self.paths.shim_socket(&running.starting.id)).await?;
        let missing = disk.missing(&self.request.inputs);
        let mut up = Up { running, agent, cancel: self.cancel.clone(), disk };
        // With what killed builds left in it.
        up.ask(&["rm", "-rf", TMP]).await?;
        up.ask(&["mkdir", "-p", TMP]).await?;
        if !missing.is_empty() {
            if let Err(error) = up.give(&missing).await {
                let full = error.to_string().contains(NO_ROOM);
                let lack = up.lack(self.wish, full).await.ok().flatten();
                return Err(lack.map_or(error, BuilderError::Lack));
            }
            up.ask(&["sync"]).await?;
            up.disk.remember(missing)?;
        }
        self.sink.info(format!("the builder VM is up after {}", duration(begun.elapsed())));
        Ok(up)
    }

    async fn disk(&self) -> Result<Disk, BuilderError> {
        let path = disk::path(self.paths, &self.request.flake);
        let mut told = false;
        loop {
            if let Some(disk) = Disk::take(&path)? {
                return Ok(disk);
            }
            if !std::mem::replace(&mut told, true) {
                self.sink.info("waiting for another build of this project in a VM");
            }
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = self.cancel.cancelled() => return Err(RunError::Cancelled.into()),
            }
        }
    }

    /// Where Nix runs in it.
    fn dir(&self) -> String {
        let flake = &self.request.flake;
        let below =
            flake.tree().zip(flake.nix_dir()).and_then(|(tree, dir)| dir.strip_prefix(&tree.root).ok());
        below.map_or("/tmp".into(), |below| Path::new(SOURCE).join(below).display().to_string())
    }
}

/// A file of mvm's own inputs, if that is what the path says.
fn own_file<'p>(inputs: &FlakeInputs, path: &'p Path) -> Option<&'p Path> {
    let own = inputs.overrides.iter().filter_map(|(_, reference)| reference.strip_prefix("path:"));
    let below = own.filter_map(|own| path.strip_prefix(own).ok()).next()?;
    let is_plain = below.components().all(|part| matches!(part, Component::Normal(_)));
    // What the path says on this machine is what counts.
    (is_plain && path.symlink_metadata().is_ok_and(|meta| meta.is_file())).then_some(path)
}

/// Whether a VM has this disk.
fn has(vm: &VmRow, disk: &Path) -> bool {
    lifecycle::spec_of(vm).is_some_and(|spec| spec.volumes.iter().any(|volume| volume.host == disk))
}

/// Whether there is so little in a directory that it is copied in no time.
fn is_small(dir: &Path) -> bool {
    let (mut files, mut bytes) = (0, 0);
    WalkDir::new(dir).into_iter().filter_map(Result::ok).all(|entry| {
        files += 1;
        bytes += entry.metadata().map_or(0, |metadata| metadata.len());
        files <= SMALL_FILES && bytes <= SMALL
    })
}

fn volume(host: &Path, guest: &str) -> Result<VolumeSpec, BuilderError> {
    if host.to_string_lossy().contains(':') {
        return Err(BuilderError::Source(host.into()));
    }
    Ok(VolumeSpec { host: host.into(), guest: guest.into(), size_mib: None, read_only: false })
}
