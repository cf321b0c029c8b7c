//! Which rows of a tree of derivations are shown.

use std::collections::BTreeSet;

use crate::console::model::derivation::State;
use crate::console::model::tree::{Row, Tree};

/// The rows shown, and how many derivations are not.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Others that ended, shown as one row at the top.
    pub ended: usize,
    /// Derivations.
    pub rows: Vec<Row>,
    /// Others that run, shown as one row below.
    pub running: usize,
    /// Others that failed, shown as one row below that.
    pub failed: usize,
}

/// As much of the tree as `room` rows hold. What runs comes first, then what failed, though failures
/// keep a third; then what began last.
pub fn fold(tree: &Tree, room: usize) -> Shown {
    if tree.len() <= room && tree.untold == 0 {
        return Shown { rows: tree.window(0, room), ..Shown::default() };
    }
    let (runs, fails) = (tree.running().len(), tree.failed().len());
    let over = tree.len() - runs - fails + usize::try_from(tree.untold).unwrap_or(usize::MAX);
    // One row says how many more ended.
    let rest = room.saturating_sub(usize::from(over > 0));
    let running = share(runs, rest - fails.min(rest / 3));
    let failed = share(fails, rest - running.rows);
    let mut left = rest - running.rows - failed.rows;
    let mut chosen: BTreeSet<usize> = tree.running().iter().take(running.named).copied().collect();
    chosen.extend(tree.failed().iter().take(failed.named));
    let mut ended = over;
    for at in (0..tree.len()).rev() {
        if left == 0 {
            break;
        }
        if tree.get(at).is_some_and(|it| matches!(it.state, State::Done | State::Ended)) {
            chosen.insert(at);
            ended -= 1;
            left -= 1;
        }
    }
    let mut rows = tree.prune(&chosen);
    let (running, failed) = (runs - running.named, fails - failed.named);
    if running + failed > 0 {
        go_on(&mut rows);
    }
    Shown { ended, rows, running, failed }
}

/// How many of `count` are named in `room` rows, where a row may be needed for how many more there are.
fn share(count: usize, room: usize) -> Share {
    match room {
        _ if count <= room => Share { named: count, rows: count },
        0 => Share { named: 0, rows: 0 },
        _ => Share { named: room - 1, rows: room },
    }
}

struct Share {
    named: usize,
    rows: usize,
}

/// More follows below the last derivation at the top.
fn go_on(rows: &mut [Row]) {
    let Some(last) = rows.iter().rposition(|row| row.trunks.is_empty()) else { return };
    rows[last].last = false;
    rows[last + 1..].iter_mut().filter_map(|row| row.trunks.first_mut()).for_each(|trunk| *trunk = true);
}

/// The window of the whole tree with the derivation `at` near its middle.
pub fn around(tree: &Tree, at: usize, room: usize) -> Vec<Row> {
    let from = tree.row_of(at).saturating_sub(room / 2).min(tree.len().saturating_sub(room));
    tree.window(from, room)
}
