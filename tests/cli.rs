//! The words: what is said about wrong ones, help, completions. No guest is booted here.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};

use insta::assert_snapshot;
use mvm::store::Store;
use mvm::store::vms::{VmRow, VmState};
use nix::mount::MsFlags;
use nix::pty::openpty;
use serde_json::Value;
use support::{World, in_own_mounts, is_root, mount_over, mount_tmpfs, stderr, stdout};

/// A flake that offers two attributes and builds nothing.
const FLAKE: &str = "{ outputs = _: { packages.x86_64-linux = { minimal = 1; dev = 2; }; }; }";

/// The exit code and the error of `mvm` with these words, the test's directory written as `[DIR]`.
fn said(world: &World, args: &[&str]) -> String {
    said_by(world, world.mvm(args))
}

fn said_by(world: &World, mut command: Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(stdout(&output), "");
    let text = stderr(&output).replace(world.path("").to_str().unwrap().trim_end_matches('/'), "[DIR]");
    format!("exit {}\n{text}", output.status.code().unwrap())
}

/// A world with the flake above, where no guest could be built.
fn world() -> World {
    let world = World::empty();
    world.flake("flake", FLAKE);
    world
}

/// Whether Nix is there; says that the test is skipped if not.
fn has_nix() -> bool {
    let there = Command::new("nix").arg("--version").output().is_ok();
    if !there {
        println!("SKIPPED: nix is not on PATH");
    }
    there
}

