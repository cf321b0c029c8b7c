//! The derivations of a task, each once, below the first one to begin that needs it.
//!
//! What is needed is built first: so a build under way stands at the top, and takes what was built
//! for it below itself as it begins. No other row moves.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;

use super::derivation::{Derivation, State};
use crate::event::Activity;
use crate::event::text::strip;
use crate::event::words::{drv_name, host_name};

/// Derivations told apart; further ones are only counted.
pub const MOST: usize = 10_000;

/// The derivations of one task.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    all: Vec<Derivation>,
    by_drv: HashMap<String, usize>,
    by_id: HashMap<u64, usize>,
    tops: BTreeSet<usize>,
    running: BTreeSet<usize>,
    failed: BTreeSet<usize>,
    /// Derivations that are only counted.
    pub untold: u64,
}

/// A row of the tree as it is drawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The derivation, for [`Tree::get`].
    pub at: usize,
    /// For each derivation above it, from the top: whether more follows below that.
    pub trunks: Vec<bool>,
    /// Whether it is the last one at its place.
    pub last: bool,
}

impl Tree {
    /// How many derivations there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether nothing was built.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The derivation at `at`; they are in order of their first start.
    pub fn get(&self, at: usize) -> Option<&Derivation> {
        self.all.get(at)
    }

    /// Where the derivation with this store path is.
    pub fn find(&self, drv: &str) -> Option<usize> {
        self.by_drv.get(drv).copied()
    }

    /// Those being built, in order of their start.
    pub fn running(&self) -> &BTreeSet<usize> {
        &self.running
    }

    /// Those that failed, in order of their start.
    pub fn failed(&self) -> &BTreeSet<usize> {
        &self.failed
    }

    /// A build begins.
    pub(super) fn begin(&mut self, id: u64, what: &Activity, time: Timestamp) -> bool {
        let Activity::Build { drv, host, usual_ms, needs } = what else { return false };
        // An id that is given twice: the first one will not be heard of again.
        if let Some(before) = self.by_id.get(&id).copied() {
            self.close(before, time, State::Ended);
        }
        let (at, new) = match self.find(drv) {
            Some(at) => (at, false),
            None if self.all.len() >= MOST => {
                self.untold += 1;
                return true;
            }
            None => (self.all.len(), true),
        };
        if new {
            let name = strip(drv_name(drv));
            self.all.push(Derivation {
                drv: drv.clone(),
                name,
                host: String::new(),
                phase: String::new(),
                started: time,
                ended: None,
                usual_ms: None,
                state: State::Running,
                id,
                above: None,
                below: Vec::new(),
                rows: 1,
            });
            self.by_drv.insert(drv.clone(), at);
            self.tops.insert(at);
            self.adopt(at, needs);
        }
        let it = &mut self.all[at];
        self.by_id.remove(&it.id);
        (it.id, it.started, it.ended, it.state) = (id, time, None, State::Running);
        (it.host, it.usual_ms) = (strip(host_name(host)), *usual_ms);
        it.phase.clear();
        self.by_id.insert(id, at);
        self.running.insert(at);
        self.failed.remove(&at);
        true
    }

    /// Puts what a new derivation needs below it. All that began earlier, so there is no circle.
    fn adopt(&mut self, at: usize, needs: &[String]) {
        for need in needs {
            let Some(below) = self.find(need).filter(|below| *below < at) else { continue };
            if self.all[below].above.is_none() {
                self.all[below].above = Some(at);
                self.tops.remove(&below);
                let rows = self.all[below].rows;
                self.all[at].rows += rows;
                self.all[at].below.push(below);
            }
        }
        self.all[at].below.sort_unstable();
    }

    pub(super) fn phase(&mut self, id: u64, phase: &str) -> bool {
        let Some(at) = self.by_id.get(&id) else { return false };
        self.all[*at].phase = strip(phase);
        true
    }

    pub(super) fn end(&mut self, id: u64, time: Timestamp) -> bool {
        let Some(at) = self.by_id.remove(&id) else { return false };
        self.close(at, time, State::Done);
        true
    }

    fn close(&mut self, at: usize, time: Timestamp, state: State) {
        let it = &mut self.all[at];
        it.ended.get_or_insert(time);
        if it.state == State::Running {
            it.state = state;
        }
        self.running.remove(&at);
    }

