//! Builds in a VM of their own: booted when Nix is first needed, gone when the build is over.
//!
//! The project is mounted in it, the store lies on a disk that stays, and what was built is brought into
//! this machine's store. One VM at a time has the disk.

pub mod disk;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
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
use crate::guest::session::Event;
use crate::host::builder;
use crate::host::child::tame;
use crate::host::files::Lock;
use crate::host::nix::nix_store_command;
use crate::host::paths::Paths;
use crate::host::tools::ToolsError;
use crate::image::build as image_build;
use crate::image::elsewhere::Elsewhere;
use crate::image::nix::Ran;
use crate::image::{BuildError, BuildRequest};
use crate::store::{Store, StoreError};
use crate::vm::config::RuntimeConfig;
use crate::vm::lifecycle::{self, LifecycleError};
use crate::vm::shim::client::{self, ClientError};
use crate::vm::spec::{StartedBy, VmName, VolumeSpec};
use disk::DiskFault;

/// The VM's name.
const NAME: &str = "mvm-builder";
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

/// What the VM is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuilderWish {
    /// CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Size of the disk with its store in MiB, sparse; it only grows.
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
    /// A store path does not get from one store to the other.
    #[error("cannot copy {what}: {why}\nhelp: `mvm doctor` checks the Nix installation")]
    Copy {
        /// From where to where.
        what: String,
        /// What was said.
        why: String,
    },
    /// The sources are no part of this machine's files.
    #[error(
        "cannot mount `{0}` in the builder VM: its path holds a `:`\nhelp: move the flake, or build it with `--builder host`"
    )]
    Source(PathBuf),
    /// A file of mvm's own.
    #[error("cannot write in `{path}`: {source}\nhelp: free some space or mend its permissions")]
    File {
        /// The directory.
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
    _lock: Lock,
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
        let code = up.exec(argv, self.dir(), &mut |bytes| stdout.extend_from_slice(bytes), &mut heard).await;
        let ok = code.map_err(BuilderError::from)? == 0;
        if !ok && let Some(lack) = up.lack(self.wish, full).await.map_err(BuilderError::from)? {
            self.sink.warn(format!("the builder VM: {lack}"));
        }
        Ok(Ran { ok, stdout })
    }

    async fn fetch(&self, path: &Path) -> Result<(), BuildError> {
        let up = self.up().await?;
        Ok(up.bring(path).await?)
    }
}

impl Builder<'_> {
    async fn up(&self) -> Result<&Up, BuilderError> {
        self.up.get_or_try_init(|| self.boot()).await
    }

    async fn boot(&self) -> Result<Up, BuilderError> {
        let begun = Instant::now();
        self.sink.phase("builder");
        let lock = self.lock().await?;
        let flake = builder::lay_out(self.paths).await?;
        let disk = disk::ready(self.paths, self.wish.disk_mib).await?;
        let mut volumes = vec![volume(&disk, STORE, None)?];
        if let Some(tree) = self.request.flake.tree() {
            // A copy on a disk lets the VM go on from a ready snapshot, which a shared directory does not.
            volumes.push(volume(&tree.root, SOURCE, is_small(&tree.root).then_some(COPY_MIB))?);
        }
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
            name: Some(VmName::near(NAME)),
            builder: None,
            remove: true,
            cold: false,
            started_by: StartedBy::Builder,
        };
        // What it says is of that VM, which is nobody's concern unless it fails.
        let (aside, _) = EventSink::new(TaskId::new('r'));
        let mut store = Store::open(&self.paths.database())?.store;
        if let Ok(left) = lifecycle::find_running(&store, NAME)
            && lifecycle::spec_of(&left).is_some_and(|spec| spec.started_by == StartedBy::Builder)
        {
            // Of a build that was killed: it has the disk, and is about to end.
            lifecycle::stop(self.paths, &mut store, &left, None).await?;
        }
        let running = Box::pin(run(&request, self.paths, &mut store, &aside, self.cancel)).await?;
        let agent = client::agent(&self.paths.shim_socket(&running.starting.id)).await?;
        let up = Up { running, agent, _lock: lock };
        // With what killed builds left in it.
        up.ask(&["rm", "-rf", TMP]).await?;
        up.ask(&["mkdir", "-p", TMP]).await?;
        let copied = disk::missing(&disk, &self.request.inputs);
        if !copied.is_empty() {
            up.give(&copied).await?;
            up.ask(&["sync"]).await?;
            disk::remember(&disk, copied)?;
        }
        self.sink.info(format!("the builder VM is up after {}", duration(begun.elapsed())));
        Ok(up)
    }

    async fn lock(&self) -> Result<Lock, BuilderError> {
        let failed = |source| BuilderError::File { path: self.paths.builder(), source };
        let mut told = false;
        loop {
            if let Some(lock) = disk::lock(self.paths).map_err(failed)? {
                return Ok(lock);
            }
            if !std::mem::replace(&mut told, true) {
                self.sink.info("waiting for another build to be done with the builder VM");
            }
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = self.cancel.cancelled() => return Err(RunError::Cancelled.into()),
            }
        }
    }

    /// Where Nix runs in it.
    fn dir(&self) -> String {
        let below = self
            .request
            .flake
            .tree()
            .and_then(|tree| Some((tree, self.request.flake.nix_dir()?.strip_prefix(&tree.root).ok()?)));
        match below {
            Some((_, below)) => Path::new(SOURCE).join(below).display().to_string(),
            None => "/tmp".into(),
        }
    }
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

fn volume(host: &Path, guest: &str, size_mib: Option<u64>) -> Result<VolumeSpec, BuilderError> {
    if host.to_string_lossy().contains(':') {
        return Err(BuilderError::Source(host.into()));
    }
    Ok(VolumeSpec { host: host.into(), guest: guest.into(), size_mib })
}

