//! From text to a configuration, or to all that is wrong with it.

use std::fmt;
use std::path::{Path, PathBuf};

use super::Config;
use crate::fleet::desired::Fault;
use crate::fleet::desired::parse::{shown, suggestion, unknown_field};

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read the coordinator's configuration `{path}`: {source}\nhelp: {help}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
        /// What to do.
        help: &'static str,
    },
    /// It says what cannot be.
    #[error("the coordinator's configuration `{path}` is not valid{faults}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// At least one fault, in the order of the file.
        faults: Faults,
    },
}

/// What is wrong with a configuration.
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

impl Config {
    /// Reads a file; the paths in it are relative to its directory.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| {
            let help = "`mvm dev cluster init` writes one; `--config FILE` takes another";
            ConfigError::Read { path: path.into(), source, help }
        })?;
        let invalid = |faults| ConfigError::Invalid { path: path.into(), faults };
        let mut config = Self::parse(&text).map_err(invalid)?;
        let dir = path.parent().unwrap_or(Path::new("."));
        let settings = &mut config.coordinator;
        for file in [&mut settings.tls_identity, &mut settings.tls_ca].into_iter().flatten() {
            *file = dir.join(&file);
        }
        Ok(config)
    }

    /// Reads a configuration. What is no TOML or not of the schema is one fault; whatever contradicts
    /// itself or cannot be is told all at once.
    pub fn parse(text: &str) -> Result<Self, Faults> {
        let read = toml::Deserializer::parse(text).map_err(|error| Faults(vec![fault(text, "", &error)]))?;
        let config: Self = serde_path_to_error::deserialize(read).map_err(|error| {
            let path = error.path().to_string();
            Faults(vec![fault(text, path.trim_end_matches(['.', '?']), error.inner())])
        })?;
        let faults = config.faults();
        if faults.is_empty() { Ok(config) } else { Err(Faults(faults)) }
    }
}

/// The fault that the parser found.
fn fault(text: &str, path: &str, error: &toml::de::Error) -> Fault {
    let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    let line = line.map_or_else(String::new, |line| format!(", line {line}"));
    let (message, path) = (error.message(), shown(path));
    if let Some((field, known)) = unknown_field(message) {
        let what = format!("unknown key `{}`{line}", shown(field));
        return Fault { path, what, help: suggestion(field, &known) };
    }
    // Ids bring their own advice.
    let (what, help) = match message.split_once("\nhelp: ") {
        Some((what, help)) => (what, help),
        None => (message, advice(message)),
    };
    Fault { path, what: format!("{}{line}", shown(what)), help: help.into() }
}

fn advice(message: &str) -> &'static str {
    if message.starts_with("missing field") {
        "add it; it has no default"
    } else if message.contains("socket address") {
        "write IP:PORT, such as \"127.0.0.1:8443\""
    } else if message.contains("expected u32") {
        "write a whole number from 0 to 4294967295"
    } else {
        "`mvm dev cluster init` writes a whole file, with what each key means"
    }
}

#[cfg(test)]
mod tests;
