//! What holds disk for nothing: found, and removed.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::builder::disk;
use super::{dev, record};
use crate::host::files;
use crate::host::paths::Paths;
use crate::image::mvmfile::shelf;
use crate::image::{collect as image, hold};
use crate::store::vms::VmRow;
use crate::store::{Store, StoreError};
use crate::vm::lifecycle::{self, LifecycleError};
use crate::vm::snapshot::{Snapshot, ready};

/// A build that no VM uses, or a ready snapshot, stays this long after it was last of use.
const BUILD_REST: Duration = Duration::from_secs(14 * 24 * 3600);
/// How long a directory may be there before the database knows it.
const BEING_MADE: Duration = Duration::from_secs(600);

/// What is to go.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// Only look.
    pub dry_run: bool,
    /// Every build that no VM runs, and what makes the next ones quick, however young.
    pub builds: bool,
}

/// What went, or would go.
#[derive(Debug)]
pub struct Collected {
    /// All of it.
    pub waste: Vec<Waste>,
    /// Why some that was found stays.
    pub kept: Vec<&'static str>,
}

/// Something that holds disk for nothing.
#[derive(Debug, Serialize)]
pub struct Waste {
    /// What it is.
    pub what: String,
    /// Why it may go.
    pub why: String,
    /// Where it is.
    pub path: PathBuf,
    /// What it takes on the disk.
    pub bytes: u64,
    #[serde(skip)]
    kind: WasteKind,
}

#[derive(Debug)]
enum WasteKind {
    Vm(String),
    Build(String),
    /// What is of builds, and in no record.
    OfBuilds,
    Directory,
    BuilderStore,
    Layer,
}

impl WasteKind {
    /// Whether who has a build in hand may have need of it.
    fn is_build(&self) -> bool {
        matches!(self, Self::Build(_) | Self::OfBuilds)
    }

    fn is_layer(&self) -> bool {
        matches!(self, Self::Layer)
    }
}

