//! The image room against a real Nix: tiny flakes, fake kernels.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use mvm::artifacts::Artifacts;
use mvm::event::{Activity, EventSink, Kind, Source, TaskId};
use mvm::host::inputs::FlakeInputs;
use mvm::host::paths::Paths;
use mvm::image::machines::Machines;
use mvm::image::profiles::{Entry, Profiles};
use mvm::image::{BuildError, BuildRequest, FlakeRef, build};
use mvm::store::Store;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const CHILD: &str = "MVM_TEST_BUILD_IN_CHILD";
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

/// Run by the test below in a process of its own, whose `nix` counts.
#[test]
fn one_build_in_a_process_of_its_own() {
    let Some(base) = std::env::var_os(CHILD).map(PathBuf::from) else { return };
    let paths = Paths::at(base.join("state"), base.join("run")).unwrap();
    let mut store = Store::open(&paths.database()).unwrap().store;
    let request = request(base.join("f").to_str().unwrap());
    println!("HOW {}", run_with(&request, &paths, &mut store, |_, _| {}).how().1);
}

#[test]
fn an_unchanged_source_starts_no_process_and_a_touched_one_does() {
    let Some(world) = World::new() else { return };
    let flake = world.flake("f", &[("default", GOOD)]);
    let bin = world.base.path().join("bin");
    let calls = world.base.path().join("calls");
    fs::create_dir(&bin).unwrap();
    let nix = Command::new("sh").args(["-c", "command -v nix"]).output().unwrap();
    let nix = String::from_utf8(nix.stdout).unwrap();
    let script = format!("#!/bin/sh\necho x >> {}\nexec {} \"$@\"\n", calls.display(), nix.trim());
    fs::write(bin.join("nix"), script).unwrap();
    fs::set_permissions(bin.join("nix"), fs::Permissions::from_mode(0o755)).unwrap();
    let run = || {
        // No file may be so new that it could change unseen; time passes by what Nix does.
        let before = fs::read_to_string(&calls).unwrap_or_default().len();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "one_build_in_a_process_of_its_own", "--nocapture"])
            .env("PATH", path)
            .env(CHILD, world.base.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let how = text.lines().find_map(|line| line.split("HOW ").nth(1)).unwrap_or_else(|| panic!("{text}"));
        (how.to_owned(), fs::read_to_string(&calls).unwrap().len() - before)
    };
    assert_eq!(run().0, "built");
    let again = run();
    assert!(["same output", "source unchanged"].contains(&again.0.as_str()), "{again:?}");
    assert_eq!(run(), ("source unchanged".into(), 0));
    let text = fs::read(flake.join("flake.nix")).unwrap();
    fs::write(flake.join("flake.nix"), text).unwrap();
    let (how, calls) = run();
    assert_eq!(how, "same output");
    assert!(calls > 0);
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
fn a_changed_mapping_is_another_build_even_where_git_does_not_see_it() {
    let Some(mut world) = World::new() else { return };
    let flake = world.flake("f", &[("default", GOOD), ("other", &GOOD.replace("echo root", "echo other"))]);
    git(&flake, &["init", "-q"]);
    git(&flake, &["add", "."]);
    let mut mapped_to = |attribute: &str| {
        let text = format!("[[profile]]\nname = \"small\"\nattribute = \"{attribute}\"\n");
        fs::write(flake.join("mvm-profiles.toml"), text).unwrap();
        let mut request = request(flake.to_str().unwrap());
        request.profile = Some("small".into());
        request.entry = Profiles::of(&request.flake).unwrap().entry(None, Some("small")).cloned();
        let built = world.run(&request).result;
        built.map(|artifacts| fs::read(artifacts.rootfs).unwrap()).map_err(|error| error.to_string())
    };
    for _ in 0..2 {
        assert_eq!(mapped_to("default").unwrap(), b"root\n");
        assert_eq!(mapped_to("other").unwrap(), b"other\n");
    }
    let error = mapped_to("othr").unwrap_err();
    assert!(error.contains("has no `packages.x86_64-linux.othr`"), "{error}");
    assert!(error.contains("it offers other, "), "{error}");
}

