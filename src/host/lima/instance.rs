//! The VM as Lima knows it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde::Deserialize;

use super::{INSTANCE, LimaError, PROGRAM};

/// What the VM is made from.
pub const TEMPLATE: &str = include_str!("../../../lima/mvm.yaml");
/// How long Lima waits for the VM: mvm is built in it.
const TIMEOUT: &str = "--timeout=60m";

/// One line of `limactl list --json`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Instance {
    name: String,
    /// `Running`, `Stopped`, `Broken`, …
    pub status: String,
    #[serde(default)]
    config: Config,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
struct Config {
    #[serde(default)]
    mounts: Vec<Mount>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mount {
    location: PathBuf,
    #[serde(default)]
    mount_point: Option<PathBuf>,
}

impl Instance {
    /// mvm's VM, if it was made.
    pub fn find() -> Result<Option<Self>, LimaError> {
        let listed = output(&["list", "--json"])?;
        // An object a line; the list is empty where there is no VM.
        for line in listed.lines().filter(|line| !line.trim().is_empty()) {
            let instance: Self = serde_json::from_str(line).map_err(LimaError::Unreadable)?;
            if instance.name == INSTANCE {
                return Ok(Some(instance));
            }
        }
        Ok(None)
    }

    /// The host's directories that are at the same place in the VM.
    pub fn seen(&self) -> Vec<PathBuf> {
        let same = |mount: &&Mount| mount.mount_point.as_ref().is_none_or(|point| *point == mount.location);
        self.config.mounts.iter().filter(same).map(|mount| expand(&mount.location)).collect()
    }

    /// Whether a directory, without symbolic links in its path, is in the VM.
    pub fn sees(&self, dir: &Path) -> bool {
        let real = |place: &PathBuf| place.canonicalize().unwrap_or_else(|_| place.clone());
        self.seen().iter().any(|place| dir.starts_with(real(place)))
    }
}

/// Makes the VM and starts it. Lima tells on standard error how that goes.
pub fn create() -> Result<(), LimaError> {
    let path = state().join("lima/mvm.yaml");
    let written = match path.parent() {
        Some(dir) => std::fs::create_dir_all(dir).and_then(|()| std::fs::write(&path, TEMPLATE)),
        None => Ok(()),
    };
    written.map_err(|source| LimaError::Template { path: path.clone(), source })?;
    let mut words = vec!["start".to_string(), "--tty=false".into(), TIMEOUT.into()];
    words.extend(["--name".into(), INSTANCE.into(), "--set".into(), origin()?]);
    if !cfg!(target_os = "macos") {
        // vz is Apple's.
        words.push("--vm-type=qemu".into());
    }
    words.push(path.display().to_string());
    call(&words)
}

/// Starts the VM that is there.
pub fn start() -> Result<(), LimaError> {
    call(&["start", "--tty=false", TIMEOUT, INSTANCE])
}

/// Lima's version.
pub fn version() -> Result<String, LimaError> {
    let said = output(&["--version"])?;
    Ok(said.split_whitespace().last().unwrap_or("unknown").trim_start_matches('v').into())
}

/// What the template's parameters are set to: where mvm comes from.
fn origin() -> Result<String, LimaError> {
    let given = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(release) = given("MVM_RELEASE") {
        return Ok(format!(".param.release = {}", quoted(&release)));
    }
    // What this program was built from.
    let source = PathBuf::from(given("MVM_SOURCE").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into()));
    if !source.join("Cargo.toml").is_file() {
        return Err(LimaError::NoSource(source));
    }
    Ok(format!(".param.source = {}", quoted(&source.display().to_string())))
}

/// A text as JSON, and so as yq takes it.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn state() -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let shared = || {
        let base = set("XDG_STATE_HOME").or_else(|| Some(set("HOME")?.join(".local/state")));
        base.unwrap_or_else(std::env::temp_dir).join("mvm")
    };
    set("MVM_STATE_DIR").unwrap_or_else(shared)
}

/// A path whose `~` is the home.
fn expand(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), std::env::var_os("HOME")) {
        (Ok(rest), Some(home)) => PathBuf::from(home).join(rest).components().collect(),
        _ => path.to_path_buf(),
    }
}

/// Runs it with its words on standard error: standard output is the command's in the VM.
fn call(words: &[impl AsRef<OsStr>]) -> Result<(), LimaError> {
    let mut command = Command::new(PROGRAM);
    command.args(words).stdin(Stdio::null()).stdout(std::io::stderr());
    let status = command.status().map_err(missing)?;
    match status.success() {
        true => Ok(()),
        false => Err(failed(words, &status.to_string(), "")),
    }
}

/// Runs it silently; returns what it printed.
fn output(words: &[&str]) -> Result<String, LimaError> {
    let Output { status, stdout, stderr } =
        Command::new(PROGRAM).args(words).stdin(Stdio::null()).output().map_err(missing)?;
    match status.success() {
        true => Ok(String::from_utf8_lossy(&stdout).into_owned()),
        false => Err(failed(words, &status.to_string(), String::from_utf8_lossy(&stderr).trim())),
    }
}

fn failed(words: &[impl AsRef<OsStr>], status: &str, said: &str) -> LimaError {
    let words: Vec<_> = words.iter().map(|word| word.as_ref().to_string_lossy()).collect();
    let said = if said.is_empty() { "what it said is above" } else { said };
    LimaError::Failed { words: words.join(" "), status: status.into(), said: said.into() }
}

fn missing(error: std::io::Error) -> LimaError {
    match error.kind() {
        std::io::ErrorKind::NotFound => LimaError::NotInstalled,
        _ => LimaError::Start(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_mounted_at_its_own_place_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        let line = serde_json::json!({
            "name": "mvm", "status": "Running", "arch": "aarch64",
            "config": { "cpus": 4, "mounts": [
                { "location": real, "mountPoint": real, "writable": true },
                { "location": "/srv/one", "mountPoint": "/two" },
                { "location": "/srv/three" },
            ] },
        });
        let instance: Instance = serde_json::from_value(line).unwrap();
        assert!(instance.sees(&real.join("project")));
        assert!(!instance.sees(Path::new("/srv/one")));
        assert!(instance.sees(Path::new("/srv/three/four")));
        assert!(!instance.sees(Path::new("/srv/threefold")));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_vm_gets_the_firecracker_that_mvm_fetches() {
        use crate::host::firecracker::{ARCHIVE, VERSION};
        assert!(TEMPLATE.contains(&format!("version={VERSION}\n")));
        assert!(TEMPLATE.contains(&format!("{}) digest={} ;;", ARCHIVE.0, ARCHIVE.1)));
    }

    #[test]
    fn a_path_goes_to_lima_as_one_value_whatever_is_in_it() {
        assert_eq!(quoted(r#"/a "b"\c"#), r#""/a \"b\"\\c""#);
    }
}
