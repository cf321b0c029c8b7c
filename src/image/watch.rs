//! A flake's sources, watched: what changed that a build can see.
//!
//! Each directory is watched by itself, so that ignored trees cost nothing and files that editors
//! replace are not lost sight of. Where the system tells nothing of changes, they are looked for.

mod git;
mod looks;
mod rules;
mod settle;
mod teller;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::flake::Tree;
use super::source::Fingerprint;
use git::Git;
use looks::Looks;
use rules::Rules;
use settle::Settle;
use teller::{How, Silence, Teller, Told};

/// Pause between two looks whether the flake is still there, or there again.
const PAUSE: Duration = Duration::from_millis(500);
/// How many paths of a change are named.
pub const NAMED: usize = 4;

/// A flake's sources, from now on.
#[derive(Debug)]
pub struct Watch {
    tree: Tree,
    git: Option<Git>,
    way: Way,
    settle: Settle,
    /// Whether more happened than was told.
    lost: bool,
    /// Whether what is watched is no more what lies there.
    moved: bool,
    /// Why the system tells no more, unless that was told.
    fell: Option<String>,
    /// Whether something happened among git's own files.
    git_told: bool,
    /// Directories that are watched, and files in them, when it began.
    size: (usize, usize),
    /// The state of the sources after changes were lost, to tell a loss of nothing from one of something.
    print: Option<String>,
}

/// How changes are known.
#[derive(Debug)]
enum Way {
    Told(Teller, Rules),
    Looked(Looks),
}

/// What is heard of the sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// They changed.
    Changed(Change),
    /// Files changed that Nix does not see, because git does not track them.
    Untracked(Vec<PathBuf>),
    /// The flake is gone; its return is a change.
    Gone,
    /// The system tells no more; from now on changes are looked for, and why.
    Looked(String),
}

/// What changed, relative to the root of the sources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// The first few in the order of their names; empty when that cannot be told.
    pub paths: Vec<PathBuf>,
    /// How many more.
    pub more: u64,
}

impl Change {
    fn of(paths: &BTreeSet<PathBuf>) -> Self {
        let named: Vec<PathBuf> = paths.iter().take(NAMED).cloned().collect();
        Self { more: (paths.len() - named.len()) as u64, paths: named }
    }

    /// The paths for people.
    pub fn names(&self) -> Vec<String> {
        self.paths.iter().map(|path| path.display().to_string()).collect()
    }

    /// Both.
    pub fn and(self, other: Self) -> Self {
        let all: BTreeSet<PathBuf> = self.paths.into_iter().chain(other.paths).collect();
        let Self { paths, more } = Self::of(&all);
        Self { paths, more: more + self.more + other.more }
    }
}

impl Watch {
    /// Begins to watch. What lies below `except` is mvm's own and does not count; `poll` has changes
    /// looked for even where the system would tell of them. Takes as long as it takes to list the files.
    pub fn open(tree: &Tree, except: &[&Path], poll: bool) -> io::Result<Self> {
        let git = Git::of(tree);
        let told = match poll {
            true => Err(Silence::Limit("as asked".into())),
            false => Teller::new(&tree.root).and_then(|mut teller| {
                let mut rules = Rules::new(tree, except);
                let size = look(&mut teller, &mut rules, tree, git.as_ref(), &tree.root, &mut |_| {})?;
                Ok((Way::Told(teller, rules), size))
            }),
        };
        let (way, size) = match told {
            Ok(told) => told,
            Err(Silence::Error(error)) => return Err(error),
            Err(Silence::Limit(why)) => {
                let looks = Looks::begin(tree, Rules::new(tree, except), git.as_ref(), why);
                let size = looks.size();
                (Way::Looked(looks), size)
            }
        };
        Ok(Self {
            tree: tree.clone(),
            git,
            way,
            settle: Settle::default(),
            lost: false,
            moved: false,
            fell: None,
            git_told: false,
            size,
            print: None,
        })
    }

    /// Directories that were watched when it began, and files in them.
    pub fn size(&self) -> (usize, usize) {
        self.size
    }