/// Why something cannot be removed.
#[derive(Debug, thiserror::Error)]
pub enum GcError {
    /// A file or directory.
    #[error("cannot {action} `{}`: {source}\nhelp: mend its permissions, and collect again", path.display())]
    File {
        /// What was done.
        action: &'static str,
        /// The path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A VM.
    #[error(transparent)]
    Lifecycle(#[from] LifecycleError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> GcError {
    let path = path.to_path_buf();
    move |source| GcError::File { action, path, source }
}

/// Removes what is not in use.
pub fn collect(wish: Wish, paths: &Paths, store: &mut Store) -> Result<Collected, GcError> {
    let (builds, mut kept) = (paths.builds(), Vec::new());
    // Before it is looked up what has need of them.
    let alone = (!wish.dry_run).then(|| hold::alone(&builds).map_err(at("lock", &builds))).transpose()?;
    let mut waste = find(paths, store, wish.builds)?;
    if let Some(None) = alone {
        kept.extend(
            keep(&mut waste, WasteKind::is_build).then_some("a build or a start is at work: the builds stay"),
        );
    }
    if !wish.dry_run {
        for item in &waste {
            remove(item, paths, store)?;
        }
        drop(alone);
        if !remove_layers(paths, &waste)? {
            let why = "a build from an Mvmfile is at work: the layers stay";
            kept.extend(keep(&mut waste, WasteKind::is_layer).then_some(why));
        }
        image::sweep(&builds);
        let tasks = paths.tasks();
        record::prune(paths, record::MOST_FILES).map_err(at("read", &tasks))?;
    }
    Ok(Collected { waste, kept })
}

fn find(paths: &Paths, store: &Store, all_builds: bool) -> Result<Vec<Waste>, GcError> {
    // Looked at before the database is: what is made in between is then no stranger.
    let directories: Vec<_> = [paths.vms(), paths.builds()].iter().flat_map(list).collect();
    let vms = store.vms()?;
    let mut waste = Vec::new();
    // A saved VM goes on, the dev VM is worked in again, and an instance started again: their disks are in
    // use while they are stopped.
    let instances: HashSet<String> = store.instances()?.into_iter().map(|row| row.id).collect();
    let is_saved = |vm: &VmRow| Snapshot::open(&paths.vm_snapshot(&vm.id)).is_ok();
    let is_of_use = |vm: &VmRow| dev::is_dev(vm) || instances.contains(&vm.name) || is_saved(vm);
    let kept = |vm: &&VmRow| vm.state.is_live() || is_of_use(vm);
    for vm in vms.iter().filter(|vm| !kept(vm) && !lifecycle::is_running(paths, &vm.id)) {
        let path = paths.vm(&vm.id);
        waste.push(Waste {
            what: format!("VM {} ({})", vm.name, vm.id),
            why: format!("it is {}", vm.state.as_str()),
            bytes: files::disk_usage(&path),
            path,
            kind: WasteKind::Vm(vm.id.clone()),
        });
    }
    let revisions = store.fleet_builds()?;
    let of_vms = vms.iter().filter(kept).map(|vm| vm.build.as_str());
    let used: HashSet<&str> = of_vms.chain(revisions.iter().map(String::as_str)).collect();
    let builds = store.builds()?;
    let now = Timestamp::now().as_millisecond();
    for build in builds.iter().filter(|build| !used.contains(build.id.as_str())) {
        let old = now - build.used_ms > BUILD_REST.as_millis() as i64;
        if old || all_builds {
            let path = paths.builds().join(&build.id);
            waste.push(Waste {
                what: format!(
                    "build {} of {}#{}",
                    &build.id[..build.id.len().min(12)],
                    build.flake,
                    build.attribute
                ),
                why: if old { "not used for 14 days" } else { "no VM runs it" }.into(),
                bytes: files::disk_usage(&path),
                path,
                kind: WasteKind::Build(build.id.clone()),
            });
        }
    }
    let has_build = |snapshot: &Snapshot| builds.iter().any(|build| build.id == snapshot.manifest.fit.build);
    for snapshot in ready::list(paths) {
        let rested = ready::used(&snapshot).elapsed().is_ok_and(|rest| rest > BUILD_REST);
        if has_build(&snapshot) && !rested && !all_builds {
            continue;
        }
        waste.push(Waste {
            what: format!("ready snapshot {}", name_of(&snapshot.dir)),
            why: if rested { "not used for 14 days" } else { "it is of a build that goes or is gone" }.into(),
            bytes: snapshot.bytes(),
            path: snapshot.dir,
            kind: WasteKind::OfBuilds,
        });
    }
    // Taken by VMs that were killed meanwhile, or damaged so that they are none.
    for path in ready::broken(paths) {
        let vm = name_of(&path).trim_start_matches('.').to_string();
        if !lifecycle::is_running(paths, &vm) && is_old(&path) {
            waste.push(Waste {
                what: format!("half a snapshot {}", name_of(&path)),
                why: "it was never completed".into(),
                bytes: files::disk_usage(&path),
                path,
                kind: WasteKind::Directory,
            });
        }
    }
    for path in disk::all(paths) {
        let used = path.metadata().and_then(|meta| meta.modified()).ok().and_then(|time| time.elapsed().ok());
        let rested = used.is_some_and(|rest| rest > BUILD_REST);
        if rested || all_builds {
            waste.push(Waste {
                what: format!("the builder VM's store {}", name_of(&path)),
                why: if rested { "not used for 14 days" } else { "the next build in a VM makes another" }
                    .into(),
                bytes: path.metadata().map_or(0, |meta| meta.blocks() * 512),
                path,
                kind: WasteKind::BuilderStore,
            });
        }
    }
    for (path, rest) in shelf::unused(&paths.layers()) {
        let rested = rest > BUILD_REST;
        if !rested && !all_builds {
            continue;
        }
        waste.push(Waste {
            what: format!("layer {}", name_of(&path)),
            why: if rested { "not used for 14 days" } else { "the next build makes it again" }.into(),
            bytes: files::disk_usage(&path),
            path,
            kind: WasteKind::Layer,
        });
    }
    let known: HashSet<&str> =
        vms.iter().map(|vm| vm.id.as_str()).chain(builds.iter().map(|build| build.id.as_str())).collect();
    for path in directories {
        let name = name_of(&path);
        let unknown = !known.contains(name.as_str()) && !used.contains(name.as_str());
        // What another command makes right now bears a leading dot.
        if unknown && !name.starts_with('.') && !lifecycle::is_running(paths, &name) && is_old(&path) {
            waste.push(Waste {
                what: format!("directory {name}"),
                why: "the database does not know it".into(),
                bytes: files::disk_usage(&path),
                kind: if path.starts_with(paths.builds()) {
                    WasteKind::OfBuilds
                } else {
                    WasteKind::Directory
                },
                path,
            });
        }
    }
    Ok(waste)
}

fn list(dir: &PathBuf) -> Vec<PathBuf> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A build's directory is there a moment before the database knows it.
fn is_old(path: &Path) -> bool {
    let age = path.metadata().and_then(|meta| meta.modified()).ok().and_then(|time| time.elapsed().ok());
    age.is_some_and(|age| age > BEING_MADE)
}

fn remove(item: &Waste, paths: &Paths, store: &mut Store) -> Result<(), GcError> {
    let whole = |path: &Path| files::remove_dir_if_there(path).map_err(at("remove", path));
    match &item.kind {
        WasteKind::Vm(id) => {
            if let Some(vm) = store.vm(id)? {
                lifecycle::remove(paths, store, &vm)?;
            }
        }
        WasteKind::Build(id) => {
            whole(&item.path)?;
            store.remove_build(id)?;
        }
        WasteKind::OfBuilds | WasteKind::Directory => whole(&item.path)?,
        // All at once, so that nobody uses one whose lower ones are gone.
        WasteKind::Layer => {}
        // One that a build has stays, and goes the next time.
        WasteKind::BuilderStore => drop(disk::remove(&item.path).map_err(at("remove", &item.path))?),
    }
    Ok(())
}

/// Removes the layers among the waste; false while a build is at work, and they stay.
fn remove_layers(paths: &Paths, waste: &[Waste]) -> Result<bool, GcError> {
    let layers = waste.iter().filter(|item| item.kind.is_layer());
    let found: Vec<PathBuf> = layers.map(|item| item.path.clone()).collect();
    let dir = paths.layers();
    if !dir.exists() {
        return Ok(true);
    }
    shelf::remove(&dir, &found).map_err(at("remove layers in", &dir))
}

/// Takes out of the waste what is not to be removed now; whether there was any.
fn keep(waste: &mut Vec<Waste>, which: impl Fn(&WasteKind) -> bool) -> bool {
    let found = waste.len();
    waste.retain(|item| !which(&item.kind));
    waste.len() < found
}
