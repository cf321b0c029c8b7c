//! The words: what is said about wrong ones, help, completions. No guest is booted here.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;
mod flakes;
mod output;
mod state;
#[path = "../support/mod.rs"]
mod support;
mod values;

use std::process::Command;

use support::{World, stderr, stdout};

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