    /// Marks those as failed that an error names: unless something that needs it has begun, for
    /// then it was built.
    pub(super) fn blame(&mut self, error: &str, time: Timestamp) -> bool {
        let is_path = |c: char| c.is_ascii_alphanumeric() || "/+-._?=".contains(c);
        let words = error.split(|c| !is_path(c)).map(|word| word.trim_end_matches('.'));
        let mut changed = false;
        for word in words.filter(|word| word.contains('/')) {
            // A colour may stand right before it.
            let word = &word[word.find('/').unwrap_or(0)..];
            // What a layer that failed has left is beside it.
            let word = word.strip_suffix(".failed").unwrap_or(word);
            let Some(at) = self.find(word).filter(|at| self.all[*at].above.is_none()) else { continue };
            self.close(at, time, State::Failed);
            self.all[at].state = State::Failed;
            changed |= self.failed.insert(at);
        }
        changed
    }

    /// The task is over; `built` is how many builds Nix counted as done, when it went wrong.
    pub(super) fn end_all(&mut self, time: Timestamp, built: Option<u64>) {
        let state = if built.is_some() { State::Ended } else { State::Done };
        while let Some(at) = self.running.first().copied() {
            self.close(at, time, state);
        }
        self.by_id.clear();
        let Some(built) = built else { return };
        // Nix ends all that runs when one fails: those that ended last, beyond what it counted.
        let done = self.all.iter().filter(|it| it.state == State::Done).count() as u64 + self.untold;
        let mut open: Vec<usize> =
            self.tops.iter().copied().filter(|at| self.all[*at].state == State::Done).collect();
        open.sort_by_key(|at| std::cmp::Reverse(self.all[*at].ended));
        for at in open.into_iter().take(done.saturating_sub(built) as usize) {
            self.all[at].state = State::Ended;
        }
    }

    /// Rows of the whole tree: `count` of them, `from` on.
    pub fn window(&self, from: usize, count: usize) -> Vec<Row> {
        self.walk(self.tops.iter().copied().collect(), from, count, |_| true)
    }

    /// The tree of `chosen` alone.
    pub fn prune(&self, chosen: &BTreeSet<usize>) -> Vec<Row> {
        let top = |at: &usize| self.all[*at].above.is_none_or(|above| !chosen.contains(&above));
        let tops = chosen.iter().copied().filter(|at| *at < self.all.len()).filter(top).collect();
        self.walk(tops, 0, usize::MAX, |at| chosen.contains(&at))
    }

    fn walk(&self, tops: Vec<usize>, from: usize, count: usize, shown: impl Fn(usize) -> bool) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut skip = from;
        let mut trunks = Vec::new();
        let mut stack: Vec<(usize, usize, bool)> = Vec::new();
        push(&mut stack, tops.into_iter(), 0);
        while let Some((at, depth, last)) = stack.pop() {
            if rows.len() >= count {
                break;
            }
            if skip >= self.all[at].rows {
                skip -= self.all[at].rows;
                continue;
            }
            trunks.truncate(depth);
            if skip == 0 {
                rows.push(Row { at, trunks: trunks.clone(), last });
            } else {
                skip -= 1;
            }
            trunks.push(!last);
            push(&mut stack, self.all[at].below.iter().copied().filter(|at| shown(*at)), depth + 1);
        }
        rows
    }

    /// The row of a derivation in the whole tree.
    pub fn row_of(&self, at: usize) -> usize {
        let (mut row, mut at) = (0, at);
        let rows = |at: &usize| self.all[*at].rows;
        while let Some(above) = self.all.get(at).and_then(|it| it.above) {
            row += 1 + self.all[above].below.iter().take_while(|one| **one != at).map(rows).sum::<usize>();
            at = above;
        }
        row + self.tops.iter().take_while(|top| **top != at).map(rows).sum::<usize>()
    }

    /// The derivation in a row of the whole tree.
    pub fn at_row(&self, row: usize) -> Option<usize> {
        self.window(row, 1).first().map(|row| row.at)
    }
}

/// Puts derivations onto the stack of a walk, the first on top.
fn push(stack: &mut Vec<(usize, usize, bool)>, all: impl DoubleEndedIterator<Item = usize>, depth: usize) {
    stack.extend(all.rev().enumerate().map(|(from_end, at)| (at, depth, from_end == 0)));
}

#[cfg(test)]
mod tests;
