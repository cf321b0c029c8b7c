//! What a source looks like, without reading it: as git's index judges, by stat alone.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use gix_index::entry::{Flags, Mode};
use sha2::{Digest, Sha256};

use super::flake::Tree;
use crate::host::files::hex;

/// Files looked at; a larger plain directory is left to Nix.
const MAX_FILES: usize = 50_000;
/// A file changed this shortly before we looked may change again and keep its time stamps:
/// they tick with the kernel, every 1 to 10 ms.
const RACY: i128 = 50_000_000;
/// The same for file systems that keep whole seconds only.
const RACY_COARSE: i128 = 2_100_000_000;

/// A digest over the state of files.
#[derive(Debug)]
pub struct Fingerprint {
    digest: Sha256,
    begun: i128,
    racy: bool,
    files: usize,
}

/// A finished [`Fingerprint`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Print {
    /// Lower-case hex.
    pub digest: String,
    /// A file is so new that it may change without a trace: not to be relied upon.
    pub racy: bool,
}

impl Fingerprint {
    /// Begins now: what changes later shows.
    pub fn begin() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { digest: Sha256::new(), begun: now.as_nanos() as i128, racy: false, files: 0 }
    }

    /// Adds bytes, so that no two sequences of calls can be confused.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.digest.update((bytes.len() as u64).to_le_bytes());
        self.digest.update(bytes);
    }

    /// Adds the state of one file, link or directory; absence is a state as well.
    pub fn stat(&mut self, path: &Path) -> io::Result<Option<fs::Metadata>> {
        self.files += 1;
        let metadata = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                self.digest.update([0]);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        self.digest.update([1]);
        for number in [
            metadata.dev(),
            metadata.ino(),
            metadata.size(),
            u64::from(metadata.mode()),
            metadata.mtime() as u64,
            metadata.mtime_nsec() as u64,
            metadata.ctime() as u64,
            metadata.ctime_nsec() as u64,
        ] {
            self.digest.update(number.to_le_bytes());
        }
        self.date(metadata.mtime(), metadata.mtime_nsec());
        self.date(metadata.ctime(), metadata.ctime_nsec());
        Ok(Some(metadata))
    }

    /// Adds the content of a small file.
    pub fn content(&mut self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        match fs::read(path) {
            Ok(content) => {
                self.bytes(&content);
                Ok(Some(content))
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                self.digest.update([0]);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Adds a source as Nix sees it. `None` when its state cannot be told this way.
    pub fn tree(&mut self, tree: &Tree) -> Option<()> {
        if tree.git { self.git(&tree.root) } else { self.directory(&tree.root).ok()? }
    }

    /// Adds all that is below a directory. `None` when that is too much.
    pub fn directory(&mut self, root: &Path) -> io::Result<Option<()>> {
        let mut waiting = vec![root.to_path_buf()];
        while let Some(dir) = waiting.pop() {
            self.stat(&dir)?;
            let mut names =
                fs::read_dir(&dir)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
            names.sort();
            for name in names {
                if self.files > MAX_FILES {
                    return Ok(None);
                }
                self.bytes(name.as_bytes());
                let path = dir.join(name);
                if self.stat(&path)?.is_some_and(|metadata| metadata.is_dir()) {
                    waiting.push(path);
                }
            }
        }
        Ok(Some(()))
    }

    /// Adds a git tree: HEAD, the index and the state of every tracked file.
    fn git(&mut self, root: &Path) -> Option<()> {
        let git = GitDir::of(root)?;
        self.bytes(&git.head()?);
        // Filters, line ends and attributes decide what of a clean tree is copied.
        self.stat(&git.common.join("config")).ok()?;
        self.stat(&git.common.join("info/attributes")).ok()?;
        let index = git.index()?;
        for entry in index.entries() {
            // Submodules and sparse directories have a state of their own.
            if matches!(entry.mode, Mode::COMMIT | Mode::DIR) {
                return None;
            }
            let path = entry.path(&index);
            self.entry(entry, path);
            self.stat(&root.join(std::ffi::OsStr::from_bytes(path))).ok()?;
        }
        Some(())
    }

    /// Adds an entry of git's index, without the state of its file.
    fn entry(&mut self, entry: &gix_index::Entry, path: &[u8]) {
        self.bytes(path);
        self.bytes(entry.id.as_bytes());
        self.digest.update(entry.mode.bits().to_le_bytes());
        self.digest.update((entry.flags & watched_flags()).bits().to_le_bytes());
    }

    fn date(&mut self, seconds: i64, nanos: i64) {
        let stamp = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        let margin = if nanos == 0 { RACY_COARSE } else { RACY };
        self.racy |= stamp > self.begun - margin;
    }

    /// The digest.
    pub fn finish(self) -> Print {
        Print { digest: hex(&self.digest.finalize()), racy: self.racy }
    }
}

/// The flags that tell what is tracked; others change with git's own book-keeping.
fn watched_flags() -> Flags {
    Flags::STAGE_MASK | Flags::ASSUME_VALID | Flags::SKIP_WORKTREE | Flags::INTENT_TO_ADD
}

/// Files below a git tree that Nix does not see because git does not track them.
pub fn untracked(tree: &Tree) -> Vec<PathBuf> {
    let Some(index) = tree.git.then(|| GitDir::of(&tree.root)).flatten().and_then(|git| git.index()) else {
        return Vec::new();
    };
    ignore::WalkBuilder::new(&tree.root)
        .hidden(false)
        .filter_entry(|entry| entry.file_name() != ".git")
        .build()
        .flatten()
        .take(MAX_FILES)
        .filter(|entry| entry.file_type().is_some_and(|kind| !kind.is_dir()))
        .filter_map(|entry| Some(entry.path().strip_prefix(&tree.root).ok()?.to_path_buf()))
        .filter(|path| index.entry_by_path(path.as_os_str().as_bytes().into()).is_none())
        .take(1000)
        .collect()
}

/// Whether git tracks `path` (relative to the root), or anything in it.
pub fn is_tracked(tree: &Tree, path: &Path) -> bool {
    GitDir::of(&tree.root).and_then(|git| git.index()).is_some_and(|index| is_in(&index, path))
}

/// Whether an index has `path`, or anything in it.
pub(super) fn is_in(index: &gix_index::File, path: &Path) -> bool {
    is_entry(index, path) || index.path_is_directory(path.as_os_str().as_bytes().into())
}

/// Whether an index has `path` itself.
pub(super) fn is_entry(index: &gix_index::File, path: &Path) -> bool {
    index.entry_by_path(path.as_os_str().as_bytes().into()).is_some()
}

/// Where git keeps its things for one working tree.
#[derive(Debug)]
pub(super) struct GitDir {
    own: PathBuf,
    common: PathBuf,
}

impl GitDir {
    /// Of the tree at `root`.
    pub fn of(root: &Path) -> Option<Self> {
        let dot = root.join(".git");
        let own = match fs::read(&dot) {
            // A linked working tree or a submodule: `gitdir: PATH`.
            Ok(content) => root.join(path_after(&content, b"gitdir: ")?),
            Err(_) => dot,
        };
        let common = match fs::read(own.join("commondir")) {
            Ok(content) => own.join(path_after(&content, b"")?),
            Err(_) => own.clone(),
        };
        Some(Self { own, common })
    }

    /// What HEAD is and the commit it stands for.
    fn head(&self) -> Option<Vec<u8>> {
        let mut head = fs::read(self.own.join("HEAD")).ok()?;
        let Some(name) = path_after(&head, b"ref: ") else { return Some(head) };
        if name.as_os_str() == "refs/heads/.invalid" {
            // The reftable format.
            return None;
        }
        let state = match fs::read(self.common.join(&name)) {
            Ok(commit) => commit,
            Err(_) => fs::read(self.common.join("packed-refs")).unwrap_or_default(),
        };
        head.extend(state);
        Some(head)
    }

    /// Where its HEAD and its index are.
    pub fn own(&self) -> &Path {
        &self.own
    }

    /// What all its working trees share.
    pub fn common(&self) -> &Path {
        &self.common
    }

    /// What is checked out and what is tracked, whatever the state of the files.
    pub fn state(&self) -> Option<String> {
        let mut state = Fingerprint::begin();
        state.bytes(&self.head()?);
        let index = self.index()?;
        for entry in index.entries() {
            state.entry(entry, entry.path(&index));
        }
        Some(state.finish().digest)
    }

    /// The index, while it can be read.
    pub fn index(&self) -> Option<gix_index::File> {
        gix_index::File::at(self.own.join("index"), gix_index::hash::Kind::Sha1, true, Default::default())
            .ok()
    }
}

fn path_after(content: &[u8], prefix: &[u8]) -> Option<PathBuf> {
    let path = content.strip_prefix(prefix)?.trim_ascii_end();
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(path)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn print(tree: &Tree) -> Option<String> {
        let mut fingerprint = Fingerprint::begin();
        fingerprint.tree(tree)?;
        Some(fingerprint.finish().digest)
    }

    fn git(dir: &Path, arguments: &[&str]) {
        let identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"];
        let status = Command::new("git").current_dir(dir).args(identity).args(arguments).status().unwrap();
        assert!(status.success());
    }

    fn repository(root: &Path) -> Tree {
        fs::write(root.join("flake.nix"), "{ }").unwrap();
        git(root, &["init", "-q"]);
        git(root, &["add", "flake.nix"]);
        git(root, &["commit", "-qm", "x"]);
        Tree::find(root).unwrap()
    }

    #[test]
    fn a_git_tree_changes_with_tracked_files_the_index_and_head_only() {
        let base = tempfile::tempdir().unwrap();
        let tree = repository(base.path());
        let first = print(&tree).unwrap();
        fs::write(tree.root.join("untracked"), "x").unwrap();
        assert_eq!(print(&tree).unwrap(), first);
        assert_eq!(untracked(&tree), [PathBuf::from("untracked")]);
        git(&tree.root, &["add", "untracked"]);
        let added = print(&tree).unwrap();
        assert_ne!(added, first);
        git(&tree.root, &["commit", "-qm", "y"]);
        let committed = print(&tree).unwrap();
        assert_ne!(committed, added);
        fs::write(tree.root.join("flake.nix"), "{}").unwrap();
        assert_ne!(print(&tree).unwrap(), committed);
    }

    #[test]
    fn a_linked_working_tree_has_a_state_of_its_own() {
        let base = tempfile::tempdir().unwrap();
        let main = base.path().join("main");
        fs::create_dir(&main).unwrap();
        repository(&main);
        git(&main, &["worktree", "add", "-q", "../linked"]);
        let linked = Tree::find(&base.path().join("linked")).unwrap();
        let first = print(&linked).unwrap();
        fs::write(linked.root.join("flake.nix"), "{}").unwrap();
        assert_ne!(print(&linked).unwrap(), first);
    }

    #[test]
    fn a_plain_directory_changes_with_any_file_in_it() {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join("flake.nix"), "{ }").unwrap();
        fs::create_dir(base.path().join("sub")).unwrap();
        let root = base.path().canonicalize().unwrap();
        let tree = Tree { dir: root.clone(), root: root.clone(), git: false, by_path: false };
        let first = print(&tree).unwrap();
        assert_eq!(print(&tree).unwrap(), first);
        fs::write(root.join("sub/new"), "").unwrap();
        assert_ne!(print(&tree).unwrap(), first);
    }

    #[test]
    fn a_file_written_just_now_is_racy_and_an_old_one_is_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut now = Fingerprint::begin();
        now.stat(file.path()).unwrap();
        assert!(now.finish().racy);
        let mut later = Fingerprint::begin();
        later.begun += 10 * RACY_COARSE;
        later.stat(file.path()).unwrap();
        assert!(!later.finish().racy);
    }
}
