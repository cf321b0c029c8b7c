//! Builds in a VM of their own: booted when Nix is first needed, gone when the build is over.
//!
//! The project is mounted in it, its store lies on a disk that stays, and the image that was built is copied
//! out. What comes from it is a guest's word: bounded, and nothing of it gets into this machine's store.

pub mod disk;

use std::ffi::OsString;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::io::AsyncReadExt;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use walkdir::WalkDir;

use super::wish::{BuildWish, WishError};
use super::{RunError, RunRequest, Running, run};
use crate::artifacts::Artifacts;
use crate::event::words::duration;
use crate::event::{EventSink, TaskId};
use crate::guest::client::{AgentClient, AgentError};
use crate::guest::frames::Exec;
use crate::guest::session::{Event, Session};
use crate::host::builder;
use crate::host::child::tame;
use crate::host::nix::nix_store_command;
use crate::host::paths::Paths;
use crate::host::tools::ToolsError;
use crate::image::build as image_build;
use crate::image::elsewhere::Elsewhere;
use crate::image::nix::Ran;
use crate::image::{BuildError, BuildRequest};
use crate::store::vms::VmRow;
use crate::store::{Store, StoreError};
use crate::vm::config::RuntimeConfig;
use crate::vm::lifecycle::{self, LifecycleError};
use crate::vm::shim::client::{self, ClientError};
use crate::vm::spec::{StartedBy, VolumeSpec};
use disk::{Disk, DiskFault};

/// Where it has the project, and its store.
const SOURCE: &str = "/src";
const STORE: &str = "/nix";
/// Where builders work: on the disk, not in memory.
const TMP: &str = "/nix/tmp";
/// Most files and bytes of a project that is copied instead of being shared, and the size of its disk.
const SMALL_FILES: usize = 2000;
const SMALL: u64 = 32 << 20;
const COPY_MIB: u64 = 128;
/// Pause between two looks at a VM that another build has.
const POLL: Duration = Duration::from_millis(100);
/// How much is passed on at once.
const PIECE: usize = 64 * 1024;
/// How much of what it answers is kept, in bytes.
const ANSWER: usize = 16 << 20;

/// What the VM is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuilderWish {
    /// CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Size of the disk with its store in MiB, sparse; a smaller one is made anew.
    pub disk_mib: u64,
}

impl Default for BuilderWish {
    fn default() -> Self {
        Self { cpus: 2, memory_mib: 2048, disk_mib: 32 * 1024 }
    }
}

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
    /// mvm's own inputs do not get into its store.
    #[error(
        "cannot copy mvm's own inputs into the builder VM: {0}\nhelp: `mvm doctor` checks the Nix installation"
    )]
    Give(String),
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
) -> Result<Artifacts, BuildError> {
    let Some(wish) = wish else { return image_build::build(request, paths, store, sink, cancel).await };
    let place = Builder { request, wish, paths, sink, cancel, up: OnceCell::new() };
    let built = image_build::build_at(Some(&place), request, paths, store, sink, cancel).await;
    if let Some(up) = place.up.into_inner() {
        up.running.starting.end(paths).await;
    }
    built
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
}

/// A VM that is up. It ends when this is dropped.
#[derive(Debug)]
struct Up {
    running: Running,
    agent: AgentClient,
    cancel: CancellationToken,
    _disk: Disk,
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
            // In the C library's words; what was written is gone by the time it has failed.
            full |= memchr::memmem::find(bytes, b"No space left on device").is_some();
            hear(bytes);
        };
        let ok = up.exec(argv, self.dir(), &mut |bytes| bounded(&mut stdout, bytes), &mut heard).await? == 0;
        if !ok && let Some(lack) = up.lack(self.wish, full).await? {
            self.sink.warn(format!("the builder VM: {lack}"));
        }
        Ok(Ran { ok, stdout })
    }

    async fn copy(&self, file: &Path, to: &Path, most: u64) -> Result<bool, BuildError> {
        let up = self.up().await?;
        Ok(up.copy(file, to, most.min(self.wish.disk_mib << 20)).await?)
    }
}

