//! The image room against a real Nix: tiny flakes, fake kernels.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod again;
mod failing;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mvm::artifacts::Artifacts;
use mvm::event::{Activity, EventSink, Kind, Source, TaskId};
use mvm::host::inputs::FlakeInputs;
use mvm::host::paths::Paths;
use mvm::image::machines::Machines;
use mvm::image::profiles::Entry;
use mvm::image::{BuildError, BuildRequest, FlakeRef, build};
use mvm::store::Store;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const GOOD: &str =
    "mkdir $out; printf '\\\\177ELFxx' > $out/vmlinux; echo root > $out/rootfs.ext4; echo made";

/// A state and a place for flakes.
struct World {
    base: TempDir,
    paths: Paths,
    store: Store,
}

/// What one build did.
struct Done {
    task: String,
    result: Result<Artifacts, BuildError>,
    events: Vec<Kind>,
}

impl World {
    /// `None`, and a word about it, where there is no Nix.
    fn new() -> Option<Self> {
        if Command::new("nix").arg("--version").output().is_err() {
            println!("SKIPPED: nix is not on PATH");
            return None;
        }
        let base = tempfile::tempdir().unwrap();
        Some(Self::at(base))
    }

    fn at(base: TempDir) -> Self {
        let paths = Paths::at(base.path().join("state"), base.path().join("run")).unwrap();
        let store = Store::open(&paths.database()).unwrap().store;
        Self { base, paths, store }
    }

    /// A flake in `dir` with `packages` of name and script; its outputs are like no other's.
    fn flake(&self, dir: &str, packages: &[(&str, &str)]) -> PathBuf {
        let dir = self.base.path().join(dir);
        fs::create_dir_all(&dir).unwrap();
        let salt = self.base.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.');
        let image = |(name, script): &(&str, &str)| {
            format!(
                "\"{name}\" = derivation {{ name = \"image\"; system = \"x86_64-linux\"; salt = \"{salt}\"; \
                 builder = \"/bin/sh\"; PATH = \"/usr/bin:/bin\"; args = [ \"-c\" \"{script}\" ]; }};\n"
            )
        };
        let packages: String = packages.iter().map(image).collect();
        let text = format!("{{ outputs = {{ self }}: {{ packages.x86_64-linux = {{\n{packages} }}; }}; }}\n");
        fs::write(dir.join("flake.nix"), text).unwrap();
        dir
    }

    fn build(&mut self, flake: &Path) -> Done {
        let request = request(flake.to_str().unwrap());
        self.run(&request)
    }

    fn run(&mut self, request: &BuildRequest) -> Done {
        let (paths, store) = (self.paths.clone(), &mut self.store);
        run_with(request, &paths, store, |_, _| {})
    }
}

/// Builds, showing every event to `watch` together with the token that cancels.
fn run_with(
    request: &BuildRequest,
    paths: &Paths,
    store: &mut Store,
    watch: impl Fn(&Kind, &CancellationToken),
) -> Done {
    let task = TaskId::new('b');
    let (sink, mut stream) = EventSink::new(task.clone());
    let cancel = CancellationToken::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut events = Vec::new();
        let building = async {
            let result = build(request, paths, store, &sink, &cancel).await;
            drop(sink);
            result.map(|in_hand| in_hand.artifacts)
        };
        let reading = async {
            while let Some(event) = stream.next().await {
                watch(&event.kind, &cancel);
                events.push(event.kind);
            }
        };
        let (result, ()) = tokio::join!(building, reading);
        Done { task: task.as_str().to_owned(), result, events }
    })
}

impl Done {
    fn how(&self) -> (bool, &str) {
        self.events
            .iter()
            .find_map(|kind| match kind {
                Kind::ArtifactsReady { cached, how, .. } => Some((*cached, how.as_str())),
                _ => None,
            })
            .unwrap_or_else(|| {
                panic!("no artifacts: {:?}", self.result.as_ref().err().map(ToString::to_string))
            })
    }

    fn error(&self) -> String {
        self.result.as_ref().expect_err("an error").to_string()
    }
}

fn git(dir: &Path, args: &[&str]) {
    let identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"];
    assert!(Command::new("git").current_dir(dir).args(identity).args(args).status().unwrap().success());
}

