//! One build: is it there already; if not, Nix; then the artifacts are laid out and kept.

use std::ffi::OsString;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use jiff::Timestamp;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::attribute::{self, candidates, offered, system};
use super::cache::Cache;
use super::collect::{self, ROOT, sound, store_hash};
use super::copied;
use super::copy::copy;
use super::elsewhere::Elsewhere;
use super::error::BuildError;
use super::failure::{differs, explain};
use super::hold::{InHand, hold};
use super::log::{BuildTime, NixLog, Report, Usual};
use super::nix::Nix;
use super::origin::Origin;
use super::profiles::FILE;
use super::request::BuildRequest;
use crate::artifacts::{Artifacts, ImageInfo, Manifest};
use crate::event::{EventSink, Kind, Source};
use crate::host::paths::Paths;
use crate::host::{nix, versions};
use crate::store::builds::BuildRow;
use crate::store::durations::BuildTimeRow;
use crate::store::{Store, StoreError};

/// One element of what `nix build --json` answers.
#[derive(Debug, Deserialize)]
struct Built {
    #[serde(rename = "drvPath", default)]
    drv: String,
    #[serde(default)]
    outputs: std::collections::BTreeMap<String, PathBuf>,
}

/// Builds what `request` asks for, or finds it built.
///
/// Says what happens in `sink` (but not that the task began or ended: that is the caller's), and
/// leaves nothing behind when `cancel` fires.
pub async fn build(
    request: &BuildRequest,
    paths: &Paths,
    store: &mut Store,
    sink: &EventSink,
    cancel: &CancellationToken,
) -> Result<InHand, BuildError> {
    build_at(None, request, paths, store, sink, cancel).await
}

/// The same, by a Nix that is elsewhere.
pub async fn build_at(
    elsewhere: Option<&dyn Elsewhere>,
    request: &BuildRequest,
    paths: &Paths,
    store: &mut Store,
    sink: &EventSink,
    cancel: &CancellationToken,
) -> Result<InHand, BuildError> {
    let started = Instant::now();
    let cache = if request.rebuild { None } else { Cache::look(request, elsewhere.is_some()) };
    let builds = paths.builds();
    let held = hold(&builds, sink, cancel).await?;
    if let Some(cache) = &cache
        && let Some(artifacts) = cache.hit(store, &builds)?
    {
        store.use_build(&artifacts.manifest.build, Timestamp::now().as_millisecond())?;
        ready(request, sink, &artifacts, true, "source unchanged");
        return Ok(InHand { artifacts, held });
    }
    // There is none while Nix works, which may take long.
    drop(held);

    check_args(&request.nix_args)?;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&builds)
        .map_err(BuildError::file("make", &builds))?;
    collect::sweep(&builds);
    let nix = Nix {
        dir: request.flake.nix_dir(),
        inputs: Some(&request.inputs),
        elsewhere,
        background: request.background,
        cancel,
    };
    let link = Link(collect::beside(&builds));
    sink.send(Kind::BuildAsked {
        flake: request.flake.display(),
        store: request.machines.store.as_ref().map(|store| store.as_str().to_owned()),
    });
    sink.phase("evaluate");
    let usual = store.median_build_times()?;
    let (built, attribute, report) = attempt(request, &nix, &link.0, &usual, sink).await?;
    if let Some(role) = unheard(request, &attribute) {
        sink.info(format!("the flake has nothing of its own for the role `{role}`: `{attribute}` is built"));
    }
    let out = output(&built)?;
    // Whether a builder ran for it.
    let mut fresh = report.tails.iter().any(|tail| tail.drv == built.drv);
    remember(store, report.times)?;
    if request.rebuild && !fresh {
        let times = again(request, &attribute, &nix, &link.0, &usual, sink).await?;
        remember(store, times)?;
        fresh = true;
    }

    let held = hold(&builds, sink, cancel).await?;
    // From here on it is about this machine.
    let nix = Nix { elsewhere: None, ..nix };
    let (artifacts, known) = match elsewhere {
        Some(place) => {
            sink.phase("copy");
            let manifest = manifest(request, &attribute, &out, "", paths).await;
            copied::copy(place, manifest, &builds, cancel).await?
        }
        None => {
            let hash = store_hash(&out).ok_or_else(|| BuildError::Output {
                what: format!("{} is no path in the Nix store", out.display()),
                help: "the attribute must be a derivation",
            })?;
            match sound(&builds.join(hash)) {
                Some(artifacts) => (artifacts, true),
                None => {
                    if let Some(store) = &request.machines.store {
                        copy(&out, store, &nix, sink).await?;
                    }
                    (collect_output(request, &attribute, &out, hash, paths, &nix, sink).await?, false)
                }
            }
        }
    };
    let id = artifacts.manifest.build.clone();
    let now = Timestamp::now().as_millisecond();
    store.put_build(&BuildRow {
        id: id.clone(),
        flake: request.flake.display(),
        attribute,
        created_ms: artifacts.manifest.created.as_millisecond(),
        used_ms: now,
        duration_ms: started.elapsed().as_millis() as i64,
    })?;
    if let Some(cache) = &cache {
        cache.record(request, &nix, store, &id).await?;
    }
    let how = match (fresh, known) {
        (true, _) if request.rebuild => "rebuilt",
        (true, _) => "built",
        (false, true) => "same output",
        (false, false) => "in the Nix store",
    };
    ready(request, sink, &artifacts, !fresh, how);
    Ok(InHand { artifacts, held })
}

