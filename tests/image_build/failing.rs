//! Builds that fail, or do not come to their end.

use std::fs;

use crate::{GOOD, World, git, request, run_with};
use mvm::event::Kind;
use mvm::image::BuildError;

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
fn a_lock_file_that_nix_cannot_read_is_named() {
    let Some(mut world) = World::new() else { return };
    let flake = world.flake("f", &[("default", GOOD)]);
    fs::write(flake.join("flake.lock"), "<<<<<<< HEAD\n").unwrap();
    let error = world.build(&flake).error();
    assert!(error.contains("f/flake.lock is no JSON; is a merge unfinished?"), "{error}");
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
