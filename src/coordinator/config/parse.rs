//! From text to a configuration, or to all that is wrong with it.

use std::path::{Path, PathBuf};

use super::Config;
use crate::event::fault::{Fault, Faults};

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
        let config: Self = serde_path_to_error::deserialize(read)
            .map_err(|error| Faults(vec![fault(text, &error.path().to_string(), error.inner())]))?;
        let faults = config.faults();
        if faults.is_empty() { Ok(config) } else { Err(Faults(faults)) }
    }
}

fn fault(text: &str, path: &str, error: &toml::de::Error) -> Fault {
    Fault::of_toml(text, path, error, |message| advice(message).into())
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
