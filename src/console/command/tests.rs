use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::console::act::{Effect, act, confirmed};
use crate::console::ui::dialog::Dialog;
use crate::console::work::Job;
use crate::event::{Event, Kind, SCHEMA_VERSION, TaskId};

/// A VM as a console of an earlier mvm recorded it, with `more`.
fn see(model: &mut Model, id: &str, name: &str, state: &str, more: Value) {
    let mut info = json!({
        "vm": id, "name": name, "state": state, "live": state == "running", "artifacts": "/b/x",
        "hypervisor": "qemu/tcg", "network": "user", "cpus": 1, "memory_mib": 256, "disk_mib": 64,
        "ports": [], "volumes": [], "created": "2026-01-01T00:00:00Z", "changed": "2026-01-01T00:00:00Z",
    });
    info.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let kind = Kind::VmSeen { info: Box::new(serde_json::from_value(info).unwrap()) };
    let (time, task) = (Timestamp::UNIX_EPOCH, TaskId::machine());
    model.apply(&Event { v: SCHEMA_VERSION, time, task, kind });
}

/// Whether each of snapshot, save-and-stop and restore can be done with the only VM, and else why not.
fn can(state: &str, more: Value) -> [Result<(), &'static str>; 3] {
    let mut model = Model::default();
    see(&mut model, "v-1", "hello", state, more);
    all(&model, &Ui { page: Page::Vms, ..Ui::default() })
}

fn all(model: &Model, ui: &Ui) -> [Result<(), &'static str>; 3] {
    ["snapshot", "save-and-stop", "restore"].map(|name| {
        let command = COMMANDS.iter().find(|command| command.name == name).unwrap();
        (command.when)(model, ui)
    })
}

fn a_snapshot() -> Value {
    json!({ "snapshot": { "bytes": 7, "created": "2026-01-01T00:00:00Z" } })
}

#[test]
fn a_vm_that_runs_can_be_saved_and_one_that_is_over_goes_on_from_its_snapshot() {
    let not_over = Err("the VM is not over; what it did since its snapshot would be lost");
    assert_eq!(can("running", json!({})), [Ok(()), Ok(()), not_over]);
    assert_eq!(can("running", a_snapshot()), [Ok(()), Ok(()), not_over]);
    let (over, none) = (Err("the selected VM is over"), Err("the VM has no snapshot"));
    for state in ["stopped", "failed"] {
        assert_eq!(can(state, json!({})), [over, over, none]);
        assert_eq!(can(state, a_snapshot()), [over, over, Ok(())]);
    }
    let none = Err("there is no VM");
    assert_eq!(all(&Model::default(), &Ui::default()), [none; 3]);
}

#[test]
fn what_cannot_be_saved_says_so_before_it_is_tried() {
    let shares = Err("its shared directories cannot be saved; give volumes a size");
    let [save, stop, _] = can("running", json!({ "shares": true }));
    assert_eq!((save, stop), (shares, shares));
    let [save, stop, _] = can("running", json!({ "removed_at_end": true }));
    assert_eq!((save, stop), (Ok(()), Err("it was started with `--rm`: nothing of it stays")));
}

#[test]
fn no_vm_goes_on_from_its_snapshot_beside_another_of_its_name() {
    let mut model = Model::default();
    see(&mut model, "v-1", "hello", "stopped", a_snapshot());
    see(&mut model, "v-2", "hello", "running", json!({}));
    let mut ui = Ui { page: Page::Vms, ..Ui::default() };
    ui.vms.select("v-1");
    assert_eq!(all(&model, &ui)[2], Err("another VM of its name runs"));
}

#[test]
fn what_ends_the_vm_asks_first_and_is_about_the_vm_it_asked_about() {
    let mut model = Model::default();
    see(&mut model, "v-1", "hello", "running", json!({}));
    see(&mut model, "v-2", "web", "stopped", a_snapshot());
    let mut ui = Ui { page: Page::Vms, ..Ui::default() };
    ui.vms.select("v-1");
    match act(Action::Snapshot, &model, &mut ui) {
        Some(Effect::Work(Job::Save { vm, stop: false })) => assert_eq!(vm, "v-1"),
        other => panic!("{other:?}"),
    }
    assert!(act(Action::SaveAndStop, &model, &mut ui).is_none());
    ui.vms.select("v-2");
    let Some(Dialog::Confirm { action, .. }) = ui.dialog.take() else { panic!("nothing is asked") };
    match confirmed(action, &mut ui) {
        Some(Effect::Work(Job::Save { vm, stop: true })) => assert_eq!(vm, "v-1"),
        other => panic!("{other:?}"),
    }
    match act(Action::Restore, &model, &mut ui) {
        Some(Effect::Work(Job::Restore(vm))) => assert_eq!(vm, "v-2"),
        other => panic!("{other:?}"),
    }
}
