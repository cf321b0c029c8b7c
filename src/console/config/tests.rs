use proptest::prelude::*;
use ratatui::style::{Color, Style};

use super::*;
use crate::console::theme::{Depth, Role};

const COMMANDS: [&str; 4] = ["quit", "next-pane", "search", "zoom"];

fn parse(text: &str) -> (Config, Vec<String>) {
    let (config, problems) = Config::parse(text, Path::new("config.toml"), &COMMANDS);
    (config, problems.iter().map(ToString::to_string).collect())
}

fn around(depth: Depth, light: Option<bool>) -> Surroundings {
    Surroundings { depth, ascii: false, light }
}

#[test]
fn the_example_says_what_the_defaults_are() {
    assert_eq!(parse(EXAMPLE), (Config::default(), vec![]));
    // Its settings are commented out; put in force, they change nothing.
    let in_force: String = EXAMPLE
        .lines()
        .take_while(|line| *line != "[keys]")
        .map(|line| line.strip_prefix("#: ").unwrap_or(line).to_string() + "\n")
        .collect();
    for setting in SETTINGS.iter().filter(|setting| **setting != "ascii") {
        assert!(in_force.contains(&format!("\n{setting} = ")), "{setting} is missing");
    }
    assert_eq!(parse(&in_force), (Config { ascii: Some(false), ..Config::default() }, vec![]));
}

#[test]
fn the_examples_of_keys_and_themes_are_right() {
    let in_force = EXAMPLE.replace("\n#: ", "\n");
    let commands: Vec<&str> = COMMANDS.to_vec();
    let (config, problems) = Config::parse(&in_force, Path::new("config.toml"), &commands);
    assert_eq!(problems, []);
    assert!(!config.keys.is_empty() && !config.themes.is_empty());
}

#[test]
fn every_part_is_taken_over() {
    let (config, problems) = parse(
        r##"
        [console]
        theme = "mine"
        ascii = true
        mouse = false
        prefix = "ctrl-a"
        scrollback = 0
        log_limit_mib = 8
        [keys]
        quit = ["ctrl-q", "Q"]
        zoom = "f11"
        search = []
        [themes.mine]
        base = "light"
        error = { fg = "#ff0000", bg = "42", bold = true }
        "##,
    );
    assert_eq!(problems, [""; 0]);
    assert_eq!(
        (config.ascii, config.mouse, config.scrollback, config.log_limit_mib),
        (Some(true), false, 0, 8)
    );
    assert_eq!(config.prefix.to_string(), "ctrl-a");
    let keys = |name: &str| config.keys[name].iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(keys("quit"), ["ctrl-q", "Q"]);
    assert_eq!(keys("zoom"), ["f11"]);
    assert!(keys("search").is_empty());
    let theme = config.theme(&around(Depth::True, None));
    assert_eq!(
        theme.style(Role::Error),
        Style::new().fg(Color::Rgb(255, 0, 0)).bg(Color::Indexed(42)).bold()
    );
    let light = Config { theme: "light".into(), ..Config::default() }.theme(&around(Depth::True, None));
    assert_eq!(theme.style(Role::Ok), light.style(Role::Ok));
    assert!(theme.ascii);
}

#[test]
fn what_is_wrong_is_named_and_the_rest_counts() {
    let (config, problems) = parse(
        r##"[console]
theme = "drak"
mouse = "no"
scrolback = 5
scrollback = 20000000
prefix = "ctlr-b"
ascii = true
[keys]
qiut = ["q"]
quit = ["ctrl-q", 3]
next-pane = ["shift-1", "ctrl-"]
zoom = ["z", "f99"]
search = ["z", "/"]
[themes.mine]
base = "drak"
eror = { fg = "red" }
error = { fg = "reddish", blod = true, bold = true }
[themes.dark]
[colours]
"##,
    );
    insta::assert_snapshot!(problems.join("\n"));
    assert_eq!(config.ascii, Some(true));
    assert_eq!(config.scrollback, Config::default().scrollback);
    assert_eq!(config.keys["zoom"].len(), 1);
    assert_eq!(config.keys["search"].len(), 2);
    assert_eq!(config.keys.len(), 2);
    assert_eq!(config.themes.len(), 1);
}

#[test]
fn what_is_no_toml_leaves_the_defaults_and_one_problem_with_its_line() {
    let (config, problems) = parse("[console]\nmouse = false\ntheme = \"dark\nascii = true\n");
    assert_eq!(config, Config::default());
    assert_eq!(problems.len(), 1);
    assert!(problems[0].starts_with("config.toml:3: not valid TOML: "), "{}", problems[0]);
}

#[test]
fn a_file_that_cannot_be_used_is_one_problem() {
    let dir = tempfile::tempdir().unwrap();
    let load = |name: &str| {
        let (config, problems) = Config::load(&dir.path().join(name), &COMMANDS);
        assert_eq!(config, Config::default());
        problems.into_iter().map(|problem| problem.what).collect::<Vec<_>>()
    };
    assert_eq!(load("absent.toml"), [""; 0]);
    std::fs::write(dir.path().join("large.toml"), "#".repeat(MOST_BYTES as usize + 1)).unwrap();
    assert_eq!(load("large.toml"), ["is larger than 1024 KiB"]);
    std::fs::write(dir.path().join("bytes.toml"), b"a = \"\xff\"").unwrap();
    assert_eq!(load("bytes.toml"), ["is not UTF-8"]);
    std::fs::create_dir(dir.path().join("dir.toml")).unwrap();
    assert_eq!(load("dir.toml"), ["is not a file"]);
}

#[test]
fn auto_follows_the_terminal_and_a_name_does_not() {
    let error = |name: &str, light| {
        let config = Config { theme: name.into(), ..Config::default() };
        config.theme(&around(Depth::True, light)).style(Role::Error)
    };
    let (dark, light) = (error("dark", Some(true)), error("light", Some(false)));
    assert_ne!(dark, light);
    assert_eq!(error("auto", None), dark);
    assert_eq!(error("auto", Some(false)), dark);
    assert_eq!(error("auto", Some(true)), light);
}

#[test]
fn a_hostile_file_cannot_disturb_the_screen() {
    let (_, problems) = parse("\"\\u001b]52;c;AAAA\\u0007x\\ny\" = 1\n[keys]\nquit = [\"\\u001b[2Jq\"]\n");
    assert_eq!(problems.len(), 2);
    for problem in &problems {
        assert!(!problem.chars().any(|c| c.is_control() && c != '\n'), "{problem:?}");
        assert_eq!(problem.lines().count(), 2, "{problem:?}");
    }
    let (_, problems) = parse(&format!("x = {}{}", "[".repeat(100_000), "]".repeat(100_000)));
    assert_eq!(problems.len(), 1);
    let many: String = (0..10_000).map(|n| format!("k{n} = 1\n")).collect();
    assert!(parse(&many).1.len() <= 50);
}

proptest! {
    #[test]
    fn no_text_breaks_the_reader(text in r#"(\[(console|keys|themes\.a)\]\n|[a-z]{1,6} ?= ?("[a-z#-]{0,8}"|[0-9-]{1,30}|true|\{ fg = "1" \}|\["q"\])\n|.\n){0,8}"#) {
        let (_, problems) = parse(&text);
        prop_assert!(problems.iter().all(|problem| problem.contains("\nhelp: ")));
    }
}
