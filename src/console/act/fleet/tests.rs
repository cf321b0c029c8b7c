use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::console::act::confirmed;
use crate::console::action::Turn;
use crate::console::app::pressed;
use crate::console::keymap::Keymap;
use crate::event::{Event, Kind, SCHEMA_VERSION, TaskId};

const PATH: &str = "dev/web/i-00000001";

/// A pool of one instance.
fn model(state: &str) -> Model {
    let mut model = Model::default();
    for kind in [
        json!({ "event": "pool_seen", "tenant": "dev", "pool": { "name": "web", "desired": 4,
            "counts": { "running": 2, "warm": 1, "sleeping": 1 } } }),
        json!({ "event": "instance_seen", "tenant": "dev", "pool": "web", "instance": {
            "name": "i-00000001", "state": state, "vm": "v-1" } }),
    ] {
        let kind: Kind = serde_json::from_value(kind).unwrap();
        let (time, task) = (Timestamp::UNIX_EPOCH, TaskId::machine());
        model.apply(&Event { v: SCHEMA_VERSION, time, task, kind });
    }
    model
}

fn page(path: &str) -> Ui {
    let mut ui = Ui { page: Page::Cluster, ..Ui::default() };
    ui.cluster.select(path);
    ui
}

fn press(key: char, model: &Model, ui: &mut Ui) -> Option<Effect> {
    typed(KeyCode::Char(key), model, ui)
}

fn typed(code: KeyCode, model: &Model, ui: &mut Ui) -> Option<Effect> {
    pressed(KeyEvent::new(code, KeyModifiers::NONE), &Keymap::default(), model, ui)
}

fn wish(effect: Option<Effect>) -> FleetWish {
    match effect {
        Some(Effect::Work(Job::Fleet(wish))) => wish,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_key_changes_the_instance_where_its_state_allows_it() {
    let keys = [
        ('A', Turn::Wake, &["warm", "sleeping", "stopped", "failed"][..]),
        ('Z', Turn::Sleep, &["running", "warm"]),
        ('M', Turn::Warm, &["running"]),
        ('o', Turn::Start, &["created", "ready", "stopped", "failed"]),
        ('x', Turn::Stop, &["running", "warm", "sleeping", "failed"]),
    ];
    for (key, turn, allowed) in keys {
        for state in ["running", "warm", "sleeping", "stopped", "failed"] {
            let (model, mut ui) = (model(state), page(PATH));
            let effect = press(key, &model, &mut ui);
            if allowed.contains(&state) {
                assert_eq!(wish(effect), FleetWish::Turn { path: PATH.parse().unwrap(), turn }, "{state}");
            } else {
                assert!(effect.is_none() && ui.word.is_some(), "{key} of {state}");
            }
        }
    }
}

#[test]
fn what_is_no_instance_is_not_changed() {
    for path in ["dev", "dev/web"] {
        for key in ['A', 'Z', 'M', 'o', 'x', 's', 'l', 'D'] {
            let mut ui = page(path);
            assert!(press(key, &model("running"), &mut ui).is_none());
            assert!(ui.word.is_some_and(|word| word.ends_with(": select an instance")));
        }
    }
    let mut ui = page("dev");
    assert!(press('+', &model("running"), &mut ui).is_none() && ui.dialog.is_none());
    assert_eq!(ui.word.as_deref(), Some("scale: select a pool"));
}

#[test]
fn a_pool_is_built_and_scaled_from_itself_and_from_its_instances() {
    for path in ["dev/web", PATH] {
        let (model, mut ui) = (model("running"), page(path));
        assert_eq!(wish(press('b', &model, &mut ui)), FleetWish::Build("dev/web".parse().unwrap()));
        assert!(press('+', &model, &mut ui).is_none());
        let Some(Dialog::Prompt { input, .. }) = &ui.dialog else { panic!("nothing is asked") };
        assert_eq!(input.value(), "2 1 1");
        for _ in 0..3 {
            typed(KeyCode::Backspace, &model, &mut ui);
        }
        // One number is not enough.
        assert!(typed(KeyCode::Enter, &model, &mut ui).is_none());
        assert!(matches!(&ui.dialog, Some(Dialog::Prompt { problem: Some(_), .. })));
        for key in "0 7".chars() {
            press(key, &model, &mut ui);
        }
        let counts = Counts { running: 2, warm: 0, sleeping: 7 };
        let scaled = wish(typed(KeyCode::Enter, &model, &mut ui));
        assert_eq!(scaled, FleetWish::Scale { path: "dev/web".parse().unwrap(), counts });
    }
}

#[test]
fn an_instance_is_removed_only_after_a_yes_whatever_is_selected_by_then() {
    let (model, mut ui) = (model("running"), page(PATH));
    assert!(press('D', &model, &mut ui).is_none());
    let Some(Dialog::Confirm { question, action }) = ui.dialog.take() else { panic!("nothing is asked") };
    assert_eq!(question, format!("Remove {PATH} with its disk?"));
    ui.cluster.select("dev");
    assert_eq!(wish(confirmed(action, &mut ui)), FleetWish::Destroy(PATH.parse().unwrap()));
}

#[test]
fn ssh_and_the_console_are_those_of_the_instances_vm() {
    let (model, mut ui) = (model("running"), page(PATH));
    match press('s', &model, &mut ui) {
        Some(Effect::Open(Program::Ssh(vm))) => assert_eq!(vm, "v-1"),
        other => panic!("{other:?}"),
    }
    assert!(press('l', &model, &mut ui).is_none());
    assert_eq!(ui.cluster.part, Part::Console);
}

#[test]
fn the_palette_takes_the_counts_behind_the_name() {
    let (model, mut ui) = (model("running"), page("dev/web"));
    press(':', &model, &mut ui);
    for key in "scale 3 0 0".chars() {
        press(key, &model, &mut ui);
    }
    let counts = Counts { running: 3, warm: 0, sleeping: 0 };
    let scaled = wish(typed(KeyCode::Enter, &model, &mut ui));
    assert_eq!(scaled, FleetWish::Scale { path: "dev/web".parse().unwrap(), counts });
}
