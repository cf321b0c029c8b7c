//! What is written on a terminal, and where there is none.

use std::fs::{self, File};
use std::io::Read;
use std::process::{Command, Stdio};

use crate::support::{World, stderr, stdout};
use crate::{has_nix, said, world};
use insta::assert_snapshot;
use nix::pty::openpty;

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
