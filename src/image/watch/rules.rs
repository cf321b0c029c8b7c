//! What is not watched: what git ignores and does not track, what editors write for themselves, what mvm writes.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use walkdir::{DirEntry, WalkDir};

use crate::image::flake::Tree;
use crate::image::source::{GitDir, is_in};

/// Files with rules in them, the later the stronger. Git knows the first only.
const FILES: [&str; 2] = [".gitignore", ".ignore"];
/// Files of editors: they come and go with each save.
const EDITORS: [&str; 9] =
    ["*.swp", "*.swx", "*~", ".#*", "#*#", "4913", "*___jb_tmp___", "*___jb_old___", ".*.kate-swp"];

/// What is hidden in one tree.
#[derive(Debug)]
pub struct Rules {
    tree: Tree,
    except: Vec<PathBuf>,
    editors: Gitignore,
    /// The user's own and the repository's.
    outside: Vec<Gitignore>,
    /// Of each directory, as they were read.
    inside: HashMap<PathBuf, Option<Gitignore>>,
    /// What git tracks.
    index: Option<gix_index::File>,
    /// Directories that git ignores, with something in them that it tracks.
    parted: HashSet<PathBuf>,
    files: &'static [&'static str],
}

impl Rules {
    /// For a tree; what lies below `except` is hidden.
    pub fn new(tree: &Tree, except: &[&Path]) -> Self {
        let mut editors = GitignoreBuilder::new(&tree.root);
        for glob in EDITORS {
            // Each of them is one.
            drop(editors.add_line(None, glob));
        }
        let mut outside = Vec::new();
        if tree.git {
            outside.push(Gitignore::global().0);
            let exclude = GitDir::of(&tree.root).map(|dir| dir.common().join("info/exclude"));
            outside.extend(exclude.and_then(|file| read(&tree.root, &[file])));
        }
        Self {
            tree: tree.clone(),
            except: except.iter().map(|path| path.canonicalize().unwrap_or(path.to_path_buf())).collect(),
            editors: editors.build().unwrap_or_else(|_| Gitignore::empty()),
            outside,
            inside: HashMap::new(),
            index: index(tree),
            parted: HashSet::new(),
            files: match tree {
                // Nix copies all of it.
                Tree { by_path: true, .. } => &[],
                Tree { git: true, .. } => &FILES[..1],
                _ => &FILES,
            },
        }
    }

    /// The tree is another now, a git tree for one.
    pub fn change(&mut self, tree: &Tree) {
        *self = Self { except: std::mem::take(&mut self.except), ..Self::new(tree, &[]) };
    }

    /// Whether the file has rules in it.
    pub fn is_one(path: &Path) -> bool {
        path.file_name().is_some_and(|name| FILES.iter().any(|file| name == *file))
    }

    /// Reads the rules anew, and what is tracked.
    pub fn forget(&mut self) {
        self.inside.clear();
        self.parted.clear();
        self.index = index(&self.tree);
    }

    /// What is to be watched from `dir` on, which is first.
    pub fn walk(&mut self, dir: &Path) -> impl Iterator<Item = DirEntry> {
        let root = dir.to_path_buf();
        let shown = move |entry: &DirEntry| {
            entry.path() == root || !self.hide(entry.path(), entry.file_type().is_dir())
        };
        // What vanishes meanwhile is told of.
        WalkDir::new(dir).into_iter().filter_entry(shown).filter_map(Result::ok)
    }

    /// Whether a path, or a directory that it lies in, is hidden.
    pub fn hide_all_of(&mut self, path: &Path, is_dir: bool) -> bool {
        let Ok(relative) = path.strip_prefix(&self.tree.root) else { return false };
        let mut upper: Vec<PathBuf> = relative.ancestors().map(|part| self.tree.root.join(part)).collect();
        upper.retain(|part| *part != self.tree.root);
        upper.iter().rev().any(|part| self.hide(part, part != path || is_dir))
    }

