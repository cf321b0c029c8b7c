//! Whole tasks.

use super::*;
use crate::console::model::derivation::State;
use crate::event::SCHEMA_VERSION;

fn task(events: Vec<(i64, Kind)>) -> TaskModel {
    let id = TaskId::new('b');
    let mut task = TaskModel::new(id.clone(), 1 << 20);
    for (second, kind) in events {
        let time = Timestamp::from_second(second).unwrap();
        task.apply(&Event { v: SCHEMA_VERSION, time, task: id.clone(), kind });
    }
    task
}

fn drv(name: &str) -> String {
    format!("/nix/store/00000000000000000000000000000000-{name}.drv")
}

fn build(id: u64, name: &str) -> Kind {
    let what = Activity::Build { drv: drv(name), host: String::new(), usual_ms: None, needs: vec![] };
    Kind::ActivityStarted { id, parent: None, what }
}

fn failed(error: String) -> Kind {
    let outcome = Outcome::Failed { error, tail: vec!["last line".into()] };
    Kind::TaskEnded { outcome, duration_ms: 1, dropped: 7 }
}

#[test]
fn phases_have_times_and_the_last_one_ends_with_the_task() {
    let task = task(vec![
        (0, Kind::Phase { name: "evaluate".into() }),
        (3, Kind::Phase { name: "build".into() }),
        (2, Kind::Phase { name: "boot".into() }),
        (9, Kind::TaskEnded { outcome: Outcome::Ok, duration_ms: 9000, dropped: 0 }),
    ]);
    let now = Timestamp::from_second(50).unwrap();
    let times: Vec<_> = task.phase_times(now).map(|(name, time)| (name, time.as_secs())).collect();
    assert_eq!(times, [("evaluate", 3), ("build", 0), ("boot", 7)], "a clock that goes back counts nothing");
    assert_eq!(task.phase(), "boot");
}

#[test]
fn a_failure_keeps_its_error_whole_and_names_the_derivation() {
    let error = format!("cannot build `x`: builder for '{}' failed\nhelp: mend it", drv("bad"));
    let task = task(vec![(0, build(1, "good")), (0, build(2, "bad")), (5, failed(error))]);
    let states: Vec<State> = (0..2).map(|at| task.tree.get(at).unwrap().state).collect();
    assert_eq!(states, [State::Ended, State::Failed]);
    assert_eq!(task.error_lines().count(), 2, "its log is that of the derivation");
    assert_eq!(task.lost, 7);
}

#[test]
fn a_failure_without_a_derivation_shows_the_end_of_its_log() {
    let task = task(vec![(5, failed("no boot\nhelp: see".into()))]);
    assert_eq!(task.error_lines().collect::<Vec<_>>(), ["no boot", "help: see", "last line"]);
}

#[test]
fn log_lines_know_who_wrote_them_and_the_error_is_the_last_of_them() {
    let line = |name: &str| (0, Kind::Log { source: Source::Build { drv: drv(name) }, text: "x".into() });
    let task = task(vec![(0, build(1, "a")), line("never-begun"), line("a"), (5, failed("no luck".into()))]);
    let lines: Vec<_> = task.log.lines(task.log.range()).map(|line| (line.source, line.text)).collect();
    let a = task.source(&drv("a")).unwrap();
    let nobody = SourceId::UNNAMED;
    assert_eq!(lines, [(nobody, "never-begun> x"), (a, "x"), (nobody, "no luck")]);
    assert_eq!(task.log.name(a), "a");
    assert_eq!(task.log.errors(task.log.range()).count(), 1);
}

#[test]
fn names_that_would_disturb_the_screen_are_made_harmless() {
    let what = Activity::Build {
        drv: "/nix/store/x-\x1b[2Jevil\x07".into(),
        host: "\x1b]0;t\x07host".into(),
        usual_ms: None,
        needs: vec![],
    };
    let task = task(vec![
        (0, Kind::TaskStarted { kind: TaskKind::Build, title: "a\x1b[31mb".into() }),
        (0, Kind::ActivityStarted { id: 1, parent: None, what }),
        (0, Kind::ActivityPhase { id: 1, phase: "p\x1bc".into() }),
    ]);
    let it = task.tree.get(0).unwrap();
    assert_eq!((&*task.title, &*it.name, &*it.host, &*it.phase), ("ab", "x-evil", "host", "p"));
}

#[test]
fn the_process_of_a_task_is_in_its_id() {
    let id: TaskId = serde_json::from_str("\"b-1a20556f0b8-553\"").unwrap();
    let task = TaskModel::new(id, 1 << 20);
    assert_eq!((task.pid(), task.own), (Some(0x553), false));
    assert_eq!(TaskModel::new(TaskId::machine(), 1 << 20).pid(), None);
}
