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
    // One row says how many more ended, unless there are only a few rows.
    let told = over > 0 && room > 3;
    let rest = room - usize::from(told);
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
    Shown { ended: if told { ended } else { 0 }, rows, running, failed }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::model::task::TaskModel;
    use crate::event::{Activity, Event, Kind, SCHEMA_VERSION, Source, TaskId};
    use jiff::Timestamp;
    use proptest::prelude::*;

    /// Builds that ended, then some that failed, then some that run.
    fn tree(ended: usize, failed: usize, running: usize) -> Tree {
        let task = TaskId::new('b');
        let mut model = TaskModel::new(task.clone(), 1 << 20);
        let mut send = |kind| {
            let time = Timestamp::UNIX_EPOCH;
            model.apply(&Event { v: SCHEMA_VERSION, time, task: task.clone(), kind });
        };
        for at in 0..ended + failed + running {
            let (id, drv) = (at as u64, format!("/nix/store/{at}.drv"));
            let needs =
                if at % 3 == 2 && at < ended { vec![format!("/nix/store/{}.drv", at - 1)] } else { vec![] };
            let what = Activity::Build { drv: drv.clone(), host: String::new(), usual_ms: None, needs };
            send(Kind::ActivityStarted { id, parent: None, what });
            if at < ended {
                send(Kind::ActivityStopped { id });
            } else if at < ended + failed {
                send(Kind::Log { source: Source::Nix { level: 0 }, text: drv });
            }
        }
        model.tree
    }

    #[test]
    fn many_failures_do_not_hide_what_runs() {
        let shown = fold(&tree(37, 50, 4), 10);
        assert_eq!((shown.ended, shown.running, shown.failed), (37, 0, 46));
        let shown = fold(&tree(37, 50, 40), 10);
        assert_eq!((shown.ended, shown.running, shown.failed), (37, 35, 48));
    }

    #[test]
    fn a_tree_that_fits_is_whole() {
        let shown = fold(&tree(6, 2, 2), 10);
        assert_eq!((shown.ended, shown.rows.len(), shown.running, shown.failed), (0, 10, 0, 0));
    }

    #[test]
    fn in_two_rows_what_runs_comes_first() {
        let shown = fold(&tree(9, 0, 2), 2);
        assert_eq!((shown.ended, shown.rows.len()), (0, 2));
        assert!(shown.rows.iter().all(|row| row.at >= 9));
    }

    proptest! {
            #[test]
            fn no_more_rows_are_taken_than_there_are(
                ended in 0_usize..30, failed in 0_usize..30, running in 0_usize..30, room in 0_usize..40,
            ) {
                let shown = fold(&tree(ended, failed, running), room);
                let sums = [shown.ended, shown.running, shown.failed].iter().filter(|count| **count > 0).count();
                if room > 3 {
                    prop_assert!(shown.rows.len() + sums <= room, "{:?}", shown);
                    let all = shown.rows.len() + shown.ended + shown.running + shown.failed;
                    prop_assert_eq!(all, ended + failed + running);
                }
    let runs = shown.rows.iter().any(|row| row.at >= ended + failed);
                prop_assert!(room < 4 || running == 0 || runs, "{:?}", shown);
            }
        }
}
