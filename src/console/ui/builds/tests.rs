//! Where the cursor goes.

use super::*;
use crate::event::{Activity, Event, Kind, Outcome, SCHEMA_VERSION, TaskId};
use jiff::Timestamp;

fn drv(name: &str) -> String {
    format!("/nix/store/00000000000000000000000000000000-{name}.drv")
}

fn send(model: &mut Model, task: &TaskId, kind: Kind) {
    model.apply(&Event { v: SCHEMA_VERSION, time: Timestamp::UNIX_EPOCH, task: task.clone(), kind });
}

fn build(model: &mut Model, task: &TaskId, id: u64, needs: &[u64]) {
    let needs = needs.iter().map(|need| drv(&need.to_string())).collect();
    let what = Activity::Build { drv: drv(&id.to_string()), host: String::new(), usual_ms: None, needs };
    send(model, task, Kind::ActivityStarted { id, parent: None, what });
}

fn fail(model: &mut Model, task: &TaskId, names: &[&str]) {
    let error = names.iter().map(|name| drv(name)).collect::<Vec<_>>().join("\n");
    let outcome = Outcome::Failed { error, tail: vec![] };
    send(model, task, Kind::TaskEnded { outcome, duration_ms: 0, dropped: 0 });
}

#[test]
fn the_cursor_stays_on_its_derivation_while_rows_move() {
    let (mut model, task) = (Model::default(), TaskId::new('b'));
    let mut ui = BuildsUi { part: Part::Tree, ..BuildsUi::default() };
    (1..=3).for_each(|id| build(&mut model, &task, id, &[]));
    assert_eq!(ui.source(&model), None);
    ui.move_by(&model, 1);
    assert_eq!(ui.source(&model), Some(&*drv("1")));
    build(&mut model, &task, 4, &[1]);
    assert_eq!(ui.source(&model), Some(&*drv("1")));
    ui.move_by(&model, -1);
    assert_eq!(ui.source(&model), Some(&*drv("4")), "the one it is below now");
    ui.move_by(&model, isize::MIN / 2);
    assert_eq!(ui.source(&model), None);
    ui.move_by(&model, isize::MAX / 2);
    assert_eq!(ui.source(&model), Some(&*drv("1")));
}

#[test]
fn the_task_whose_tree_was_looked_at_stays_selected_while_newer_ones_come() {
    let (mut model, old, new) = (Model::default(), TaskId::new('b'), TaskId::new('r'));
    let mut ui = BuildsUi { part: Part::Tree, ..BuildsUi::default() };
    build(&mut model, &old, 1, &[]);
    ui.move_by(&model, 1);
    build(&mut model, &new, 1, &[]);
    assert_eq!(ui.task(&model).map(|task| &task.id), Some(&old));
    ui.select(new.clone());
    assert_eq!(ui.source(&model), None, "the cursor belongs to the other task");
}

#[test]
fn one_jumps_through_what_failed_round_the_ends() {
    let (mut model, task) = (Model::default(), TaskId::new('b'));
    let mut ui = BuildsUi::default();
    assert!(!ui.jump(&model, 1));
    (1..=4).for_each(|id| build(&mut model, &task, id, &[]));
    assert!(!ui.jump(&model, 1), "nothing failed");
    fail(&mut model, &task, &["2", "4"]);
    let mut jump = |by| {
        assert!(ui.jump(&model, by));
        ui.source(&model).unwrap().to_owned()
    };
    assert_eq!([jump(1), jump(1), jump(1), jump(-1)], ["2", "4", "2", "4"].map(drv));
}

#[test]
fn the_lines_of_an_error_come_before_the_derivations() {
    let (mut model, task) = (Model::default(), TaskId::new('b'));
    let mut ui = BuildsUi { part: Part::Tree, ..BuildsUi::default() };
    build(&mut model, &task, 1, &[]);
    fail(&mut model, &task, &["none", "none"]);
    let mut cursors = Vec::new();
    for _ in 0..3 {
        ui.move_by(&model, 1);
        cursors.push(ui.cursor(&model.tasks[0]).clone());
    }
    assert_eq!(cursors, [Cursor::Error(0), Cursor::Error(1), Cursor::Derivation(drv("1"))]);
    ui.cursor = None;
    assert!(ui.jump(&model, 1));
    assert_eq!(*ui.cursor(&model.tasks[0]), Cursor::Error(0));
}
