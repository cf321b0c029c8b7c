//! What builds and guests print never reaches the terminal around the console.

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
    std::fs::write(flake.join("builder.sh"), BUILDER.replace("MARK", &mark)).unwrap();
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
    assert_eq!(terminal.title(), Some("mvm"));
    assert_eq!((terminal.clipboard(), terminal.bells()), (&[][..], 0));
    assert!(terminal.modes().alternate_screen && terminal.modes().sgr_mouse && !terminal.has_cursor());
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
    let modes = terminal.modes();
    assert!(modes.alternate_screen && modes.sgr_mouse && modes.focus && modes.bracketed_paste);
    assert!(terminal.title().is_some_and(|title| title.starts_with("mvm")), "{:?}", terminal.title());
    terminal.keys("exit 3\r");
    terminal.see("exit code 3");
    terminal.keys("x");
    terminal.see("No session");
    terminal.keys("q");
    expect_restored(&mut terminal, 0);
}
