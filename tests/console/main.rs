//! `mvm tui` on a real terminal, driven by keys as a user drives it.
//!
//! Panes change; what is looked for are words that stay: titles, names, states.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod children;
mod day;
mod ends;
mod hostile;
mod saved;
mod surroundings;

use std::process::Command;

use support::World;
use support::terminal::Terminal;

/// Pasted text, as terminals send it.
const PASTE: &str = "\x1b[200~text\x1b[201~";

/// The size of most terminals here.
const SIZE: (u16, u16) = (120, 40);

/// What a shell does around the console: it shows whether the terminal is as it was.
const SHELL: &str = r#"
printf '\033]2;the shell\007before\n'
before=$(stty -g)
"$@"
code=$?
[ "$(stty -g)" = "$before" ] && modes=same || modes=other
echo "after: exit code $code, $modes modes"
"#;

/// `mvm tui` with these arguments, in a shell, in a terminal that says of itself what `env` gets to hear.
fn shell(world: &World, env: &[&str], args: &[&str]) -> Command {
    let mut command = plain(world, env, "sh");
    command.args(["-c", SHELL, "sh", env!("CARGO_BIN_EXE_mvm"), "tui"]).args(args);
    command
}

/// A program that knows nothing of the terminal around the test, nor of the user's own configuration.
fn plain(world: &World, env: &[&str], program: &str) -> Command {
    let mut command = world.program("env");
    for name in ["CI", "NO_COLOR", "COLORFGBG", "LANG", "LC_ALL", "LC_CTYPE", "MVM_ASCII", "FORCE_COLOR"] {
        command.env_remove(name);
    }
    command.env("XDG_CONFIG_HOME", world.path("config")).env("RUST_BACKTRACE", "0").env("SHELL", "/bin/sh");
    // By a program, as the terminal says some things last.
    command.args(env).arg(program);
    command
}

/// Opens the console from a shell, and waits until it is there.
fn open(world: &World, args: &[&str]) -> Terminal {
    open_in(world, &[], args)
}

/// The same, in another environment.
fn open_in(world: &World, env: &[&str], args: &[&str]) -> Terminal {
    let mut terminal = Terminal::start(shell(world, env, args), SIZE);
    terminal.see("1 Overview");
    terminal.see("Cluster");
    terminal
}

/// Waits for the shell's last word; the terminal has to be the shell's again, as it was.
fn expect_restored(terminal: &mut Terminal, code: i32) {
    terminal.end();
    let text = terminal.text();
    assert!(text.contains(&format!("after: exit code {code}, same modes")), "{text}");
    assert!(text.contains("before") && !text.contains("Overview"), "{text}");
    assert_eq!(terminal.modes(), mvm::terminal::Modes { alternate_scroll: true, ..Default::default() });
    assert!(terminal.has_cursor());
    assert_eq!(terminal.title(), Some("the shell"));
}
