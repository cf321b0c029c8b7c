//! Work done anew whenever a flake's sources change.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use crate::event::{Kind, Level};
use crate::host::paths::Paths;
use crate::image::failure::git_add;
use crate::image::flake::FlakeRef;
use crate::image::watch::{Change, Heard, NAMED, Watch};

/// What to do about a change while work is under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum OnBusy {
    /// Cancel it, and begin anew.
    #[default]
    Restart,
    /// Let it come to its end first.
    Wait,
}

/// How to watch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Manner {
    /// What to do about a change while work is under way.
    pub on_busy: OnBusy,
    /// Look at the files even where the system would tell of changes.
    pub poll: bool,
}

/// Why sources cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// They are not here.
    #[error(
        "`{0}` cannot be watched: it is not a directory of this machine\nhelp: give a local flake, e.g. `--flake .`"
    )]
    Elsewhere(String),
    /// The system refuses.
    #[error("cannot watch `{root}`: {source}\nhelp: `--poll` looks at the files instead")]
    System {
        /// The sources.
        root: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Sources that are watched.
#[derive(Debug)]
pub struct Watching {
    root: PathBuf,
    watch: Watch,
    on_busy: OnBusy,
    news: VecDeque<News>,
    /// Files that the user knows not to be tracked.
    untracked: BTreeSet<PathBuf>,
}

/// What happens while nothing is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// The sources changed.
    Changed(Change),
    /// Something the user should know.
    Note(Level, String),
}

impl Watching {
    /// Begins to watch a flake's sources, but for what is mvm's own.
    pub async fn begin(flake: &FlakeRef, manner: Manner, paths: &Paths) -> Result<Self, WatchError> {
        let tree = flake.tree().ok_or_else(|| WatchError::Elsewhere(flake.display()))?.clone();
        let (root, own) = (tree.root.clone(), paths.state().to_path_buf());
        // It may have to list very many files.
        let opened = tokio::task::spawn_blocking(move || Watch::open(&tree, &[&own], manner.poll)).await;
        let opened = opened.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        let watch = opened.map_err(|source| WatchError::System { root: root.clone(), source })?;
        let (directories, files) = watch.size();
        let mut news = VecDeque::new();
        if let Some(why) = watch.polls() {
            news.push_back(looked(why));
        }
        let text = format!("watching {}: {files} files in {directories} directories", root.display());
        news.push_back(News::Note(Level::Info, text));
        Ok(Self { root, watch, on_busy: manner.on_busy, news, untracked: BTreeSet::new() })
    }

    /// What happens next. May be dropped and called again.
    pub async fn next(&mut self) -> News {
        loop {
            if let Some(news) = self.news.pop_front() {
                return news;
            }
            let heard = self.watch.next().await;
            self.hear(heard);
        }
    }

    /// Does `work`, which is cancelled by a token of its own when there is no use in it any more. What is
    /// heard meanwhile is told by [`Self::next`].
    pub async fn during<T>(
        &mut self,
        cancel: &CancellationToken,
        work: impl AsyncFnOnce(&CancellationToken) -> T,
    ) -> T {
        let stop = cancel.child_token();
        let work = work(&stop);
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                heard = self.watch.next() => {
                    if self.hear(heard) && self.on_busy == OnBusy::Restart {
                        stop.cancel();
                    }
                }
            }
        }
    }

    /// Whether it is a change.
    fn hear(&mut self, heard: Heard) -> bool {
        match heard {
            Heard::Changed(change) => {
                // Some may be tracked now.
                let of_git = change.paths.iter().any(|path| path == Path::new(".git"));
                if of_git || change.paths.is_empty() || change.more > 0 {
                    self.untracked.clear();
                }
                let before = self.news.iter().position(|news| matches!(news, News::Changed(_)));
                let change = match before.and_then(|index| self.news.remove(index)) {
                    Some(News::Changed(before)) => before.and(change),
                    _ => change,
                };
                self.news.push_back(News::Changed(change));
                return true;
            }
            Heard::Untracked(mut paths) => {
                paths.retain(|path| self.untracked.insert(path.clone()));
                if !paths.is_empty() {
                    self.news.push_back(News::Note(Level::Warning, not_seen(&self.root, &paths)));
                }
            }
            Heard::Looked(why) => self.news.push_back(looked(&why)),
            Heard::Gone => {
                let text = "the flake is gone; it is built again once it is back";
                self.news.push_back(News::Note(Level::Warning, text.into()));
            }
        }
        false
    }
}

fn looked(why: &str) -> News {
    News::Note(Level::Warning, format!("files are looked at from time to time: {why}"))
}

/// What is said of files that git does not track.
fn not_seen(root: &Path, files: &[PathBuf]) -> String {
    let named: Vec<&Path> = files.iter().take(NAMED).map(PathBuf::as_path).collect();
    let names: Vec<String> = named.iter().map(|file| file.display().to_string()).collect();
    let more = match files.len() - named.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let them = if files.len() == 1 { "it" } else { "them" };
    let (names, add) = (names.join(", "), git_add(root, &named));
    format!("git does not track {names}{more}, so Nix does not see {them}: {add}")
}

/// The event of a change.
pub fn triggered(change: &Change) -> Kind {
    Kind::WatchTriggered { paths: change.names(), more: change.more }
}
