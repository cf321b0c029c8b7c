//! Layers of images: made once, known by what went into them, kept until nobody wants them.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;
use walkdir::WalkDir;

use super::stage::{How, Step};
use super::{MvmfileError, Project};
use crate::event::{Activity, EventSink, Kind, Source};
use crate::host::chamber::{BROKEN, Chamber};
use crate::host::files::{remove_dir_if_there, write_atomic};
use crate::host::program::{self, ProgramError};
use crate::image::collect::{self, Beside};

/// What a layer holds.
const CONTENT: &str = "fs";
/// What is known of a layer.
const RECORD: &str = "layer.json";
/// How many of a step's last lines an error shows.
const TAIL: usize = 200;
/// What is known of a step that failed: its directory has this in place of the other.
const FAILED: &str = "failed.json";

/// A layer that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Layer {
    /// Name of its directory.
    pub dir: String,
    /// What its content takes, in KiB.
    pub kib: u64,
    /// How many files and directories it has.
    pub inodes: u64,
}

/// What is known of a step that failed.
#[derive(Debug, Serialize, Deserialize)]
struct Failed {
    project: PathBuf,
    below: Vec<Layer>,
    network: bool,
}

/// Where layers are, and who makes them.
pub(super) struct Layers<'a> {
    pub dir: PathBuf,
    /// The program mvm.
    pub mvm: PathBuf,
    pub project: &'a Project,
    pub sink: &'a EventSink,
    pub cancel: &'a CancellationToken,
}

