//! One build from an Mvmfile: its layers, then the files that a VM boots.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use sha2::{Digest, Sha256};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::layers::{Layer, Layers};
use super::shelf;
use super::stage::{Step, steps};
use super::{MvmfileError, Project};
use crate::artifacts::{GUEST_CONTRACT, ImageInfo};
use crate::event::{EventSink, Kind};
use crate::host::chamber::Chamber;
use crate::host::child::{find_program, itself};
use crate::host::files::{Lock, hex};
use crate::host::packages::MMDEBSTRAP;
use crate::host::paths::Paths;
use crate::host::{kernel, layout, program, setup};
use crate::image::collect::Beside;

/// ssh's port, which every guest listens on.
const SSH: u16 = 22;
/// The least a guest of a distribution boots with, in MiB.
pub const MIN_MEMORY_MIB: u32 = 128;
const MKE2FS: &str = "mke2fs";
/// Seeds that make the file system the same whenever its content is.
const UUID: &str = "6d766d00-726f-4f74-8000-000000000003";
const HASH_SEED: &str = "6d766d00-726f-4f74-8000-000000000004";

/// An image that is about to be built: its layers are known, though they may not be there.
pub struct Plan {
    steps: Vec<Step>,
    work: Beside,
    held: Lock,
    /// Digest of all that goes into it.
    pub key: String,
}

/// The files of an image. They go when this does.
pub struct Image {
    /// Kernel.
    pub kernel: PathBuf,
    /// Initial RAM disk.
    pub initrd: PathBuf,
    /// Root file system.
    pub rootfs: PathBuf,
    /// What it says of itself.
    pub info: ImageInfo,
    _work: Beside,
    _held: Lock,
}

/// Looks at all that goes into an image; the files `but` do not.
pub async fn plan(
    project: &Project,
    but: Vec<PathBuf>,
    paths: &Paths,
    sink: &EventSink,
    cancel: &CancellationToken,
) -> Result<Plan, MvmfileError> {
    refuse_others()?;
    if layout::stamp(&paths.host_tools()).is_none() || kernel::version(paths).is_none() {
        return Err(MvmfileError::NotPrepared);
    }
    if find_program(MMDEBSTRAP.provides).is_none() {
        return Err(MvmfileError::NoTool);
    }
    setup::refresh(paths, sink).await?;
    let dir = paths.layers();
    let held = shelf::hold(&dir, cancel).await?;
    let work = Beside::new(&dir).map_err(MvmfileError::file("make", &dir))?;
    let (its, at, stop) = (project.clone(), paths.clone(), cancel.clone());
    // There may be much to read.
    let steps = tokio::task::spawn_blocking(move || steps(&its, &at, &but, &stop)).await;
    let steps =
        steps.map_err(|error| MvmfileError::file("read", &project.dir)(std::io::Error::other(error)))??;
    let mut digest = Sha256::new();
    digest.update(steps.last().map_or("", |step| &step.key));
    digest.update(serde_json::to_vec(&info(project)).unwrap_or_default());
    for file in initrd_parts(paths) {
        digest.update(std::fs::read(&file).map_err(MvmfileError::file("read", &file))?);
    }
    // The kernel's modules change with it.
    digest.update(layout::stamp(&paths.kernel()).unwrap_or_default());
    Ok(Plan { steps, work, held, key: hex(&digest.finalize()) })
}

/// Builds the image: the layers that are not there, or all of them, and its files.
pub async fn build(
    plan: Plan,
    project: &Project,
    rebuild: bool,
    paths: &Paths,
    sink: &EventSink,
    cancel: &CancellationToken,
) -> Result<Image, MvmfileError> {
    let layers = layers(project, paths, sink, cancel)?;
    layers.forget_failed()?;
    sink.phase("layers");
    let mut made: Vec<Layer> = Vec::new();
    let mut found = Vec::new();
    let expected = plan.steps.len() as u64;
    let progress = |done: u64, running| {
        sink.send(Kind::Progress { id: None, done, expected, running, failed: 0 });
    };
    for (id, step) in plan.steps.iter().enumerate() {
        progress(id as u64, 1);
        let layer = match layers.find(step, made.last()).filter(|_| !rebuild) {
            Some(layer) => {
                found.push(step.name.as_str());
                layer
            }
            None => layers.make(id as u64, step, &made, rebuild).await?,
        };
        made.push(layer);
    }
    progress(expected, 0);
    if !found.is_empty() {
        sink.info(format!("as they were: {}", found.join(", ")));
    }
    sink.phase("rootfs");
    let work = &plan.work.0;
    let (root, rootfs) = (work.join("root"), work.join("rootfs.ext4"));
    let (initrd, ()) = tokio::try_join!(
        initrd(paths, work, cancel),
        layers.on(&made, &root, |root| mke2fs(root, &rootfs, &made)),
    )?;
    layers.are_there(&made)?;
    let kernel = paths.kernel().join("vmlinux");
    Ok(Image { kernel, initrd, rootfs, info: info(project), _work: plan.work, _held: plan.held })
}

