//! Records as other processes leave them: whole, cut short, forged and removed.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::event::TaskKind;
use crate::host::files::Lock;

struct World {
    _dir: tempfile::TempDir,
    paths: Paths,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::at(dir.path().join("state"), dir.path().join("run")).unwrap();
        std::fs::create_dir(paths.tasks()).unwrap();
        Self { _dir: dir, paths }
    }

    fn path(&self, task: &TaskId) -> PathBuf {
        self.paths.tasks().join(format!("{}.jsonl", task.as_str()))
    }

    fn append(&self, task: &TaskId, bytes: impl AsRef<[u8]>) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.path(task)).unwrap();
        file.write_all(bytes.as_ref()).unwrap();
    }
}

/// The id of another process's task that began some milliseconds ago.
fn foreign(ago_ms: i64) -> TaskId {
    let other = (std::process::id() + 1) & 0xffff;
    TaskId::parse(&format!("b-{:011x}-{other:04x}", Timestamp::now().as_millisecond() - ago_ms)).unwrap()
}

fn line(task: &TaskId, kind: Kind) -> String {
    let event = Event { v: SCHEMA_VERSION, time: Timestamp::now(), task: task.clone(), kind };
    serde_json::to_string(&event).unwrap() + "\n"
}

fn started(task: &TaskId) -> String {
    line(task, Kind::TaskStarted { kind: TaskKind::Build, title: "t".into() })
}

fn phase(task: &TaskId, name: &str) -> String {
    line(task, Kind::Phase { name: name.into() })
}

fn log(task: &TaskId, text: &str) -> String {
    let source = crate::event::Source::Nix { level: 3 };
    line(task, Kind::Log { source, text: text.into() })
}

fn ended(task: &TaskId) -> String {
    line(task, Kind::TaskEnded { outcome: Outcome::Ok, duration_ms: 1, dropped: 0 })
}

fn read(records: &mut Records) -> Vec<Event> {
    let mut events = Vec::new();
    records.read(|event| events.push(event)).unwrap();
    events
}

/// The next events; a process that another test starts may hold a lock for a moment longer.
fn wait(records: &mut Records) -> Vec<Event> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let events = read(records);
        if !events.is_empty() {
            return events;
        }
        assert!(Instant::now() < deadline, "nothing is told");
    }
}

fn names(events: &[Event]) -> Vec<String> {
    let name = |event: &Event| match &event.kind {
        Kind::TaskStarted { .. } => "started".into(),
        Kind::Phase { name } => name.clone(),
        Kind::Log { text, .. } => text.clone(),
        Kind::TaskEnded { outcome: Outcome::Ok, .. } => "ended".into(),
        Kind::TaskEnded { outcome: Outcome::Failed { error, .. }, .. } => {
            error.lines().next().unwrap_or_default().into()
        }
        kind => format!("{kind:?}"),
    };
    events.iter().map(name).collect()
}

const SILENT: &str = "the process of this task ended without a word";

#[test]
fn a_task_is_followed_while_its_process_writes_and_once_only() {
    let world = World::new();
    let mut records = Records::new(&world.paths);
    assert!(read(&mut records).is_empty());
    let task = foreign(0);
    let lock = Lock::try_take(&world.path(&task)).unwrap().expect("the lock");
    assert!(read(&mut records).is_empty(), "begun, and nothing written yet");
    let half = phase(&task, "build");
    world.append(&task, started(&task) + &half[..20]);
    assert_eq!(names(&read(&mut records)), ["started"]);
    assert!(read(&mut records).is_empty());
    world.append(&task, &half[20..]);
    assert_eq!(names(&read(&mut records)), ["build"]);
    std::fs::remove_file(world.path(&task)).unwrap();
    assert!(read(&mut records).is_empty(), "removed, but it goes on");
    drop(lock);
    assert_eq!(names(&wait(&mut records)), [SILENT]);
    assert!(read(&mut records).is_empty());
}

#[test]
fn a_task_whose_process_died_is_shown_as_failed_with_what_it_had_written() {
    let world = World::new();
    let task = foreign(5000);
    world.append(&task, started(&task) + &phase(&task, "build") + "{\"v\":1,\"ti");
    let events = read(&mut Records::new(&world.paths));
    assert_eq!(names(&events), ["started", "build", SILENT]);
    assert!(events.iter().all(|event| event.task == task));
}

