//! Layers of images: made once, known by what went into them, kept until nobody wants them.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::SystemTime;

use rand_core::{OsRng, RngCore};
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;
use walkdir::WalkDir;

use super::shelf::{LOCK, put, put_new, set_aside};
use super::stage::{How, Step};
use super::tree::Files;
use super::{MvmfileError, Project};
use crate::event::fault::shown;
use crate::event::words::as_word;
use crate::event::{Activity, EventSink, Kind, Source};
use crate::host::chamber::{BROKEN, COMPLAINT, Chamber};
use crate::host::files::{Lock, free_space, remove_dir_if_there, remove_file_if_there, write_atomic};
use crate::host::program::{self, ProgramError};
use crate::image::collect::Beside;

/// What a layer holds.
const CONTENT: &str = "fs";
/// What is known of a layer.
const RECORD: &str = "layer.json";
/// How many of a step's last lines an error shows.
const TAIL: usize = 200;
/// With less than that free, in bytes, whatever fails has failed for it.
const LITTLE: u64 = 16 << 20;
/// What is known of a step that failed.
const FAILED: &str = "failed.json";
/// How the name of a failed step's directory goes on.
const FAILED_END: &str = ".failed";

/// A layer that is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Layer {
    /// Name of its directory.
    pub dir: String,
    /// What its content takes, in KiB.
    pub kib: u64,
    /// How many files and directories it has.
    pub inodes: u64,
    /// A word of its own: another of the same key, made later, has another.
    made: String,
    /// That of the layer below, which it was made on.
    on: Option<String>,
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
    /// The layer of a step, if it is there and was made on this one below.
    pub fn find(&self, step: &Step, below: Option<&Layer>) -> Option<Layer> {
        let layer = self.read(&name(step))?;
        // When it was last of use; one that cannot be marked is only removed earlier.
        let _ = File::open(self.dir.join(&layer.dir)).and_then(|dir| dir.set_modified(SystemTime::now()));
        (layer.on.as_ref() == below.map(|below| &below.made)).then_some(layer)
    }

    /// Whether these layers are there, and no others in their places: another build may have made some anew.
    pub fn are_there(&self, layers: &[Layer]) -> Result<(), MvmfileError> {
        let is_there = |layer: &Layer| self.read(&layer.dir).as_ref() == Some(layer);
        let anew = || MvmfileError::MadeAnew { dir: self.project.dir.clone() };
        layers.iter().all(is_there).then_some(()).ok_or_else(anew)
    }

    fn read(&self, dir: &str) -> Option<Layer> {
        let layer: Layer = serde_json::from_slice(&fs::read(self.dir.join(dir).join(RECORD)).ok()?).ok()?;
        (layer.dir == dir).then_some(layer)
    }

    /// Makes the layer of a step on top of those below; in the place of one that is there, if wished.
    pub async fn make(
        &self,
        id: u64,
        step: &Step,
        below: &[Layer],
        replace: bool,
    ) -> Result<Layer, MvmfileError> {
        let beside = Beside::new(&self.dir).map_err(MvmfileError::file("make", &self.dir))?;
        let content = beside.0.join(CONTENT);
        let tmp = beside.0.join("tmp");
        for dir in [CONTENT, "work", "root", "tmp"].map(|name| beside.0.join(name)) {
            fs::create_dir(&dir).map_err(MvmfileError::file("make", &dir))?;
        }
        // It is the guest's `/`.
        fs::set_permissions(&content, fs::Permissions::from_mode(0o755))
            .map_err(MvmfileError::file("make", &content))?;
        let (chamber, files) = self.chamber(step, below, &beside.0);
        let input = match files {
            Some((files, digest)) => self.archive(files, digest, beside.0.join("archive.tar")).await?.into(),
            None => Stdio::null(),
        };
        self.activity(id, step, async {
            let mut tail = VecDeque::new();
            let mut command = Command::new(&self.mvm);
            // What a killed program leaves there goes with the rest.
            command.args(chamber.args()).env("TMPDIR", tmp);
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
        for dir in ["work", "root", "tmp"].map(|name| beside.0.join(name)) {
            remove_dir_if_there(&dir).map_err(MvmfileError::file("remove", &dir))?;
        }
        self.keep(step, below.last(), &beside, replace).await
    }

    /// Writes what a step reads.
    async fn archive(&self, files: &Files, digest: &str, path: PathBuf) -> Result<File, MvmfileError> {
        let (files, digest, cancel) = (files.clone(), digest.to_string(), self.cancel.clone());
        let written = tokio::task::spawn_blocking(move || {
            files.write(&path, &digest, &cancel)?;
            let file = File::open(&path).map_err(MvmfileError::file("read", &path))?;
            // It goes when it was read.
            remove_file_if_there(&path).map_err(MvmfileError::file("remove", path))?;
            Ok(file)
        });
        written.await.map_err(|error| MvmfileError::file("write", &self.dir)(io::Error::other(error)))?
    }

    /// Completes a layer, and puts it where the next build finds it.
    async fn keep(
        &self,
        step: &Step,
        below: Option<&Layer>,
        beside: &Beside,
        replace: bool,
    ) -> Result<Layer, MvmfileError> {
        // Another build may have made the same meanwhile.
        if let Some(layer) = self.find(step, below).filter(|_| !replace) {
            return Ok(layer);
        }
        let (content, target) = (beside.0.join(CONTENT), self.dir.join(name(step)));
        let measured = tokio::task::spawn_blocking(move || {
            let size = measure(&content)?;
            // What is found later under its name is whole, whatever happens to this machine.
            nix::unistd::syncfs(File::open(&content)?)?;
            Ok(size)
        });
        let measured = measured.await.map_err(io::Error::other).and_then(|measured| measured);
        let (kib, inodes) = measured.map_err(MvmfileError::file("read", &beside.0))?;
        let (made, on) = (format!("{:016x}", OsRng.next_u64()), below.map(|below| below.made.clone()));
        let layer = Layer { dir: name(step), kib, inodes, made, on };
        let kept = serde_json::to_vec(&layer)
            .map_err(io::Error::from)
            .and_then(|json| write_atomic(&beside.0.join(RECORD), &json, 0o600))
            .and_then(|()| Ok(!replace && put_new(&beside.0, &target)?));
        if kept.map_err(MvmfileError::file("keep", &target))? {
            return Ok(layer);
        }
        // Or just now: who has found that builds upon it.
        if let Some(layer) = self.find(step, below).filter(|_| !replace) {
            return Ok(layer);
        }
        put(&beside.0, &target).map_err(MvmfileError::file("keep", target))?;
        Ok(layer)
    }

    /// Where a step's program runs, and what it reads.
    fn chamber<'s>(
        &self,
        step: &'s Step,
        below: &[Layer],
        beside: &Path,
    ) -> (Chamber, Option<&'s (Files, String)>) {
        let mut chamber = Chamber { dir: self.dir.clone(), ..Chamber::default() };
        match &step.how {
            How::Root { before, after } => {
                chamber.command = before.clone();
                chamber.command.push(beside.join(CONTENT).into());
                chamber.command.extend(after.iter().cloned());
                chamber.network = true;
                (chamber, None)
            }
            How::Script { script, args, input, network } => {
                self.within(&mut chamber, below, beside, *network);
                chamber.command = ["/bin/sh", "-ec", script, "sh"].map(Into::into).into();
                chamber.command.extend(args.iter().map(Into::into));
                (chamber, input.as_ref())
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
        if let Some(message) = broken(code, &last()) {
            return MvmfileError::Layers { dir: self.dir.clone(), message };
        }
        let network = match &step.how {
            How::Root { .. } => {
                let unknown = log.iter().find_map(|line| line.split("Unable to locate package ").nth(1));
                return match unknown {
                    _ if is_full(&self.dir) => {
                        let what = format!("{} failed ({status})", step.what);
                        MvmfileError::NoRoom { what, dir: self.dir.clone(), log }
                    }
                    Some(package) => MvmfileError::NoPackage { base, package: package.trim().into() },
                    None => MvmfileError::Packages { base, message: cause(&log).unwrap_or_else(last), log },
                };
            }
            How::Script { network, .. } => *network,
        };
        let kept = self.dir.join(name(step) + FAILED_END);
        let record = Failed { project: self.project.dir.clone(), below: below.to_vec(), network };
        let moved = serde_json::to_vec(&record)
            .map_err(io::Error::from)
            .and_then(|json| write_atomic(&beside.0.join(FAILED), &json, 0o600))
            .and_then(|()| put(&beside.0, &kept));
        let what = step.what.clone();
        if moved.is_err() || is_full(&self.dir) {
            return MvmfileError::NoRoom {
                what: format!("{what} failed ({status})"),
                dir: self.dir.clone(),
                log,
            };
        }
        let project = as_word(&self.project.dir);
        MvmfileError::Step { what, status, kept, project, log }
    }

    /// A shell in the image as a failed step left it, and what keeps others out of there.
    pub fn look_around(&self) -> Result<(Chamber, Lock), MvmfileError> {
        let nothing = || MvmfileError::NothingKept { dir: self.project.dir.clone() };
        let (kept, failed) = self.kept().next().ok_or_else(nothing)?;
        let lock = Lock::try_take(&kept.join(LOCK)).map_err(MvmfileError::file("lock", &kept))?;
        let lock = lock.ok_or_else(|| MvmfileError::ShellOpen { dir: self.project.dir.clone() })?;
        self.are_there(&failed.below)?;
        // What was interrupted may have left something there.
        let work = kept.join("work");
        remove_dir_if_there(&work)
            .and_then(|()| fs::create_dir(&work))
            .map_err(MvmfileError::file("make", &work))?;
        let command = vec!["/bin/bash".into(), "--norc".into()];
        let mut chamber = Chamber { dir: self.dir.clone(), command, ..Chamber::default() };
        self.within(&mut chamber, &failed.below, &kept, failed.network);
        Ok((chamber, lock))
    }

    /// Forgets what an earlier build of the project left when it failed.
    pub fn forget_failed(&self) -> Result<(), MvmfileError> {
        // A shell may be open in there.
        self.kept().try_for_each(|(dir, _)| set_aside(&dir).map_err(MvmfileError::file("remove", dir)))
    }

    /// What failed steps of the project have left.
    fn kept(&self) -> impl Iterator<Item = (PathBuf, Failed)> {
        let dirs = fs::read_dir(&self.dir).into_iter().flatten().flatten().map(|entry| entry.path());
        let dirs = dirs.filter(|dir| dir.as_os_str().as_encoded_bytes().ends_with(FAILED_END.as_bytes()));
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
        match program::stream(&mut command, Stdio::null(), self.cancel, |_| {}).await {
            Err(ProgramError::Failed { code, tail, .. }) => Err(match broken(code, &tail) {
                Some(message) => MvmfileError::Layers { dir: self.dir.clone(), message },
                None => MvmfileError::Rootfs { message: tail },
            }),
            ran => Ok(ran?),
        }
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

/// Whether nothing can be written there any more.
fn is_full(dir: &Path) -> bool {
    free_space(dir).is_ok_and(|free| free < LITTLE)
}

/// What went wrong, of what a packages' tool said.
fn cause(log: &[String]) -> Option<String> {
    let line = log.iter().find(|line| line.starts_with("E: "));
    line.map(|line| shown(line.trim_start_matches("E: ")))
}

/// What kept a program from being started, if that is how it ended.
fn broken(code: Option<i32>, last: &str) -> Option<String> {
    let message = last.rsplit('\n').next()?.strip_prefix(COMPLAINT)?;
    (code == Some(BROKEN)).then(|| message.to_string())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::TaskId;

    #[tokio::test]
    async fn a_layer_is_not_found_upon_another_than_it_was_made_on() {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join(super::super::FILE), "").unwrap();
        let (project, cancel) = (Project::read(base.path()).unwrap(), CancellationToken::new());
        let (sink, _stream) = EventSink::new(TaskId::new('t'));
        let (dir, mvm) = (base.path().to_path_buf(), PathBuf::new());
        let layers = Layers { dir, mvm, project: &project, sink: &sink, cancel: &cancel };
        let step = |key: &str| {
            let how = How::Root { before: Vec::new(), after: Vec::new() };
            Step { name: "step".into(), what: String::new(), how, key: key.into() }
        };
        let keep = async |step: &Step, below: Option<&Layer>, replace| {
            let beside = Beside::new(&layers.dir).unwrap();
            fs::create_dir(beside.0.join(CONTENT)).unwrap();
            layers.keep(step, below, &beside, replace).await.unwrap()
        };
        let (packages, command) = (step("1"), step("2"));
        let below = keep(&packages, None, false).await;
        let above = keep(&command, Some(&below), false).await;
        assert_eq!(layers.find(&command, Some(&below)), Some(above));
        // As a rebuild does that comes no further.
        let anew = keep(&packages, None, true).await;
        assert_eq!(layers.find(&packages, None), Some(anew.clone()));
        assert_eq!(layers.find(&command, Some(&anew)), None);
        assert!(layers.are_there(std::slice::from_ref(&anew)).is_ok() && layers.are_there(&[below]).is_err());
        let above = keep(&command, Some(&anew), false).await;
        assert_eq!(layers.find(&command, Some(&anew)), Some(above));
    }
}
