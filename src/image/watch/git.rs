//! What git knows of the sources, which decides what Nix sees of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::image::flake::Tree;
use crate::image::source::{GitDir, is_entry, is_in};

/// A git tree's own files.
#[derive(Debug)]
pub struct Git {
    dir: GitDir,
    files: [PathBuf; 2],
    state: Option<String>,
}

impl Git {
    /// Of a tree, if it is one.
    pub fn of(tree: &Tree) -> Option<Self> {
        let dir = tree.git.then(|| GitDir::of(&tree.root)).flatten()?;
        let state = dir.state();
        let files = ["HEAD", "index"].map(|name| dir.own().join(name));
        Some(Self { dir, files, state })
    }

    /// Where HEAD and the index are.
    pub fn dir(&self) -> &Path {
        self.dir.own()
    }

    /// HEAD and the index.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Whether what is tracked, or what is checked out, is another than the last time. Git and Nix write
    /// the index also when it is not.
    pub fn changed(&mut self) -> bool {
        let state = self.dir.state();
        // While it is being written it cannot be read; there is more to come then.
        let changed = state.is_some() && state != self.state;
        if changed {
            self.state = state;
        }
        changed
    }

    /// Parts paths below the root into those that Nix sees and those that it does not.
    pub fn part(&self, paths: BTreeSet<PathBuf>) -> (BTreeSet<PathBuf>, BTreeSet<PathBuf>) {
        let Some(index) = self.dir.index() else { return (paths, BTreeSet::new()) };
        let is_seen = |path: &PathBuf| {
            // Below a submodule, its own git knows.
            path == Path::new(".git")
                || is_in(&index, path)
                || path.ancestors().any(|path| is_entry(&index, path))
        };
        paths.into_iter().partition(is_seen)
    }
}
