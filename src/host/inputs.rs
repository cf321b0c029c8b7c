//! What mvm lays out, as inputs of flakes.
//!
//! Flakes name them `flake:mvm-offline`, `flake:mvm-host-tools`, `flake:mvm-kernel` and, where `mvm
//! setup --with` laid them out, `flake:mvm-python` and `flake:mvm-node`. Each is
//! added to the Nix store once, under the name `source`: Nix takes a path of that name as it is,
//! and would copy any other at every evaluation.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::files;
use super::languages::Language;
use super::layout;
use super::nix::{nix_command, nix_store_command};
use super::offline;
use super::paths::Paths;
use super::program::{self, ProgramError};

/// Why the inputs are not in the Nix store.
#[derive(Debug, thiserror::Error)]
pub enum InputsError {
    /// There is no Nix.
    #[error("Nix is not installed\nhelp: `mvm doctor` says what is missing, `mvm setup` installs it")]
    NoNix,
    /// Nix failed.
    #[error("cannot add `{dir}` to the Nix store: {source}")]
    Nix {
        /// The directory.
        dir: PathBuf,
        /// What failed.
        source: ProgramError,
    },
    /// The state.
    #[error("cannot write in `{path}`: {source}\nhelp: free some space or mend its permissions")]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What is remembered of one input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Added {
    stamp: String,
    store_path: PathBuf,
}

/// What every `nix` subcommand that takes flakes is told, so that it finds mvm's own, offline too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlakeInputs {
    /// Name and `path:` reference of each input.
    pub overrides: Vec<(String, String)>,
    /// The registry instead of Nix's own, which it would fetch from a server even for names
    /// overridden here.
    pub registry: Option<PathBuf>,
}

impl FlakeInputs {
    /// The inputs that are laid out.
    pub async fn find(paths: &Paths) -> Result<Self, InputsError> {
        let registry = Some(offline::registry(paths)).filter(|registry| registry.exists());
        Ok(Self { overrides: flake_overrides(paths).await?, registry })
    }

    /// The arguments.
    pub fn args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec!["--no-write-lock-file".into()];
        if let Some(registry) = &self.registry {
            args.extend(["--option".into(), "flake-registry".into(), registry.into()]);
        }
        for (name, reference) in &self.overrides {
            args.extend(["--override-flake".into(), name.into(), reference.into()]);
        }
        args
    }
}

/// The name and the `path:` reference of each input that is laid out.
///
/// Costs no process as long as nothing changed since the last call.
pub async fn flake_overrides(paths: &Paths) -> Result<Vec<(String, String)>, InputsError> {
    let memory = paths.state().join("nix/inputs.json");
    // An unreadable memory is no memory: the store tells the same again.
    let mut known: BTreeMap<String, Added> =
        std::fs::read(&memory).ok().and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default();
    let before = known.clone();
    let mut overrides = Vec::new();
    let inputs = [
        ("mvm-host-tools", paths.host_tools()),
        ("mvm-kernel", paths.kernel()),
        ("mvm-offline", paths.offline_flake()),
    ];
    let languages = Language::ALL.map(|language| (language.input(), paths.language(language.name())));
    for (name, dir) in inputs.into_iter().chain(languages) {
        let Some(stamp) = layout::stamp(&dir) else { continue };
        let fresh = |added: &&Added| added.stamp == stamp && added.store_path.exists();
        let store_path = match known.get(name).filter(fresh) {
            Some(added) => added.store_path.clone(),
            None => {
                let root = paths.state().join("nix/roots").join(name);
                let store_path = add(&dir, &root).await?;
                known.insert(name.into(), Added { stamp, store_path: store_path.clone() });
                store_path
            }
        };
        overrides.push((name.to_string(), format!("path:{}", store_path.display())));
    }
    if known != before {
        let json = serde_json::to_vec_pretty(&known).unwrap_or_default();
        files::write_atomic(&memory, &json, 0o600).map_err(|source| io_error(&memory, source))?;
    }
    Ok(overrides)
}

/// Adds a directory to the store, kept from the garbage collector by a link at `root`.
async fn add(dir: &Path, root: &Path) -> Result<PathBuf, InputsError> {
    let failed = |error| match error {
        ProgramError::Start { source, .. } if source.kind() == io::ErrorKind::NotFound => InputsError::NoNix,
        source => InputsError::Nix { dir: dir.to_path_buf(), source },
    };
    let roots = root.parent().unwrap_or(root);
    std::fs::create_dir_all(roots).map_err(|source| io_error(roots, source))?;
    let mut command = nix_command();
    command.args(["store", "add-path", "--name", "source"]).arg(dir);
    let printed = program::output(&mut command).await.map_err(failed)?;
    let store_path = PathBuf::from(printed.trim());
    let mut keep = nix_store_command();
    keep.arg("--realise").arg(&store_path).arg("--add-root").arg(root);
    program::output(&mut keep).await.map_err(failed)?;
    Ok(store_path)
}

fn io_error(path: &Path, source: io::Error) -> InputsError {
    InputsError::Io { path: path.to_path_buf(), source }
}
