//! What is wrong with a text from outside: where, what, and what to do.

use std::fmt;

use super::text::{cut, strip};
use super::words::nearest;

/// So many bytes of a text are shown.
const QUOTED: usize = 320;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Fault {
    /// Where: `tenants[0].network.ipv4_subnet`; empty for the whole file.
    pub path: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub help: String,
}

impl Fault {
    /// What serde found in a TOML text; `advice` says what to do about a value that is none of its kind.
    pub fn of_toml(
        text: &str,
        path: &str,
        error: &toml::de::Error,
        advice: impl FnOnce(&str) -> String,
    ) -> Self {
        let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        let line = line.map_or_else(String::new, |line| format!(", line {line}"));
        // A place without a name is `.` or `?`.
        let (message, path) = (error.message(), shown(path.trim_end_matches(['.', '?'])));
        if let Some((field, known)) = unknown_field(message) {
            let what = format!("unknown key `{}`{line}", shown(field));
            return Self { path, what, help: suggestion(field, &known) };
        }
        // Types bring their own advice.
        let (what, help) = match message.split_once("\nhelp: ") {
            Some((what, help)) => (what, help.into()),
            None => (message, advice(message)),
        };
        Self { path, what: format!("{}{line}", shown(what)), help }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "the file" } else { &self.path };
        write!(f, "{path}: {}\nhelp: {}", self.what, self.help)
    }
}

/// All that is wrong with one file, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() > 1 {
            write!(f, " in {} places", self.0.len())?;
        }
        self.0.iter().try_for_each(|fault| write!(f, "\n{fault}"))
    }
}

/// The field that is not known, and those that are: serde says ``unknown field `a`, expected one of
/// `b`, `c` ``.
pub fn unknown_field(message: &str) -> Option<(&str, Vec<&str>)> {
    let (field, known) = message.strip_prefix("unknown field `")?.rsplit_once("`, expected ")?;
    Some((field, known.split('`').skip(1).step_by(2).collect()))
}

/// The known key that is meant, or all of them.
pub fn suggestion(field: &str, known: &[&str]) -> String {
    match nearest(field, known) {
        Some(nearest) => format!("did you mean `{nearest}`?"),
        None => format!("known are `{}`", known.join("`, `")),
    }
}

/// Text of the file as it may be printed: one line, no control characters, not too long.
pub fn shown(text: &str) -> String {
    cut(&strip(text).replace(char::is_control, " "), QUOTED).into()
}
