//! States and machines on which mvm cannot work.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::support::{World, in_own_mounts, is_root, mount_over, mount_tmpfs, stderr};
use crate::{said, said_by, world};
use insta::assert_snapshot;
use nix::mount::MsFlags;

#[test]
fn a_read_only_state_is_an_error_that_says_so() {
    let world = world();
    let check = |world: &World| {
        let said = said(world, &["status"]);
        assert!(said.starts_with("exit 1\nerror: cannot write mvm's state in `[DIR]/state`: "), "{said}");
        assert!(said.contains("help: mend its permissions, or set MVM_STATE_DIR"), "{said}");
    };
    if nix::unistd::geteuid().is_root() {
        in_own_mounts(|| {
            mount_tmpfs(&world.state(), "size=1M", MsFlags::MS_RDONLY);
            check(&world);
        });
    } else {
        fs::set_permissions(world.state(), fs::Permissions::from_mode(0o555)).unwrap();
        check(&world);
        fs::set_permissions(world.state(), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn a_state_directory_that_is_not_absolute_is_refused() {
    let world = world();
    let mut command = world.mvm(["status"]);
    command.env("MVM_STATE_DIR", "relative");
    assert_snapshot!(said_by(&world, command), @"
    exit 1
    error: MVM_STATE_DIR is `relative`, which is not absolute
    help: give the whole path
    ");
}

#[test]
fn a_runtime_directory_too_long_for_sockets_is_refused_before_anything_starts() {
    let world = world();
    let long = world.path(&"x".repeat(100));
    fs::create_dir(&long).unwrap();
    let mut command = world.mvm(["status"]);
    command.env("XDG_RUNTIME_DIR", &long);
    let said = said_by(&world, command);
    assert!(said.contains("is too long for sockets") && said.contains("help: set XDG_RUNTIME_DIR"), "{said}");
}

#[test]
fn the_state_of_a_newer_mvm_is_left_alone() {
    let world = world();
    world.ok(["status"]);
    let database = rusqlite::Connection::open(world.state().join("state.db")).unwrap();
    database.pragma_update(None, "user_version", 99).unwrap();
    assert_snapshot!(said(&world, &["status"]), @"
    exit 1
    error: the state in `[DIR]/state/state.db` was written by a newer mvm (schema 99, this one knows 4)
    help: use the newer mvm, or another MVM_STATE_DIR
    ");
    let version: u32 = database.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    assert_eq!(version, 99);
}

#[test]
fn a_damaged_database_is_set_aside_with_a_warning() {
    let world = world();
    fs::write(world.state().join("state.db"), [b'x'; 8192]).unwrap();
    let output = world.mvm(["status"]).output().unwrap();
    assert!(output.status.success());
    assert!(stderr(&output).contains("warning: the state database was damaged"), "{}", stderr(&output));
    let mut names = fs::read_dir(world.state()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.any(|name| name.to_string_lossy().starts_with("state.db.damaged-")));
}

#[test]
fn without_nix_it_says_what_installs_it() {
    if !is_root() {
        return;
    }
    let mut world = world();
    let bin = world.path("bin");
    fs::create_dir(&bin).unwrap();
    symlink("/bin/sh", bin.join("sh")).unwrap();
    world.env("PATH", bin);
    in_own_mounts(|| {
        // The system's directories are searched beside PATH.
        if let Some(nix) = mvm::host::nix::find() {
            mount_over("/dev/null".as_ref(), &nix.canonicalize().unwrap());
        }
        assert_snapshot!(said(&world, &["build", "--flake", "flake"]), @"
        exit 1
        error: Nix is not installed
        help: `mvm doctor` says what is missing, `mvm setup` installs it
        ");
    });
}

#[test]
fn without_qemu_it_says_what_installs_it_before_a_long_build() {
    if !is_root() {
        return;
    }
    let program = mvm::vm::hypervisor::qemu::PROGRAM;
    let Some(qemu) = mvm::host::child::find_program(program) else {
        println!("SKIPPED: {program} is not installed");
        return;
    };
    let world = world();
    in_own_mounts(|| {
        // A device in its place is no program; the system's directories are searched beside PATH.
        mount_over("/dev/null".as_ref(), &qemu.canonicalize().unwrap());
        let expected =
            format!("exit 1\nerror: `{program}` is not installed\nhelp: run `mvm setup`, or add --setup\n");
        assert_eq!(said(&world, &["run", "--flake", "flake", "--hypervisor", "qemu"]), expected);
    });
}

#[test]
fn a_hypervisor_that_cannot_be_had_is_refused() {
    let mut world = world();
    // Nix may be anywhere, and is not asked for.
    world.env("PATH", "/usr/bin:/bin");
    assert_snapshot!(said(&world, &["run", "--flake", "flake", "--hypervisor", "firecracker"]), @"
    exit 1
    error: Firecracker is not installed
    help: `mvm setup` fetches it; or use `--hypervisor qemu`
    ");
}

#[test]
fn doctor_tells_programs_what_is_there() {
    let world = world();
    let output = world.mvm(["doctor", "--json"]).output().unwrap();
    // Nothing is laid out in this state.
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    assert!(checks.iter().any(|check| check["status"] == "missing"), "{report}");
}

#[test]
fn status_of_an_empty_state_is_valid_for_people_and_programs() {
    let world = world();
    assert!(world.ok(["status"]).contains("No VM is running."));
    let json: serde_json::Value = serde_json::from_str(&world.ok(["status", "--json"])).unwrap();
    assert_eq!((&json["v"], &json["vms"]), (&1.into(), &serde_json::json!([])));
}