#[test]
fn a_flake_becomes_artifacts_that_are_kept_from_the_collector() {
    let Some(mut world) = World::new() else { return };
    let flake = world.flake("f", &[("default", GOOD)]);
    let done = world.build(&flake);
    assert_eq!(done.how(), (false, "built"));
    let artifacts = done.result.as_ref().unwrap();
    let manifest = &artifacts.manifest;
    assert_eq!(fs::read(&artifacts.rootfs).unwrap(), b"root\n");
    assert_eq!(manifest.attribute, "packages.x86_64-linux.default");
    assert!(manifest.nix_version.starts_with("nix (Nix)"), "{}", manifest.nix_version);
    assert_eq!(manifest.files.iter().map(|file| file.size).collect::<Vec<_>>(), [6, 5]);
    assert!(manifest.store_path.to_str().unwrap().contains(&manifest.build));
    let roots =
        Command::new("nix-store").args(["--query", "--roots"]).arg(&manifest.store_path).output().unwrap();
    let roots = String::from_utf8(roots.stdout).unwrap();
    assert!(roots.contains(artifacts.dir.join("root").to_str().unwrap()), "{roots}");
    // Nothing but the build is left in the directory of builds.
    assert_eq!(fs::read_dir(world.paths.builds()).unwrap().count(), 1);
    let made =
        |kind: &Kind| matches!(kind, Kind::Log { source: Source::Build { .. }, text } if text == "made");
    assert!(done.events.iter().any(made));
    let begun = |kind: &&Kind| matches!(kind, Kind::ActivityStarted { .. });
    let ended = |kind: &&Kind| matches!(kind, Kind::ActivityStopped { .. });
    assert_eq!(done.events.iter().filter(begun).count(), done.events.iter().filter(ended).count());
}

#[test]
fn a_build_says_how_long_the_last_ones_of_its_name_took() {
    let Some(mut world) = World::new() else { return };
    let flake = world.flake("f", &[("default", GOOD)]);
    let usual = |done: &Done| {
        let usual = |kind: &Kind| match kind {
            Kind::ActivityStarted { what: Activity::Build { usual_ms, .. }, .. } => Some(*usual_ms),
            _ => None,
        };
        done.events.iter().find_map(usual).expect("a build")
    };
    assert_eq!(usual(&world.build(&flake)), None);
    // Another derivation of the same name.
    world.flake("f", &[("default", &format!("{GOOD}; echo again"))]);
    let times = world.store.median_build_times().unwrap();
    let done = world.build(&flake);
    assert!(usual(&done).is_some());
    assert_eq!(usual(&done), times.get(&("image".into(), String::new())).copied());
    // What failed says nothing of how long it takes.
    world.flake("f", &[("default", "exit 1")]);
    let before = world.store.median_build_times().unwrap();
    assert!(world.build(&flake).result.is_err());
    assert_eq!(world.store.median_build_times().unwrap(), before);
}

/// A request for the default of a flake.
fn request(flake: &str) -> BuildRequest {
    BuildRequest {
        flake: flake.parse::<FlakeRef>().unwrap(),
        profile: None,
        role: None,
        entry: None,
        rebuild: false,
        background: false,
        machines: Machines::default(),
        nix_args: vec!["--substituters".into(), String::new()],
        inputs: FlakeInputs::default(),
    }
}

#[test]
fn a_build_names_what_was_built_for_it() {
    let Some(mut world) = World::new() else { return };
    let flake = world.flake("f", &[("part", "echo part > $out"), ("idle", "exit 1"), ("default", GOOD)]);
    let text = fs::read_to_string(flake.join("flake.nix")).unwrap();
    // As in a guest's image: the whole is made from parts.
    let text = text.replace("packages.x86_64-linux = {", "packages.x86_64-linux = rec {");
    let text = text.replace("\"default\" = derivation {", "\"default\" = derivation { inherit part;");
    fs::write(flake.join("flake.nix"), text.replace("name = \"image\"; system", "name = \"a\"; system"))
        .unwrap();
    let mut built = || -> Vec<(String, Vec<String>)> {
        let done = world.build(&flake);
        assert_eq!(done.how(), (false, "built"));
        let build = |kind| match kind {
            Kind::ActivityStarted { what: Activity::Build { drv, needs, .. }, .. } => Some((drv, needs)),
            _ => None,
        };
        done.events.into_iter().filter_map(build).collect()
    };
    let first = built();
    assert_eq!(first.len(), 2);
    assert!(first[0].1.is_empty());
    assert_eq!(first[1].1, [first[0].0.clone()]);
    // What was there before is none of this build's.
    let text = fs::read_to_string(flake.join("flake.nix")).unwrap();
    fs::write(flake.join("flake.nix"), text.replace("echo made", "echo made anew")).unwrap();
    let second = built();
    assert_eq!((second.len(), second[0].1.len()), (1, 0));
}

