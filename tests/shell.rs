//! `mvm shell` on Linux, where it needs no VM.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;

use support::{World, stderr, stdout};

#[test]
fn a_command_finds_what_setup_put_into_the_state_and_its_exit_code_is_mvms() {
    let world = World::empty();
    let program = world.state().join("bin/firecracker");
    fs::create_dir(world.state().join("bin")).unwrap();
    fs::write(&program, "#!/bin/sh\necho Firecracker v9.8.7\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    if mvm::host::child::find_program("firecracker").is_none() {
        assert_eq!(world.ok(["shell", "--", "firecracker", "--version"]), "Firecracker v9.8.7\n");
        let output = world.mvm(["shell", "--banner", "--", "true"]).output().unwrap();
        assert!(stderr(&output).contains("Firecracker 9.8.7"), "{}", stderr(&output));
    } else {
        println!("SKIPPED in part: another firecracker is on PATH");
    }
    world.exits(5, ["shell", "--", "sh", "-c", "exit 5"]);
    let said = world.exits(127, ["shell", "--", "no-such-program"]);
    assert!(said.contains("error: cannot run `no-such-program`"), "{said}");
    let output = world.mvm(["shell", "--", "sh", "-c", "kill -TERM $$"]).output().unwrap();
    assert_eq!(output.status.signal(), Some(15));
}

#[test]
fn nix_is_there_with_flakes() {
    if mvm::host::child::find_program("nix").is_none() {
        println!("SKIPPED: nix is not on PATH");
        return;
    }
    let mut world = World::empty();
    assert!(world.ok(["shell", "--", "nix", "--version"]).starts_with("nix (Nix) "));
    world.env("NIX_CONFIG", "warn-dirty = false");
    let settings = world.ok(["shell", "--", "sh", "-c", "nix show-config; nix flake --help >/dev/null"]);
    assert!(settings.contains("warn-dirty = false"), "{settings}");
}

#[test]
fn a_shell_begins_with_a_banner_in_the_projects_directory() {
    let mut world = World::empty();
    fs::create_dir(world.path("web")).unwrap();
    let shell = world.path("my-shell");
    fs::write(&shell, "#!/bin/sh\npwd\n").unwrap();
    fs::set_permissions(&shell, fs::Permissions::from_mode(0o755)).unwrap();
    world.env("SHELL", shell);
    let output = world.mvm(["shell", "--project", "web"]).output().unwrap();
    assert_eq!(stdout(&output), format!("{}\n", world.path("web").display()));
    let banner = stderr(&output);
    for name in ["mvm ", "Nix", "QEMU", "Firecracker", "Lima"] {
        assert!(banner.contains(name), "{banner}");
    }
    let quiet = world.mvm(["shell", "--", "true"]).output().unwrap();
    assert_eq!(stderr(&quiet), "");
    let said = world.exits(2, ["shell", "--project", "nowhere"]);
    assert!(said.starts_with("error: there is no directory `nowhere`\nhelp: "), "{said}");
}

#[test]
fn status_starts_no_program_once_it_knows_the_versions() {
    let mut world = World::empty();
    let bin = world.path("bin");
    fs::create_dir(&bin).unwrap();
    let log = world.path("asked");
    let program = bin.join("nix");
    fs::write(&program, format!("#!/bin/sh\necho asked >> {}\necho nix 9.9\n", log.display())).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    world.env("PATH", bin);
    for _ in 0..2 {
        assert!(world.ok(["status"]).contains("Nix 9.9"));
    }
    assert_eq!(fs::read_to_string(log).unwrap(), "asked\n");
}