/// The role that is asked for, where what is built bears another name.
fn unheard<'r>(request: &'r BuildRequest, attribute: &str) -> Option<&'r str> {
    let role = request.role.as_deref()?;
    let name = attribute.rsplit('.').next().unwrap_or_default();
    let is_its_own = name.strip_prefix(role).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    (!is_its_own && request.entry.is_none() && request.flake.attribute.is_none()).then_some(role)
}

/// Keeps how long builds took, for the estimates of later ones.
fn remember(store: &mut Store, times: Vec<BuildTime>) -> Result<(), StoreError> {
    let row = |BuildTime { name, host, time }| {
        let duration_ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        BuildTimeRow { name, host, duration_ms }
    };
    store.put_build_times(&times.into_iter().map(row).collect::<Vec<_>>())
}

/// Says that the artifacts are there.
fn ready(request: &BuildRequest, sink: &EventSink, artifacts: &Artifacts, cached: bool, how: &str) {
    let modules = request.entry.iter().flat_map(|entry| &entry.modules);
    // Only the flake itself can take them in, and it need not.
    for module in modules.filter(|module| !artifacts.manifest.image.modules.contains(module)) {
        sink.warn(format!(
            "the flake does not use the module `{module}` of {FILE}: give mkGuests `profiles = ./{FILE};`"
        ));
    }
    sink.send(Kind::ArtifactsReady {
        build: artifacts.manifest.build.clone(),
        path: artifacts.dir.clone(),
        cached,
        how: how.into(),
    });
}

/// What Nix may be told is not all that mvm lets through.
fn check_args(args: &[String]) -> Result<(), BuildError> {
    let help = |arg: &str| match arg {
        // Nix's own separator would let operands in behind mvm's back.
        "--" => Some("give options only; the flake goes to --flake"),
        // What comes out would not be here.
        "--store" => Some("give `--store` to mvm, before the `--`: what comes out is copied here then"),
        _ => None,
    };
    match args.iter().find_map(|arg| Some((arg, help(arg)?))) {
        Some((arg, help)) => Err(BuildError::Argument { what: "the Nix argument", value: arg.clone(), help }),
        None => Ok(()),
    }
}

/// Builds the first candidate the flake has; gives what it is, its attribute and what Nix said.
///
/// The best candidate is tried before the flake is asked what it offers: that costs an evaluation.
async fn attempt(
    request: &BuildRequest,
    nix: &Nix<'_>,
    link: &Path,
    usual: &Usual,
    sink: &EventSink,
) -> Result<(Built, String, Report), BuildError> {
    let candidates = candidates(request)?;
    let mut names: Option<Vec<String>> = None;
    for candidate in &candidates {
        if names.as_ref().is_some_and(|names| !names.contains(candidate)) {
            continue;
        }
        let attribute = attribute::path(request, candidate);
        let (stdout, report) = nix_build(request, &attribute, &[], nix, link, usual, sink).await?;
        if let Some(stdout) = stdout {
            return Ok((answer(&stdout)?, attribute, report));
        }
        if names.is_none() && report.tails.is_empty() {
            names = offered(nix, request).await?;
        }
        let absent = names.as_ref().is_some_and(|names| !names.contains(candidate));
        // An attribute of the user's own may lie elsewhere: it is only missing if Nix names it so.
        let own = request.flake.attribute.is_some();
        if !absent || (own && !names_attribute(&report, candidate)) {
            return Err(explain(request, &attribute, report, nix, sink.task()).await);
        }
    }
    Err(attribute::missing(request, &candidates, names.unwrap_or_default()))
}

fn names_attribute(report: &Report, attribute: &str) -> bool {
    report.errors.iter().any(|error| error.contains(&format!("'{attribute}'")))
}

/// Builds what is built once more, as a check; Nix keeps the first output. Gives how long it took.
async fn again(
    request: &BuildRequest,
    attribute: &str,
    nix: &Nix<'_>,
    link: &Path,
    usual: &Usual,
    sink: &EventSink,
) -> Result<Vec<BuildTime>, BuildError> {
    let (stdout, report) = nix_build(request, attribute, &["--rebuild"], nix, link, usual, sink).await?;
    if stdout.is_some() {
        return Ok(report.times);
    }
    if differs(&report) {
        sink.warn("built again, and it came out differently: the build is not deterministic; Nix keeps the first output");
        return Ok(report.times);
    }
    Err(explain(request, attribute, report, nix, sink.task()).await)
}

