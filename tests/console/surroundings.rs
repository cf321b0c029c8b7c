//! The console fits the terminal it is in, and stays out of those it does not fit.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use crate::support::terminal::Terminal;
use crate::support::{World, stderr, stdout};
use crate::{SIZE, expect_restored, open, open_in, plain, shell};

/// Every page and a dialog, and back.
fn look_round(terminal: &mut Terminal) {
    for (page, title) in
        [("2", "Builds"), ("3", "No VM"), ("6", "No session"), ("7", "Log"), ("1", "Cluster")]
    {
        terminal.keys(page);
        terminal.see(title);
    }
    terminal.keys(":");
    terminal.see("Command");
    terminal.keys("\x1b");
    terminal.miss("Command");
}

/// A shell in a tab, whose output has every kind of colour.
fn print_colours(terminal: &mut Terminal) {
    terminal.keys("t");
    terminal.see("^B then");
    terminal.keys("printf '\\033[31ma\\033[92mb\\033[38;5;200mc\\033[48;2;1;200;3md\\033[m\\n'; exit\r");
    terminal.see("abcd");
    terminal.see("exit code 0");
    terminal.keys("x");
}

#[test]
fn where_nobody_looks_the_console_says_so_and_shows_the_status() {
    let world = World::empty();
    for (env, why) in [
        ("TERM=dumb", "no console, as the terminal cannot show a full screen (TERM is dumb)"),
        ("CI=true", "no console, as this is a CI job"),
    ] {
        let mut terminal = Terminal::start(shell(&world, &[env], &[]), SIZE);
        expect_restored(&mut terminal, 0);
        assert!(terminal.shows(why) && terminal.shows("No VM"), "{}", terminal.text());
        expect_lines_only(terminal.raw());
    }

    let mut piped = plain(&world, &[], "sh");
    piped.args(["-c", "\"$0\" tui | cat; \"$0\" tui </dev/null", env!("CARGO_BIN_EXE_mvm")]);
    let mut terminal = Terminal::start(piped, SIZE);
    terminal.end();
    let text = terminal.text();
    assert!(text.contains("no console, as standard output is not a terminal"), "{text}");
    assert!(text.contains("no console, as standard input is not a terminal"), "{text}");
    expect_lines_only(terminal.raw());

    let output =
        plain(&world, &[], env!("CARGO_BIN_EXE_mvm")).arg("tui").stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success() && stdout(&output).contains("No VM"), "{}", stdout(&output));
    assert!(stderr(&output).contains("no console"), "{}", stderr(&output));
}

/// Expects that nothing was drawn: no sequence but the shell's own title.
fn expect_lines_only(raw: &[u8]) {
    let text = String::from_utf8_lossy(raw).replace("\x1b]2;the shell\x07", "");
    assert!(!text.contains('\x1b'), "{text:?}");
}

#[test]
fn without_colours_none_are_sent() {
    let world = World::empty();
    for (env, coloured) in [("TERM=xterm-256color", true), ("NO_COLOR=1", false)] {
        let mut terminal = open_in(&world, &[env], &[]);
        look_round(&mut terminal);
        print_colours(&mut terminal);
        terminal.keys("q");
        expect_restored(&mut terminal, 0);
        assert_eq!(sent_colours(terminal.raw()).is_empty(), !coloured, "{env}");
    }
}

#[test]
fn a_terminal_of_16_colours_and_ascii_gets_nothing_else() {
    let world = World::empty();
    let mut terminal = open_in(&world, &["-u", "COLORTERM", "TERM=xterm", "MVM_ASCII=1"], &[]);
    look_round(&mut terminal);
    print_colours(&mut terminal);
    terminal.keys("q");
    expect_restored(&mut terminal, 0);
    let sent = sent_colours(terminal.raw());
    assert!(!sent.is_empty());
    for colour in sent {
        let fits = match colour.split(';').collect::<Vec<_>>()[..] {
            [_] => true,
            // How crossterm writes one of the sixteen.
            ["38" | "48", "5", index] => index.parse::<u8>().is_ok_and(|index| index < 16),
            _ => false,
        };
        assert!(fits, "{colour}");
    }
    let other: Vec<u8> = terminal.raw().iter().copied().filter(|byte| !byte.is_ascii()).collect();
    assert!(other.is_empty(), "{}", String::from_utf8_lossy(&other));
}

