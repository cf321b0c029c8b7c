//! Records that are found again.

use super::*;
use crate::event::{EventSink, TaskKind};
use crate::run::record::Recorder;

struct World {
    _dir: tempfile::TempDir,
    paths: Paths,
}

fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths::at(dir.path().join("state"), dir.path().join("run")).unwrap();
    World { _dir: dir, paths }
}

fn drv(letter: char, name: &str) -> String {
    format!("/nix/store/{}-{name}.drv", letter.to_string().repeat(32))
}

impl World {
    /// Leaves the record of a build of `flake` that built `drvs`.
    fn record(&self, flake: &str, drvs: &[String], build: Option<&str>, outcome: Outcome) -> TaskId {
        let task = TaskId::new('b');
        let (sink, mut stream) = EventSink::new(task.clone());
        sink.send(Kind::TaskStarted { kind: TaskKind::Build, title: ".".into() });
        sink.send(Kind::BuildAsked { flake: flake.into(), store: None });
        for (id, drv) in drvs.iter().enumerate() {
            let what =
                Activity::Build { drv: drv.clone(), host: String::new(), usual_ms: None, needs: Vec::new() };
            sink.send(Kind::ActivityStarted { id: id as u64, parent: None, what });
        }
        if let Some(build) = build {
            let (cached, how) = (drvs.is_empty(), "built".into());
            sink.send(Kind::ArtifactsReady { build: build.into(), path: "/x".into(), cached, how });
        }
        sink.send(Kind::TaskEnded { outcome, duration_ms: 1, dropped: 0 });
        let mut recorder = Recorder::new(&self.paths, &task).unwrap();
        while let Some(event) = stream.try_next() {
            recorder.add(&event).unwrap();
        }
        task
    }

    fn find(&self, wanted: &Wanted) -> Result<TaskId, String> {
        let all = list(&self.paths).unwrap();
        wanted.find(&all).map(|past| past.task.clone()).map_err(|error| error.to_string())
    }
}

#[test]
fn the_newest_build_is_found_though_it_failed_and_one_that_did_nothing_is_not_meant() {
    let world = world();
    assert!(world.find(&Wanted::Newest).unwrap_err().contains("`mvm build --flake DIR` makes one"));
    let built = world.record("/a", &[drv('1', "image")], Some("abc1"), Outcome::Ok);
    assert_eq!(world.find(&Wanted::Newest), Ok(built.clone()));
    let error = format!("builder for '{}' failed", drv('2', "image"));
    let outcome = Outcome::Failed { error, tail: Vec::new() };
    let failed = world.record("/b#dev", &[drv('2', "image"), drv('3', "other")], None, outcome);
    let hit = world.record("/a", &[], Some("abc1"), Outcome::Ok);
    assert_eq!(world.find(&Wanted::Newest), Ok(failed.clone()));
    assert_eq!(world.find(&Wanted::Build("abc".into())), Ok(built.clone()));
    assert_eq!(world.find(&Wanted::Flake("/a".into())), Ok(built));
    assert_eq!(world.find(&Wanted::Flake("/b".into())), Ok(failed.clone()));
    assert_eq!(world.find(&Wanted::Task(hit.as_str().into())), Ok(hit));
    let past = Past::read(&world.paths, failed).unwrap().unwrap();
    assert_eq!(past.failed(), [drv('2', "image")]);
    assert_eq!(past.drv("oth").unwrap(), drv('3', "other"));
    assert!(past.drv("x").unwrap_err().to_string().contains("it built image, other"));
}

#[test]
fn what_is_not_found_is_answered_with_what_there_is() {
    let world = world();
    world.record("/a", &[drv('1', "one"), drv('2', "one")], Some("abc1"), Outcome::Ok);
    let two = world.record("/a", &[drv('1', "one")], Some("abd2"), Outcome::Cancelled);
    let error = world.find(&Wanted::Build("ab".into())).unwrap_err();
    assert!(error.contains("begins the ids of 2 builds") && error.contains("abc1, abd2"), "{error}");
    let error = world.find(&Wanted::Task("b-".into())).unwrap_err();
    assert!(error.contains("begins the ids of 2 tasks") && error.contains(two.as_str()), "{error}");
    let error = world.find(&Wanted::Flake("/".into())).unwrap_err();
    assert!(error.contains(&format!("\n  {}  cancelled", two.as_str())), "{error}");
    let one = list(&world.paths).unwrap().pop().unwrap();
    assert!(one.drv("one").unwrap_err().to_string().contains("give the path of one"));
    assert_eq!(one.drv(&drv('2', "one")).unwrap(), drv('2', "one"));
}

#[test]
fn words_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let flake = dir.path().canonicalize().unwrap();
    std::fs::write(flake.join("flake.nix"), "{ }").unwrap();
    for task in ["b-1a2237f1db8-325a", "b-1a2"] {
        assert_eq!(task.parse::<Wanted>().unwrap(), Wanted::Task(task.into()));
    }
    assert_eq!("4n56d".parse::<Wanted>().unwrap(), Wanted::Build("4n56d".into()));
    let text = flake.to_str().unwrap();
    assert_eq!(text.parse::<Wanted>().unwrap(), Wanted::Flake(text.into()));
    assert!(
        "/no/such"
            .parse::<Wanted>()
            .unwrap_err()
            .to_string()
            .contains("`/no/such` is neither a build nor a flake")
    );
}