#[test]
fn a_directory_without_a_flake_is_an_error() {
    let world = world();
    fs::create_dir(world.path("empty")).unwrap();
    assert_snapshot!(said(&world, &["build", "--flake", "empty"]), @"
    exit 1
    error: `[DIR]/empty` has no flake.nix
    help: run `mvm init` there, or give another directory
    ");
}

#[test]
fn a_directory_that_is_not_there_is_an_error() {
    assert_snapshot!(said(&world(), &["build", "--flake", "nowhere"]), @"
    exit 1
    error: no directory `nowhere`: No such file or directory (os error 2)
    help: give a directory with a flake.nix, or a URL such as github:OWNER/REPO
    ");
}

#[test]
fn a_reference_that_begins_with_a_dash_is_wrong_usage() {
    assert_snapshot!(said(&world(), &["build", "--flake", "--impure"]), @"
    exit 2
    error: the flake reference `--impure` begins with `-`
    help: if it is a directory, write `./--impure`
    ");
}

#[test]
fn a_missing_attribute_lists_what_there_is_the_nearest_first() {
    if !has_nix() {
        return;
    }
    assert_snapshot!(said(&world(), &["build", "--flake", "./flake#mini"]), @"
    exit 1
    error: `[DIR]/flake` has no `mini`
    help: it offers minimal, dev
    ");
}

#[test]
fn zero_cpus_are_wrong_usage() {
    assert_snapshot!(said(&world(), &["run", "--flake", "flake", "--cpus", "0"]), @"
    exit 2
    error: invalid value '0' for '--cpus <CPUS>': the number of CPUs `0` is not valid
    help: give 1 to 64

    For more information, try '--help'.
    ");
}

#[test]
fn too_little_memory_is_wrong_usage() {
    assert_snapshot!(said(&world(), &["run", "--flake", "flake", "--mem", "64"]), @"
    exit 2
    error: invalid value '64' for '--mem <SIZE>': the memory size `64` is outside what a guest boots with (96 MiB to 1 TiB)
    help: give MiB as a number, or with a unit: `256`, `512M`, `2G`

    For more information, try '--help'.
    ");
}

#[test]
fn a_negative_number_is_a_value_and_not_a_flag() {
    let said = said(&world(), &["run", "--flake", "flake", "--mem", "-1"]);
    assert!(said.contains("the memory size `-1` is not a size"), "{said}");
}

#[test]
fn a_bad_port_is_wrong_usage() {
    assert_snapshot!(said(&world(), &["run", "--flake", "flake", "-p", "80"]), @"
    exit 2
    error: invalid value '80' for '--publish <[ADDR:]HOST:GUEST>': the port mapping `80` is not valid
    help: write HOST:GUEST, e.g. `8080:80`, or ADDR:HOST:GUEST, e.g. `127.0.0.1:8080:80`

    For more information, try '--help'.
    ");
}

#[test]
fn a_bad_volume_is_wrong_usage() {
    assert_snapshot!(said(&world(), &["run", "--flake", "flake", "-v", "/a:b"]), @"
    exit 2
    error: invalid value '/a:b' for '--volume <HOST:GUEST[:SIZE][:ro]>': the volume `/a:b` has a guest path that is not an absolute directory below /
    help: write HOST:GUEST[:SIZE][:ro], e.g. `./data:/srv/data` or `./data:/srv/data:512M`

    For more information, try '--help'.
    ");
}

#[test]
fn a_bad_name_is_wrong_usage() {
    assert_snapshot!(said(&world(), &["run", "--flake", "flake", "--name", "Web_1"]), @"
    exit 2
    error: invalid value 'Web_1' for '--name <NAME>': the name `Web_1` is not valid
    help: use 1 to 63 of a-z, 0-9 and `-`, not beginning with `-`

    For more information, try '--help'.
    ");
}

#[test]
fn an_unknown_command_is_wrong_usage_with_the_nearest_one() {
    assert_snapshot!(said(&world(), &["biuld"]), @"
    exit 2
    error: unrecognized subcommand 'biuld'

      tip: a similar subcommand exists: 'build'

    Usage: mvm [OPTIONS] <COMMAND>

    For more information, try '--help'.
    ");
}

#[test]
fn an_unknown_key_of_the_configuration_names_the_file_and_the_nearest_key() {
    let world = world();
    fs::write(world.path("flake/mvm.toml"), "memroy = 256\n").unwrap();
    assert_snapshot!(said(&world, &["run", "--flake", "flake"]), @"
    exit 1
    error: the configuration `[DIR]/flake/mvm.toml` has an unknown key `memroy`
    help: did you mean `memory`?
    ");
}

#[test]
fn an_unknown_key_of_the_profiles_names_the_file_and_the_nearest_key() {
    let world = world();
    fs::write(world.path("flake/mvm-profiles.toml"), "[[profile]]\natribute = \"dev\"\n").unwrap();
    let build = said(&world, &["build", "--flake", "flake"]);
    assert_snapshot!(build, @"
    exit 1
    error: the profiles in `[DIR]/flake/mvm-profiles.toml` have an unknown key `atribute`
    help: did you mean `attribute`?
    ");
    assert_eq!(said(&world, &["run", "--flake", "flake"]), build);
}

#[test]
fn a_size_in_the_profiles_that_no_guest_can_have_is_an_error_of_build_too() {
    let world = world();
    let text = "[[profile]]\nrole = \"web\"\nname = \"big\"\ncpus = 2\n[[profile]]\ncpus = 0\n";
    fs::write(world.path("flake/mvm-profiles.toml"), text).unwrap();
    assert_snapshot!(said(&world, &["build", "--flake", "flake"]), @"
    exit 1
    error: the profiles in `[DIR]/flake/mvm-profiles.toml` are not valid: of no role and no profile, the number of CPUs `0` is not valid
    help: give 1 to 64
    ");
}

#[test]
fn an_attribute_of_the_profiles_that_the_flake_lacks_is_an_error_that_lists_what_there_is() {
    if !has_nix() {
        return;
    }
    let world = world();
    let text = "[[profile]]\nrole = \"web\"\nname = \"dev\"\nattribute = \"minimum\"\n";
    fs::write(world.path("flake/mvm-profiles.toml"), text).unwrap();
    assert_snapshot!(said(&world, &["build", "--flake", "flake", "--role", "web", "--profile", "dev"]), @"
    exit 1
    error: `[DIR]/flake` has no `packages.x86_64-linux.minimum`
    help: it offers minimal, dev
    ");
}

#[test]
fn the_list_of_what_a_flake_offers_has_its_names_and_the_entries_of_its_profiles() {
    if !has_nix() {
        return;
    }
    let world = world();
    let text = "[[profile]]\nrole = \"web\"\nname = \"big\"\nattribute = \"dev\"\ncpus = 2\nmemory = \"1G\"\n\
                [[profile]]\nattribute = \"minimal\"\n[[profile]]\nname = \"lost\"\n";
    fs::write(world.path("flake/mvm-profiles.toml"), text).unwrap();
    assert_snapshot!(world.ok(["build", "--flake", "flake", "--list"]), @"
     ATTRIBUTE  ROLE  PROFILE  CPUS  MEM  DISK  MODULES  STATE
     dev        web   big      2     1G   -     -        -
     lost       -     lost     -     -    -     -        not offered
     minimal *  -     -        -     -    -     -        -

    * is what is built when nothing is asked for.
    Sizes and modules are those of mvm-profiles.toml.
    ");
    let json: Value =
        serde_json::from_str(&world.ok(["build", "--flake", "flake", "--list", "--json"])).unwrap();
    let first = &json["attributes"][0];
    assert_eq!(
        (&first["attribute"], &first["memory_mib"], &first["default"]),
        (&"dev".into(), &1024.into(), &false.into())
    );
    assert_eq!(json["attributes"][1]["offered"], false);
}

#[test]
fn a_flake_that_offers_nothing_or_is_broken_is_told_by_the_list() {
    if !has_nix() {
        return;
    }
    let world = World::empty();
    world.flake("none", "{ outputs = _: { packages.x86_64-linux = { }; }; }");
    assert!(
        world.ok(["build", "--flake", "none", "--list"]).contains("offers nothing in packages.x86_64-linux.")
    );
    world.flake("broken", "{ outputs = _: { packages.x86_64-linux = throw \"no such luck\"; }; }");
    let error = world.fails(["build", "--flake", "broken", "--list"]);
    assert!(error.contains("no such luck") && error.contains("help: mend the flake"), "{error}");
    world.flake("part", "{ outputs = _: { packages.x86_64-linux = { good = 1; bad = abort \"x\"; }; }; }");
    let list = world.ok(["build", "--flake", "part", "--list"]);
    assert!(list.contains(" bad ") && list.contains(" good "), "{list}");
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    assert_snapshot!(said(&world(), &["run", "--flake", "flake", "--config", "nofile"]), @"
    exit 1
    error: cannot read the configuration `nofile`: No such file or directory (os error 2)
    help: check the path given to --config
    ");
}

#[test]
fn an_unknown_vm_is_an_error_of_every_command_that_takes_one() {
    let world = world();
    let expected = "exit 1\nerror: there is no VM named `nobody`\nhelp: no VM is running; `mvm run --flake DIR` starts one\n";
    for args in [
        &["stop", "nobody"][..],
        &["ssh", "nobody"],
        &["exec", "nobody", "--", "true"],
        &["logs", "nobody"],
        &["forward", "nobody", "0:80"],
        &["destroy", "--force", "nobody"],
    ] {
        assert_eq!(said(&world, args), expected, "{args:?}");
    }
}

#[test]
fn removal_without_a_terminal_to_ask_on_needs_force() {
    let world = world();
    assert_eq!(said(&world, &["destroy", "--all"]), "exit 0\n", "there is nothing to ask about");
    let row = VmRow {
        id: "v-01234567".into(),
        name: "web".into(),
        build: "b".into(),
        state: VmState::Stopped,
        detail: None,
        spec: "{}".into(),
        process: None,
        created_ms: 1,
        changed_ms: 1,
        beside: None,
    };
    let mut store = Store::open(&world.state().join("state.db")).unwrap().store;
    assert!(store.insert_vm(&row).unwrap());
    assert_snapshot!(said(&world, &["destroy", "web"]), @"
    exit 2
    error: Remove web (v-01234567, stopped) with disks and logs? There is no terminal to answer on
    help: add --force
    ");
    assert_eq!(said(&world, &["destroy", "--force", "web"]), "exit 0\nremoved web (v-01234567)\n");
}

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
fn init_writes_a_flake_and_says_how_to_go_on() {
    let world = World::empty();
    let output = world.mvm(["init", "my web", "--template", "gateway"]).output().unwrap();
    assert_snapshot!(stdout(&output), @"
    mvm run --setup --flake 'my web' --detach
    curl http://127.0.0.1:8080/
    ");
    assert_snapshot!(stderr(&output), @"
    wrote my web/flake.nix
    wrote my web/mvm.toml
    wrote my web/mvm-profiles.toml
    wrote my web/modules/status.nix
    wrote my web/www/index.html
    wrote my web/.gitignore

    next:
    ");
    assert!(world.path("my web/www/index.html").exists());
}

#[test]
fn init_leaves_alone_what_is_there_unless_it_is_forced() {
    let world = world();
    assert_snapshot!(said(&world, &["init", "flake"]), @"
    exit 1
    error: `flake` has `flake.nix` already; nothing was written
    help: give another directory, or --force to write over files
    ");
    assert!(!world.path("flake/.gitignore").exists());
    world.ok(["init", "flake", "--force"]);
    assert_ne!(fs::read_to_string(world.path("flake/flake.nix")).unwrap(), FLAKE);
}

#[test]
fn init_in_a_git_tree_says_that_the_files_have_to_be_added() {
    let world = World::empty();
    fs::create_dir_all(world.path("repo/.git")).unwrap();
    assert!(world.ok(["init", "repo/x"]).starts_with("git add repo/x\nmvm build --flake repo/x --list\n"));
}

#[test]
fn the_help_of_init_lists_the_templates() {
    let help = World::empty().ok(["init", "--help"]);
    for template in ["hello:", "gateway:", "python:", "node:", "Examples:"] {
        assert!(help.contains(template), "no {template} in {help}");
    }
}

/// The names of all commands, as `mvm --help` lists them.
fn commands(world: &World) -> Vec<String> {
    let help = world.ok(["--help"]);
    let lines =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // Continued lines are indented further.
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names.map(|line| line.split_whitespace().next().unwrap().to_string()).collect()
}

#[test]
fn every_command_explains_itself() {
    let world = world();
    let commands = commands(&world);
    for name in ["build", "run", "status", "setup"] {
        assert!(commands.iter().any(|command| command == name), "no {name} in {commands:?}");
    }
    for command in commands.into_iter().filter(|command| command != "help") {
        let help = world.ok([&command, "--help"]);
        assert!(help.contains(&format!("Usage: mvm {command}")), "{help}");
        assert!(
            world.ok(["man", &command]).contains(&format!(".TH mvm-{command}")),
            "no manual of {command}"
        );
    }
}

#[test]
fn every_command_of_the_cluster_explains_itself() {
    let world = world();
    for command in ["init", "up", "status", "down", "logs"] {
        let help = world.ok(["dev", "cluster", command, "--help"]);
        let usage = format!("Usage: mvm dev cluster {command}");
        assert!(help.contains(&usage) && help.contains("Examples:"), "{help}");
    }
    assert!(world.ok(["completions", "bash"]).contains("dev__subcmd__cluster__subcmd__up"));
}

#[test]
fn a_cluster_that_was_never_made_is_told_and_nothing_of_it_is_begun() {
    let world = world();
    assert_snapshot!(said(&world, &["dev", "cluster", "up"]), @"
    exit 1
    error: there is no cluster in this state: `[DIR]/state/cluster/coordinator.toml` is missing
    help: `mvm dev cluster init` writes what is missing
    ");
    assert_snapshot!(said(&world, &["dev", "cluster", "down"]), @"
    exit 0
    nothing of the cluster runs
    ");
    assert_snapshot!(said(&world, &["dev", "cluster", "logs"]), @"
    exit 0
    note: nothing was logged yet; `mvm dev cluster up` starts who does
    ");
    let output = world.mvm(["dev", "cluster", "status"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("There is no cluster in this state."));
    let json: serde_json::Value = serde_json::from_str(&world.ok(["status", "--json"])).unwrap();
    assert!(json["cluster"].is_null(), "{json}");
    assert!(!world.state().join("cluster").exists());
}

#[test]
fn wrong_words_of_the_cluster_are_told() {
    let world = world();
    assert_snapshot!(said(&world, &["dev", "cluster", "init", "--listen", "0.0.0.0:80"]), @"
    exit 2
    error: the gateways' address cannot be 0.0.0.0:80: a dev cluster is for this machine only
    help: give another, such as 127.0.0.1:8443
    ");
    assert_snapshot!(said(&world, &["dev", "cluster", "init", "--agent", "localhost"]), @"
    exit 2
    error: invalid value 'localhost' for '--agent <ADDR>': invalid socket address syntax

    For more information, try '--help'.
    ");
    // What is for the dev VM is not for the cluster.
    let mixed = said(&world, &["dev", "--recreate", "cluster", "up"]);
    assert!(mixed.starts_with("exit 2"), "{mixed}");
}

#[test]
fn the_files_of_a_cluster_are_written_once_and_told_as_they_are() {
    let world = world();
    let init = || -> serde_json::Value {
        serde_json::from_str(&world.ok(["dev", "cluster", "init", "--json"])).unwrap()
    };
    let (first, second) = (init(), init());
    let was = |told: &serde_json::Value, what: &str| {
        let files = told["files"].as_array().unwrap();
        files.len() == 8 && files.iter().all(|file| file["was"] == what)
    };
    assert!(was(&first, "missing"), "{first}");
    assert!(was(&second, "same"), "{second}");
    assert!(world.ok(["coordinator", "check"]).starts_with("2 routes, 1 node"));
    assert!(world.ok(["agent", "certs", "status"]).contains("coordinator  dev"));
    let status = world.ok(["status"]);
    assert!(status.contains("The cluster does not run; `mvm dev cluster up` starts it."), "{status}");
}

#[test]
fn what_only_mvm_itself_calls_is_not_in_the_help() {
    let commands = commands(&world());
    assert!(
        !commands.iter().any(|command| ["shim", "proxy", "probe-kvm"].contains(&command.as_str())),
        "{commands:?}"
    );
}

#[test]
fn every_shell_has_completions() {
    let world = world();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = world.ok(["completions", shell]);
        assert!(script.contains("mvm") && script.contains("destroy"), "{shell}: {script}");
    }
}

#[test]
fn the_manual_page_is_one() {
    let page = world().ok(["man"]);
    assert!(page.contains(".TH mvm 1"), "{page}");
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

/// What a command writes to a terminal.
fn on_terminal(mut command: Command) -> String {
    let pty = openpty(None, None).unwrap();
    let ends = [pty.slave.try_clone().unwrap(), pty.slave];
    let [out, err] = ends.map(Stdio::from);
    let mut child = command.stdout(out).stderr(err).spawn().unwrap();
    // The command holds the terminal's other end; here it would keep the reading from ending.
    drop(command);
    child.wait().unwrap();
    let mut text = Vec::new();
    // Without a writer a terminal ends with an error.
    let _ = File::from(pty.master).read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let mut world = world();
    let args = ["build", "--flake", "nowhere"];
    let coloured = on_terminal(world.mvm(args));
    assert!(coloured.contains("\x1b[1;31merror:"), "{coloured:?}");
    assert!(!said(&world, &args).contains('\x1b'));
    world.env("NO_COLOR", "1");
    let plain = on_terminal(world.mvm(args));
    assert!(plain.contains("error:") && !plain.contains('\x1b'), "{plain:?}");
}

#[test]
fn without_a_terminal_there_are_no_escape_sequences_even_where_a_builder_writes_them() {
    if !has_nix() {
        return;
    }
    let world = World::empty();
    // The name makes it a derivation that was never built, so its log is seen.
    let name = world.path("").file_name().unwrap().to_string_lossy().into_owned();
    let text = "{ outputs = _: { packages.x86_64-linux.default = derivation { name = \"NAME\";
        system = \"x86_64-linux\"; builder = \"/bin/sh\";
        args = [ \"-c\" \"printf '\\\\033[31mred\\\\n'; echo > $out\" ]; }; }; }";
    world.flake("flake", &text.replace("NAME", &name));
    let said = said(&world, &["--verbose", "build", "--flake", "flake"]);
    assert!(said.contains("> red\n"), "{said:?}");
    assert!(!said.contains('\x1b'), "{said:?}");
}

#[test]
fn a_demo_without_a_terminal_is_lines_and_touches_no_state() {
    let mut world = world();
    world.env("MVM_STATE_DIR", world.path("none").to_str().unwrap());
    let output = world.mvm(["tui", "--demo"]).output().unwrap();
    let lines = stderr(&output);
    assert!(output.status.success() && stdout(&output).is_empty(), "{lines}");
    for line in ["    build catalogue\n", "    ready gateway booted in ", "   failed queue\n"] {
        assert!(lines.contains(line), "no {line:?} in {lines}");
    }
    let events = world.ok(["--json", "tui", "--demo"]);
    let last: serde_json::Value = serde_json::from_str(events.lines().last().unwrap()).unwrap();
    assert_eq!(last["v"], 1);
    // What it prints can be played again.
    fs::write(world.path("again.jsonl"), &events).unwrap();
    assert_eq!(world.ok(["--json", "tui", "--demo", "again.jsonl"]), events);
    assert!(!world.path("none").exists());
}

#[test]
fn a_file_that_is_no_recording_is_an_error_that_names_the_line() {
    let world = world();
    fs::write(world.path("x.jsonl"), "oops\n").unwrap();
    assert_snapshot!(said(&world, &["tui", "--demo", "x.jsonl"]), @"
    exit 1
    error: line 1 of `x.jsonl` is no event: expected value at line 1 column 1
    help: `mvm tui --record FILE` writes recordings, and `tasks/*.jsonl` below the state directory are some
    ");
    assert_snapshot!(said(&world, &["tui", "--demo", "none.jsonl"]), @"
    exit 1
    error: the recording `none.jsonl` cannot be read: No such file or directory (os error 2)
    help: `mvm tui --record FILE` writes recordings, and `tasks/*.jsonl` below the state directory are some
    ");
}