/// A shell in the image as the last build's failed step left it, for `mvm chamber`, and what keeps it there.
pub async fn look_around(
    project: &Project,
    paths: &Paths,
    sink: &EventSink,
) -> Result<(Chamber, [Lock; 2]), MvmfileError> {
    refuse_others()?;
    let cancel = CancellationToken::new();
    let held = shelf::hold(&paths.layers(), &cancel).await?;
    let (chamber, lock) = layers(project, paths, sink, &cancel)?.look_around()?;
    Ok((chamber, [held, lock]))
}

fn refuse_others() -> Result<(), MvmfileError> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err(MvmfileError::NotRoot) }
}

fn layers<'a>(
    project: &'a Project,
    paths: &Paths,
    sink: &'a EventSink,
    cancel: &'a CancellationToken,
) -> Result<Layers<'a>, MvmfileError> {
    let mvm = itself().map_err(MvmfileError::file("find", "mvm"))?;
    Ok(Layers { dir: paths.layers(), mvm, project, sink, cancel })
}

fn info(project: &Project) -> ImageInfo {
    let ports = project.file.ports.iter().map(|port| port.guest).filter(|port| *port != SSH);
    ImageInfo {
        contract: GUEST_CONTRACT,
        ports: std::iter::once(SSH).chain(ports).collect(),
        min_mem_mib: Some(MIN_MEMORY_MIB),
        modules: Vec::new(),
    }
}

fn initrd_parts(paths: &Paths) -> [PathBuf; 2] {
    let flake = paths.offline_flake();
    [flake.join("initrd.sh"), flake.join("guest/init")]
}

/// Makes the initial RAM disk, as the offline flake does.
async fn initrd(paths: &Paths, work: &Path, cancel: &CancellationToken) -> Result<PathBuf, MvmfileError> {
    let tools = paths.host_tools().join("build");
    let (dir, out) = (work.join("initrd.d"), work.join("initrd"));
    std::fs::create_dir(&dir).map_err(MvmfileError::file("make", &dir))?;
    let [script, init] = initrd_parts(paths);
    let mut command = Command::new(tools.join("bin/busybox"));
    command.args(["sh", "-eu"]).arg(script).current_dir(&dir);
    command.env("tools", tools).env("kernel", paths.kernel()).env("init", init).env("out", &out);
    program::stream(&mut command, Stdio::null(), cancel, |_| {}).await?;
    Ok(out.join("initrd"))
}

/// The command that makes the file system of a root directory.
fn mke2fs(root: &Path, file: &Path, layers: &[Layer]) -> Vec<OsString> {
    // What lies above hides some of what lies below: it is room for nothing, which costs nothing.
    let inodes = layers.iter().map(|layer| layer.inodes).sum::<u64>() + 64;
    let kib: u64 = layers.iter().map(|layer| layer.kib).sum();
    let size = kib + kib / 16 + inodes / 2 + 1024;
    let program = find_program(MKE2FS).unwrap_or_else(|| MKE2FS.into());
    let mut command: Vec<OsString> = vec![program.into()];
    command.extend(["-q", "-t", "ext4", "-b", "4096", "-m", "0", "-L", "mvm-root"].map(OsString::from));
    // It is only ever read: no journal.
    command.extend(["-O", "^has_journal,^resize_inode", "-U", UUID].map(OsString::from));
    let seed = format!("hash_seed={HASH_SEED},root_owner=0:0,lazy_itable_init=1,nodiscard");
    command.extend(["-E".into(), seed.into(), "-N".into(), inodes.to_string().into()]);
    command.extend(["-d".into(), root.into(), file.into(), format!("{size}k").into()]);
    command
}
