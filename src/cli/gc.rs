//! `mvm gc`.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::context::{Context, print, print_json, say};
use crate::event::words::bytes;
use crate::host::files;
use crate::image::mvmfile::shelf;
use crate::image::{collect, hold};
use crate::run::builder::disk;
use crate::run::{dev, record};
use crate::store::vms::VmRow;
use crate::vm::lifecycle;
use crate::vm::snapshot::{Snapshot, ready};

/// A build that no VM uses, or a ready snapshot, stays this long after it was last of use.
const BUILD_REST: Duration = Duration::from_secs(14 * 24 * 3600);
/// How long a directory may be there before the database knows it.
const BEING_MADE: Duration = Duration::from_secs(600);

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mvm gc --dry-run\n  mvm gc --builds\n\nVMs that run or are saved (`mvm snapshot`), the dev VM, instances, their builds,\nrevisions of pools, and builds and ready snapshots used in the last 14 days stay; all builds do while one is being started. Nix's own store is freed by\n`nix-collect-garbage` afterwards."
)]
pub struct GcArgs {
    /// Only say what would go, and why
    #[arg(long)]
    dry_run: bool,
    /// Remove every build that no running VM uses, and what makes the next ones quick, however young: ready snapshots, the builder VM's stores, layers of Mvmfiles
    #[arg(long)]
    builds: bool,
}

impl GcArgs {
    /// Whether disk is to be freed.
    pub fn frees(&self) -> bool {
        !self.dry_run
    }
}

/// Something that holds disk for nothing.
#[derive(Debug, Serialize)]
struct Waste {
    what: String,
    why: String,
    path: PathBuf,
    bytes: u64,
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

/// Removes what is not in use.
pub async fn gc(context: &mut Context, args: GcArgs) -> Result<ExitCode> {
    let builds = context.paths.builds();
    let lock = || hold::alone(&builds).with_context(|| format!("cannot lock `{}`", builds.display()));
    // Before it is looked up what has need of them.
    let alone = (!args.dry_run).then(lock).transpose()?;
    let mut waste = find(context, args.builds)?;
    if let Some(None) = alone {
        keep(&mut waste, WasteKind::is_build, "a build or a start is at work: the builds stay");
    }
    if !args.dry_run {
        for item in &waste {
            remove(context, item)?;
        }
        drop(alone);
        remove_layers(context, &mut waste)?;
        collect::sweep(&builds);
        record::prune(&context.paths, record::MOST_FILES)?;
    }
    let total = waste.iter().map(|item| item.bytes).sum();
    if context.json {
        print_json(&serde_json::json!({ "v": 1, "dry_run": args.dry_run, "bytes": total, "items": waste }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let verb = if args.dry_run { "would remove" } else { "removed" };
    for item in &waste {
        print(&format!("{verb} {} ({}): {}", item.what, item.why, bytes(item.bytes)))?;
    }
    print(&format!("{verb} {} in all", bytes(total)))?;
    Ok(ExitCode::SUCCESS)
}

fn find(context: &Context, all_builds: bool) -> Result<Vec<Waste>> {
    let paths = &context.paths;
    // Looked at before the database is: what is made in between is then no stranger.
    let directories: Vec<_> = [paths.vms(), paths.builds()].iter().flat_map(list).collect();
    let vms = context.store.vms()?;
    let mut waste = Vec::new();
    // A saved VM goes on, the dev VM is worked in again, and an instance started again: their disks are in
    // use while they are stopped.
    let instances: HashSet<String> = context.store.instances()?.into_iter().map(|row| row.id).collect();
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
    let revisions = context.store.fleet_builds()?;
    let of_vms = vms.iter().filter(kept).map(|vm| vm.build.as_str());
    let used: HashSet<&str> = of_vms.chain(revisions.iter().map(String::as_str)).collect();
    let builds = context.store.builds()?;
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

fn remove(context: &mut Context, item: &Waste) -> Result<()> {
    let whole = |path: &Path| {
        files::remove_dir_if_there(path).with_context(|| format!("cannot remove `{}`", path.display()))
    };
    match &item.kind {
        WasteKind::Vm(id) => {
            if let Some(vm) = context.store.vm(id)? {
                lifecycle::remove(&context.paths, &mut context.store, &vm)?;
            }
        }
        WasteKind::Build(id) => {
            whole(&item.path)?;
            context.store.remove_build(id)?;
        }
        WasteKind::OfBuilds | WasteKind::Directory => whole(&item.path)?,
        // All at once, so that nobody uses one whose lower ones are gone.
        WasteKind::Layer => {}
        // One that a build has stays, and goes the next time.
        WasteKind::BuilderStore => drop(
            disk::remove(&item.path).with_context(|| format!("cannot remove `{}`", item.path.display()))?,
        ),
    }
    Ok(())
}

/// Removes the layers among the waste; while a build is at work they stay, and are none.
fn remove_layers(context: &Context, waste: &mut Vec<Waste>) -> Result<()> {
    let layers = waste.iter().filter(|item| item.kind.is_layer());
    let found: Vec<PathBuf> = layers.map(|item| item.path.clone()).collect();
    let dir = context.paths.layers();
    if !dir.exists() {
        return Ok(());
    }
    let removed = shelf::remove(&dir, &found);
    if !removed.with_context(|| format!("cannot remove layers in `{}`", dir.display()))? {
        keep(waste, WasteKind::is_layer, "a build from an Mvmfile is at work: the layers stay");
    }
    Ok(())
}

/// Takes out of the waste what is not to be removed now, and says why if there was any.
fn keep(waste: &mut Vec<Waste>, which: impl Fn(&WasteKind) -> bool, why: &str) {
    let found = waste.len();
    waste.retain(|item| !which(&item.kind));
    if waste.len() < found {
        say(&format!("note: {why}"));
    }
}