#[test]
fn a_directory_may_bear_any_name() {
    let Some(mut world) = World::new() else { return };
    for name in ["with space", "ha#sh", "que?stion", "ünïcode", "per%20cent"] {
        let flake = world.flake(name, &[("default", GOOD)]);
        assert!(world.build(&flake).result.is_ok(), "{name}");
        git(&flake, &["init", "-q"]);
        let below = world.flake(&format!("{name}/sub {name}"), &[("minimal", GOOD)]);
        git(&flake, &["add", "."]);
        let reference = format!("{}#minimal", below.display());
        let request = request(&reference);
        let done = world.run(&request);
        assert!(done.result.is_ok(), "{name} in git: {:?}", done.result.err().map(|error| error.to_string()));
        // What is changed and not committed counts.
        git(&flake, &["commit", "-qm", "x"]);
        world
            .flake(&format!("{name}/sub {name}"), &[("minimal", &GOOD.replace("echo root", "echo changed"))]);
        assert_eq!(fs::read(world.run(&request).result.unwrap().rootfs).unwrap(), b"changed\n", "{name}");
    }
}

#[test]
fn role_and_profile_choose_the_attribute() {
    let Some(mut world) = World::new() else { return };
    let flake = world.flake("f", &[("default", GOOD), ("minimal", GOOD), ("gateway-minimal", GOOD)]);
    let mut attribute = |role: Option<&str>, profile: Option<&str>| {
        let mut request = request(flake.to_str().unwrap());
        request.role = role.map(Into::into);
        request.profile = profile.map(Into::into);
        let done = world.run(&request);
        done.result.map(|artifacts| artifacts.manifest.attribute).map_err(|error| error.to_string())
    };
    // All three are the same derivation here, so the attribute is that of the first.
    assert!(attribute(Some("gateway"), Some("minimal")).unwrap().ends_with("gateway-minimal"));
    assert!(attribute(Some("worker"), Some("minimal")).is_ok());
    assert!(attribute(Some("worker"), None).is_ok());
    let error = attribute(None, Some("minmal")).unwrap_err();
    assert!(error.contains("has no `packages.x86_64-linux.minmal`"), "{error}");
    assert!(error.contains("it offers minimal, "), "{error}");
    let request = request(&format!("{}#nope", flake.display()));
    let error = world.run(&request).error();
    assert!(error.contains("has no `nope`") && error.contains("it offers"), "{error}");
}

#[test]
fn a_module_that_the_flake_does_not_use_is_a_warning() {
    let Some(mut world) = World::new() else { return };
    let script = "mkdir $out; printf '\\\\177ELFxx' > $out/vmlinux; echo root > $out/rootfs.ext4";
    let info = "echo '{' '\\\"modules\\\":' '[\\\"a.nix\\\"]' '}' > $out/mvm.json";
    let flake = world.flake("f", &[("default", &format!("{script}; {info}"))]);
    let mut request = request(flake.to_str().unwrap());
    request.entry = Some(Entry { modules: vec!["a.nix".into(), "b.nix".into()], ..Entry::default() });
    let warnings: Vec<String> = world
        .run(&request)
        .events
        .into_iter()
        .filter_map(|kind| match kind {
            Kind::Log { source: Source::Mvm { .. }, text } => Some(text),
            _ => None,
        })
        .collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("`b.nix`") && warnings[0].contains("mkGuests"), "{warnings:?}");
}