impl Up {
    fn start(&self, argv: Vec<String>, dir: String) -> Result<crate::guest::session::Session, AgentError> {
        let user = std::env::var("NIX_CONFIG").unwrap_or_default();
        // The VM is the sandbox; and it may be killed at any moment.
        let config = format!(
            "experimental-features = nix-command flakes\nsandbox = false\nsync-before-registering = true\nbuild-hook = /bin/build-remote\nbuild-users-group =\nwarn-dirty = false\n{user}"
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

    /// Runs a program to its end; gives its exit code.
    async fn exec(
        &self,
        argv: Vec<String>,
        dir: String,
        stdout: &mut dyn FnMut(&[u8]),
        stderr: &mut dyn FnMut(&[u8]),
    ) -> Result<u32, AgentError> {
        let mut session = self.start(argv, dir)?;
        session.close_stdin()?;
        loop {
            match session.next().await? {
                Event::Stdout(bytes) => stdout(&bytes),
                Event::Stderr(bytes) => stderr(&bytes),
                Event::Exit(code) => return Ok(code),
            }
        }
    }

    /// What a program answers.
    async fn ask(&self, words: &[&str]) -> Result<String, AgentError> {
        let (argv, mut answer) = (words.iter().map(ToString::to_string).collect(), Vec::new());
        self.exec(argv, "/tmp".into(), &mut |bytes| answer.extend_from_slice(bytes), &mut |_| {}).await?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// What the VM has too little of, as far as can be told after a failure.
    async fn lack(&self, wish: BuilderWish, full: bool) -> Result<Option<String>, AgentError> {
        if full {
            let (mib, more) = (wish.disk_mib, wish.disk_mib * 2);
            return Ok(Some(format!(
                "its store of {mib} MiB is full: `--builder-disk {more}M` makes it larger"
            )));
        }
        let killed = self.ask(&["dmesg"]).await?.lines().any(|line| line.contains("Out of memory: Killed"));
        let (mib, more) = (wish.memory_mib, wish.memory_mib * 2);
        Ok(killed
            .then(|| format!("its {mib} MiB of memory are used up: `--builder-mem {more}M` gives it more")))
    }

    /// Copies paths of this machine's store into the VM's.
    async fn give(&self, paths: &[PathBuf]) -> Result<(), BuilderError> {
        let failed =
            |why: String| BuilderError::Copy { what: "mvm's own inputs into the builder VM".into(), why };
        let mut export = nix_store_command();
        export.arg("--export").args(paths).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = tame(&mut export).spawn().map_err(|error| failed(error.to_string()))?;
        let mut from = child.stdout.take().ok_or_else(|| failed("it has no output".into()))?;
        let mut session = self.start(vec!["nix-store".into(), "--import".into()], "/tmp".into())?;
        let input = session.input();
        let feed = async {
            let mut piece = vec![0; PIECE];
            loop {
                match from.read(&mut piece).await.map_err(|error| failed(error.to_string()))? {
                    0 => return Ok(input.close()?),
                    read => input.write(&piece[..read]).await?,
                }
            }
        };
        let mut said = Vec::new();
        let heard = async {
            loop {
                match session.next().await? {
                    Event::Stdout(_) => {}
                    Event::Stderr(bytes) => said.extend_from_slice(&bytes),
                    Event::Exit(code) => return Ok::<_, BuilderError>(code),
                }
            }
        };
        let (fed, code) = tokio::join!(feed, heard);
        let ended = child.wait().await.map_err(|error| failed(error.to_string()))?;
        match (fed, code?, ended.success()) {
            (Ok(()), 0, true) => Ok(()),
            (Err(error), 0, _) => Err(error),
            _ => Err(failed(String::from_utf8_lossy(&said).trim().to_string())),
        }
    }

    /// Copies a path of the VM's store, with all that it needs, into this machine's.
    async fn bring(&self, path: &Path) -> Result<(), BuilderError> {
        let failed = |why: String| BuilderError::Copy {
            what: format!("{} out of the builder VM", path.display()),
            why,
        };
        let ask = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (mut listed, mut said) = (Vec::new(), Vec::new());
        let query = ask(&["nix-store", "--query", "--requisites", &path.to_string_lossy()]);
        let mut hear = |bytes: &[u8]| listed.extend_from_slice(bytes);
        self.exec(query, "/tmp".into(), &mut hear, &mut |bytes| said.extend_from_slice(bytes)).await?;
        let listed = String::from_utf8_lossy(&listed).into_owned();
        let wanted: Vec<&str> = listed.lines().filter(|path| !Path::new(path).exists()).collect();
        if listed.is_empty() {
            return Err(failed(String::from_utf8_lossy(&said).trim().to_string()));
        }
        let mut import = nix_store_command();
        import.arg("--import").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = tame(&mut import).spawn().map_err(|error| failed(error.to_string()))?;
        let mut into = child.stdin.take().ok_or_else(|| failed("it has no input".into()))?;
        let mut session =
            self.start([ask(&["nix-store", "--export"]), ask(&wanted)].concat(), "/tmp".into())?;
        session.close_stdin()?;
        let code = loop {
            match session.next().await? {
                // What goes wrong at the other end it says itself.
                Event::Stdout(bytes) => drop(into.write_all(&bytes).await),
                Event::Stderr(bytes) => said.extend_from_slice(&bytes),
                Event::Exit(code) => break code,
            }
        };
        drop(into);
        let ended = child.wait_with_output().await.map_err(|error| failed(error.to_string()))?;
        match code == 0 && ended.status.success() {
            true => Ok(()),
            false => {
                said.extend_from_slice(&ended.stderr);
                Err(failed(String::from_utf8_lossy(&said).trim().to_string()))
            }
        }
    }
}