/// Runs `nix build`; gives its answer if it succeeded.
async fn nix_build(
    request: &BuildRequest,
    attribute: &str,
    more: &[&str],
    nix: &Nix<'_>,
    link: &Path,
    usual: &Usual,
    sink: &EventSink,
) -> Result<(Option<Vec<u8>>, Report), BuildError> {
    // `-L` would turn Nix's log into text for people; its lines are events here already.
    let own = request.nix_args.iter().filter(|arg| !matches!(arg.as_str(), "-L" | "--print-build-logs"));
    let mut args: Vec<OsString> = vec!["build".into()];
    args.extend(request.machines.args());
    args.extend(own.map(OsString::from));
    args.extend(["--json", "--log-format", "internal-json", "--no-write-lock-file"].map(OsString::from));
    args.extend(more.iter().map(OsString::from));
    args.extend(match nix.elsewhere {
        Some(_) => vec!["--no-link".into()],
        None => vec!["--out-link".into(), link.into()],
    });
    let origin = request.flake.tree().map(|tree| Origin::new(&tree.root, &tree.dir)).unwrap_or_default();
    let mut log = NixLog::new(sink, &origin, usual, request.machines.home());
    let ran = nix.run(&args, &[request.flake.installable(attribute)], |bytes| log.feed(bytes)).await;
    // Also when it was cancelled: what began is shown to have ended.
    let report = log.finish();
    let ran = ran?;
    if ran.ok {
        for error in &report.errors {
            let text = crate::event::text::clean(error).into_owned();
            sink.send(Kind::Log { source: Source::Nix { level: 0 }, text });
        }
    }
    Ok((ran.ok.then_some(ran.stdout), report))
}

fn answer(stdout: &[u8]) -> Result<Built, BuildError> {
    let wrong = |what: String| BuildError::Output { what, help: "`mvm doctor` checks the Nix installation" };
    let built: Vec<Built> = serde_json::from_slice(stdout).map_err(|error| {
        wrong(format!("nix build --json gave an answer mvm does not understand: {error}"))
    })?;
    built.into_iter().next_back().ok_or_else(|| wrong("nix build --json named no output".into()))
}

fn output(built: &Built) -> Result<PathBuf, BuildError> {
    let out = built.outputs.get("out").or_else(|| built.outputs.values().next());
    out.cloned().ok_or_else(|| BuildError::Output {
        what: format!("{} has no output", built.drv),
        help: "the attribute must be a derivation that gives an image",
    })
}

/// Makes the build's directory and roots it, so that Nix's collector keeps its output.
async fn collect_output(
    request: &BuildRequest,
    attribute: &str,
    out: &Path,
    hash: &str,
    paths: &Paths,
    nix: &Nix<'_>,
    sink: &EventSink,
) -> Result<Artifacts, BuildError> {
    sink.phase("collect");
    let (files, image) = collect::check(out)?;
    let nix = Nix { inputs: None, ..*nix };
    let manifest = Manifest { image, ..manifest(request, attribute, out, hash, paths).await };
    let builds = paths.builds();
    let dir = collect::lay_out(&builds, manifest, files, nix.cancel).await?;
    let root = dir.join(ROOT);
    let args: [OsString; 3] = ["build".into(), "--out-link".into(), root.clone().into()];
    let mut said = Vec::new();
    let rooted = nix.run(&args, &[out.into()], |bytes| said.extend_from_slice(bytes)).await?;
    if !rooted.ok {
        let said = crate::event::text::strip(&String::from_utf8_lossy(&said));
        return Err(BuildError::file("root the build with", root)(std::io::Error::other(
            said.trim().to_owned(),
        )));
    }
    Artifacts::open(&dir).map_err(BuildError::file("read", dir))
}

/// What is known of a build without its files.
async fn manifest(
    request: &BuildRequest,
    attribute: &str,
    out: &Path,
    build: &str,
    paths: &Paths,
) -> Manifest {
    let nix_version = match nix::find() {
        Some(program) => versions::version(paths, &program).await.unwrap_or_default(),
        None => String::new(),
    };
    Manifest {
        build: build.to_owned(),
        flake: request.flake.display(),
        attribute: attribute.to_owned(),
        profile: request.profile.clone(),
        role: request.role.clone(),
        system: system(),
        nix_version,
        store_path: out.to_path_buf(),
        files: Vec::new(),
        image: ImageInfo::default(),
        created: Timestamp::now(),
    }
}

/// Nix's out-link: keeps the output from being collected until the build's own root is there.
struct Link(PathBuf);

impl Drop for Link {
    fn drop(&mut self) {
        // What cannot be removed now is swept by the next build.
        let _ = std::fs::remove_file(&self.0);
    }
}
