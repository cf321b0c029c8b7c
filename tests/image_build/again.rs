//! What is done of a build that was done before.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use crate::{GOOD, World, git, request, run_with};
use mvm::artifacts::Artifacts;
use mvm::event::{Activity, Kind, Source};
use mvm::host::inputs::FlakeInputs;
use mvm::host::paths::Paths;
use mvm::image::profiles::Profiles;
use mvm::store::Store;

const CHILD: &str = "MVM_TEST_BUILD_IN_CHILD";

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
            .args(["--exact", "again::one_build_in_a_process_of_its_own", "--nocapture"])
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