/// Colours that SGR sequences set, each as its parameters.
fn sent_colours(raw: &[u8]) -> Vec<String> {
    let mut colours = Vec::new();
    for sequence in String::from_utf8_lossy(raw).split("\x1b[").skip(1) {
        let Some(parameters) = sequence.split_once('m').map(|(parameters, _)| parameters) else { continue };
        if !parameters.bytes().all(|byte| byte.is_ascii_digit() || byte == b';' || byte == b':') {
            continue;
        }
        let mut rest = parameters.split(';');
        while let Some(first) = rest.next() {
            match first.parse::<u8>().unwrap_or(0) {
                38 | 48 => {
                    let kind = rest.next().unwrap();
                    let count = if kind == "5" { 1 } else { 3 };
                    let values: Vec<&str> = rest.by_ref().take(count).collect();
                    colours.push(format!("{first};{kind};{}", values.join(";")));
                }
                // The terminal's own.
                39 | 49 => {}
                30..=49 | 90..=107 => colours.push(first.into()),
                _ => {}
            }
        }
    }
    colours
}

#[test]
fn a_terminal_too_small_says_so_until_it_grows() {
    let world = World::empty();
    let mut terminal = open(&world, &[]);
    terminal.resize((20, 5));
    terminal.see("too small");
    assert!(!terminal.shows("Cluster"));
    terminal.keys(":?3");
    terminal.resize(SIZE);
    terminal.see(":?3");
    // Escape is a key of its own only once the console has taken it for one.
    terminal.keys("\x1b");
    terminal.miss(":?3");
    terminal.keys("1");
    terminal.see("Cluster");
    terminal.resize((2, 1));
    terminal.keys("q");
    terminal.resize(SIZE);
    terminal.end();
}

#[test]
fn after_a_storm_of_sizes_the_screen_is_right() {
    let world = World::empty();
    let mut terminal = open(&world, &[]);
    let mut seed = 7_u32;
    let mut number = |most: u32| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        1 + (seed >> 16) % most
    };
    for _ in 0..50 {
        terminal.resize((number(300) as u16, number(100) as u16));
    }
    terminal.resize(SIZE);
    // The header is whole once it was found out what this machine works with.
    let whole =
        |terminal: &Terminal| terminal.line(0).contains("nix") && terminal.line(SIZE.1 - 1).contains("quit");
    terminal.wait("header and footer", whole);
    let mut fresh = open(&world, &[]);
    fresh.wait("header and footer", whole);
    let expected = fresh.text();
    terminal.wait("the screen of a console that was never resized", |terminal| terminal.text() == expected);
}

#[test]
fn what_is_wrong_in_the_configuration_is_named_and_the_rest_counts() {
    let world = World::empty();
    fs::create_dir_all(world.path("config/mvm")).unwrap();
    let write = |text: &str| fs::write(world.path("config/mvm/config.toml"), text).unwrap();
    for (text, named) in [
        ("[console]\ntheme = \"no-such-theme\"\n[keys]\nquit = [\"Q\"]\n", "no-such-theme"),
        ("[keys]\nquit = [\"Q\"]\nbuild = [\"hyper-q\"]\n", "hyper-q"),
        ("[keys]\nquit = [\"Q\"]\nno-such-command = [\"x\"]\n", "no-such-command"),
    ] {
        write(text);
        let mut terminal = open(&world, &[]);
        terminal.see(named);
        terminal.keys("2q3");
        terminal.see("No VM");
        terminal.keys("Q");
        expect_restored(&mut terminal, 0);
    }
    write("this is no TOML");
    let mut terminal = open(&world, &[]);
    terminal.see("config.toml");
    terminal.keys("q");
    expect_restored(&mut terminal, 0);
}

#[test]
fn idle_it_writes_nothing() {
    let world = World::empty();
    let mut terminal = open(&world, &[]);
    look_round(&mut terminal);
    // No event says that nothing will come: all there is to do is listen for a while.
    terminal.wait("a second of silence", |_| true);
    while terminal.listen(Duration::from_secs(1)) > 0 {}
    assert_eq!(terminal.listen(Duration::from_secs(4)), 0);
    terminal.keys("2");
    terminal.see("No task");
}
