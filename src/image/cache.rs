//! The shortest way to artifacts: nothing changed since they were made, so Nix is not asked.
//!
//! An entry says: this flake, attribute and options, in a state with this fingerprint, gave this
//! build. It is only made for builds whose every input the fingerprint covers.

use std::collections::HashSet;
use std::env;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::attribute::{mapped, system};
use super::collect::sound;
use super::error::BuildError;
use super::flake::Tree;
use super::nix::Nix;
use super::request::BuildRequest;
use super::source::{Fingerprint, Print, is_tracked};
use crate::artifacts::Artifacts;
use crate::host::files::hex;
use crate::host::nix;
use crate::store::builds::SourceRow;
use crate::store::{Store, StoreError};

/// Changes when the fingerprint covers something else than before.
const VERSION: &[u8] = b"mvm source 1";
/// How deep configuration files may include each other.
const INCLUDES: usize = 4;
/// Nix's options that change how it builds but not what, with their operands.
const HARMLESS: &[(&str, usize)] = &[
    ("-j", 1),
    ("--max-jobs", 1),
    ("--cores", 1),
    ("-k", 0),
    ("--keep-going", 0),
    ("-K", 0),
    ("--keep-failed", 0),
    ("--fallback", 0),
    ("--offline", 0),
    ("--builders", 1),
    ("--eval-store", 1),
    ("--substituters", 1),
    ("--extra-substituters", 1),
    ("-v", 0),
    ("--verbose", 0),
    ("--quiet", 0),
    ("--show-trace", 0),
    ("--no-update-lock-file", 0),
    ("--no-write-lock-file", 0),
];

/// What is known of a request's source before Nix is started.
#[derive(Debug)]
pub struct Cache {
    key: String,
    print: Print,
}

impl Cache {
    /// Looks at the source of `request`; `None` when its state cannot be told without Nix.
    /// What was built `elsewhere` is another matter than what was built here.
    pub fn look(request: &BuildRequest, elsewhere: bool) -> Option<Self> {
        let tree = request.flake.tree()?;
        if !are_harmless(&request.nix_args) {
            return None;
        }
        Some(Self { key: key(request, tree, elsewhere), print: print(request, tree)? })
    }

    /// A short name for the request, whatever the state of its source.
    pub fn name(request: &BuildRequest) -> String {
        let mut digest = Sha256::new();
        digest.update(format!("{request:?}"));
        hex(&digest.finalize())[..16].to_owned()
    }

    /// The artifacts this very state gave, if they are still there.
    pub fn hit(&self, store: &Store, builds: &Path) -> Result<Option<Artifacts>, StoreError> {
        let row = store.source(&self.key)?.filter(|row| row.fingerprint == self.print.digest);
        Ok(row.and_then(|row| sound(&builds.join(row.build))))
    }

    /// Remembers that this state gave `build`, if it did: nothing was so new that it could have
    /// changed unseen, nothing changed meanwhile, and every input is locked or covered.
    pub async fn record(
        &self,
        request: &BuildRequest,
        nix: &Nix<'_>,
        store: &mut Store,
        build: &str,
    ) -> Result<(), BuildError> {
        let Some(tree) = request.flake.tree().filter(|_| !self.print.racy) else { return Ok(()) };
        if !is_covered(request, tree, nix).await? {
            return Ok(());
        }
        let after = print(request, tree);
        if after.is_some_and(|after| after.digest == self.print.digest) {
            let row = SourceRow { fingerprint: self.print.digest.clone(), build: build.to_owned() };
            store.put_source(&self.key, &row)?;
        }
        Ok(())
    }
}

/// Names the flake, attribute and options.
fn key(request: &BuildRequest, tree: &Tree, elsewhere: bool) -> String {
    let mut key = Fingerprint::begin();
    key.bytes(VERSION);
    key.bytes(if tree.by_path { b"path" } else { b"" });
    key.bytes(tree.dir.as_os_str().as_bytes());
    key.bytes(system().as_bytes());
    key.bytes(if elsewhere { b"elsewhere" } else { b"here" });
    let given = [&request.flake.attribute, &request.profile, &request.role].map(Option::as_ref);
    for part in given.into_iter().chain([mapped(request)]) {
        key.bytes(part.map(|part| format!("={part}")).unwrap_or_default().as_bytes());
    }
    for arg in &request.nix_args {
        key.bytes(arg.as_bytes());
    }
    key.finish().digest
}

/// The state of everything a build of the request depends on.
fn print(request: &BuildRequest, tree: &Tree) -> Option<Print> {
    let mut print = Fingerprint::begin();
    print.tree(tree)?;
    print.stat(&nix::find()?.canonicalize().ok()?).ok()?;
    let mut settings: Vec<(OsString, OsString)> =
        env::vars_os().filter(|(name, _)| name.as_bytes().starts_with(b"NIX_")).collect();
    settings.sort();
    for (name, value) in settings {
        if is_impure(value.as_bytes()) {
            return None;
        }
        print.bytes(name.as_bytes());
        print.bytes(value.as_bytes());
    }
    for file in configuration() {
        configuration_file(&mut print, &file, INCLUDES)?;
    }
    for (name, reference) in &request.inputs.overrides {
        print.bytes(name.as_bytes());
        print.bytes(reference.as_bytes());
        let path = reference.strip_prefix("path:").unwrap_or(reference).split('?').next()?;
        // What is neither a directory here nor fixed by its hash may change unseen.
        if path.starts_with('/') && !path.contains('%') {
            print.directory(Path::new(path)).ok()??;
        } else if !reference.contains("narHash=") {
            return None;
        }
    }
    Some(print.finish())
}

