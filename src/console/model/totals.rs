//! How much there is to do, and how much of it is done.

use crate::event::Activity;

/// Counts of one sort of work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Units done.
    pub done: u64,
    /// Units there are, as far as is known; never fewer than the others together.
    pub expected: u64,
    /// Units under way.
    pub running: u64,
    /// Units failed.
    pub failed: u64,
}

impl Count {
    /// Units whose turn is yet to come.
    pub fn waiting(&self) -> u64 {
        self.expected - self.begun().min(self.expected)
    }

    fn begun(&self) -> u64 {
        self.done.saturating_add(self.running).saturating_add(self.failed)
    }

    fn plus(self, other: Self) -> Self {
        Self {
            done: self.done.saturating_add(other.done),
            expected: self.expected.saturating_add(other.expected),
            running: self.running.saturating_add(other.running),
            failed: self.failed.saturating_add(other.failed),
        }
    }
}

/// Counts of one sort of work, of all the runs of Nix that a task needs.
#[derive(Debug, Clone, Copy, Default)]
struct Runs {
    /// The activity that counts in the present run.
    id: Option<u64>,
    /// What earlier runs came to.
    before: Count,
    now: Count,
}

impl Runs {
    fn begin(&mut self, id: u64) {
        self.rest();
        *self = Self { id: Some(id), before: self.count(), now: Count::default() };
    }

    fn progress(&mut self, done: u64, expected: u64, running: u64, failed: u64) {
        // When all is done Nix counts back to nought.
        let done = done.max(self.now.done);
        let failed = failed.max(self.now.failed);
        let mut now = Count { done, expected, running, failed };
        now.expected = now.expected.max(now.begun());
        self.now = now;
    }

    /// Nothing runs any more, and what has not begun never will.
    fn rest(&mut self) {
        self.now.running = 0;
        self.now.expected = self.now.begun();
    }

    fn count(&self) -> Count {
        self.before.plus(self.now)
    }
}

/// Counts of all of a task's work that Nix counts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    builds: Runs,
    copies: Runs,
}

impl Totals {
    /// Derivations to build.
    pub fn builds(&self) -> Count {
        self.builds.count()
    }

    /// Store paths to copy or substitute.
    pub fn copies(&self) -> Count {
        self.copies.count()
    }

    /// Learns which activity counts what.
    pub(super) fn begin(&mut self, id: u64, what: &Activity) {
        match what {
            Activity::Total { of } if of == "builds" => self.builds.begin(id),
            Activity::Total { of } if of == "copies" => self.copies.begin(id),
            _ => {}
        }
    }

    /// Takes counts in; those of no activity are of builds. Returns whether they are of use here.
    pub(super) fn progress(&mut self, id: Option<u64>, [done, expected, running, failed]: [u64; 4]) -> bool {
        let of = match id {
            None => Some(&mut self.builds),
            Some(_) => [&mut self.builds, &mut self.copies].into_iter().find(|runs| runs.id == id),
        };
        of.map(|runs| runs.progress(done, expected, running, failed)).is_some()
    }

    /// The task is over. Where it ended well, nothing is left to do.
    pub(super) fn end(&mut self, well: bool) {
        for runs in [&mut self.builds, &mut self.copies] {
            runs.now.running = 0;
            if well {
                runs.rest();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(of: &str) -> Activity {
        Activity::Total { of: of.into() }
    }

    #[test]
    fn progress_above_the_total_raises_the_total() {
        let mut totals = Totals::default();
        totals.begin(1, &total("builds"));
        totals.progress(Some(1), [9, 3, 2, 1]);
        assert_eq!(totals.builds(), Count { done: 9, expected: 12, running: 2, failed: 1 });
        totals.progress(Some(1), [u64::MAX, 1, u64::MAX, 0]);
        assert_eq!(totals.builds().waiting(), 0);
    }

    #[test]
    fn the_total_may_fall_but_what_is_done_stays_done() {
        let mut totals = Totals::default();
        totals.begin(1, &total("builds"));
        totals.progress(Some(1), [0, 3, 1, 0]);
        totals.progress(Some(1), [1, 2, 0, 0]);
        assert_eq!((totals.builds().done, totals.builds().expected, totals.builds().waiting()), (1, 2, 1));
        totals.progress(Some(1), [0, 0, 0, 0]);
        assert_eq!((totals.builds().done, totals.builds().expected), (1, 1));
    }

    #[test]
    fn a_second_run_of_nix_is_added_to_the_first() {
        let mut totals = Totals::default();
        totals.begin(1, &total("builds"));
        totals.progress(Some(1), [2, 3, 1, 0]);
        totals.begin(2, &total("builds"));
        totals.progress(Some(2), [0, 1, 1, 0]);
        assert_eq!(totals.builds(), Count { done: 2, expected: 3, running: 1, failed: 0 });
        assert!(!totals.progress(Some(1), [9, 9, 9, 9]), "the first counts no more");
        assert!(!totals.progress(Some(77), [9, 9, 9, 9]), "an unknown activity counts nothing");
    }
}
