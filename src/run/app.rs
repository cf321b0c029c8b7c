//! Apps: one file that is a whole VM, built from an Mvmfile and started.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Instant;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::boot::{RunError, Running, boot, machine_for, published_twice, refuse_taken, spec};
use crate::event::fault::{Fault, Faults, shown};
use crate::event::{EventSink, Kind};
use crate::host::child::itself;
use crate::host::files::{disk_usage, remove_dir_if_there};
use crate::host::paths::Paths;
use crate::host::tools::fingerprint;
use crate::image::bake::{App, BakeError, Output, Recipe, Settings, bake};
use crate::image::hold::{self, hold};
use crate::image::mvmfile::build::MIN_MEMORY_MIB;
use crate::image::mvmfile::{self, MvmfileError, Project, build, shelf};
use crate::image::profiles::Amount;
use crate::store::Store;
use crate::store::builds::BuildRow;
use crate::vm::config::RuntimeConfig;
use crate::vm::lifecycle::LifecycleError;
use crate::vm::snapshot::{Snapshot, ready};
use crate::vm::spec::{SpecError, VmName, VmSpec, parse_cpus, parse_disk, parse_memory};

/// What to build.
#[derive(Debug)]
pub struct BuildRequest {
    /// The project.
    pub project: Project,
    /// The file to write.
    pub output: PathBuf,
    /// Make every layer anew, and the file.
    pub rebuild: bool,
}

/// What to start.
#[derive(Debug)]
pub struct StartRequest {
    /// The app.
    pub app: App,
    /// What goes over its own settings.
    pub config: RuntimeConfig,
    /// The VM's name; the app's when absent, numbered while it is taken.
    pub name: Option<VmName>,
    /// Whether nothing of the VM stays once it is over.
    pub remove: bool,
    /// Whether to boot even where a ready snapshot would do.
    pub cold: bool,
}