#[test]
fn a_flake_given_by_path_is_built_as_it_is_and_known_when_nothing_changed() {
    let Some(mut world) = World::new() else { return };
    let flake = world.flake("f", &[("default", GOOD)]);
    // In a git tree that tracks none of it.
    git(world.base.path(), &["init", "-q"]);
    let request = request(&format!("path:{}", flake.display()));
    assert_eq!(world.run(&request).how(), (false, "built"));
    world.run(&request);
    assert_eq!(world.run(&request).how(), (true, "source unchanged"));
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

#[test]
fn a_failing_builder_is_reported_with_its_log() {
    let Some(mut world) = World::new() else { return };
    let flake = world.flake("f", &[("default", "for i in 1 2 3; do echo line $i; done; exit 3")]);
    let done = world.build(&flake);
    assert!(done.error().contains("exit code 3"), "{}", done.error());
    assert!(done.error().contains("image failed after 3 lines of log"), "{}", done.error());
    assert!(done.error().contains(&format!("help: `mvm log {} --drv image`", done.task)), "{}", done.error());
    assert_eq!(done.result.unwrap_err().tail(), ["line 1", "line 2", "line 3"]);
    // Nothing half-made.
    assert_eq!(fs::read_dir(world.paths.builds()).unwrap().count(), 0);
}

#[test]
fn each_failing_builder_is_reported_by_name_where_several_fail() {
    let Some(mut world) = World::new() else { return };
    let flake = world.flake("f", &[("one", "echo 1; exit 1"), ("two", "echo 2; exit 1"), ("default", GOOD)]);
    let text = fs::read_to_string(flake.join("flake.nix")).unwrap();
    let text = text.replace("packages.x86_64-linux = {", "packages.x86_64-linux = rec {");
    let text = text.replace("\"default\" = derivation {", "\"default\" = derivation { inherit one two;");
    let named = ["one", "two"].into_iter().fold(text, |text, name| {
        text.replace(
            &format!("\"{name}\" = derivation {{ name = \"image\""),
            &format!("\"{name}\" = derivation {{ name = \"{name}\""),
        )
    });
    fs::write(flake.join("flake.nix"), named).unwrap();
    let mut request = request(flake.to_str().unwrap());
    request.nix_args.push("--keep-going".into());
    let done = world.run(&request);
    let (task, error) = (&done.task, done.error());
    for name in ["one", "two"] {
        assert!(error.contains(&format!("\n{name} failed after 1 line of log")), "{error}");
        assert!(error.contains(&format!("\nhelp: `mvm log {task} --drv {name}` shows")), "{error}");
    }
    let mut tail = done.result.unwrap_err().tail();
    tail.sort();
    assert_eq!(tail, ["one> 1", "two> 2"]);
}

#[test]
fn an_error_in_the_flake_names_the_users_own_file() {
    let Some(mut world) = World::new() else { return };
    let dir = world.base.path().join("f");
    fs::create_dir(&dir).unwrap();
    fs::write(
        dir.join("flake.nix"),
        "{ outputs = { self }: {\n packages.x86_64-linux.default = 1 + \"x\"; }; }",
    )
    .unwrap();
    let error = world.build(&dir).error();
    let file = dir.canonicalize().unwrap().join("flake.nix:2:");
    assert!(error.contains(file.to_str().unwrap()), "{error}");
    assert!(!error.contains('\x1b'), "{error}");
}

#[test]
fn an_output_that_is_no_image_is_an_error_that_names_what_is_there() {
    let Some(mut world) = World::new() else { return };
    let flake = world.flake("f", &[("default", "mkdir -p $out/bin; echo x > $out/vmlinux")]);
    let error = world.build(&flake).error();
    assert!(error.contains("has no rootfs.ext4; it holds: bin/, vmlinux"), "{error}");
    assert_eq!(fs::read_dir(world.paths.builds()).unwrap().count(), 0);
}

#[test]
fn files_git_does_not_track_are_named_with_the_command_that_adds_them() {
    let Some(mut world) = World::new() else { return };
    let flake = world.flake("repo", &[("default", GOOD)]);
    git(&flake, &["init", "-q"]);
    fs::write(flake.join("README"), "").unwrap();
    git(&flake, &["add", "README"]);
    let error = world.build(&flake).error();
    assert!(error.contains("add flake.nix"), "{error}");
    fs::write(flake.join("flake.nix"), "{ outputs = { self }: import ./outputs.nix; }").unwrap();
    git(&flake, &["add", "flake.nix"]);
    fs::write(flake.join("outputs.nix"), "{ }").unwrap();
    fs::write(flake.join("unrelated"), "").unwrap();
    let error = world.build(&flake).error();
    assert!(error.ends_with("add outputs.nix"), "{error}");
}

#[test]
fn cancelling_ends_nix_and_its_builder() {
    let Some(mut world) = World::new() else { return };
    let mark = format!("31536{}", std::process::id());
    let flake = world.flake("f", &[("default", &format!("echo up; sleep {mark}"))]);
    let request = request(flake.to_str().unwrap());
    let paths = world.paths.clone();
    let done = run_with(&request, &paths, &mut world.store, |kind, cancel| {
        if matches!(kind, Kind::Log { text, .. } if text == "up") {
            cancel.cancel();
        }
    });
    assert!(matches!(done.result, Err(BuildError::Cancelled)));
    let mut left = fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        line.contains(&mark)
    });
    assert!(left.next().is_none());
    let begun = done.events.iter().filter(|kind| matches!(kind, Kind::ActivityStarted { .. })).count();
    let ended = done.events.iter().filter(|kind| matches!(kind, Kind::ActivityStopped { .. })).count();
    assert_eq!(begun, ended);
    assert_eq!(fs::read_dir(world.paths.builds()).unwrap().count(), 0);
}

