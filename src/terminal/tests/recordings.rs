//! Alacritty's own recordings, replayed from its sources as cargo has them, and compared cell by cell.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use alacritty_terminal::term::color::Colors;
use serde_json::Value;

use crate::terminal::Size;
use crate::terminal::grid::{Colour, Width};
use crate::terminal::screen::{Effects, Screen};

/// Where the emulator's recordings are, or why they are not there.
fn recordings() -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // Sources for other systems are not fetched.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--offline", "--locked", "--filter-platform", &platform])
        .arg("--manifest-path")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .output()
        .map_err(|error| format!("cargo does not run: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|package| package["name"] == "alacritty_terminal").unwrap();
    let dir = Path::new(package["manifest_path"].as_str().unwrap()).with_file_name("tests").join("ref");
    if dir.is_dir() { Ok(dir) } else { Err(format!("there is no {}", dir.display())) }
}

#[test]
fn the_emulators_reference_recordings_replay_to_their_grids() {
    let dir = match recordings() {
        Ok(dir) => dir,
        Err(reason) => {
            eprintln!("SKIPPED: no sources of alacritty_terminal with its recordings: {reason}");
            return;
        }
    };
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let differing: Vec<_> = names.iter().filter_map(|dir| replay(dir).err()).collect();
    assert!(differing.is_empty(), "{} of {}:\n{}", differing.len(), names.len(), differing.join("\n"));
    assert!(names.len() >= 45, "only {} recordings", names.len());
}

fn replay(dir: &Path) -> Result<(), String> {
    let read = |name: &str| fs::read(dir.join(name)).unwrap();
    let json = |name: &str| serde_json::from_slice::<Value>(&read(name)).unwrap();
    let number = |value: &Value| value.as_u64().unwrap() as usize;
    let (size, grid, config) = (json("size.json"), json("grid.json"), json("config.json"));
    let (columns, rows) = (number(&size["columns"]), number(&size["screen_lines"]));

    let mut screen = Screen::new(Size::new(columns as u16, rows as u16), number(&config["history_size"]));
    let mut effects = Effects::default();
    // As they would come from a PTY.
    for bytes in read("alacritty.recording").chunks(4095) {
        screen.feed(bytes, Instant::now(), &mut effects);
    }
    assert!(!effects.failed);

    // The lowest line comes first. The recorded history is as long as it may be, ours as it is.
    let lines = grid["raw"]["inner"].as_array().unwrap();
    let name = dir.file_name().unwrap().to_string_lossy();
    let kept = screen.history() + rows;
    assert!(kept <= lines.len(), "{name}: {kept} lines, expected {}", lines.len());
    for (from_bottom, line) in lines.iter().enumerate() {
        let expected = line["inner"].as_array().unwrap().iter();
        let expected: Vec<_> = expected.map(|cell| description(cell, screen.term.colors())).collect();
        assert_eq!(expected.len(), columns);
        if from_bottom >= kept {
            let blank =
                expected.iter().all(|cell| *cell == (' ', vec![], Colour::Default, Colour::Default, vec![]));
            assert!(blank, "{name}: line {from_bottom} from below is lost");
            continue;
        }
        let above = from_bottom.saturating_sub(rows - 1);
        screen.scroll_to_bottom();
        screen.scroll(above as i32);
        let row = (rows - 1 + above - from_bottom) as u16;
        for (column, (cell, expected)) in screen.grid().row(row).zip(expected).enumerate() {
            let got = described(&cell);
            if got != expected {
                return Err(format!(
                    "{name}, {from_bottom} from below, column {column}: {got:?}, not {expected:?}"
                ));
            }
        }
    }
    Ok(())
}

type Description = (char, Vec<char>, Colour, Colour, Vec<&'static str>);

fn described(cell: &crate::terminal::grid::Cell<'_>) -> Description {
    let style = cell.style;
    let flags = [
        (style.bold, "BOLD"),
        (style.dim, "DIM"),
        (style.hidden, "HIDDEN"),
        (style.reverse, "INVERSE"),
        (style.italic, "ITALIC"),
        (cell.width == Width::Spacer, "SPACER"),
        (style.strike, "STRIKEOUT"),
        (style.underline, "UNDERLINE"),
        (cell.width == Width::Wide, "WIDE_CHAR"),
    ];
    let flags = flags.into_iter().filter_map(|(set, name)| set.then_some(name)).collect();
    (cell.c, cell.marks.to_vec(), style.foreground, style.background, flags)
}

/// What a recorded cell should look like: the emulator's names for things put into ours.
fn description(cell: &Value, palette: &Colors) -> Description {
    let c = cell["c"].as_str().unwrap().chars().next().unwrap();
    let marks = cell["extra"]["zerowidth"].as_array().into_iter().flatten();
    let marks = marks.map(|mark| mark.as_str().unwrap().chars().next().unwrap()).collect();
    let mut flags: Vec<_> = cell["flags"].as_str().unwrap().split(" | ").filter_map(flag).collect();
    flags.sort_unstable();
    flags.dedup();
    (
        if c == '\t' { ' ' } else { c },
        marks,
        colour(&cell["fg"], palette),
        colour(&cell["bg"], palette),
        flags,
    )
}

fn flag(name: &str) -> Option<&'static str> {
    Some(match name {
        "" | "WRAPLINE" => return None,
        "INVERSE" => "INVERSE",
        "BOLD" => "BOLD",
        "ITALIC" => "ITALIC",
        "DIM" => "DIM",
        "HIDDEN" => "HIDDEN",
        "STRIKEOUT" => "STRIKEOUT",
        "WIDE_CHAR" => "WIDE_CHAR",
        "WIDE_CHAR_SPACER" | "LEADING_WIDE_CHAR_SPACER" => "SPACER",
        name if name.ends_with("UNDERLINE") || name == "UNDERCURL" => "UNDERLINE",
        name => panic!("{name}"),
    })
}

fn colour(value: &Value, palette: &Colors) -> Colour {
    const NAMES: [&str; 16] = [
        "Black",
        "Red",
        "Green",
        "Yellow",
        "Blue",
        "Magenta",
        "Cyan",
        "White",
        "BrightBlack",
        "BrightRed",
        "BrightGreen",
        "BrightYellow",
        "BrightBlue",
        "BrightMagenta",
        "BrightCyan",
        "BrightWhite",
    ];
    let part = |part: &Value| part.as_u64().unwrap() as u8;
    if let Some(name) = value["Named"].as_str() {
        let index = NAMES.iter().position(|known| *known == name);
        assert!(index.is_some() || matches!(name, "Foreground" | "Background"), "{name}");
        index.map_or(Colour::Default, |index| Colour::Indexed(index as u8))
    } else if let Some(index) = value["Indexed"].as_u64() {
        // The recording may have changed it.
        palette[index as usize].map_or(Colour::Indexed(index as u8), |rgb| Colour::Rgb(rgb.r, rgb.g, rgb.b))
    } else {
        let rgb = &value["Spec"];
        Colour::Rgb(part(&rgb["r"]), part(&rgb["g"]), part(&rgb["b"]))
    }
}
