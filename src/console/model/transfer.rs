//! Downloads and copies of one task.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use super::clock::since;
use crate::event::Activity;
use crate::event::text::strip;

/// Most that are followed at once; Nix makes 25 at most, a forged log could name more.
const MOST: usize = 256;
/// Least time over which a speed is measured, in milliseconds.
const SPAN: u128 = 500;
/// Time after which a speed counts for nothing unless more bytes came, in milliseconds.
const STALL: u128 = 3000;

/// A download or copy under way.
#[derive(Debug, Clone)]
pub struct Transfer {
    /// What is fetched: a file's or store path's name.
    pub name: String,
    /// Whether it is a copy of a store path.
    pub copy: bool,
    /// When it began.
    pub started: Timestamp,
    /// Bytes there.
    pub done: u64,
    /// Bytes there will be, as far as is known; 0 when it is not.
    pub expected: u64,
    bps: u64,
    /// Where the measurement of the speed began.
    mark: (Timestamp, u64),
}

impl Transfer {
    fn progress(&mut self, done: u64, expected: u64, now: Timestamp) {
        self.done = done.max(self.done);
        self.expected = if expected == 0 { 0 } else { expected.max(self.done) };
        let span = since(self.mark.0, now).as_millis();
        if span >= SPAN {
            let bps = u128::from(self.done - self.mark.1) * 1000 / span;
            self.bps = u64::try_from(bps).unwrap_or(u64::MAX);
            self.mark = (now, self.done);
        }
    }

    /// Bytes a second.
    pub fn speed(&self, now: Timestamp) -> u64 {
        if since(self.mark.0, now).as_millis() > STALL { 0 } else { self.bps }
    }
}

/// The downloads and copies of a task.
#[derive(Debug, Clone, Default)]
pub struct Transfers {
    running: BTreeMap<u64, Transfer>,
    /// Nix's part of a copy → the copy it is part of.
    parts: HashMap<u64, u64>,
    /// Downloads done.
    pub downloads: u64,
    /// Bytes of what is done.
    bytes: u64,
}

impl Transfers {
    /// What is under way, in order of its start.
    pub fn running(&self) -> impl Iterator<Item = &Transfer> {
        self.running.values()
    }

    /// Downloads under way.
    pub fn downloading(&self) -> u64 {
        self.running.values().filter(|transfer| !transfer.copy).count() as u64
    }

    /// Bytes there, and bytes there will be as far as is known.
    pub fn bytes(&self) -> (u64, u64) {
        self.running.values().fold((self.bytes, self.bytes), |(done, expected), transfer| {
            let whole = transfer.expected.max(transfer.done);
            (done.saturating_add(transfer.done), expected.saturating_add(whole))
        })
    }

    /// Bytes a second of all together.
    pub fn speed(&self, now: Timestamp) -> u64 {
        self.running.values().fold(0, |sum: u64, transfer| sum.saturating_add(transfer.speed(now)))
    }

    pub(super) fn begin(&mut self, id: u64, parent: Option<u64>, what: &Activity, time: Timestamp) -> bool {
        let (name, copy) = match what {
            Activity::Download { uri } => (strip(uri), false),
            Activity::Copy { path } => (crate::event::words::drv_name(&strip(path)).to_string(), true),
            _ => return false,
        };
        // Substituting a path copies it, and copying it may download it: one thing for people.
        let whole = parent.map(|parent| self.whole(parent)).filter(|whole| self.running.contains_key(whole));
        if let Some(whole) = whole {
            if self.parts.len() < MOST {
                self.parts.insert(id, whole);
            }
            return false;
        }
        if self.running.len() >= MOST {
            return false;
        }
        let transfer = Transfer { name, copy, started: time, done: 0, expected: 0, bps: 0, mark: (time, 0) };
        self.running.insert(id, transfer);
        true
    }

    fn whole(&self, id: u64) -> u64 {
        self.parts.get(&id).copied().unwrap_or(id)
    }

    pub(super) fn progress(&mut self, id: u64, done: u64, expected: u64, time: Timestamp) -> bool {
        let whole = self.whole(id);
        let Some(transfer) = self.running.get_mut(&whole) else { return false };
        transfer.progress(done, expected, time);
        true
    }

    pub(super) fn end(&mut self, id: u64) -> bool {
        if self.parts.remove(&id).is_some() {
            return false;
        }
        let Some(transfer) = self.running.remove(&id) else { return false };
        self.bytes = self.bytes.saturating_add(transfer.done);
        self.downloads += u64::from(!transfer.copy);
        true
    }

    pub(super) fn end_all(&mut self) {
        self.running.clear();
        self.parts.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).unwrap()
    }

    #[test]
    fn a_download_has_a_speed_until_it_stalls() {
        let mut transfers = Transfers::default();
        transfers.begin(1, None, &Activity::Download { uri: "https://x/y.xz".into() }, at(0));
        transfers.progress(1, 1000, 4000, at(1000));
        assert_eq!(transfers.speed(at(1000)), 1000);
        assert_eq!(transfers.bytes(), (1000, 4000));
        transfers.progress(1, 1100, 4000, at(1100));
        assert_eq!(transfers.speed(at(1100)), 1000, "too soon to tell");
        assert_eq!(transfers.speed(at(9000)), 0);
        transfers.end(1);
        assert_eq!((transfers.downloads, transfers.bytes()), (1, (1100, 1100)));
    }

    #[test]
    fn more_bytes_than_expected_raise_what_is_expected() {
        let mut transfers = Transfers::default();
        transfers.begin(1, None, &Activity::Download { uri: "u".into() }, at(0));
        transfers.progress(1, 9, 3, at(-5));
        assert_eq!(transfers.bytes(), (9, 9));
        transfers.progress(1, 2, 3, at(5));
        assert_eq!(transfers.bytes(), (9, 9), "bytes that came do not go");
    }

    #[test]
    fn the_download_within_a_copy_is_no_second_one() {
        let mut transfers = Transfers::default();
        let path = || Activity::Copy { path: "/nix/store/00000000000000000000000000000000-x".into() };
        assert!(transfers.begin(1, None, &path(), at(0)));
        assert!(!transfers.begin(2, Some(1), &path(), at(0)));
        assert!(!transfers.begin(3, Some(2), &Activity::Download { uri: "u".into() }, at(0)));
        assert!(transfers.progress(3, 5, 10, at(0)));
        assert_eq!(
            transfers.running().map(|transfer| (&*transfer.name, transfer.done)).collect::<Vec<_>>(),
            [("x", 5)]
        );
        transfers.end(3);
        transfers.end(1);
        assert_eq!(transfers.running().count(), 0);
        assert_eq!(transfers.bytes(), (5, 5));
    }
}
