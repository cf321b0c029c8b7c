//! Sources that are watched.

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use mvm::event::{Event, Kind};
use mvm::image::FlakeRef;
use mvm::image::watch::Watch;

use crate::claim::{Claim, Limit, in_turns, stated};
use crate::place::Place;
use crate::process::{self, run};
use crate::proxy::fronts::{end, leashed};

const ROUNDS: usize = 5;
/// A large tree.
const DIRECTORIES: usize = 1000;
const FILES_EACH: usize = 50;
/// How long it is watched, and how long it has to come to rest: threads that helped end after 10 s, and
/// their time goes with them.
const IDLE: Duration = Duration::from_secs(20);
const SETTLE: Duration = Duration::from_secs(12);
/// Most CPU it may take meanwhile, of one core.
const SHARE: f64 = 0.005;

/// `mvm … --watch` on a flake, its events read.
struct Session {
    child: Child,
    events: Lines<BufReader<ChildStdout>>,
}

impl Session {
    fn begin(place: &Place, arguments: &[&str]) -> Result<Self> {
        let mut command = place.mvm(&[&["--json"], arguments].concat())?;
        command.stdout(Stdio::piped());
        let mut child = leashed(command)?;
        let events = BufReader::new(child.stdout.take().context("it has no output")?).lines();
        Ok(Self { child, events })
    }

    /// The next event of a kind.
    fn next(&mut self, wished: impl Fn(&Kind) -> bool) -> Result<Event> {
        for line in self.events.by_ref() {
            let event: Event = serde_json::from_str(&line?)?;
            if let Kind::TaskEnded { outcome, .. } = &event.kind {
                ensure!(*outcome == mvm::event::Outcome::Ok, "a task came to `{outcome:?}`");
            }
            if wished(&event.kind) {
                return Ok(event);
            }
        }
        anyhow::bail!("it has ended")
    }

    /// The end of what was begun, and that the sources are watched.
    fn is_at_rest(&mut self) -> Result<()> {
        self.next(|kind| matches!(kind, Kind::Log { text, .. } if text.starts_with("watching"))).map(drop)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// A page of the gateway's, saved as editors do, like no other; and when.
fn save(flake: &Path) -> Result<Timestamp> {
    let (new, now) = (flake.join("www/.index.html.swp"), Timestamp::now());
    fs::write(&new, format!("{}\n", now.as_nanosecond()))?;
    fs::rename(new, flake.join("www/index.html"))?;
    Ok(now)
}

fn since(before: Timestamp, after: &Event) -> Result<Duration> {
    Ok(Duration::try_from(after.time.duration_since(before))?)
}

/// From a save to the rebuild.
pub fn measure(place: &Place) -> Result<Claim> {
    let flake = place.flake("nix/examples/gateway", &[("www/index.html", "first\n")])?;
    let mut session = Session::begin(place, &["build", "--watch", "--flake", path(&flake)?])?;
    session.is_at_rest()?;
    let mut ours = Vec::new();
    let mut built = Vec::new();
    for _ in 0..ROUNDS {
        let saved = save(&flake)?;
        ours.push(since(saved, &session.next(|kind| matches!(kind, Kind::WatchTriggered { .. }))?)?);
        built.push(since(saved, &session.next(|kind| matches!(kind, Kind::TaskEnded { .. }))?)?);
    }
    Ok(Claim {
        what: "a file is saved, to the beginning of the build",
        ours,
        limit: Limit::Absolute(Duration::from_millis(250)),
        stated: vec![stated("to its end", &built)],
    })
}

/// From a save to a guest that is ready, against the two commands that do it.
pub fn measure_ready(place: &Place) -> Result<Claim> {
    let flake = place.flake("nix/examples/gateway", &[("www/index.html", "first\n")])?;
    let flag = path(&flake)?;
    let mut session = Session::begin(place, &["run", "--watch", "--flake", flag, "--name", "watched"])?;
    session.is_at_rest()?;
    let ours = || {
        let saved = save(&flake)?;
        let ready = session.next(|kind| matches!(kind, Kind::VmStarted { .. }))?;
        session.next(|kind| matches!(kind, Kind::TaskEnded { .. }))?;
        since(saved, &ready)
    };
    let theirs = || {
        // Not where the watch would see it.
        let copy = flake.with_extension("copy");
        let _ = fs::remove_dir_all(&copy);
        run(Command::new("git").args(["clone", "-q"]).arg(&flake).arg(&copy))?;
        save(&copy)?;
        let begun = Instant::now();
        run(&mut place.mvm(&["build", "--flake", path(&copy)?])?)?;
        run(&mut place.mvm(&["run", "--detach", "--flake", path(&copy)?, "--name", "by-hand"])?)?;
        let took = begun.elapsed();
        run(&mut place.mvm(&["stop", "by-hand"])?)?;
        Ok(took)
    };
    let (ours, theirs) = in_turns(ROUNDS, ours, theirs)?;
    let limit = Limit::Share(1.2, "`mvm build`, then `mvm run`", theirs);
    Ok(Claim { what: "a file is saved, to the new guest in place of the old", ours, limit, stated: vec![] })
}

/// To watch very many files, and the cost of it while nothing happens.
pub fn measure_many(place: &Place) -> Result<Claim> {
    let flake = many(place)?;
    let reference: FlakeRef = path(&flake)?.parse()?;
    let tree = reference.tree().context("it is a directory")?;
    let mut ours = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let watch = Watch::open(tree, &[], false)?;
        ours.push(begun.elapsed());
        ensure!(watch.size().1 > DIRECTORIES * FILES_EACH, "it watches {:?}", watch.size());
    }
    Ok(Claim {
        what: "50 000 files in 1 000 directories, until they are watched",
        ours,
        limit: Limit::Absolute(Duration::from_secs(1)),
        stated: vec![],
    })
}

/// The cost of watching very many files of which none changes.
pub fn measure_idle(place: &Place) -> Result<Claim> {
    let flake = many(place)?;
    let mut session = Session::begin(place, &["build", "--watch", "--flake", path(&flake)?])?;
    session.is_at_rest()?;
    std::thread::sleep(SETTLE);
    let before = process::cpu(session.child.id())?;
    std::thread::sleep(IDLE);
    let spent = process::cpu(session.child.id())? - before;
    let memory = process::own_memory(session.child.id())?;
    Ok(Claim {
        what: "50 000 watched files, nothing changes for 20 s, CPU time",
        ours: vec![spent],
        limit: Limit::Absolute(IDLE.mul_f64(SHARE)),
        stated: vec![format!("{:<34} {:>9} KiB", "memory of its own", memory)],
    })
}

/// A flake with very many files beside it.
fn many(place: &Place) -> Result<PathBuf> {
    let flake = place.flake("nix/examples/hello", &[])?;
    for directory in 0..DIRECTORIES {
        let directory = flake.join(format!("many/{directory}"));
        fs::create_dir_all(&directory)?;
        for file in 0..FILES_EACH {
            fs::write(directory.join(file.to_string()), "")?;
        }
    }
    Ok(flake)
}

fn path(path: &Path) -> Result<&str> {
    path.to_str().context("the path is not UTF-8")
}
