//! Options and names that cannot be.

use crate::{said, world};
use insta::assert_snapshot;
use mvm::store::Store;
use mvm::store::vms::{VmRow, VmState};

#[test]
fn a_reference_that_begins_with_a_dash_is_wrong_usage() {
    assert_snapshot!(said(&world(), &["build", "--flake", "--impure"]), @"
    exit 2
    error: the flake reference `--impure` begins with `-`
    help: if it is a directory, write `./--impure`
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