#[test]
fn a_damaged_build_is_made_again_and_leftovers_are_swept() {
    let Some(mut world) = World::new() else { return };
    let flake = world.flake("f", &[("default", GOOD)]);
    let first = world.build(&flake).result.unwrap();
    // As if mvm had been killed in the middle.
    fs::create_dir(world.paths.builds().join(".new-999999999-1-0")).unwrap();
    for damage in ["manifest.json", "rootfs.ext4", "root"] {
        fs::remove_file(first.dir.join(damage)).unwrap();
        let done = world.build(&flake);
        assert_eq!(done.how(), (true, "in the Nix store"), "without {damage}");
        assert!(first.dir.join(damage).exists());
        assert_eq!(fs::read_dir(world.paths.builds()).unwrap().count(), 1);
    }
    // Collected by Nix.
    fs::remove_file(first.dir.join("root")).unwrap();
    let deleted = Command::new("nix-store").arg("--delete").arg(&first.manifest.store_path).output().unwrap();
    assert!(deleted.status.success(), "{}", String::from_utf8_lossy(&deleted.stderr));
    assert_eq!(world.build(&flake).how(), (false, "built"));
}

#[test]
fn a_rebuild_goes_round_the_caches_and_a_different_result_is_a_warning() {
    let Some(mut world) = World::new() else { return };
    for (dir, script, warned) in
        [("same", GOOD, false), ("other", &*format!("{GOOD}; date +%N > $out/now"), true)]
    {
        let flake = world.flake(dir, &[("default", script)]);
        let mut request = request(flake.to_str().unwrap());
        request.rebuild = true;
        let first = world.run(&request);
        assert_eq!(first.how(), (false, "rebuilt"));
        let second = world.run(&request);
        assert_eq!(second.how(), (false, "rebuilt"));
        let built = |kind: &Kind| matches!(kind, Kind::ActivityStarted { what: Activity::Build { .. }, .. });
        assert!(second.events.iter().any(built));
        let warning = |kind: &Kind| matches!(kind, Kind::Log { source: Source::Mvm { .. }, .. });
        assert_eq!(second.events.iter().any(warning), warned);
    }
}

#[test]
fn an_input_that_mvm_overrides_is_part_of_what_is_looked_at() {
    let Some(mut world) = World::new() else { return };
    let input = world.flake("input", &[("image", GOOD)]);
    let flake = world.base.path().join("f");
    fs::create_dir(&flake).unwrap();
    let text = "{ inputs.offline.url = \"flake:mvm-offline\"; outputs = { self, offline }: {
        packages.x86_64-linux.default = offline.packages.x86_64-linux.image; }; }";
    fs::write(flake.join("flake.nix"), text).unwrap();
    let mut request = request(flake.to_str().unwrap());
    let registry = world.base.path().join("registry.json");
    fs::write(&registry, r#"{"version": 2, "flakes": []}"#).unwrap();
    let overrides = vec![("mvm-offline".into(), format!("path:{}", input.display()))];
    request.inputs = FlakeInputs { overrides, registry: Some(registry) };
    let first = world.run(&request);
    assert_eq!(first.how(), (false, "built"));
    assert!(first.result.unwrap().manifest.nix_version.starts_with("nix "));
    world.run(&request);
    assert_eq!(world.run(&request).how(), (true, "source unchanged"));
    world.flake("input", &[("image", &GOOD.replace("echo root", "echo other"))]);
    let changed = world.run(&request);
    assert_eq!(changed.how(), (false, "built"));
    assert_eq!(fs::read(changed.result.unwrap().rootfs).unwrap(), b"other\n");
    // An input that nothing pins may change unseen, so that build is not remembered.
    let text = fs::read_to_string(flake.join("flake.nix")).unwrap();
    let url = format!("path:{}", input.display());
    fs::write(flake.join("flake.nix"), text.replace("flake:mvm-offline", &url)).unwrap();
    for _ in 0..3 {
        assert_eq!(world.run(&request).how(), (true, "same output"));
    }
}

#[test]
fn two_builds_of_the_same_at_once_both_work() {
    let Some(world) = World::new() else { return };
    let flake = world.flake("f", &[("default", GOOD)]);
    let request = request(flake.to_str().unwrap());
    let dirs: Vec<PathBuf> = std::thread::scope(|scope| {
        let build = || {
            let mut store = Store::open(&world.paths.database()).unwrap().store;
            run_with(&request, &world.paths, &mut store, |_, _| {}).result.unwrap().dir
        };
        let threads = [scope.spawn(build), scope.spawn(build)];
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(dirs[0], dirs[1]);
    assert!(Artifacts::open(&dirs[0]).is_ok());
}