#[test]
fn events_of_a_newer_mvm_are_skipped_and_garbage_is_counted() {
    let world = World::new();
    let task = foreign(0);
    let newer = format!(
        "{{\"v\":1,\"time\":\"2026-01-01T00:00:00Z\",\"task\":\"{}\",\"event\":\"teleported\"}}\n",
        task.as_str()
    );
    let lock = Lock::try_take(&world.path(&task)).unwrap();
    let strange = phase(&foreign(5000), "of another task");
    world.append(&task, started(&task) + &newer + "garbage\n\n" + &strange);
    world.append(&task, b"\xff\xfe\x00\n");
    world.append(&task, phase(&task, "build"));
    let mut records = Records::new(&world.paths);
    assert_eq!(names(&read(&mut records)), ["started", "build"]);
    let Some(Known::Followed(record)) = records.known.values().next() else { panic!("not followed") };
    assert_eq!(record.garbage, 4);
    drop(lock);
}

#[test]
fn of_earlier_tasks_the_newest_are_shown_and_none_that_is_old_or_our_own() {
    let world = World::new();
    let mine = TaskId::new('b');
    world.append(&mine, started(&mine));
    let old = foreign(2 * RECENT.as_millis() as i64);
    world.append(&old, started(&old) + &ended(&old));
    let tasks: Vec<_> = (0..MOST as i64 + 5).map(|number| foreign(1000 + number * 1000)).collect();
    for task in &tasks {
        world.append(task, started(task) + &ended(task));
    }
    File::create(world.paths.tasks().join("notes.txt")).unwrap();
    let mut records = Records::new(&world.paths);
    let shown: Vec<_> = read(&mut records).into_iter().map(|event| event.task).collect();
    let newest = tasks[..MOST - 1].iter().rev().flat_map(|task| [task.clone(), task.clone()]);
    assert_eq!(shown, newest.collect::<Vec<_>>(), "the oldest first; our own takes a place");
    assert!(read(&mut records).is_empty());
    let later = foreign(0);
    world.append(&later, started(&later) + &ended(&later));
    assert_eq!(names(&read(&mut records)), ["started", "ended"]);
}

#[test]
fn a_task_that_goes_on_is_shown_however_long_ago_it_began() {
    let world = World::new();
    let task = foreign(2 * RECENT.as_millis() as i64);
    world.append(&task, started(&task));
    let lock = Lock::try_take(&world.path(&task)).unwrap().expect("the lock");
    let mut records = Records::new(&world.paths);
    assert_eq!(names(&read(&mut records)), ["started"]);
    drop(lock);
    assert_eq!(names(&wait(&mut records)), [SILENT]);
}

#[test]
fn of_a_long_record_only_the_last_log_lines_are_read_but_every_state_change() {
    let world = World::new();
    let task = foreign(0);
    let mut text = started(&task);
    let count = 4 * BACKLOG as usize / 200;
    for number in 0..count {
        text += &log(&task, &number.to_string());
        if number == 10 {
            text += &phase(&task, "early");
        }
    }
    world.append(&task, text + &ended(&task));
    let names = names(&read(&mut Records::new(&world.paths)));
    assert_eq!(names[..2], ["started", "early"]);
    assert_eq!(names[names.len() - 2..], [(count - 1).to_string(), "ended".into()]);
    assert!(names.len() > 1000 && names.len() < count, "{}", names.len());
}

proptest! {
    #[test]
    fn no_record_makes_the_reader_panic_or_end_a_task_twice(bytes: Vec<u8>, cut in 0_usize..400) {
        let world = World::new();
        let task = foreign(0);
        let mut text = (started(&task) + &ended(&task)).into_bytes();
        text.truncate(text.len().saturating_sub(cut));
        text.extend(bytes);
        world.append(&task, text);
        let mut records = Records::new(&world.paths);
        let mut events = read(&mut records);
        events.extend(read(&mut records));
        let ends = events.iter().filter(|event| matches!(event.kind, Kind::TaskEnded { .. })).count();
        prop_assert!(ends <= 1, "{events:?}");
    }
}
