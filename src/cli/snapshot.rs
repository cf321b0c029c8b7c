//! `mvm snapshot`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use jiff::Timestamp;
use serde_json::json;

use super::context::{Context, print, print_json, say};
use super::{task, vm};
use crate::event::TaskKind;
use crate::event::words::{bytes, duration};
use crate::fleet::error::FleetError;
use crate::fleet::vm::refuse_instance;
use crate::host::files;
use crate::run::snapshot;
use crate::vm::lifecycle;
use crate::vm::snapshot::{Snapshot, ready};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mvm snapshot create web             save it; it goes on\n  mvm snapshot create web --stop      save it and end it\n  mvm snapshot restore web            go on from there, memory, processes and disks as they were\n  mvm snapshot ls\n  mvm snapshot rm 5e452fbd85d3\n\nA VM has one snapshot at most, which goes with it. Ready snapshots are mvm's own: guests saved\nbefore they became one particular VM, from which `mvm run` starts the next ones."
)]
pub struct SnapshotArgs {
    #[command(subcommand)]
    command: SnapshotCommand,
}

impl SnapshotArgs {
    /// Whether disk is to be freed.
    pub fn frees(&self) -> bool {
        matches!(self.command, SnapshotCommand::Rm { .. })
    }
}

#[derive(Debug, Subcommand)]
enum SnapshotCommand {
    /// Save a running VM: memory, devices and disks
    Create {
        /// The VM, by name or id
        name: String,
        /// End the VM once it is saved
        #[arg(long)]
        stop: bool,
    },
    /// Have a saved VM that is over go on from its snapshot; its name is printed
    Restore {
        /// The VM, by name or id
        name: String,
    },
    /// List snapshots with what they take on disk
    #[command(visible_alias = "list")]
    Ls,
    /// Remove snapshots
    #[command(visible_alias = "remove")]
    Rm {
        /// Snapshots by the beginning of their id, or by their VM's name
        #[arg(required_unless_present = "all", conflicts_with = "all", value_parser = NonEmptyStringValueParser::new())]
        ids: Vec<String>,
        /// All of them
        #[arg(long)]
        all: bool,
        /// Do not ask before all are removed
        #[arg(long, short)]
        force: bool,
    },
}

/// Runs the command.
pub async fn snapshot(context: &mut Context, args: SnapshotArgs) -> Result<ExitCode> {
    match args.command {
        SnapshotCommand::Create { name, stop } => create(context, name, stop).await?,
        SnapshotCommand::Restore { name } => restore(context, name).await?,
        SnapshotCommand::Ls => list(context)?,
        SnapshotCommand::Rm { ids, all, force } => return remove(context, &ids, all, force),
    }
    Ok(ExitCode::SUCCESS)
}

async fn create(context: &mut Context, name: String, stop: bool) -> Result<()> {
    refuse_instance(&context.store, &lifecycle::find(&context.store, &name)?, "sleep")?;
    let title = format!("save {name}");
    task::run(context, TaskKind::Snapshot, title, async |paths, store, sink, cancel| {
        Ok(snapshot::save(&name, stop, paths, store, sink, cancel).await?)
    })
    .await?;
    Ok(())
}

async fn restore(context: &mut Context, name: String) -> Result<()> {
    refuse_instance(&context.store, &lifecycle::find(&context.store, &name)?, "wake")?;
    let title = format!("restore {name}");
    let running = task::run(context, TaskKind::Snapshot, title, async |paths, store, sink, cancel| {
        Ok(snapshot::restore(&name, |_| {}, paths, store, sink, cancel).await?)
    })
    .await?;
    let name = running.starting.name.clone();
    running.starting.detach().await?;
    if context.json { Ok(()) } else { print(name.as_str()) }
}

/// A snapshot of either sort.
struct Listed {
    id: String,
    kind: &'static str,
    /// Why it is not to be removed: it is an instance's.
    kept: Option<FleetError>,
    /// The VM, or what the build came from.
    of: String,
    snapshot: Snapshot,
}

fn all(context: &Context) -> Result<Vec<Listed>> {
    let mut all = Vec::new();
    for vm in context.store.vms()? {
        if let Ok(snapshot) = Snapshot::open(&context.paths.vm_snapshot(&vm.id)) {
            let kept = refuse_instance(&context.store, &vm, "destroy").err();
            all.push(Listed { id: vm.id, kind: "vm", kept, of: vm.name, snapshot });
        }
    }
    let builds = context.store.builds()?;
    for snapshot in ready::list(&context.paths) {
        let build = builds.iter().find(|build| build.id == snapshot.manifest.fit.build);
        let of = build.map_or_else(|| "a build that is gone".into(), |build| build.flake.clone());
        let id = snapshot.dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        all.push(Listed { id, kind: "ready", kept: None, of, snapshot });
    }
    Ok(all)
}

