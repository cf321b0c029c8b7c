//! What builds begin, end and need.

use super::*;
use proptest::prelude::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn drv(name: &str) -> String {
    format!("/nix/store/00000000000000000000000000000000-{name}.drv")
}

fn begin(tree: &mut Tree, id: u64, name: &str, needs: &[&str]) {
    let needs = needs.iter().map(|need| drv(need)).collect();
    let what = Activity::Build { drv: drv(name), host: String::new(), usual_ms: None, needs };
    tree.begin(id, &what, at(id as i64));
}

/// The tree as text: a space for each level.
fn text(tree: &Tree) -> Vec<String> {
    let name = |row: &Row| format!("{:1$}{2}", "", row.trunks.len(), tree.get(row.at).unwrap().name);
    tree.window(0, usize::MAX).iter().map(name).collect()
}

fn state(tree: &Tree, name: &str) -> State {
    tree.get(tree.find(&drv(name)).unwrap()).unwrap().state
}

#[test]
fn each_is_once_below_the_first_to_begin_that_needs_it() {
    let mut tree = Tree::default();
    for (id, name) in ["kernel", "shared", "initrd"].into_iter().enumerate() {
        begin(&mut tree, id as u64, name, &[]);
        tree.end(id as u64, at(10));
    }
    assert_eq!(text(&tree), ["kernel", "shared", "initrd"]);
    begin(&mut tree, 11, "rootfs", &["shared"]);
    assert_eq!(text(&tree), ["kernel", "initrd", "rootfs", " shared"]);
    begin(&mut tree, 12, "image", &["initrd", "rootfs", "shared", "never-built", "image"]);
    assert_eq!(text(&tree), ["kernel", "image", " initrd", " rootfs", "  shared"]);
    let rows = tree.window(0, 9);
    assert_eq!((rows[2].last, &*rows[2].trunks), (false, &[false][..]));
    assert_eq!((rows[4].last, &*rows[4].trunks), (true, &[false, false][..]));
}

#[test]
fn a_derivation_built_again_keeps_its_place_and_makes_no_circle() {
    let mut tree = Tree::default();
    begin(&mut tree, 1, "part", &[]);
    tree.end(1, at(2));
    begin(&mut tree, 2, "whole", &["part"]);
    tree.end(2, at(3));
    begin(&mut tree, 3, "part", &["whole"]);
    assert_eq!(text(&tree), ["whole", " part"]);
    assert_eq!((state(&tree, "part"), state(&tree, "whole")), (State::Running, State::Done));
    assert!(tree.end(3, at(9)) && !tree.end(3, at(9)));
    begin(&mut tree, 4, "part", &[]);
    begin(&mut tree, 5, "part", &[]);
    assert!(!tree.end(4, at(9)) && tree.end(5, at(11)), "only the last of its builds counts");
    assert_eq!(tree.get(0).unwrap().elapsed(at(99)).as_secs(), 6);
}

#[test]
fn an_id_given_twice_and_one_never_given_do_no_harm() {
    let mut tree = Tree::default();
    begin(&mut tree, 1, "one", &[]);
    begin(&mut tree, 1, "two", &[]);
    assert_eq!((state(&tree, "one"), state(&tree, "two")), (State::Ended, State::Running));
    assert!(!tree.end(7, at(2)) && !tree.phase(7, "x"));
    tree.end(1, at(0));
    assert_eq!(tree.get(1).unwrap().elapsed(at(5)).as_secs(), 0, "the clock went back");
}

#[test]
fn only_what_the_error_names_has_failed() {
    let mut tree = Tree::default();
    for (id, name) in ["part", "good", "bad", "other"].into_iter().enumerate() {
        begin(&mut tree, id as u64, name, if name == "good" { &["part"] } else { &[] });
        tree.end(id as u64, at(1));
    }
    let error = format!(
        "builder for '\x1b[35;1m{}\x1b[0m' failed, it needs {}.\nhelp: see `nix log {}`",
        drv("bad"),
        drv("part"),
        drv("elsewhere")
    );
    assert!(tree.blame(&error, at(2)));
    assert_eq!(state(&tree, "bad"), State::Failed);
    assert_eq!(state(&tree, "part"), State::Done, "what needs it has begun");
    assert_eq!(tree.failed().len(), 1);
    assert!(!tree.blame(&error, at(2)), "it is known already");
}

#[test]
fn what_ended_last_with_a_task_that_failed_is_not_called_done() {
    let mut tree = Tree::default();
    for (id, name) in ["first", "cut-short", "bad"].into_iter().enumerate() {
        begin(&mut tree, id as u64, name, &[]);
        tree.end(id as u64, at(id as i64 + 1));
    }
    begin(&mut tree, 9, "running", &[]);
    tree.blame(&drv("bad"), at(9));
    tree.end_all(at(9), Some(1));
    let states = ["first", "cut-short", "bad", "running"].map(|name| state(&tree, name));
    assert_eq!(states, [State::Done, State::Ended, State::Failed, State::Ended]);
    assert!(tree.running().is_empty());
}

#[test]
fn more_derivations_than_are_told_apart_are_counted() {
    let mut tree = Tree::default();
    for id in 0..MOST as u64 + 5 {
        begin(&mut tree, id, &id.to_string(), &[]);
    }
    assert_eq!((tree.len(), tree.untold), (MOST, 5));
}

proptest! {
    #[test]
    fn the_tree_holds_each_derivation_once_whatever_happens(
        steps in proptest::collection::vec((0_u8..4, 0_u64..8, 0_u8..12, proptest::collection::vec(0_u8..12, 0..4)), 0..60)
    ) {
        let mut tree = Tree::default();
        for (step, id, name, needs) in steps {
            match step {
                0 | 1 => {
                    let needs: Vec<String> = needs.iter().map(u8::to_string).collect();
                    begin(&mut tree, id, &name.to_string(), &needs.iter().map(String::as_str).collect::<Vec<_>>());
                }
                2 => drop(tree.end(id, at(5))),
                _ => drop(tree.blame(&drv(&name.to_string()), at(5))),
            }
            let rows = tree.window(0, usize::MAX);
            let mut seen: Vec<usize> = rows.iter().map(|row| row.at).collect();
            for (row, at) in seen.iter().enumerate() {
                prop_assert_eq!(tree.row_of(*at), row);
                prop_assert_eq!(tree.at_row(row), Some(*at));
                prop_assert_eq!(&tree.window(row, 3)[..], &rows[row..rows.len().min(row + 3)]);
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..tree.len()).collect::<Vec<_>>());
            let all: BTreeSet<usize> = (0..tree.len()).collect();
            prop_assert_eq!(tree.prune(&all), rows);
            for at in 0..tree.len() {
                let it = tree.get(at).unwrap();
                prop_assert_eq!(tree.running().contains(&at), it.state == State::Running);
                prop_assert_eq!(tree.failed().contains(&at), it.state == State::Failed);
                prop_assert_eq!(it.ended.is_none(), it.state == State::Running);
            }
        }
    }
}
