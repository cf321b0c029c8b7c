//! Where the flake's source lies: Nix speaks of its copy in the store, people know their tree.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

const STORE: &str = "/nix/store/";
const HASH: usize = 32;
const SOURCE: &str = "-source";
/// Store paths remembered; a builder can make any number of them up.
const MAX_KNOWN: usize = 1000;

/// The tree a flake was read from, if it is on this machine.
#[derive(Debug, Default)]
pub struct Origin {
    tree: Option<Tree>,
    /// Store paths seen so far, and whether they are copies of the tree.
    known: RefCell<HashMap<String, bool>>,
}

#[derive(Debug)]
struct Tree {
    root: PathBuf,
    flake: PathBuf,
}

impl Origin {
    /// The tree below `root` (what Nix copies) with its flake in `dir`.
    pub fn new(root: &Path, dir: &Path) -> Self {
        let flake = dir.strip_prefix(root).unwrap_or(Path::new("")).join("flake.nix");
        Self { tree: Some(Tree { root: root.into(), flake }), known: RefCell::default() }
    }

    /// `text` with the store's copy of the tree named as the tree itself.
    pub fn map<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let Some(tree) = &self.tree else { return Cow::Borrowed(text) };
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(STORE) {
            let end = at + STORE.len() + HASH + SOURCE.len();
            let copy = rest.get(at..end).filter(|path| path.ends_with(SOURCE));
            match copy {
                Some(copy) if self.is_copy(tree, copy) => {
                    out.push_str(&rest[..at]);
                    out.push_str(&tree.root.to_string_lossy());
                    rest = &rest[end..];
                }
                _ => {
                    out.push_str(&rest[..at + STORE.len()]);
                    rest = &rest[at + STORE.len()..];
                }
            }
        }
        if out.is_empty() {
            return Cow::Borrowed(text);
        }
        out.push_str(rest);
        Cow::Owned(out)
    }

    /// Inputs are called `…-source` as well: only a copy has this very flake.nix.
    fn is_copy(&self, tree: &Tree, path: &str) -> bool {
        let mut known = self.known.borrow_mut();
        if let Some(known) = known.get(path) {
            return *known;
        }
        let is_copy = match std::fs::read(Path::new(path).join(&tree.flake)) {
            Ok(copy) => std::fs::read(tree.root.join(&tree.flake)).is_ok_and(|flake| flake == copy),
            Err(_) => false,
        };
        if known.len() < MAX_KNOWN {
            known.insert(path.to_owned(), is_copy);
        }
        is_copy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_copy_of_the_tree_is_mapped_back() {
        let origin = Origin::new(Path::new("/home/me/repo"), Path::new("/home/me/repo/sub"));
        let (mine, other) = ("a".repeat(32), "b".repeat(32));
        origin.known.borrow_mut().insert(format!("/nix/store/{mine}-source"), true);
        origin.known.borrow_mut().insert(format!("/nix/store/{other}-source"), false);
        let text = format!(
            "at /nix/store/{mine}-source/sub/flake.nix:4:11, /nix/store/{other}-source/x, /nix/store/é"
        );
        let expected =
            format!("at /home/me/repo/sub/flake.nix:4:11, /nix/store/{other}-source/x, /nix/store/é");
        assert_eq!(origin.map(&text), expected);
    }
}
