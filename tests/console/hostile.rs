//! What builds and guests print never reaches the terminal around the console.

use std::fs;

use crate::support::World;
use crate::support::terminal::Terminal;
use crate::{SIZE, expect_restored, open};

/// A builder that prints what a terminal would obey, then does not end until the console does.
const BUILDER: &str = r#"
esc=$(printf '\033'); bel=$(printf '\007')
echo "${esc}]2;owned${bel}${esc}]52;c;b3duZWQ=${bel}${esc}[2J${esc}[31;1Hmoved${esc}[?1049l${esc}[?25h${esc}[?1000l${esc}c${bel}"
printf '\377\376 \302\233 2J invalid \200\201\n'
printf 'bidi \342\200\256 desrever \342\200\213\342\200\215 wide \357\274\241 mark e\314\201\314\201\n'
head -c 1048576 /dev/zero | tr '\0' x; echo
for i in 1 2 3 4 5 6 7 8 9; do echo "tab	line $i"; done
echo all-is-said
sleep 600; : MARK
"#;

/// Waits for the first and the last line.
fn frame_is_whole(terminal: &mut Terminal) {
    terminal.wait("the first and the last line", |terminal| {
        terminal.line(0).contains("1 Overview") && terminal.line(SIZE.1 - 1).contains("quit")
    });
}

/// Expects that the terminal is the console's own still.
fn expect_untouched(terminal: &Terminal) {
    let modes = terminal.modes();
    assert!(modes.alternate_screen && modes.sgr_mouse && modes.focus && modes.bracketed_paste, "{modes:?}");
    assert!(terminal.title().is_some_and(|title| title.starts_with("mvm")), "{:?}", terminal.title());
    assert_eq!((terminal.clipboard(), terminal.bells()), (&[][..], 0));
}

#[test]
fn what_a_build_prints_disturbs_neither_the_screen_nor_the_terminal() {
    let world = World::new();
    let mark = world.path("hostile").display().to_string();
    let flake = world.flake(
        "hostile",
        "{ outputs = _: { packages.x86_64-linux.default = derivation { name = \"hostile\";
            system = \"x86_64-linux\"; builder = \"/bin/sh\"; PATH = \"/usr/bin:/bin\";
            args = [ ./builder.sh ]; }; }; }",
    );
    fs::write(flake.join("builder.sh"), BUILDER.replace("MARK", &mark)).unwrap();
    let mut terminal = open(&world, &["--flake", flake.to_str().unwrap()]);
    terminal.keys("2b");
    terminal.see("all-is-said");
    for page in ["1", "2", "z", "z", "3", "2"] {
        terminal.keys(page);
        frame_is_whole(&mut terminal);
        // Borders and scroll bars.
        let mut edges = (1..SIZE.1 - 1).filter_map(|row| terminal.line(row).chars().last());
        assert!(edges.all(|edge| ('\u{2500}'..='\u{25ff}').contains(&edge)), "{}", terminal.text());
    }
    expect_untouched(&terminal);
    terminal.keys("q");
    terminal.see("Quit?");
    terminal.keys("y");
    expect_restored(&mut terminal, 0);
    world.expect_nothing_left();
}

#[test]
fn what_a_session_prints_stays_in_its_tab() {
    let world = World::empty();
    let mut terminal = open(&world, &[]);
    terminal.keys("t");
    terminal.see("^B then");
    // Title, a reset, the other screen, the mouse, the cursor's place, and an update that does not end.
    terminal.keys(concat!(
        r"printf '\033]2;owned\007\033c\033[?1049h\033[?1049l\033[?1000l\033[?1004l\033[?2004l\033[99;1H'; ",
        r"printf '\033[?2026h'; printf 'over-%s\n' now",
        "\r"
    ));
    terminal.see("over-now");
    frame_is_whole(&mut terminal);
    expect_untouched(&terminal);
    terminal.keys("exit 3\r");
    terminal.see("exit code 3");
    terminal.keys("x");
    terminal.see("No session");
    terminal.keys("q");
    expect_restored(&mut terminal, 0);
}

#[test]
fn what_a_guest_prints_on_its_console_disturbs_nothing() {
    let world = World::new();
    let flake = world.odd_guest(
        "odd",
        "esc=$(printf '\\033')
         echo \"${esc}]2;owned${esc}\\\\${esc}]52;c;b3duZWQ=${esc}\\\\${esc}[2J${esc}c${esc}[?1049l${esc}[?1000l\"
         printf '\\377\\376 \\342\\200\\256 \\302\\2332J\\n'
         echo all-is-said; exec /bin/busybox sleep 2147483647",
    );
    let mut terminal = open(&world, &["--flake", flake.to_str().unwrap()]);
    terminal.keys("R3\r");
    terminal.wait("the guest's words", |_| console(&world).contains("all-is-said"));
    for key in ["z", "z", "1", "3"] {
        terminal.keys(key);
        frame_is_whole(&mut terminal);
    }
    terminal.see("booting");
    expect_untouched(&terminal);
    terminal.keys("X");
    terminal.see("at once");
    terminal.keys("y");
    terminal.miss("booting");
    terminal.keys("2");
    terminal.see("✘");
    expect_untouched(&terminal);
    terminal.keys("q");
    expect_restored(&mut terminal, 0);
    world.expect_nothing_left();
}

/// What the only guest of the world wrote on its console.
fn console(world: &World) -> String {
    let dirs = fs::read_dir(world.state().join("vms")).into_iter().flatten().flatten();
    let files = dirs.flat_map(|dir| fs::read_dir(dir.path()).into_iter().flatten().flatten());
    let logs = files.filter(|file| file.file_name().to_string_lossy().starts_with("console"));
    logs.map(|log| String::from_utf8_lossy(&fs::read(log.path()).unwrap_or_default()).into_owned()).collect()
}
