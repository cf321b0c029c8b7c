//! When changes have come to rest.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

/// Silence after which changes are taken to be over: an editor writes a file in several steps.
const QUIET: Duration = Duration::from_millis(150);
/// How long changes may go on without a pause.
const LONGEST: Duration = Duration::from_secs(2);
/// Paths kept; of more, only that there were more.
const MOST: usize = 10_000;

/// Changes that gather.
#[derive(Debug, Default)]
pub struct Settle {
    paths: BTreeSet<PathBuf>,
    /// Those among them that were not there before.
    new: BTreeSet<PathBuf>,
    unknown: bool,
    /// When the first and the last of them came.
    since: Option<(Instant, Instant)>,
    lost: bool,
}

impl Settle {
    /// One more; whether it is a `new` file.
    pub fn add(&mut self, path: PathBuf, new: bool) {
        match self.paths.len() < MOST {
            true if new && !self.paths.contains(&path) => {
                self.new.insert(path.clone());
                self.paths.insert(path);
            }
            true => drop(self.paths.insert(path)),
            false => self.unknown = true,
        }
        self.touch();
    }

    /// Whether the path is among them; if so, it changed again.
    pub fn renew(&mut self, path: &Path) -> bool {
        let known = self.paths.contains(path);
        if known {
            self.touch();
        }
        known
    }

    /// It goes on.
    pub fn touch(&mut self) {
        let now = Instant::now();
        self.since = Some((self.since.map_or(now, |(first, _)| first), now));
    }

    /// Whether there are any.
    pub fn is_waiting(&self) -> bool {
        self.since.is_some()
    }

    /// Waits until they have settled; for ever while there are none.
    pub async fn settled(&self) {
        match self.since {
            Some((first, last)) => tokio::time::sleep_until((last + QUIET).min(first + LONGEST)).await,
            None => std::future::pending().await,
        }
    }

    /// Takes them: the paths, and whether there may have been others. What came and went meanwhile is not
    /// among them; `there` says what did not.
    pub fn take(&mut self, there: impl Fn(&Path) -> bool) -> (BTreeSet<PathBuf>, bool) {
        self.since = None;
        let new = std::mem::take(&mut self.new);
        let mut paths = std::mem::take(&mut self.paths);
        paths.retain(|path| !new.contains(path) || there(path));
        (paths, std::mem::take(&mut self.unknown))
    }

    /// All is gone. Whether that is new.
    pub fn lose(&mut self) -> bool {
        self.take(|_| true);
        !std::mem::replace(&mut self.lost, true)
    }

    /// It is there. Whether that is new.
    pub fn find(&mut self) -> bool {
        std::mem::take(&mut self.lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn changes_settle_after_a_silence_but_do_not_wait_for_it_for_ever() {
        let mut settle = Settle::default();
        let begun = Instant::now();
        settle.add("a".into(), false);
        settle.settled().await;
        assert_eq!(begun.elapsed(), QUIET);
        settle.add("temporary".into(), true);
        settle.add("new".into(), true);
        let taken = settle.take(|path| path == Path::new("new"));
        assert_eq!(taken, (BTreeSet::from(["a".into(), "new".into()]), false));
        assert!(!settle.is_waiting());

        let begun = Instant::now();
        loop {
            settle.add("b".into(), false);
            tokio::select! {
                biased;
                () = settle.settled() => break,
                () = tokio::time::sleep(QUIET / 2) => {}
            }
        }
        assert_eq!(begun.elapsed(), LONGEST);
    }

    #[test]
    fn of_very_many_changes_it_is_only_known_that_there_were_more() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        let mut settle = Settle::default();
        (0..=MOST).for_each(|number| settle.add(number.to_string().into(), false));
        let (paths, more) = settle.take(|_| true);
        assert_eq!((paths.len(), more), (MOST, true));
    }
}