/// Why there is no app.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// There is no image.
    #[error(transparent)]
    Mvmfile(#[from] MvmfileError),
    /// It could not be written.
    #[error(transparent)]
    Bake(#[from] BakeError),
}

impl AppError {
    /// The last lines of the log that matters.
    pub fn tail(&self) -> Vec<String> {
        match self {
            Self::Mvmfile(error) => error.tail(),
            Self::Bake(_) => Vec::new(),
        }
    }

    /// Whether the user ended it.
    pub fn is_cancelled(&self) -> bool {
        match self {
            Self::Mvmfile(error) => error.is_cancelled(),
            Self::Bake(error) => matches!(error, BakeError::Cancelled),
        }
    }
}

/// Builds an app from an Mvmfile, unless the file that is there is just that.
pub async fn build(
    request: &BuildRequest,
    paths: &Paths,
    sink: &EventSink,
    cancel: &CancellationToken,
) -> Result<(), AppError> {
    let BuildRequest { project, output, rebuild } = request;
    // What cannot run is said before a long build.
    let settings = settings(project)?;
    let place = Output::take(output)?;
    sink.send(Kind::BuildAsked { flake: project.dir.display().to_string(), store: None });
    let plan = build::plan(project, place.files().into(), paths, sink, cancel).await?;
    let launcher = itself().map_err(MvmfileError::file("find", "mvm"))?;
    let key = key(&plan.key, &project.name, &settings, &fingerprint(&launcher));
    let ready = |cached, how: &str| {
        let (build, path) = (key[..32].to_string(), output.clone());
        sink.send(Kind::ArtifactsReady { build, path, cached, how: how.into() });
    };
    if !rebuild && let Ok(app) = App::open(output) {
        match app.verify(cancel).await {
            Err(BakeError::Cancelled) => return Err(BakeError::Cancelled.into()),
            Ok(()) if app.manifest.key == key => {
                ready(true, "nothing changed");
                return Ok(());
            }
            _ => {}
        }
    }
    let image = build::build(plan, project, *rebuild, paths, sink, cancel).await?;
    sink.phase("pack");
    let files = vec![
        ("vmlinux", image.kernel.clone()),
        ("initrd", image.initrd.clone()),
        ("rootfs.ext4", image.rootfs.clone()),
    ];
    let recipe = Recipe {
        name: project.name.clone(),
        base: project.file.base.to_string(),
        key: key.clone(),
        settings,
        image: image.info.clone(),
        launcher,
        files,
    };
    bake(recipe, place, cancel).await?;
    drop(image);
    // What this build has replaced; another one may be at work, whose turn it is then.
    let _ = shelf::remove(&paths.layers(), &[]);
    ready(false, if *rebuild { "rebuilt" } else { "built" });
    Ok(())
}

/// Boots an app until its guest is ready.
pub async fn start(
    request: &StartRequest,
    paths: &Paths,
    store: &mut Store,
    sink: &EventSink,
    cancel: &CancellationToken,
) -> Result<Running, RunError> {
    let StartRequest { app, config, name, remove, cold } = request;
    if let Some(name) = name {
        refuse_taken(store, name)?;
    }
    let started = Instant::now();
    let own = config_of(&app.manifest.settings).map_err(|error| {
        RunError::App(BakeError::Damaged {
            path: app.path.clone(),
            what: format!("of its settings, {}", shown(&error.what())),
        })
    })?;
    // Who sees its ports is for the user to say.
    if let Some(port) = own.ports.iter().find(|port| !port.host.ip().is_loopback()) {
        let what = format!("it publishes {port}, which is not on loopback");
        return Err(BakeError::Damaged { path: app.path.clone(), what }.into());
    }
    let config = own.overlaid(config.clone());
    let machine = machine_for(&config, paths).await?;
    sink.phase("verify");
    app.verify(cancel).await?;
    sink.phase("unpack");
    let held = hold(&paths.builds(), sink, cancel).await?;
    let (artifacts, known) = app.unpack(&paths.builds(), cancel).await?;
    let (manifest, now) = (&artifacts.manifest, Timestamp::now().as_millisecond());
    store
        .put_build(&BuildRow {
            id: manifest.build.clone(),
            flake: manifest.flake.clone(),
            attribute: manifest.attribute.clone(),
            created_ms: manifest.created.as_millisecond(),
            used_ms: now,
            duration_ms: started.elapsed().as_millis() as i64,
        })
        .map_err(LifecycleError::from)?;
    let how = if known { "unpacked before" } else { "unpacked" };
    let (build, path) = (manifest.build.clone(), artifacts.dir.clone());
    sink.send(Kind::ArtifactsReady { build, path, cached: known, how: how.into() });
    let wished = name.clone().unwrap_or_else(|| VmName::near(&app.manifest.name));
    let spec = VmSpec { remove: *remove, cold: *cold, ..spec(&config, wished, &artifacts, &machine)? };
    machine.notes.into_iter().for_each(|note| sink.info(note));
    let running = boot(paths, store, spec, name.is_some(), sink, cancel).await?;
    drop(held);
    // What earlier apps at the same place have unpacked. The VM is there in any case.
    if let Err(error) = retire(|row| row.flake == manifest.flake && row.id != manifest.build, paths, store) {
        sink.warn(format!("an earlier app's files do not go: {error}"));
    }
    Ok(running)
}

/// Removes what this app, and earlier ones at its place, have unpacked here; gives the bytes that are free
/// then, or `None` while something of it is in use.
pub fn forget(app: &App, paths: &Paths, store: &mut Store) -> Result<Option<u64>, LifecycleError> {
    let (flake, build) = (app.path.display().to_string(), app.build());
    let is_own = |row: &BuildRow| row.flake == flake || row.id == build;
    let freed = retire(is_own, paths, store)?;
    Ok(freed.filter(|_| !store.builds().is_ok_and(|rows| rows.iter().any(is_own))))
}

/// Removes builds and their ready snapshots, but for those that a VM has need of; gives the bytes that are
/// free then, or `None` while somebody has a build in hand.
fn retire(
    which: impl Fn(&BuildRow) -> bool,
    paths: &Paths,
    store: &mut Store,
) -> Result<Option<u64>, LifecycleError> {
    // `mvm gc` finds what stays.
    let Ok(Some(_alone)) = hold::alone(&paths.builds()) else { return Ok(None) };
    let of_vms = store.vms()?.into_iter().map(|vm| vm.build);
    let used: HashSet<String> = of_vms.chain(store.fleet_builds()?).collect();
    let mut freed = 0;
    for build in store.builds()?.into_iter().filter(|row| which(row) && !used.contains(&row.id)) {
        let of_it = |snapshot: &Snapshot| snapshot.manifest.fit.build == build.id;
        let dirs = ready::list(paths).into_iter().filter(of_it).map(|snapshot| snapshot.dir);
        for dir in dirs.chain([paths.builds().join(&build.id)]) {
            let bytes = disk_usage(&dir);
            let removed = remove_dir_if_there(&dir);
            removed.map_err(|source| LifecycleError::File { path: dir, source })?;
            freed += bytes;
        }
        store.remove_build(&build.id)?;
    }
    Ok(Some(freed))
}

/// How an app of the project runs, if all of it can be.
fn settings(project: &Project) -> Result<Settings, MvmfileError> {
    let file = &project.file;
    let text = |amount: &Option<Amount>| amount.as_ref().map(Amount::to_string);
    let settings = Settings {
        cpus: text(&file.resources.cpus),
        memory: text(&file.resources.memory),
        disk: text(&file.resources.disk),
        ports: file.ports.iter().map(ToString::to_string).collect(),
    };
    let fault = |path: &str, what: String, help: String| MvmfileError::Invalid {
        path: project.dir.join(mvmfile::FILE),
        faults: Faults(vec![Fault { path: path.into(), what, help }]),
    };
    let config =
        config_of(&settings).map_err(|error| fault("resources", error.what(), error.help().into()))?;
    if config.memory_mib.is_some_and(|mib| mib < MIN_MEMORY_MIB) {
        let what = format!("a guest of {} needs {MIN_MEMORY_MIB} MiB of memory", project.file.base);
        return Err(fault(
            "resources.memory",
            what,
            format!("write `memory = \"{MIN_MEMORY_MIB}M\"` or more"),
        ));
    }
    if let Some(map) = published_twice(&config.ports) {
        let what = format!("the port {} is published twice", map.host);
        return Err(fault("ports", what, "publish each host port once".into()));
    }
    Ok(settings)
}

fn config_of(settings: &Settings) -> Result<RuntimeConfig, SpecError> {
    let Settings { cpus, memory, disk, ports } = settings;
    Ok(RuntimeConfig {
        cpus: cpus.as_deref().map(parse_cpus).transpose()?,
        memory_mib: memory.as_deref().map(parse_memory).transpose()?,
        disk_mib: disk.as_deref().map(parse_disk).transpose()?,
        ports: ports.iter().map(|port| port.parse()).collect::<Result<_, _>>()?,
        ..RuntimeConfig::default()
    })
}

/// Digest of all that an app is made of, beyond its image.
fn key(image: &str, name: &str, settings: &Settings, launcher: &str) -> String {
    use sha2::Digest;
    let settings = serde_json::to_string(settings).unwrap_or_default();
    let all = [image, name, &settings, launcher].join("\0");
    crate::host::files::hex(&sha2::Sha256::digest(all))
}