impl Layers<'_> {
    /// The layer of a step, if it is there.
    pub fn find(&self, step: &Step) -> Option<Layer> {
        let dir = self.dir.join(name(step));
        let layer: Layer = serde_json::from_slice(&fs::read(dir.join(RECORD)).ok()?).ok()?;
        // When it was last of use; one that cannot be marked is only removed earlier.
        let _ = File::open(&dir).and_then(|dir| dir.set_modified(SystemTime::now()));
        (layer.dir == name(step)).then_some(layer)
    }

    /// Makes the layer of a step on top of those below.
    pub async fn make(&self, id: u64, step: &Step, below: &[Layer]) -> Result<Layer, MvmfileError> {
        let beside = Beside::new(&self.dir).map_err(MvmfileError::file("make", &self.dir))?;
        let content = beside.0.join(CONTENT);
        for dir in [CONTENT, "work", "root"].map(|name| beside.0.join(name)) {
            fs::create_dir(&dir).map_err(MvmfileError::file("make", &dir))?;
        }
        // It is the guest's `/`.
        fs::set_permissions(&content, fs::Permissions::from_mode(0o755))
            .map_err(MvmfileError::file("make", &content))?;
        let (chamber, input) = self.chamber(step, below, &beside.0);
        let input = match input {
            Some(path) => File::open(path).map_err(MvmfileError::file("read", path))?.into(),
            None => Stdio::null(),
        };
        self.activity(id, step, async {
            let mut tail = VecDeque::new();
            let mut command = Command::new(&self.mvm);
            command.args(chamber.args());
            let drv = self.path(step);
            let ran = program::stream(&mut command, input, self.cancel, |line| {
                if tail.len() == TAIL {
                    tail.pop_front();
                }
                tail.push_back(line.to_string());
                self.sink.send(Kind::Log { source: Source::Build { drv: drv.clone() }, text: line.into() });
            });
            match ran.await {
                Ok(()) => Ok(()),
                Err(ProgramError::Failed { status, code, .. }) => {
                    Err(self.failed(step, below, &beside, (status, code), tail.into()))
                }
                Err(error) => Err(error.into()),
            }
        })
        .await?;
        for dir in ["work", "root"].map(|name| beside.0.join(name)) {
            remove_dir_if_there(&dir).map_err(MvmfileError::file("remove", &dir))?;
        }
        self.keep(step, &beside)
    }

    /// Completes a layer, and puts it where the next build finds it.
    fn keep(&self, step: &Step, beside: &Beside) -> Result<Layer, MvmfileError> {
        let content = beside.0.join(CONTENT);
        let (kib, inodes) = measure(&content).map_err(MvmfileError::file("read", &content))?;
        let layer = Layer { dir: name(step), kib, inodes };
        let json = serde_json::to_vec(&layer)
            .map_err(|error| MvmfileError::file("write", &beside.0)(error.into()))?;
        // What is found later under its name is whole, whatever happens to this machine.
        let target = self.dir.join(&layer.dir);
        let kept = File::open(&content)
            .and_then(|content| Ok(nix::unistd::syncfs(content)?))
            .and_then(|()| write_atomic(&beside.0.join(RECORD), &json, 0o600))
            .and_then(|()| match fs::rename(&beside.0, &target) {
                // Another build has made the same, or has failed to.
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => match self.find(step) {
                    Some(_) => Ok(()),
                    None => fs::remove_dir_all(&target).and_then(|()| fs::rename(&beside.0, &target)),
                },
                renamed => renamed,
            });
        kept.map_err(MvmfileError::file("keep", target))?;
        Ok(layer)
    }

    /// Where a step's program runs, and what it reads.
    fn chamber<'s>(&self, step: &'s Step, below: &[Layer], beside: &Path) -> (Chamber, Option<&'s Path>) {
        let mut chamber = Chamber { dir: self.dir.clone(), ..Chamber::default() };
        match &step.how {
            How::Root { before, after } => {
                chamber.command = before.clone();
                chamber.command.push(beside.join(CONTENT).into());
                chamber.command.extend(after.iter().cloned());
                (chamber, None)
            }
            How::Script { script, args, input, network } => {
                self.within(&mut chamber, below, beside, *network);
                chamber.command = ["/bin/sh", "-ec", script, "sh"].map(Into::into).into();
                chamber.command.extend(args.iter().map(Into::into));
                (chamber, input.as_deref())
            }
        }
    }

    /// Has it be in the image, and write into the layer that is being made.
    fn within(&self, chamber: &mut Chamber, below: &[Layer], beside: &Path, network: bool) {
        // Relative, as there is not much room for many.
        let beside = beside.strip_prefix(&self.dir).unwrap_or(beside);
        chamber.lower = lower(below);
        chamber.upper = Some(beside.join(CONTENT));
        chamber.work = Some(beside.join("work"));
        chamber.root = Some(beside.join("root"));
        (chamber.enter, chamber.network) = (true, network);
    }

    /// What a failed step says, and what stays of it.
    fn failed(
        &self,
        step: &Step,
        below: &[Layer],
        beside: &Beside,
        (status, code): (String, Option<i32>),
        log: Vec<String>,
    ) -> MvmfileError {
        let base = self.project.file.base.to_string();
        let last = || log.last().cloned().unwrap_or_else(|| status.clone());
        if code == Some(BROKEN) {
            return MvmfileError::Layers { dir: self.dir.clone(), message: last() };
        }
        let network = match &step.how {
            How::Root { .. } => {
                let unknown = log.iter().find_map(|line| line.split("Unable to locate package ").nth(1));
                return match unknown {
                    Some(package) => MvmfileError::NoPackage { base, package: package.trim().into() },
                    None => MvmfileError::Packages { base, message: cause(&log).unwrap_or_else(last), log },
                };
            }
            How::Script { network, .. } => *network,
        };
        let kept = self.dir.join(name(step));
        let record = Failed { project: self.project.dir.clone(), below: below.to_vec(), network };
        let moved = remove_dir_if_there(&kept).and_then(|()| {
            let json = serde_json::to_vec(&record)?;
            write_atomic(&beside.0.join(FAILED), &json, 0o600)?;
            fs::rename(&beside.0, &kept)
        });
        if let Err(error) = moved {
            self.sink.warn(format!("what the step wrote could not be kept: {error}"));
        }
        let project = as_word(&self.project.dir);
        MvmfileError::Step { what: step.what.clone(), status, kept, project, log }
    }

    /// A shell in the image as a failed step left it.
    pub fn look_around(&self) -> Result<Chamber, MvmfileError> {
        let nothing = || MvmfileError::NothingKept { dir: self.project.dir.clone() };
        let (kept, failed) = self.kept().next().ok_or_else(nothing)?;
        // What was interrupted may have left something there.
        let work = kept.join("work");
        remove_dir_if_there(&work)
            .and_then(|()| fs::create_dir(&work))
            .map_err(MvmfileError::file("make", &work))?;
        let command = vec!["/bin/bash".into(), "--norc".into()];
        let mut chamber = Chamber { dir: self.dir.clone(), command, ..Chamber::default() };
        self.within(&mut chamber, &failed.below, &kept, failed.network);
        Ok(chamber)
    }

    /// Forgets what an earlier build of the project left when it failed.
    pub fn forget_failed(&self) -> Result<(), MvmfileError> {
        self.kept()
            .try_for_each(|(dir, _)| remove_dir_if_there(&dir).map_err(MvmfileError::file("remove", dir)))
    }

    /// What failed steps of the project have left.
    fn kept(&self) -> impl Iterator<Item = (PathBuf, Failed)> {
        let dirs = fs::read_dir(&self.dir).into_iter().flatten().flatten().map(|entry| entry.path());
        let read = |dir: PathBuf| {
            let failed: Failed = serde_json::from_slice(&fs::read(dir.join(FAILED)).ok()?).ok()?;
            (failed.project == self.project.dir).then_some((dir, failed))
        };
        dirs.filter_map(read)
    }

    /// Runs a program on the image of all these layers, joined in an empty directory that it is told.
    pub async fn on(
        &self,
        layers: &[Layer],
        root: &Path,
        command: impl FnOnce(&Path) -> Vec<std::ffi::OsString>,
    ) -> Result<(), MvmfileError> {
        fs::create_dir(root).map_err(MvmfileError::file("make", root))?;
        let chamber = Chamber {
            dir: self.dir.clone(),
            lower: lower(layers),
            root: Some(root.into()),
            command: command(root),
            ..Chamber::default()
        };
        let mut command = Command::new(&self.mvm);
        // The file system shall be the same whenever the image is.
        command.args(chamber.args()).env("E2FSPROGS_FAKE_TIME", "1");
        Ok(program::stream(&mut command, Stdio::null(), self.cancel, |_| {}).await?)
    }

    /// Tells that a step began, and that it ended well: otherwise the whole task ends.
    async fn activity<T, E>(
        &self,
        id: u64,
        step: &Step,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let what =
            Activity::Build { drv: self.path(step), host: String::new(), usual_ms: None, needs: Vec::new() };
        self.sink.send(Kind::ActivityStarted { id, parent: None, what });
        let result = work.await?;
        self.sink.send(Kind::ActivityStopped { id });
        Ok(result)
    }

    /// By what events name a layer.
    fn path(&self, step: &Step) -> String {
        self.dir.join(name(step)).display().to_string()
    }
}

