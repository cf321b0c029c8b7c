//! Changes that are looked for, where nobody tells of them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::git::Git;
use super::rules::Rules;
use crate::host::files::Stamp;
use crate::image::flake::Tree;

/// Shortest and longest pause between two looks.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);
/// How many times the length of a look the pause after it is: one in so many parts of a core.
const SHARE: u32 = 50;

/// Paths that are not as they were, and whether they are new.
type Changed = Vec<(PathBuf, bool)>;

/// Looks at all files from time to time.
#[derive(Debug)]
pub struct Looks {
    /// Why.
    pub why: String,
    /// None while a thread looks.
    files: Option<Files>,
    looking: Option<JoinHandle<(Files, Changed)>>,
    due: Instant,
    begun: Instant,
    /// Its rules as they are from the next look on, and what is looked at though it is hidden.
    other: Option<(Tree, Vec<PathBuf>)>,
}

#[derive(Debug)]
struct Files {
    root: PathBuf,
    rules: Rules,
    /// Looked at though they are hidden.
    more: Vec<PathBuf>,
    seen: HashMap<PathBuf, Stamp>,
    /// Directories and files that are not hidden.
    size: (usize, usize),
}

impl Looks {
    /// Looks for the first time.
    pub fn begin(tree: &Tree, rules: Rules, git: Option<&Git>, why: String) -> Self {
        let begun = Instant::now();
        let (root, more) = (tree.root.clone(), of_git(tree, git));
        let mut files = Files { root, rules, more, seen: HashMap::new(), size: (0, 0) };
        files.look();
        Self { why, files: Some(files), looking: None, due: begun + pause(begun), begun, other: None }
    }

    /// The tree is another now, a git tree for one.
    pub fn change(&mut self, tree: &Tree, git: Option<&Git>) {
        self.other = Some((tree.clone(), of_git(tree, git)));
    }

    /// Directories and files there are.
    pub fn size(&self) -> (usize, usize) {
        self.files.as_ref().map_or((0, 0), |files| files.size)
    }

    /// Waits for the next look; gives what changed, and whether it is new. May be dropped and called again.
    pub async fn next(&mut self) -> Changed {
        if let Some(mut files) = self.files.take_if(|_| self.looking.is_none() && Instant::now() >= self.due)
        {
            self.begun = Instant::now();
            if let Some((tree, more)) = self.other.take() {
                files.rules.change(&tree);
                files.more = more;
            }
            self.looking = Some(tokio::task::spawn_blocking(move || {
                let changed = files.look();
                (files, changed)
            }));
        }
        let Some(looking) = &mut self.looking else {
            tokio::time::sleep_until(self.due).await;
            return Vec::new();
        };
        let (files, changed) =
            looking.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        (self.files, self.looking) = (Some(files), None);
        self.due = Instant::now() + pause(self.begun);
        changed
    }
}

/// What says whether a tree is git's, and what git has of it.
fn of_git(tree: &Tree, git: Option<&Git>) -> Vec<PathBuf> {
    let own = git.map_or(&[][..], Git::files).iter().cloned();
    own.chain([tree.root.join(".git")]).collect()
}

fn pause(begun: Instant) -> Duration {
    (begun.elapsed() * SHARE).clamp(PAUSE, LONGEST)
}

impl Files {
    fn look(&mut self) -> Changed {
        // They may have changed as well.
        self.rules.forget();
        let mut now = HashMap::with_capacity(self.seen.len());
        let mut directories = 0;
        for entry in self.rules.walk(&self.root) {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => directories += 1,
                Ok(metadata) => drop(now.insert(entry.into_path(), Stamp::from(&metadata))),
                // It is gone again.
                Err(_) => {}
            }
        }
        self.size = (directories, now.len());
        for path in &self.more {
            now.extend(path.symlink_metadata().ok().map(|metadata| (path.clone(), Stamp::from(&metadata))));
        }
        let before = std::mem::replace(&mut self.seen, now);
        let mut changed: Vec<_> = self
            .seen
            .iter()
            .filter(|(path, stamp)| before.get(*path) != Some(*stamp))
            .map(|(path, _)| (path.clone(), !before.contains_key(path)))
            .collect();
        // One that is hidden now has not changed.
        let is_gone = |path: &PathBuf| !self.seen.contains_key(path) && path.symlink_metadata().is_err();
        let gone = before.into_keys().filter(is_gone);
        changed.extend(gone.map(|path| (path, false)));
        changed
    }
}