    /// Whether a path is hidden whose directories are not.
    fn hide(&mut self, path: &Path, is_dir: bool) -> bool {
        let Some(name) = path.file_name() else { return false };
        if name == ".git" || self.except.iter().any(|hidden| path == hidden) || is_result(path) {
            return true;
        }
        if self.editors.matched(path, is_dir).is_ignore() {
            return true;
        }
        let is_below = path.parent().is_some_and(|dir| self.parted.contains(dir));
        if !is_below && !self.ignores(path, is_dir) {
            return false;
        }
        // Nix sees what is tracked, ignored or not.
        let relative = path.strip_prefix(&self.tree.root).unwrap_or(path);
        let tracked = self.index.as_ref().is_some_and(|index| is_in(index, relative));
        if tracked && is_dir {
            self.parted.insert(path.to_path_buf());
        }
        !tracked
    }

    /// Whether a rule names the path itself.
    fn ignores(&mut self, path: &Path, is_dir: bool) -> bool {
        let root = self.tree.root.clone();
        // The nearest one counts.
        for dir in path.ancestors().skip(1).take_while(|dir| dir.starts_with(&root)) {
            match self.of(dir).map_or(Match::None, |rules| rules.matched(path, is_dir).map(drop)) {
                Match::Ignore(()) => return true,
                Match::Whitelist(()) => return false,
                Match::None => {}
            }
        }
        self.outside.iter().rev().any(|rules| rules.matched(path, is_dir).is_ignore())
    }

    fn of(&mut self, dir: &Path) -> Option<&Gitignore> {
        if !self.inside.contains_key(dir) {
            let files: Vec<PathBuf> = self.files.iter().map(|file| dir.join(file)).collect();
            self.inside.insert(dir.to_path_buf(), read(dir, &files));
        }
        self.inside.get(dir)?.as_ref()
    }
}

fn index(tree: &Tree) -> Option<gix_index::File> {
    tree.git.then(|| GitDir::of(&tree.root)?.index()).flatten()
}

fn read(dir: &Path, files: &[PathBuf]) -> Option<Gitignore> {
    let mut builder = GitignoreBuilder::new(dir);
    for file in files.iter().filter(|file| file.is_file()) {
        // A rule that cannot be read hides nothing.
        drop(builder.add(file));
    }
    builder.build().ok().filter(|rules| !rules.is_empty())
}

/// Nix's links to what it built, such as `result` and `result-man`.
fn is_result(path: &Path) -> bool {
    let named = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"result"));
    named && std::fs::read_link(path).is_ok_and(|target| target.starts_with("/nix/store"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_directories_editors_and_nix_hide_what_they_name() {
        let world = tempfile::tempdir().unwrap();
        let root = world.path().canonicalize().unwrap();
        for dir in ["src/deep", "target/debug", "state/vms", ".git"] {
            std::fs::create_dir_all(root.join(dir)).unwrap();
        }
        for (file, text) in [
            (".gitignore", "target/\n*.log\n"),
            ("src/.gitignore", "!kept.log\n/deep/gone\n"),
            ("src/main.c", ""),
            ("src/kept.log", ""),
            ("src/other.log", ""),
            ("src/deep/gone", ""),
            ("src/.main.c.swp", ""),
            ("target/debug/out", ""),
            ("state/vms/v", ""),
            (".git/index", ""),
        ] {
            std::fs::write(root.join(file), text).unwrap();
        }
        std::os::unix::fs::symlink("/nix/store/x", root.join("result")).unwrap();
        let tree = Tree { dir: root.clone(), root: root.clone(), git: false, by_path: false };
        let mut rules = Rules::new(&tree, &[&root.join("state")]);
        let mut shown: Vec<String> = rules
            .walk(&root)
            .filter(|entry| !entry.file_type().is_dir())
            .map(|entry| entry.path().strip_prefix(&root).unwrap().display().to_string())
            .collect();
        shown.sort();
        assert_eq!(shown, [".gitignore", "src/.gitignore", "src/kept.log", "src/main.c"]);
        // Also of what is not there any more.
        for (path, hidden) in
            [("target/debug/x/y", true), ("src/old.c", false), ("src/deep/gone", true), ("a/b.log", true)]
        {
            assert_eq!(rules.hide_all_of(&root.join(path), false), hidden, "{path}");
        }
    }
}
