//! Interpreters of this machine for guests: Python with its standard library, Node.
//!
//! Each is an input of its own, laid out when `mvm setup --with` asks for it: they are large, and
//! images without them shall not change with them.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::child::find_program;
use super::layout;
use super::packages::Package;
use super::paths::Paths;
use super::program;
use super::tools::{
    ToolsError, Wanted, at, copy_into, fingerprint, header, is_fresh, libraries_by, libraries_of, loader,
};
use crate::event::EventSink;

/// Parts of Python's library that no service in a guest needs.
const NOT_FOR_GUESTS: [&str; 11] = [
    "__pycache__",
    "dist-packages",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "test",
    "tests",
    "tkinter",
    "turtledemo",
];
/// What Debian's Node reads of itself, where it does; among it lie packages of the host's.
const NODE_PARTS: [&str; 4] = ["acorn", "acorn-walk", "cjs-module-lexer", "undici"];
const NODE_SHARE: &str = "/usr/share/nodejs";

/// What guests can be given besides the tools they all have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// Python 3 with its standard library
    Python,
    /// Node
    Node,
}

impl Language {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Python, Self::Node];

    /// As a user writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Node => "node",
        }
    }

    /// The input's name in flakes.
    pub fn input(self) -> &'static str {
        match self {
            Self::Python => "mvm-python",
            Self::Node => "mvm-node",
        }
    }

    /// The package it is taken from. Always the system's: others may be scripts, or lie anywhere.
    pub fn package(self) -> Package {
        match self {
            Self::Python => Package { name: "python3", provides: "/usr/bin/python3" },
            Self::Node => Package { name: "nodejs", provides: "/usr/bin/node" },
        }
    }

    /// Whether it was asked for in this state and can be brought up to date: one that is no longer
    /// installed serves as it was.
    pub fn is_kept(self, paths: &Paths) -> bool {
        self.package().installed().is_some() && layout::stamp(&paths.language(self.name())).is_some()
    }
}

/// Lays out a language unless it is there as it is on the host; true when it did.
pub async fn lay_out(
    language: Language,
    paths: &Paths,
    recreate: bool,
    sink: &EventSink,
    cancel: &CancellationToken,
) -> Result<bool, ToolsError> {
    let dir = paths.language(language.name());
    let program = PathBuf::from(language.package().provides);
    if !program.exists() {
        return Err(ToolsError::Missing(language.package().provides));
    }
    let wanted: [Wanted; 1] = [(language.name(), program.clone())];
    if !recreate && layout::stamp(&dir).is_some_and(|stamp| is_fresh(&stamp, &wanted)) {
        return Ok(false);
    }
    sink.phase(language.name());
    let next = layout::begin(&dir).map_err(at(&dir))?;
    copy_into(&next.join("bin"), &program).await?;
    let mut libraries: BTreeSet<PathBuf> = libraries_of(&program).await?.into_iter().collect();
    match language {
        Language::Python => libraries.extend(python(&program, &next, sink, cancel).await?),
        Language::Node => node(&next.join("bin/node"), &next).await?,
    }
    let mut stamp = header(&wanted);
    for library in &libraries {
        copy_into(&next.join("lib"), library).await?;
        stamp.push_str(&fingerprint(library));
    }
    layout::finish(&next, &dir, &stamp).map_err(at(&dir))?;
    sink.info(format!("{} is laid out", language.name()));
    Ok(true)
}

/// Copies Python's library, compiled; gives the shared libraries that parts of it need.
async fn python(
    program: &Path,
    next: &Path,
    sink: &EventSink,
    cancel: &CancellationToken,
) -> Result<Vec<PathBuf>, ToolsError> {
    let ask = "import sysconfig; print(sysconfig.get_path('stdlib'))";
    let library = program::output(Command::new(program).args(["-I", "-S", "-c", ask])).await?;
    let library = PathBuf::from(library.trim());
    let target = next.join("lib").join(library.file_name().unwrap_or_default());
    copy_tree(&library, &target)?;
    // In guests it lies below /usr. Files in an image have no times to compare, so Python must not look for them.
    let mut compile = Command::new(program);
    compile.args(["-I", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-s"]);
    program::run(compile.arg(next).args(["-p", "/usr"]).arg(&target), sink, cancel).await?;
    let Some(loader) = loader(program).map_err(at(program))? else { return Ok(Vec::new()) };
    let mut libraries = Vec::new();
    let parts = target.join("lib-dynload");
    for part in fs::read_dir(&parts).map_err(at(&parts))? {
        let part = part.map_err(at(&parts))?.path();
        match libraries_by(loader.clone(), &part).await {
            Ok(found) => libraries.extend(found),
            // One whose library is not installed works here as little as there.
            Err(ToolsError::NoLibrary { .. }) => fs::remove_file(&part).map_err(at(&part))?,
            Err(error) => return Err(error),
        }
    }
    Ok(libraries)
}

/// Copies what Debian's Node reads at its start; others have all of it inside.
async fn node(program: &Path, next: &Path) -> Result<(), ToolsError> {
    for part in NODE_PARTS {
        let from = Path::new(NODE_SHARE).join(part);
        if from.is_dir() {
            copy_tree(&from, &next.join("share/nodejs").join(part))?;
        }
    }
    // Some come with their symbols, which are a good part of the image.
    if find_program("strip").is_some() {
        program::output(Command::new("strip").arg(program)).await?;
    }
    Ok(())
}

/// Copies a directory, links as what they lead to.
fn copy_tree(from: &Path, to: &Path) -> Result<(), ToolsError> {
    fs::create_dir_all(to).map_err(at(to))?;
    for entry in fs::read_dir(from).map_err(at(from))? {
        let entry = entry.map_err(at(from))?;
        let name = entry.file_name();
        let left_out = |name: &str| NOT_FOR_GUESTS.contains(&name) || name.starts_with("config-");
        if name.to_str().is_none_or(left_out) {
            continue;
        }
        let (path, target) = (entry.path(), to.join(&name));
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => copy_tree(&path, &target)?,
            Ok(metadata) => {
                fs::copy(&path, &target).map_err(at(&path))?;
                let mode = if metadata.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
                fs::set_permissions(&target, fs::Permissions::from_mode(mode)).map_err(at(&target))?;
            }
            // A link that leads nowhere.
            Err(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_guests_do_not_need_of_a_library_stays_behind() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("python3");
        for name in ["http", "test", "config-3-x86", "json/__pycache__"] {
            fs::create_dir_all(from.join(name)).unwrap();
        }
        fs::write(from.join("json/__init__.py"), "").unwrap();
        std::os::unix::fs::symlink("nowhere", from.join("broken.py")).unwrap();
        let to = dir.path().join("to");
        copy_tree(&from, &to).unwrap();
        let mut found: Vec<String> = ignore::WalkBuilder::new(&to)
            .standard_filters(false)
            .build()
            .skip(1)
            .map(|entry| entry.unwrap().path().strip_prefix(&to).unwrap().display().to_string())
            .collect();
        found.sort();
        assert_eq!(found, ["http", "json", "json/__init__.py"]);
    }
}
