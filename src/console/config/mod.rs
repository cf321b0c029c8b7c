//! The user's configuration of the console. Whatever is wrong in it is named; the rest counts.

pub mod reader;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::chord::Chord;
use super::surroundings::Surroundings;
use super::theme::{Palette, Theme};
pub use reader::Problem;
use reader::{Entry, Reader, entries};

/// The configuration with every default, each explained.
pub const EXAMPLE: &str = include_str!("../../../assets/console.toml");

/// Largest file read, in bytes.
const MOST_BYTES: u64 = 1024 * 1024;
/// Most lines of scrollback of one terminal.
const MOST_SCROLLBACK: usize = 1_000_000;
/// Most memory for the lines of one log, in MiB.
const MOST_LOG_MIB: usize = 4096;

const SECTIONS: [&str; 3] = ["console", "keys", "themes"];
const SETTINGS: [&str; 6] = ["theme", "ascii", "mouse", "prefix", "scrollback", "log_limit_mib"];
const BUILT_IN: [&str; 3] = ["auto", "dark", "light"];

/// How the user wants the console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `auto`, `dark`, `light` or one of the themes.
    pub theme: String,
    /// Whether signs are plain ASCII; absent, the terminal's locale says it.
    pub ascii: Option<bool>,
    /// Whether clicks and the wheel are mvm's.
    pub mouse: bool,
    /// The key that begins a command while a terminal has the keys.
    pub prefix: Chord,
    /// Lines each terminal keeps above its screen.
    pub scrollback: usize,
    /// Memory for the lines of one log, in MiB.
    pub log_limit_mib: usize,
    /// Keys by the name of the command; a command that is absent keeps its own.
    pub keys: BTreeMap<String, Vec<Chord>>,
    /// The user's themes by name.
    pub themes: BTreeMap<String, Palette>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            theme: "auto".into(),
            ascii: None,
            mouse: true,
            prefix: Chord::ctrl('b'),
            scrollback: 10_000,
            log_limit_mib: 64,
            keys: BTreeMap::new(),
            themes: BTreeMap::new(),
        }
    }
}

/// Where the configuration is, if the environment says where such files are.
pub fn path() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")))?;
    Some(base.join("mvm/config.toml"))
}

impl Config {
    /// Reads the file; `commands` are the names of all commands. No file is no problem.
    pub fn load(file: &Path, commands: &[&str]) -> (Self, Vec<Problem>) {
        match read(file) {
            Ok(text) => Self::parse(&text, file, commands),
            Err(what) => {
                let help = "mvm uses its defaults meanwhile".into();
                let problem = Problem { file: file.into(), line: None, key: String::new(), what, help };
                (Self::default(), vec![problem])
            }
        }
    }

    /// Reads `text`, which came from `file`.
    pub fn parse(text: &str, file: &Path, commands: &[&str]) -> (Self, Vec<Problem>) {
        let mut config = Self::default();
        let mut reader = Reader::new(file, text);
        let table = reader.parse().unwrap_or_default();
        let mut settings = Vec::new();
        for section in entries("", &table) {
            match section.name {
                "console" => settings = reader.table(&section),
                "keys" => config.read_keys(&section, commands, &mut reader),
                "themes" => config.read_themes(&section, &mut reader),
                _ => reader.unknown(&section, "section", SECTIONS),
            }
        }
        // Last: the theme's name must be one that is there.
        for setting in settings {
            config.read_setting(&setting, &mut reader);
        }
        (config, reader.finish())
    }

    /// The theme for a terminal.
    pub fn theme(&self, around: &Surroundings) -> Theme {
        let palette = match (self.themes.get(&self.theme), self.theme.as_str()) {
            (Some(palette), _) => palette.clone(),
            (None, "light") => Palette::light(),
            (None, "auto") if around.light == Some(true) => Palette::light(),
            _ => Palette::dark(),
        };
        Theme::new(&palette, around.depth, self.ascii.unwrap_or(around.ascii))
    }

    fn read_setting(&mut self, setting: &Entry, reader: &mut Reader) {
        match setting.name {
            "theme" => self.read_theme_name(setting, reader),
            "ascii" => self.ascii = reader.boolean(setting).or(self.ascii),
            "mouse" => self.mouse = reader.boolean(setting).unwrap_or(self.mouse),
            "prefix" => {
                let chord = reader.string(setting).and_then(|text| chord(setting, text, reader));
                self.prefix = chord.unwrap_or(self.prefix);
            }
            "scrollback" => {
                self.scrollback = reader.number(setting, 0..=MOST_SCROLLBACK).unwrap_or(self.scrollback);
            }
            "log_limit_mib" => {
                self.log_limit_mib = reader.number(setting, 1..=MOST_LOG_MIB).unwrap_or(self.log_limit_mib);
            }
            _ => reader.unknown(setting, "setting", SETTINGS),
        }
    }

    fn read_theme_name(&mut self, setting: &Entry, reader: &mut Reader) {
        let Some(name) = reader.string(setting) else { return };
        let names: Vec<&str> = BUILT_IN.into_iter().chain(self.themes.keys().map(String::as_str)).collect();
        if names.contains(&name) {
            self.theme = name.into();
        } else {
            reader.no_such(setting, "theme", name, &names);
        }
    }

    /// Two commands may share a key: they can belong to different panes.
    fn read_keys(&mut self, section: &Entry, commands: &[&str], reader: &mut Reader) {
        for entry in reader.table(section) {
            if !commands.contains(&entry.name) {
                reader.unknown(&entry, "command", commands.iter().copied());
                continue;
            }
            let Some(texts) = reader.strings(&entry) else { continue };
            let chords: Vec<Chord> = texts.iter().filter_map(|text| chord(&entry, text, reader)).collect();
            // A command whose keys are all wrong keeps its own; one with none asked for has none.
            if !chords.is_empty() || texts.is_empty() {
                self.keys.insert(entry.name.into(), chords);
            }
        }
    }

    fn read_themes(&mut self, section: &Entry, reader: &mut Reader) {
        for theme in reader.table(section) {
            if BUILT_IN.contains(&theme.name) {
                reader.problem(&theme, "this name is mvm's own", "give the theme another name");
                continue;
            }
            let parts = reader.table(&theme);
            let mut palette = Palette::dark();
            for base in parts.iter().filter(|part| part.name == "base") {
                match reader.string(base) {
                    Some("light") => palette = Palette::light(),
                    Some("dark") | None => {}
                    Some(other) => reader.no_such(base, "base", other, &["dark", "light"]),
                }
            }
            for role in parts.iter().filter(|part| part.name != "base") {
                palette.set(role, reader);
            }
            self.themes.insert(theme.name.into(), palette);
        }
    }
}

fn chord(entry: &Entry, text: &str, reader: &mut Reader) -> Option<Chord> {
    match text.parse::<Chord>() {
        Ok(chord) => Some(chord),
        Err(error) => {
            let text = error.to_string();
            let (what, help) = text.split_once("\nhelp: ").unwrap_or((&text, ""));
            reader.problem(entry, what, help);
            None
        }
    }
}

fn read(file: &Path) -> Result<String, String> {
    let opened = match File::open(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(String::new()),
        opened => opened,
    };
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    let opened = opened.map_err(cannot)?;
    // A pipe would have the console wait for its writer.
    if !opened.metadata().map_err(cannot)?.is_file() {
        return Err("is not a file".into());
    }
    let mut bytes = Vec::new();
    opened.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(format!("is larger than {} KiB", MOST_BYTES / 1024));
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8".into())
}

#[cfg(test)]
mod tests;