fn name(step: &Step) -> String {
    format!("{}-{}", step.key, step.name)
}

/// The layers as overlayfs wants them, the topmost first.
fn lower(layers: &[Layer]) -> Vec<PathBuf> {
    layers.iter().rev().map(|layer| Path::new(&layer.dir).join(CONTENT)).collect()
}

/// A path as a shell takes it.
fn as_word(dir: &Path) -> String {
    let text = dir.display().to_string();
    shlex::try_quote(&text).map(std::borrow::Cow::into_owned).unwrap_or(text)
}

/// What went wrong, of what a packages' tool said.
fn cause(log: &[String]) -> Option<String> {
    let line = log.iter().find(|line| line.starts_with("E: "));
    line.map(|line| line.trim_start_matches("E: ").to_string())
}

/// What a directory's content takes on a disk, in KiB, and how many files it has.
fn measure(dir: &Path) -> io::Result<(u64, u64)> {
    let (mut kib, mut inodes) = (0, 0);
    for entry in WalkDir::new(dir) {
        let meta = entry?.metadata()?;
        kib += meta.len().div_ceil(4096) * 4;
        inodes += 1;
    }
    Ok((kib, inodes))
}

/// Layers, and what failed steps left, with the time since they were last of use; none while a build is at work.
pub fn unused(dir: &Path) -> Vec<(PathBuf, Duration)> {
    if collect::is_busy(dir) {
        return Vec::new();
    }
    let rest = |entry: fs::DirEntry| {
        let visible = !entry.file_name().as_encoded_bytes().starts_with(b".");
        let used = entry.metadata().and_then(|meta| meta.modified()).ok().filter(|_| visible)?;
        // A clock that went backwards makes it fresh.
        Some((entry.path(), used.elapsed().unwrap_or_default()))
    };
    fs::read_dir(dir).into_iter().flatten().flatten().filter_map(rest).collect()
}