fn list(context: &Context) -> Result<()> {
    let all = all(context)?;
    if context.json {
        let items: Vec<_> = all
            .iter()
            .map(|listed| {
                let manifest = &listed.snapshot.manifest;
                json!({ "id": listed.id, "kind": listed.kind, "of": listed.of, "path": listed.snapshot.dir,
                        "bytes": listed.snapshot.bytes(), "created": manifest.created, "fit": manifest.fit })
            })
            .collect();
        return print_json(&json!({ "v": 1, "snapshots": items }));
    }
    if all.is_empty() {
        return print(
            "No snapshots. `mvm run` keeps a ready one of each build; `mvm snapshot create NAME` saves a VM.",
        );
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["ID", "KIND", "OF", "SIZE", "MEM", "HYPERVISOR", "AGE"]);
    for listed in &all {
        let manifest = &listed.snapshot.manifest;
        let age = Timestamp::now().duration_since(manifest.created).unsigned_abs();
        table.add_row([
            listed.id[..listed.id.len().min(12)].to_string(),
            listed.kind.into(),
            listed.of.clone(),
            bytes(listed.snapshot.bytes()),
            format!("{}M", manifest.fit.memory_mib),
            manifest.fit.hypervisor.name().into(),
            duration(Duration::from_secs(age.as_secs())),
        ]);
    }
    table.to_string().lines().try_for_each(|line| print(line.trim_end()))
}

fn remove(context: &Context, ids: &[String], every: bool, force: bool) -> Result<ExitCode> {
    let all = all(context)?;
    // One that is being taken bears its VM's id.
    let broken: Vec<PathBuf> = ready::broken(&context.paths)
        .into_iter()
        .filter(|dir| !lifecycle::is_running(&context.paths, name_of(dir)))
        .collect();
    let (mut chosen, mut damaged) = (Vec::new(), Vec::new());
    for id in ids {
        // A name may look like the beginning of an id.
        let named = |listed: &&Listed| listed.kind == "vm" && listed.of == *id;
        let mut found: Vec<&Listed> = all.iter().filter(named).collect();
        if found.is_empty() {
            found = all.iter().filter(|listed| listed.id.starts_with(id)).collect();
        }
        if found.is_empty()
            && let Some(dir) = broken.iter().find(|dir| name_of(dir).starts_with(id))
        {
            damaged.push(dir);
            continue;
        }
        match found.as_slice() {
            [] => bail!("there is no snapshot `{id}`\nhelp: `mvm snapshot ls` lists them"),
            [Listed { kept: Some(why), .. }] => bail!("{why}"),
            [one] => chosen.push(*one),
            more => {
                let ids: Vec<&str> = more.iter().map(|one| one.id.as_str()).collect();
                bail!("`{id}` could be any of {}\nhelp: give more of the id", ids.join(", "))
            }
        }
    }
    if every {
        chosen = all.iter().filter(|listed| listed.kept.is_none()).collect();
        damaged = broken.iter().collect();
        let kept = all.len() - chosen.len();
        if kept > 0 {
            say(&format!(
                "note: {kept} snapshots are of instances, and stay; `mvm instance list` lists them"
            ));
        }
        let question = format!("Remove {} snapshots?", chosen.len() + damaged.len());
        if chosen.len() + damaged.len() > 0 && !force && !vm::confirm(&question, "--force")? {
            return Ok(ExitCode::FAILURE);
        }
    }
    for listed in &chosen {
        let size = listed.snapshot.bytes();
        let dir = listed.snapshot.dir.display();
        ready::remove(&listed.snapshot.dir).with_context(|| format!("cannot remove `{dir}`"))?;
        say(&format!("removed {} ({} of {}): {}", listed.id, listed.kind, listed.of, bytes(size)));
    }
    for dir in damaged {
        let size = files::disk_usage(dir);
        ready::remove(dir).with_context(|| format!("cannot remove `{}`", dir.display()))?;
        say(&format!("removed {} (damaged): {}", name_of(dir), bytes(size)));
    }
    Ok(ExitCode::SUCCESS)
}

/// The id in a directory's name.
fn name_of(dir: &Path) -> &str {
    dir.file_name().and_then(OsStr::to_str).unwrap_or_default().trim_start_matches('.')
}