impl Builder<'_> {
    async fn up(&self) -> Result<&Up, BuilderError> {
        self.up.get_or_try_init(|| self.boot()).await
    }

    async fn boot(&self) -> Result<Up, BuilderError> {
        let begun = Instant::now();
        self.sink.phase("builder");
        let mut volumes = Vec::new();
        if let Some(tree) = self.request.flake.tree() {
            if tree.root.join(".git").is_file() {
                return Err(BuilderError::Worktree(tree.root.clone()));
            }
            // A copy on a disk lets the VM go on from a ready snapshot, which a shared directory does not.
            let size_mib = is_small(&tree.root).then_some(COPY_MIB);
            volumes.push(VolumeSpec { read_only: true, size_mib, ..volume(&tree.root, SOURCE)? });
        }
        let mut disk = self.disk().await?;
        disk.make(self.wish.disk_mib).await?;
        volumes.insert(0, volume(&disk.path, STORE)?);
        let flake = builder::lay_out(self.paths).await?;
        // A state inside a git work tree is no part of it.
        let wish = BuildWish { flake: format!("path:{}", flake.display()), ..BuildWish::default() };
        let request = RunRequest {
            build: wish.request(self.paths).await?,
            config: RuntimeConfig {
                cpus: Some(self.wish.cpus),
                memory_mib: Some(self.wish.memory_mib),
                volumes,
                ..RuntimeConfig::default()
            },
            builder: None,
            name: None,
            remove: true,
            cold: false,
            started_by: StartedBy::Builder,
        };
        // What it says is of that VM, which is nobody's concern unless it fails.
        let (aside, _) = EventSink::new(TaskId::new('r'));
        let mut store = Store::open(&self.paths.database())?.store;
        for left in store.vms()?.iter().filter(|vm| vm.state.is_live() && has(vm, &disk.path)) {
            // Of a build that was killed: it is about to end.
            lifecycle::stop(self.paths, &mut store, left, None).await?;
        }
        let running = Box::pin(run(&request, self.paths, &mut store, &aside, self.cancel)).await?;
        let agent = client::agent(&self.paths.shim_socket(&running.starting.id)).await?;
        let missing = disk.missing(&self.request.inputs);
        let mut up = Up { running, agent, cancel: self.cancel.clone(), _disk: disk };
        // With what killed builds left in it.
        up.ask(&["rm", "-rf", TMP]).await?;
        up.ask(&["mkdir", "-p", TMP]).await?;
        if !missing.is_empty() {
            up.give(&missing).await?;
            up.ask(&["sync"]).await?;
            up._disk.remember(missing)?;
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

/// Keeps what a guest says, as far as that is sensible.
fn bounded(kept: &mut Vec<u8>, bytes: &[u8]) {
    let room = ANSWER.saturating_sub(kept.len());
    kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

impl Up {
    fn start(&self, argv: Vec<String>, dir: String) -> Result<Session, AgentError> {
        let user = std::env::var("NIX_CONFIG").unwrap_or_default();
        // The VM is the sandbox; and it may be killed at any moment.
        let config = format!(
            "experimental-features = nix-command flakes\nsandbox = false\nsync-before-registering = true\n\
             build-hook = /bin/build-remote\nbuild-users-group =\nwarn-dirty = false\n{user}"
        );
        let env = [
            ("NIX_CONFIG", config.as_str()),
            ("TMPDIR", TMP),
            ("LD_LIBRARY_PATH", "/usr/lib/mvm-builder"),
            ("NIX_SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"),
            // The project may belong to another user than the guest's root.
            ("GIT_CONFIG_COUNT", "1"),
            ("GIT_CONFIG_KEY_0", "safe.directory"),
            ("GIT_CONFIG_VALUE_0", "*"),
        ];
        let env = env.map(|(name, value)| (name.to_string(), value.to_string())).to_vec();
        self.agent.exec(Exec { argv, env, cwd: Some(dir), user: Some("root".into()), tty: None })
    }

    /// What a program does next.
    async fn next(&self, session: &mut Session) -> Result<Event, BuilderError> {
        tokio::select! {
            event = session.next() => Ok(event?),
            () = self.cancel.cancelled() => Err(RunError::Cancelled.into()),
        }
    }

    /// Runs a program to its end; gives its exit code.
    async fn exec(
        &self,
        argv: Vec<String>,
        dir: String,
        stdout: &mut dyn FnMut(&[u8]),
        stderr: &mut dyn FnMut(&[u8]),
    ) -> Result<u32, BuilderError> {
        let mut session = self.start(argv, dir)?;
        session.close_stdin()?;
        loop {
            match self.next(&mut session).await? {
                Event::Stdout(bytes) => stdout(&bytes),
                Event::Stderr(bytes) => stderr(&bytes),
                Event::Exit(code) => return Ok(code),
            }
        }
    }

    /// What a program answers, and whether it succeeded.
    async fn ask(&self, argv: &[&str]) -> Result<(bool, String), BuilderError> {
        let mut answer = Vec::new();
        let mut keep = |bytes: &[u8]| bounded(&mut answer, bytes);
        let code = self.exec(words(argv), "/tmp".into(), &mut keep, &mut |_| {}).await?;
        Ok((code == 0, String::from_utf8_lossy(&answer).into_owned()))
    }

    /// What the VM has too little of, as far as can be told after a failure.
    async fn lack(&self, wish: BuilderWish, full: bool) -> Result<Option<String>, BuilderError> {
        if full {
            let (mib, more) = (wish.disk_mib, wish.disk_mib * 2);
            return Ok(Some(format!(
                "its store of {mib} MiB is full: `--builder-disk {more}M` makes it larger"
            )));
        }
        let killed = self.ask(&["dmesg"]).await?.1.contains("Out of memory: Killed");
        let (mib, more) = (wish.memory_mib, wish.memory_mib * 2);
        Ok(killed
            .then(|| format!("its {mib} MiB of memory are used up: `--builder-mem {more}M` gives it more")))
    }

    /// Copies paths of this machine's store into the VM's.
    async fn give(&self, paths: &[PathBuf]) -> Result<(), BuilderError> {
        let failed = |error: std::io::Error| BuilderError::Give(error.to_string());
        let mut export = nix_store_command();
        export.arg("--export").args(paths).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = tame(&mut export).spawn().map_err(failed)?;
        let mut from = child.stdout.take().ok_or_else(|| BuilderError::Give("it has no output".into()))?;
        let mut session = self.start(words(&["nix-store", "--import"]), "/tmp".into())?;
        let input = session.input();
        let feed = async {
            let mut piece = vec![0; PIECE];
            loop {
                match from.read(&mut piece).await.map_err(failed)? {
                    0 => return Ok(input.close()?),
                    read => input.write(&piece[..read]).await?,
                }
            }
        };
        let mut said = Vec::new();
        let heard = async {
            loop {
                match self.next(&mut session).await? {
                    Event::Stdout(_) => {}
                    Event::Stderr(bytes) => bounded(&mut said, &bytes),
                    Event::Exit(code) => return Ok::<_, BuilderError>(code),
                }
            }
        };
        let (fed, code) = tokio::join!(feed, heard);
        let ended = child.wait().await.map_err(failed)?;
        match (fed, code?, ended.success()) {
            (Ok(()), 0, true) => Ok(()),
            (Err(error), 0, _) => Err(error),
            _ => Err(BuilderError::Give(String::from_utf8_lossy(&said).trim().to_string())),
        }
    }

    /// Copies a file of the VM's, with holes where it has nothing but zeros; false when there is none.
    async fn copy(&self, file: &Path, to: &Path, most: u64) -> Result<bool, BuilderError> {
        let file = file.to_string_lossy();
        if !self.ask(&["test", "-f", &file]).await?.0 {
            return Ok(false);
        }
        let failed = |source| BuilderError::File { path: to.into(), source };
        let mut copy = File::create(to).map_err(failed)?;
        let mut session = self.start(words(&["cat", &file]), "/tmp".into())?;
        session.close_stdin()?;
        let mut length = 0;
        loop {
            match self.next(&mut session).await? {
                Event::Stdout(bytes) => {
                    length += bytes.len() as u64;
                    if length > most {
                        return Err(BuilderError::TooMuch(most));
                    }
                    let written = match bytes.iter().all(|byte| *byte == 0) {
                        true => copy.seek(SeekFrom::Start(length)).map(drop),
                        false => copy.write_all(&bytes),
                    };
                    written.map_err(failed)?;
                }
                Event::Stderr(_) => {}
                Event::Exit(0) => break,
                Event::Exit(_) => return Ok(false),
            }
        }
        // The last of it may be a hole.
        copy.set_len(length).and_then(|()| copy.sync_all()).map_err(failed)?;
        Ok(true)
    }
}
