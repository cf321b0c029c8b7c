//! Reads a TOML file entry by entry: what is wrong is named, what is right still counts.

use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::event::text::{cut, strip};

/// Longest part of a file shown in a problem, in bytes.
const MOST_QUOTED: usize = 120;
/// Most problems told of one file.
const MOST_PROBLEMS: usize = 50;

/// Something wrong in a file of the user's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1; absent when it is about the whole file.
    pub line: Option<usize>,
    /// The entry, e.g. `keys.quit`; empty when it is about the whole file.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub help: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": ")?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}\nhelp: {}", self.what, self.help)
    }
}

/// One entry of a table.
pub struct Entry<'t> {
    /// Where it stands, e.g. `keys.quit`.
    pub path: String,
    /// Its own name, e.g. `quit`.
    pub name: &'t str,
    at: Range<usize>,
    value: &'t Spanned<DeValue<'t>>,
}

/// A file being read, and what was wrong with it so far.
pub struct Reader<'a> {
    file: &'a Path,
    text: &'a str,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    /// A reader of `text`, which came from `file`.
    pub fn new(file: &'a Path, text: &'a str) -> Self {
        Self { file, text, problems: Vec::new() }
    }

    /// The whole file, unless it is no TOML.
    pub fn parse(&mut self) -> Option<DeTable<'a>> {
        match DeTable::parse(self.text) {
            Ok(table) => Some(table.into_inner()),
            Err(error) => {
                let at = error.span().map(|span| span.start);
                let help = "none of the file is used until it is TOML again";
                self.put(at, "", &format!("not valid TOML: {}", error.message()), help);
                None
            }
        }
    }

    /// The problems, in the order of the lines.
    pub fn finish(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| problem.line);
        self.problems.truncate(MOST_PROBLEMS);
        self.problems
    }

    /// Says that something is wrong with an entry.
    pub fn problem(&mut self, entry: &Entry, what: &str, help: &str) {
        self.put(Some(entry.at.start), &entry.path, what, help);
    }

    fn put(&mut self, at: Option<usize>, key: &str, what: &str, help: &str) {
        let line = at.map(|at| 1 + self.text.bytes().take(at).filter(|byte| *byte == b'\n').count());
        let short = |text: &str| strip(text).replace('\n', " ");
        self.problems.push(Problem {
            file: self.file.to_path_buf(),
            line,
            key: short(cut(key, MOST_QUOTED)),
            what: short(cut(what, 4 * MOST_QUOTED)),
            help: short(cut(help, 4 * MOST_QUOTED)),
        });
    }

    /// Says that an entry has a name nobody knows.
    pub fn unknown<'n>(&mut self, entry: &Entry, what: &str, known: impl IntoIterator<Item = &'n str>) {
        let help = suggestion(entry.name, known);
        self.problem(entry, &format!("unknown {what}"), &help);
    }

    /// Says that an entry names something that is not there.
    pub fn no_such(&mut self, entry: &Entry, what: &str, name: &str, known: &[&str]) {
        let help = suggestion(name, known.iter().copied());
        self.problem(entry, &format!("no {what} is called `{name}`"), &help);
    }

    /// The entries of a table.
    pub fn table<'t>(&mut self, entry: &Entry<'t>) -> Vec<Entry<'t>> {
        match entry.value.get_ref() {
            DeValue::Table(table) => entries(&entry.path, table),
            _ => {
                self.wants(entry, "a table");
                Vec::new()
            }
        }
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, entry: &Entry) -> Option<bool> {
        let value = entry.value.get_ref().as_bool();
        if value.is_none() {
            self.wants(entry, "`true` or `false`");
        }
        value
    }

    /// A text.
    pub fn string<'t>(&mut self, entry: &Entry<'t>) -> Option<&'t str> {
        let value = entry.value.get_ref().as_str();
        if value.is_none() {
            self.wants(entry, "a text in quotes");
        }
        value
    }

    /// One text or a list of them.
    pub fn strings<'t>(&mut self, entry: &Entry<'t>) -> Option<Vec<&'t str>> {
        let texts = match entry.value.get_ref() {
            DeValue::String(text) => Some(vec![text.as_ref()]),
            DeValue::Array(list) => list.iter().map(|item| item.get_ref().as_str()).collect(),
            _ => None,
        };
        if texts.is_none() {
            self.wants(entry, "a text in quotes or a list of them");
        }
        texts
    }

    /// A whole number within bounds.
    pub fn number(&mut self, entry: &Entry, bounds: RangeInclusive<usize>) -> Option<usize> {
        let value = entry.value.get_ref().as_integer();
        let number = value.and_then(|value| usize::from_str_radix(value.as_str(), value.radix()).ok());
        let number = number.filter(|number| bounds.contains(number));
        if number.is_none() {
            self.wants(entry, &format!("a whole number from {} to {}", bounds.start(), bounds.end()));
        }
        number
    }

    fn wants(&mut self, entry: &Entry, wanted: &str) {
        let found = self.text.get(entry.value.span()).unwrap_or_default();
        let help = format!("the default is used instead of `{}`", cut(found, MOST_QUOTED));
        self.problem(entry, &format!("must be {wanted}"), &help);
    }
}

/// The entries of the table at `path`, as they stand in the file; of all of it when `path` is empty.
pub fn entries<'t>(path: &str, table: &'t DeTable<'t>) -> Vec<Entry<'t>> {
    let entry = |(name, value): (&'t Spanned<_>, &'t Spanned<_>)| {
        let key: &'t std::borrow::Cow<'t, str> = name.get_ref();
        let path = if path.is_empty() { key.to_string() } else { format!("{path}.{key}") };
        Entry { path, name: key.as_ref(), at: name.span(), value }
    };
    let mut entries: Vec<Entry> = table.iter().map(entry).collect();
    entries.sort_by_key(|entry| entry.at.start);
    entries
}

/// The name most like `text`, if one is like it at all.
pub fn nearest<'n>(text: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let text = text.to_lowercase();
    names
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&text, name), name))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

fn suggestion<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(name, known.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("known are `{}`", known.join("`, `")),
    }
}
