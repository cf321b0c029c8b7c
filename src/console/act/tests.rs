use jiff::Timestamp;

use super::*;
use crate::console::command::COMMANDS;
use crate::console::ui::tabs::Tab;
use crate::event::{Event, Kind, Outcome, SCHEMA_VERSION, TaskId};

#[test]
fn what_was_asked_about_is_removed_whatever_is_selected_by_then() {
    let mut model = Model::default();
    let mut see = |vm: &str| {
        let (name, state) = (vm.into(), "running".into());
        let kind = Kind::VmState { vm: vm.into(), name, state };
        let (time, task) = (Timestamp::UNIX_EPOCH, TaskId::new('r'));
        model.apply(&Event { v: SCHEMA_VERSION, time, task, kind });
    };
    see("old");
    see("new");
    let mut ui = Ui { page: Page::Vms, ..Ui::default() };
    for (action, at_once) in [(Action::Kill, true), (Action::Delete, false)] {
        ui.vms.select("old");
        act(action, &model, &mut ui);
        let Some(Dialog::Confirm { action, .. }) = ui.dialog.take() else { panic!("nothing is asked") };
        ui.vms.select("new");
        let job = confirmed(action, &mut ui);
        match job {
            Some(Effect::Work(Job::Stop { vm, at_once: true })) if at_once => assert_eq!(vm, "old"),
            Some(Effect::Work(Job::Delete(vm))) if !at_once => assert_eq!(vm, "old"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn on_the_overview_the_keys_move_the_selection_whatever_part_of_the_page_had_them() {
    let mut model = Model::default();
    for number in 0..3 {
        let task = TaskId::parse(&format!("b-{number}-1")).unwrap();
        let (time, name) = (Timestamp::UNIX_EPOCH, "evaluate".into());
        model.apply(&Event { v: SCHEMA_VERSION, time, task, kind: Kind::Phase { name } });
    }
    let mut ui = Ui { page: Page::Overview, ..Ui::default() };
    ui.builds.part = BuildsPart::Log;
    let first = ui.builds.task(&model).unwrap().id.clone();
    act(Action::Step(1), &model, &mut ui);
    assert_ne!(ui.builds.task(&model).unwrap().id, first);
}

#[test]
fn a_watch_replaces_its_own_vm_only_and_one_rebuild_at_a_time() {
    let mut model = Model::default();
    let mut tell = |task: &TaskId, kind| {
        let (time, task) = (Timestamp::UNIX_EPOCH, task.clone());
        model.apply(&Event { v: SCHEMA_VERSION, time, task, kind });
    };
    let trigger = || Kind::WatchTriggered { paths: Vec::new(), more: 0 };
    let ready = |vm: &str| {
        let (name, how) = (vm.into(), "booted".into());
        Kind::VmStarted { vm: vm.into(), name, how, why: None, steps: Vec::new() }
    };
    let running = |vm: &str| Kind::VmState { vm: vm.into(), name: vm.into(), state: "running".into() };
    let (own, other) = (TaskId::new('r'), TaskId::parse("r-1-1").unwrap());
    for kind in [trigger(), running("mine"), ready("mine")] {
        tell(&own, kind);
    }
    let ui = Ui { watching: true, flake: Some(".".into()), ..Ui::default() };
    let replaced = |model: &Model| match again(model, &ui) {
        Some(Effect::Work(Job::Run(RunWish { replaces, .. }))) => replaces,
        other => panic!("{other:?}"),
    };
    for kind in [trigger(), ready("theirs")] {
        tell(&other, kind);
    }
    let command = COMMANDS.iter().find(|command| command.action == Action::Again).unwrap();
    assert_eq!((command.when)(&model, &ui), Err("a rebuild is under way"));
    assert_eq!(replaced(&model).as_deref(), Some("mine"));
    let ended = Kind::TaskEnded { outcome: Outcome::Ok, duration_ms: 1, dropped: 0 };
    model.apply(&Event { v: SCHEMA_VERSION, time: Timestamp::UNIX_EPOCH, task: own, kind: ended });
    assert_eq!((command.when)(&model, &ui), Ok(()));
}

#[test]
fn another_flake_that_is_built_does_not_take_the_place_of_the_watched_one() {
    let model = Model::default();
    let mut ui = Ui { watching: true, flake: Some("mine".into()), ..Ui::default() };
    let built = |ui: &mut Ui| {
        answered(String::new(), Purpose::Flake(Action::Build), Input::from("other"), &model, ui)
    };
    assert!(built(&mut ui).is_some());
    assert_eq!(ui.flake.as_deref(), Some("mine"));
    ui.watching = false;
    assert!(built(&mut ui).is_some());
    assert_eq!(ui.flake.as_deref(), Some("other"));
}

#[test]
fn a_change_of_watched_sources_ends_the_rebuild_under_way_and_is_built_once() {
    let mut model = Model::default();
    let tell = |model: &mut Model, task: &TaskId, kind| {
        let (time, task) = (Timestamp::UNIX_EPOCH, task.clone());
        model.apply(&Event { v: SCHEMA_VERSION, time, task, kind });
    };
    let changed = |path: &str| Kind::SourcesChanged { paths: vec![path.into()], more: 0 };
    let (machine, own) = (TaskId::machine(), TaskId::new('r'));
    let mut ui = Ui { flake: Some(".".into()), ..Ui::default() };
    tell(&mut model, &machine, changed("a"));
    assert!(follow(&mut model, &ui).is_none(), "nothing is watched");
    ui.watching = true;
    assert!(follow(&mut model, &ui).is_none(), "it was before");
    tell(&mut model, &machine, changed("a"));
    match follow(&mut model, &ui) {
        Some(Effect::Work(Job::Run(wish))) => assert_eq!(wish.trigger, Some((vec!["a".into()], 0))),
        other => panic!("{other:?}"),
    }
    assert!(follow(&mut model, &ui).is_none(), "it is built once");
    tell(&mut model, &own, Kind::WatchTriggered { paths: vec!["a".into()], more: 0 });
    tell(&mut model, &machine, changed("b"));
    assert!(matches!(follow(&mut model, &ui), Some(Effect::Work(Job::Cancel(task))) if task == own));
    assert!(follow(&mut model, &ui).is_none(), "it is told to end once");
    let ended = Kind::TaskEnded { outcome: Outcome::Cancelled, duration_ms: 1, dropped: 0 };
    tell(&mut model, &own, ended);
    assert!(matches!(follow(&mut model, &ui), Some(Effect::Work(Job::Run(_)))));
}

#[test]
fn a_session_is_opened_again_to_the_vm_that_has_the_name_now() {
    let mut model = Model::default();
    let mut ui = Ui { page: Page::Terminal, ..Ui::default() };
    let program = Program::Ssh("v-old".into());
    ui.tabs.open(Tab { program, name: "hello".into(), session: Err("".into()), calls: false });
    assert!(act(Action::Reconnect, &model, &mut ui).is_none());
    assert!(ui.word.take().is_some_and(|word| word.starts_with("hello is over")));
    let mut vm = VmModel::new("v-new");
    (vm.name, vm.state) = ("hello".into(), "running".into());
    model.vms.push(vm);
    match act(Action::Reconnect, &model, &mut ui) {
        Some(Effect::Reopen(Program::Ssh(id))) => assert_eq!(id, "v-new"),
        other => panic!("{other:?}"),
    }
}