/// Nix's configuration files, the system's first.
fn configuration() -> Vec<PathBuf> {
    let dir = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let list = |name: &str| env::var_os(name).map(|value| env::split_paths(&value).collect::<Vec<_>>());
    let mut files = vec![dir("NIX_CONF_DIR").unwrap_or_else(|| "/etc/nix".into()).join("nix.conf")];
    if let Some(own) = list("NIX_USER_CONF_FILES") {
        files.extend(own);
        return files;
    }
    let home = dir("XDG_CONFIG_HOME").or_else(|| dir("HOME").map(|home| home.join(".config")));
    let dirs = home.into_iter().chain(list("XDG_CONFIG_DIRS").unwrap_or_else(|| vec!["/etc/xdg".into()]));
    files.extend(dirs.map(|dir| dir.join("nix/nix.conf")));
    files
}

/// Adds a configuration file and those it includes.
fn configuration_file(print: &mut Fingerprint, file: &Path, depth: usize) -> Option<()> {
    let Some(content) = print.content(file).ok()? else { return Some(()) };
    if is_impure(&content) {
        return None;
    }
    let text = String::from_utf8_lossy(&content);
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if matches!(words.next(), Some("include" | "!include"))
            && let Some(included) = words.next()
        {
            configuration_file(print, &file.parent()?.join(included), depth.checked_sub(1)?)?;
        }
    }
    Some(())
}

/// Whether settings may let an evaluation see more than its inputs.
fn is_impure(settings: &[u8]) -> bool {
    ["pure-eval", "impure"].iter().any(|word| memchr::memmem::find(settings, word.as_bytes()).is_some())
}

fn are_harmless(args: &[String]) -> bool {
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let Some((_, operands)) = HARMLESS.iter().find(|(name, _)| name == arg) else { return false };
        for _ in 0..*operands {
            if args.next().is_none() {
                return false;
            }
        }
    }
    true
}

/// Whether every input is fixed by the flake's lock file or is one of our overrides.
async fn is_covered(request: &BuildRequest, tree: &Tree, nix: &Nix<'_>) -> Result<bool, BuildError> {
    let flake = request.flake.installable("");
    let flake = OsString::from(flake.to_string_lossy().trim_end_matches('#'));
    let args = ["flake", "metadata", "--json", "--no-write-lock-file"];
    let Some(json) = nix.ask(&args, &[flake]).await? else { return Ok(false) };
    let Ok(metadata) = serde_json::from_slice::<Value>(&json) else { return Ok(false) };
    let lock = tree.dir.join("flake.lock");
    let seen = !tree.git || lock.strip_prefix(&tree.root).is_ok_and(|lock| is_tracked(tree, lock));
    let lock = match std::fs::read(&lock) {
        Ok(lock) if seen => serde_json::from_slice(&lock).unwrap_or(Value::Null),
        _ => Value::Null,
    };
    Ok(are_covered(&metadata["locks"], &lock, &request.inputs.overrides))
}

fn are_covered(locks: &Value, on_disk: &Value, overrides: &[(String, String)]) -> bool {
    let Some(nodes) = locks["nodes"].as_object() else { return false };
    let root = locks["root"].as_str().unwrap_or("root");
    let locked: HashSet<String> = on_disk["nodes"]
        .as_object()
        .into_iter()
        .flat_map(|nodes| nodes.values())
        .map(|node| node["locked"].to_string())
        .collect();
    nodes.iter().filter(|(name, _)| *name != root).all(|(_, node)| {
        let original = &node["original"];
        let ours = original["type"] == "indirect"
            && overrides.iter().any(|(name, _)| original["id"].as_str() == Some(name.as_str()));
        ours || (!node["locked"].is_null() && locked.contains(&node["locked"].to_string()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_known_options_leave_a_build_cacheable() {
        let args = |text: &str| text.split(' ').map(String::from).collect::<Vec<_>>();
        assert!(are_harmless(&[]) && are_harmless(&args("-j 4 --show-trace")));
        assert!(!are_harmless(&args("--impure")));
        assert!(!are_harmless(&args("--override-input a b")));
        assert!(!are_harmless(&args("-j")));
    }

    #[test]
    fn an_input_is_covered_by_the_lock_file_or_by_an_override_and_not_otherwise() {
        let node = |id: &str, hash: &str| json!({"original": {"type": "indirect", "id": id}, "locked": {"narHash": hash}});
        let locks = |id: &str| json!({"root": "root", "nodes": {"root": {}, "x": node(id, "h")}});
        let overrides = [("mvm-offline".to_owned(), "path:/x".to_owned())];
        assert!(are_covered(&json!({"root": "root", "nodes": {"root": {}}}), &Value::Null, &[]));
        assert!(are_covered(&locks("mvm-offline"), &Value::Null, &overrides));
        assert!(!are_covered(&locks("nixpkgs"), &Value::Null, &overrides));
        assert!(are_covered(&locks("nixpkgs"), &locks("other"), &overrides));
        assert!(!are_covered(&Value::Null, &Value::Null, &overrides));
    }

    #[test]
    fn a_setting_that_turns_purity_off_is_noticed_in_an_included_file() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("nix.conf"), "cores = 1\n!include more.conf\n").unwrap();
        std::fs::write(dir.path().join("more.conf"), "cores = 2\n").unwrap();
        let look = || {
            let mut print = Fingerprint::begin();
            configuration_file(&mut print, &dir.path().join("nix.conf"), INCLUDES)?;
            Some(print.finish().digest)
        };
        let first = look().unwrap();
        std::fs::write(dir.path().join("more.conf"), "cores = 3\n").unwrap();
        assert_ne!(look().unwrap(), first);
        std::fs::write(dir.path().join("more.conf"), "pure-eval = false\n").unwrap();
        assert_eq!(look(), None);
    }
}
