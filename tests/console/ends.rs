//! However the console ends, the terminal is the shell's again.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::Signal;

use crate::support::terminal::Terminal;
use crate::support::{DEADLINE, World, wait_until};
use crate::{PASTE, SIZE, expect_restored, open, open_in, plain};

#[test]
fn q_gives_the_terminal_back() {
    let world = World::empty();
    let mut terminal = open(&world, &[]);
    let modes = terminal.modes();
    assert!(modes.alternate_screen && modes.bracketed_paste && modes.focus && modes.sgr_mouse);
    assert!(!terminal.has_cursor());
    assert_eq!(terminal.title(), Some("mvm"));
    terminal.keys("q");
    expect_restored(&mut terminal, 0);
    world.expect_nothing_left();
}

#[test]
fn ctrl_c_in_a_dialog_gives_the_terminal_back() {
    let world = World::empty();
    let mut terminal = open(&world, &[]);
    terminal.keys(":");
    terminal.see("Command");
    terminal.keys("\x03");
    expect_restored(&mut terminal, 0);
}

#[test]
fn a_panic_gives_the_terminal_back_before_it_is_reported() {
    let world = World::empty();
    let mut terminal = open_in(&world, &["MVM_TEST_PANIC=paste"], &[]);
    terminal.keys(PASTE);
    expect_restored(&mut terminal, 101);
    assert!(terminal.shows("as MVM_TEST_PANIC wishes"), "{}", terminal.text());
}

#[test]
fn signals_from_outside_give_the_terminal_back() {
    let world = World::empty();
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
        let mut terminal = open(&world, &[]);
        terminal.signal("mvm", signal);
        expect_restored(&mut terminal, 130);
    }
    world.expect_nothing_left();
}

#[test]
fn a_terminal_that_goes_away_takes_the_console_with_it() {
    let world = World::empty();
    drop(open(&world, &[]));
    world.expect_nothing_left();
}

#[test]
fn a_terminal_that_goes_away_without_a_signal_takes_the_console_with_it() {
    let world = World::empty();
    let pty = nix::pty::openpty(None, None).unwrap();
    // What the console inherits of it would keep it from being hung up.
    for end in [&pty.master, &pty.slave] {
        fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
    }
    let mut console = plain(&world, &[], env!("CARGO_BIN_EXE_mvm"));
    // The leader of a session without a controlling terminal hears of no hang-up.
    console.arg("tui").env("TERM", "xterm").stderr(Stdio::null());
    console.stdin(pty.slave.try_clone().unwrap()).stdout(pty.slave);
    // SAFETY: setsid is async-signal-safe and touches nothing of the parent's.
    unsafe { console.pre_exec(|| Ok(nix::unistd::setsid().map(drop)?)) };
    let mut child = console.spawn().unwrap();
    // Its descriptors of the terminal would keep that open.
    drop(console);
    let mut master = std::fs::File::from(pty.master);
    let mut seen = Vec::new();
    while !seen.windows(6).any(|bytes| bytes == b"?1049h") {
        let mut buffer = [0; 4096];
        let count = master.read(&mut buffer).unwrap();
        seen.extend_from_slice(&buffer[..count]);
    }
    drop(master);
    wait_until(DEADLINE, "the end of the console", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn failures_are_printed_in_full_on_the_shells_screen() {
    let world = World::empty();
    let mut terminal = open(&world, &["--flake", "nowhere"]);
    terminal.keys("2b");
    terminal.see("nowhere");
    terminal.see("✘");
    terminal.keys("q");
    expect_restored(&mut terminal, 0);
    terminal.see("nowhere failed:");
    terminal.see("error: no directory `nowhere`");
}

#[test]
fn suspended_the_console_leaves_the_terminal_to_the_shell_until_fg() {
    let world = World::empty();
    let mut bash = plain(&world, &[], "bash");
    bash.args(["--norc", "--noprofile", "-i"]).env("PS1", "ready> ").env_remove("PROMPT_COMMAND");
    bash.env("MVM", env!("CARGO_BIN_EXE_mvm"));
    let mut terminal = Terminal::start(bash, SIZE);
    terminal.see("ready>");
    terminal.keys("stty -g >before; \"$MVM\" tui\r");
    terminal.see("1 Overview");
    terminal.keys("3");
    terminal.see("No VM");

    for stop in ["\x1a", ""] {
        if stop.is_empty() {
            terminal.signal("mvm", Signal::SIGTSTP);
        } else {
            terminal.keys(stop);
        }
        terminal.see("Stopped");
        assert!(!terminal.modes().alternate_screen && !terminal.modes().focus && terminal.has_cursor());
        terminal.keys("clear; stty -g | cmp - before && echo as bef''ore\r");
        terminal.see("as before");
        // What else writes on the screen, and another size meanwhile, must not show afterwards.
        terminal.resize((SIZE.0 - 7, SIZE.1 - 3));
        terminal.keys("echo scrib''ble; fg\r");
        terminal.see("No VM");
        assert!(terminal.modes().alternate_screen && !terminal.shows("scribble"));
        assert!(terminal.line(SIZE.1 - 4).contains("quit"), "{}", terminal.text());
        terminal.resize(SIZE);
        terminal.wait("the footer in the last line", |terminal| terminal.line(SIZE.1 - 1).contains("quit"));
    }
    terminal.keys("q");
    terminal.wait("the shell", |terminal| !terminal.modes().alternate_screen);
    terminal.keys("stty -g | cmp - before && exit 7\r");
    assert_eq!(terminal.end(), mvm::terminal::pty::Exit::Code(7), "{}", terminal.text());
}

#[test]
fn a_terminal_that_takes_nothing_is_an_error_and_not_a_panic() {
    let world = World::empty();
    // Its output is open for reading only.
    let mut sh = plain(&world, &[], "sh");
    sh.args(["-c", "\"$0\" tui 1<\"$(tty)\"; echo \"code $?\" >&2", env!("CARGO_BIN_EXE_mvm")]);
    let mut terminal = Terminal::start(sh, SIZE);
    terminal.end();
    terminal.see("error:");
    terminal.see("code 1");
}
