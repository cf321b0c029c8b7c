//! Versions of programs, asked for once and remembered until the program changes.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::child::find_program;
use super::packages::QEMU;
use super::paths::Paths;
use super::{files, firecracker, lima, nix, program};

/// How long a program may take to say its version.
const DEADLINE: Duration = Duration::from_secs(5);

/// Versions of what mvm works with; `None` where there is no such program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Versions {
    /// Nix.
    pub nix: Option<String>,
    /// QEMU.
    pub qemu: Option<String>,
    /// Firecracker.
    pub firecracker: Option<String>,
    /// Lima: on this machine, or the one whose VM this is.
    pub lima: Option<String>,
}

impl Versions {
    /// What is installed. Starts no process unless something changed since the last time.
    pub async fn find(paths: &Paths) -> Self {
        let number = async |file: Option<PathBuf>| Some(number(&version(paths, &file?).await?).to_string());
        Self {
            nix: number(nix::find()).await,
            qemu: number(find_program(QEMU.provides)).await,
            firecracker: number(firecracker::find(paths)).await,
            lima: match lima::outside() {
                Some(version) => Some(version),
                None => number(find_program(lima::PROGRAM)).await,
            },
        }
    }

    /// Names and versions in a line.
    pub fn line(&self) -> String {
        let all = [
            ("Nix", &self.nix),
            ("QEMU", &self.qemu),
            ("Firecracker", &self.firecracker),
            ("Lima", &self.lima),
        ];
        let words = all.map(|(name, version)| match version {
            Some(version) => format!("{name} {version}"),
            None => format!("no {name}"),
        });
        words.join(", ")
    }
}

/// The version in what a program says of itself: `1.17.0` of `Firecracker v1.17.0`.
fn number(said: &str) -> &str {
    let is_number = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
    said.split_whitespace().map(|word| word.trim_start_matches('v')).find(is_number).unwrap_or(said)
}

/// What a program said, and which file said it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Said {
    size: u64,
    changed_ns: i64,
    text: String,
}

/// The first line of what `program --version` says, `None` when it does not run, or does not
/// say it in time.
///
/// No process is started for a program whose file is as it was the last time.
pub async fn version(paths: &Paths, program: &Path) -> Option<String> {
    let cache = paths.state().join("versions.json");
    let meta = std::fs::metadata(program).ok()?;
    let (size, changed_ns) = (meta.len(), meta.ctime() * 1_000_000_000 + meta.ctime_nsec());
    // What cannot be read is found out anew.
    let mut known: BTreeMap<PathBuf, Said> =
        std::fs::read(&cache).ok().and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default();
    if let Some(said) = known.get(program).filter(|said| (said.size, said.changed_ns) == (size, changed_ns)) {
        return Some(said.text.clone());
    }
    let asked = tokio::time::timeout(DEADLINE, program::output(Command::new(program).arg("--version"))).await;
    let output = asked.ok()?.ok()?;
    let text = output.lines().next()?.trim().to_string();
    known.insert(program.into(), Said { size, changed_ns, text: text.clone() });
    if let Ok(json) = serde_json::to_vec(&known) {
        // It is asked again where it cannot be remembered.
        let _ = files::write_atomic(&cache, &json, 0o600);
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_number_is_found_in_what_each_program_says() {
        for (said, version) in [
            ("nix (Nix) 2.8.0", "2.8.0"),
            ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)", "7.2.22"),
            ("Firecracker v1.17.0", "1.17.0"),
            ("limactl version 2.2.0", "2.2.0"),
            ("limactl version HEAD-183a60d", "limactl version HEAD-183a60d"),
        ] {
            assert_eq!(number(said), version);
        }
    }

    #[tokio::test]
    async fn a_program_is_asked_once_and_again_when_its_file_changed() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::at(dir.path().join("s"), dir.path().join("r")).unwrap();
        let program = dir.path().join("program");
        let write = |version: &str| {
            let text =
                format!("#!/bin/sh\necho asked >> {}/log\necho {version}\necho more\n", dir.path().display());
            let beside = dir.path().join("beside");
            std::fs::write(&beside, text).unwrap();
            std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o755)).unwrap();
            std::fs::rename(&beside, &program).unwrap();
        };
        assert_eq!(version(&paths, &program).await, None);
        write("program 1.0");
        for _ in 0..2 {
            assert_eq!(version(&paths, &program).await.as_deref(), Some("program 1.0"));
        }
        write("program 1.0.1");
        assert_eq!(version(&paths, &program).await.as_deref(), Some("program 1.0.1"));
        let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
        assert_eq!(log.lines().count(), 2);
    }
}