    /// Why changes are looked for instead of being told, if so.
    pub fn polls(&self) -> Option<&str> {
        match &self.way {
            Way::Told(..) => None,
            Way::Looked(looks) => Some(&looks.why),
        }
    }

    /// What is heard next, once it has settled. May be dropped and called again.
    pub async fn next(&mut self) -> Heard {
        loop {
            if let Some(why) = self.fell.take() {
                return Heard::Looked(why);
            }
            match self.is_there() {
                true if self.settle.find() | std::mem::take(&mut self.moved) => {
                    // What is still told of the old one is of no use.
                    if let Way::Told(teller, _) = &mut self.way {
                        let begun = Teller::new(&self.tree.root).map(|anew| *teller = anew);
                        self.unless_silent(begun);
                    }
                    self.look_again();
                    return Heard::Changed(Change::default());
                }
                // While it changes, an editor may be about to put it back.
                false if !self.settle.is_waiting() => {
                    if self.settle.lose() {
                        return Heard::Gone;
                    }
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                _ => {}
            }
            let next = async {
                match &mut self.way {
                    Way::Told(teller, _) => Next::Told(teller.next().await),
                    Way::Looked(looks) => Next::Seen(looks.next().await),
                }
            };
            let next = tokio::select! {
                biased;
                () = self.settle.settled() => Next::Settled,
                next = next => next,
                // Of what is moved away, nothing is told.
                () = tokio::time::sleep(PAUSE) => continue,
            };
            match next {
                Next::Settled => {
                    if let Some(heard) = self.settled() {
                        return heard;
                    }
                }
                Next::Told(Told::Changed(paths, how)) => {
                    paths.into_iter().for_each(|path| self.note(&path, how));
                }
                Next::Told(Told::Lost) => {
                    self.lost = true;
                    self.settle.touch();
                }
                Next::Seen(changed) => {
                    for (path, new) in changed {
                        if !self.is_of_git(&path) {
                            self.add(&path, new);
                        }
                    }
                }
            }
        }
    }

    /// Whether there is a flake to build.
    fn is_there(&self) -> bool {
        self.tree.dir.join("flake.nix").is_file()
    }

    /// Whether the path is git's own, or what makes a tree one of git; that is asked once it has settled.
    fn is_of_git(&mut self, path: &Path) -> bool {
        let is_own = self.git.as_ref().is_some_and(|git| path.starts_with(git.dir()));
        self.git_told |= is_own;
        let is_gits = is_own || path == self.tree.root.join(".git");
        if is_gits {
            self.settle.touch();
        }
        is_gits
    }

    fn add(&mut self, path: &Path, new: bool) {
        if let Ok(path) = path.strip_prefix(&self.tree.root) {
            self.settle.add(path.into(), new);
        }
    }

    /// The system told of a path.
    fn note(&mut self, path: &Path, how: How) {
        if self.is_of_git(path) {
            return;
        }
        let Way::Told(teller, rules) = &mut self.way else { return };
        if path == self.tree.root {
            if how == How::Gone {
                self.moved = true;
                self.settle.take(|_| true);
            }
            return;
        }
        let there = path.symlink_metadata();
        let is_dir = there.as_ref().is_ok_and(|metadata| metadata.is_dir());
        if how == How::Gone || there.is_err() {
            teller.forget(path);
        }
        let relative = path.strip_prefix(&self.tree.root);
        if !is_dir && relative.is_ok_and(|relative| self.settle.renew(relative)) {
            return;
        }
        if !path.starts_with(&self.tree.root) || rules.hide_all_of(path, is_dir) {
            return;
        }
        match is_dir {
            // What happens in it is told by itself.
            true if teller.watches(path) => {}
            true => {
                let mut inside = Vec::new();
                let mut each = |path: &Path| inside.push(path.to_path_buf());
                let looked = look(teller, rules, &self.tree, None, path, &mut each);
                for path in inside {
                    self.add(&path, true);
                }
                self.unless_silent(looked.map(drop));
            }
            false => {
                self.add(path, how == How::New);
            }
        }
    }

    /// So much happened at once that some was not told: whether it is worth telling.
    fn find_lost(&mut self) -> bool {
        self.look_again();
        let before = self.print.take();
        let mut print = Fingerprint::begin();
        self.print = print.tree(&self.tree).map(|()| print.finish().digest);
        before.is_none() || before != self.print
    }

    fn look_again(&mut self) {
        let Way::Told(teller, rules) = &mut self.way else { return };
        rules.forget();
        let root = self.tree.root.clone();
        let looked = look(teller, rules, &self.tree, self.git.as_ref(), &root, &mut |_| {});
        self.unless_silent(looked.map(drop));
    }

    /// Where the system tells no more, what changes is looked for from now on.
    fn unless_silent(&mut self, looked: Result<(), Silence>) {
        let why = match looked {
            Ok(()) => return,
            Err(Silence::Limit(why)) => why,
            Err(Silence::Error(error)) => error.to_string(),
        };
        let Way::Told(_, rules) = &mut self.way else { return };
        let rules = std::mem::replace(rules, Rules::new(&self.tree, &[]));
        self.fell = Some(why.clone());
        // What was about to be told.
        self.lost = true;
        self.settle.touch();
        self.way = Way::Looked(Looks::begin(&self.tree, rules, self.git.as_ref(), why));
    }

    /// Whether it has become a git tree, or is none any more.
    fn became_another(&mut self) -> bool {
        let git = !self.tree.by_path && self.tree.root.join(".git").exists();
        let tree = Tree { git, ..self.tree.clone() };
        let own = Git::of(&tree);
        // It may be in the making.
        if git == self.tree.git || git != own.is_some() {
            return false;
        }
        (self.tree, self.git) = (tree, own);
        match &mut self.way {
            Way::Told(_, rules) => rules.change(&self.tree),
            Way::Looked(looks) => looks.change(&self.tree, self.git.as_ref()),
        }
        true
    }

    /// What is to be told of what gathered; nothing where it came to nothing.
    fn settled(&mut self) -> Option<Heard> {
        let (mut paths, unknown) =
            self.settle.take(|path| self.tree.root.join(path).symlink_metadata().is_ok());
        if !self.is_there() {
            return None;
        }
        let git_told = std::mem::take(&mut self.git_told);
        let git_changed = self.became_another() || git_told && self.git.as_mut().is_some_and(Git::changed);
        if git_changed || paths.iter().any(|path| Rules::is_one(path)) {
            // What was hidden may not be any more.
            self.look_again();
        }
        if git_changed {
            paths.insert(".git".into());
        }
        let unknown = unknown || std::mem::take(&mut self.lost) && self.find_lost();
        let (seen, mut unseen) = match &self.git {
            Some(git) => git.part(paths),
            None => (paths, BTreeSet::new()),
        };
        if unknown || !seen.is_empty() {
            return Some(Heard::Changed(Change::of(&seen)));
        }
        // One that was removed was not seen before either.
        unseen.retain(|path| self.tree.root.join(path).exists());
        (!unseen.is_empty()).then(|| Heard::Untracked(unseen.into_iter().collect()))
    }
}

/// What is there to be done.
enum Next {
    Settled,
    Told(Told),
    Seen(Vec<(PathBuf, bool)>),
}

/// Watches the directories from `dir` on; tells of files that are there. Gives the numbers of both.
fn look(
    teller: &mut Teller,
    rules: &mut Rules,
    tree: &Tree,
    git: Option<&Git>,
    dir: &Path,
    file: &mut dyn FnMut(&Path),
) -> Result<(usize, usize), Silence> {
    let (mut directories, mut files) = (0, 0);
    if let Some(git) = git.filter(|_| dir == tree.root) {
        teller.watch(git.dir())?;
    }
    for entry in rules.walk(dir) {
        match entry.file_type().is_dir() {
            // Watched before it is listed: nothing falls between the two.
            true => {
                teller.watch(entry.path())?;
                directories += 1;
            }
            false => {
                file(entry.path());
                files += 1;
            }
        }
    }
    Ok((directories, files))
}
