//! `mvm.toml`: how a VM of a project runs.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::spec::{
    HypervisorChoice, NetworkChoice, PortMap, VolumeSpec, parse_cpus, parse_disk, parse_memory,
};
use crate::event::words::nearest;

/// Settings of a VM; anything absent has a default. Flags go over files.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RuntimeConfig {
    /// Number of CPUs.
    pub cpus: Option<u32>,
    /// Memory, MiB.
    pub memory_mib: Option<u32>,
    /// Size of the upper disk, MiB.
    pub disk_mib: Option<u64>,
    /// Kernel arguments besides mvm's own.
    pub kernel_args: Vec<String>,
    /// Published ports.
    pub ports: Vec<PortMap>,
    /// Volumes.
    pub volumes: Vec<VolumeSpec>,
    /// How the VM is connected.
    pub network: Option<NetworkChoice>,
    /// Whether the guest reaches the outside.
    pub egress: Option<bool>,
    /// Which hypervisor.
    pub hypervisor: Option<HypervisorChoice>,
    /// How long the guest has until it is ready, in seconds.
    pub boot_timeout_secs: Option<u64>,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read the configuration `{path}`: {source}\nhelp: check the path given to --config")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not TOML, or a value is of the wrong kind.
    #[error("the configuration `{path}` is not valid: {message}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the place.
        message: String,
    },
    /// It has a key that mvm does not know.
    #[error("the configuration `{path}` has an unknown key `{key}`\nhelp: {help}")]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The nearest known key, or all of them.
        help: String,
    },
}

const KEYS: [&str; 10] = [
    "cpus",
    "memory",
    "disk",
    "kernel_args",
    "ports",
    "volumes",
    "network",
    "egress",
    "hypervisor",
    "boot_timeout_secs",
];

/// A size or count written as a number or as text with a unit.
#[derive(Deserialize)]
#[serde(untagged)]
enum Quantity {
    Number(i64),
    Text(String),
}

impl Quantity {
    fn text(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        }
    }
}

#[derive(Deserialize)]
struct File {
    cpus: Option<Quantity>,
    memory: Option<Quantity>,
    disk: Option<Quantity>,
    #[serde(default)]
    kernel_args: Vec<String>,
    #[serde(default)]
    ports: Vec<PortMap>,
    #[serde(default)]
    volumes: Vec<String>,
    network: Option<NetworkChoice>,
    egress: Option<bool>,
    hypervisor: Option<HypervisorChoice>,
    boot_timeout_secs: Option<u64>,
}

impl RuntimeConfig {
    /// The settings of the `mvm.toml` in `dir`; defaults where there is none.
    pub fn beside(dir: Option<&Path>) -> Result<Self, ConfigError> {
        match dir.map(|dir| dir.join("mvm.toml")).filter(|file| file.exists()) {
            Some(file) => Self::read(&file),
            None => Ok(Self::default()),
        }
    }

    /// Reads a file; relative volume paths are relative to its directory.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.into(), source })?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let invalid = |message: String| ConfigError::Invalid { path: path.into(), message };
        let table: toml::Table = toml::from_str(text).map_err(|error| invalid(error.to_string()))?;
        if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(ConfigError::UnknownKey { path: path.into(), key: key.clone(), help: suggest(key) });
        }
        let file: File = toml::from_str(text).map_err(|error| invalid(error.to_string()))?;
        let dir = path.parent().unwrap_or(Path::new("."));
        let volume = |text: &String| {
            let text =
                if text.starts_with('/') { text.clone() } else { dir.join(text).display().to_string() };
            text.parse::<VolumeSpec>()
        };
        let spec = |error: super::spec::SpecError| invalid(error.to_string());
        Ok(Self {
            cpus: file.cpus.map(|cpus| parse_cpus(&cpus.text())).transpose().map_err(spec)?,
            memory_mib: file.memory.map(|memory| parse_memory(&memory.text())).transpose().map_err(spec)?,
            disk_mib: file.disk.map(|disk| parse_disk(&disk.text())).transpose().map_err(spec)?,
            kernel_args: file.kernel_args,
            ports: file.ports,
            volumes: file.volumes.iter().map(volume).collect::<Result<_, _>>().map_err(spec)?,
            network: file.network,
            egress: file.egress,
            hypervisor: file.hypervisor,
            boot_timeout_secs: file.boot_timeout_secs,
        })
    }

    /// This configuration with everything `over` says put over it. Lists are joined; a guest port or
    /// path that `over` names is its alone.
    pub fn overlaid(mut self, over: Self) -> Self {
        self.ports.retain(|port| over.ports.iter().all(|other| other.guest != port.guest));
        self.volumes.retain(|volume| over.volumes.iter().all(|other| other.guest != volume.guest));
        self.kernel_args.extend(over.kernel_args);
        self.ports.extend(over.ports);
        self.volumes.extend(over.volumes);
        Self {
            cpus: over.cpus.or(self.cpus),
            memory_mib: over.memory_mib.or(self.memory_mib),
            disk_mib: over.disk_mib.or(self.disk_mib),
            network: over.network.or(self.network),
            egress: over.egress.or(self.egress),
            hypervisor: over.hypervisor.or(self.hypervisor),
            boot_timeout_secs: over.boot_timeout_secs.or(self.boot_timeout_secs),
            ..self
        }
    }
}

fn suggest(key: &str) -> String {
    match nearest(key, &KEYS) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known keys are {}", KEYS.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<RuntimeConfig, String> {
        RuntimeConfig::parse(text, Path::new("/p/mvm.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_config_reads_numbers_and_units_alike() {
        let config =
            parse("cpus = 2\nmemory = \"1G\"\nports = [\"8080:80\"]\nvolumes = [\"data:/srv\"]").unwrap();
        assert_eq!((config.cpus, config.memory_mib), (Some(2), Some(1024)));
        assert_eq!(config.volumes[0].host, Path::new("/p/data"));
    }

    #[test]
    fn an_unknown_key_is_an_error_with_the_nearest_known_one() {
        let error = parse("memroy = 256").unwrap_err();
        assert_eq!(
            error,
            "the configuration `/p/mvm.toml` has an unknown key `memroy`\nhelp: did you mean `memory`?"
        );
    }

    #[test]
    fn zero_cpus_are_an_error_that_names_the_file() {
        let error = parse("cpus = 0").unwrap_err();
        assert!(
            error.starts_with("the configuration `/p/mvm.toml` is not valid: the number of CPUs `0`"),
            "{error}"
        );
    }

    #[test]
    fn a_guest_port_on_the_command_line_replaces_the_files() {
        let file = parse("ports = [\"8080:80\", \"2222:22\"]").unwrap();
        let flags = RuntimeConfig { ports: vec!["9090:80".parse().unwrap()], ..Default::default() };
        let ports: Vec<String> = file.overlaid(flags).ports.iter().map(ToString::to_string).collect();
        assert_eq!(ports, ["127.0.0.1:2222:22", "127.0.0.1:9090:80"]);
    }

    #[test]
    fn flags_go_over_the_file_and_lists_are_joined() {
        let file = parse("cpus = 2\nmemory = 256\nports = [\"1:1\"]").unwrap();
        let flags =
            RuntimeConfig { cpus: Some(4), ports: vec!["2:2".parse().unwrap()], ..Default::default() };
        let both = file.overlaid(flags);
        assert_eq!((both.cpus, both.memory_mib, both.ports.len()), (Some(4), Some(256), 2));
    }
}
