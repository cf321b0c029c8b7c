//! Jobs that are tasks: recorded, and shown among the builds.

use std::time::Duration;

use super::{Bench, RunWish};
use crate::event::relay::Relay;
use crate::event::words::saving;
use crate::event::{EventSink, Kind, Level, TaskKind};
use crate::fleet::vm::refuse_instance;
use crate::image;
use crate::run::record::{Recorded, Recorder};
use crate::run::replace::replace;
use crate::run::task::{self, Failure};
use crate::run::wish::BuildWish;
use crate::run::{self, restart, snapshot};
use crate::store::Store;
use crate::vm::lifecycle::{self, LifecycleError, Starting};
use crate::vm::shim::protocol::Saved;

/// Does the work of the job's task, which is recorded, and shown. It is over when its last event is
/// in the record.
pub(super) async fn recorded<T, E: Into<Failure>>(
    bench: &Bench,
    kind: TaskKind,
    title: String,
    work: impl AsyncFnOnce(&EventSink) -> Result<T, E>,
) -> Result<T, Failure> {
    let recorder = Recorder::new(&bench.paths, &bench.id)
        .map_err(|error| bench.say(Level::Warning, format!("a task leaves no record: {error}")))
        .ok();
    let (sink, events) = EventSink::new(bench.id.clone());
    let (mut events, mut relay) = (Recorded::new(events, recorder), Relay::new(bench.out.clone()));
    let shown = async {
        while let Some(event) = events.next().await {
            relay.pass(event);
        }
    };
    tokio::join!(task::frame(sink, kind, title, work), shown).0
}

/// Builds a flake.
pub async fn build(bench: &Bench, wish: BuildWish) {
    let title = wish.flake.clone();
    // The task's last event tells how it went.
    let _ = recorded(bench, TaskKind::Build, title, async |sink| {
        let request = wish.request(&bench.paths).await?;
        let mut store = Store::open(&bench.paths.database())?.store;
        Ok::<_, Failure>(image::build::build(&request, &bench.paths, &mut store, sink, &bench.cancel).await?)
    })
    .await;
}

/// Builds a flake and boots it; ends with the VM, unless that lives on its own.
pub async fn run_vm(bench: &Bench, wish: RunWish) -> Result<(), Failure> {
    let Bench { paths, cancel, .. } = bench;
    let title = wish.build.flake.clone();
    let running = recorded(bench, TaskKind::Run, title, async |sink| {
        if let Some((paths, more)) = wish.trigger {
            sink.send(Kind::WatchTriggered { paths, more });
        }
        let request = wish.build.clone().run_request(wish.name.clone(), paths).await?;
        let mut store = Store::open(&paths.database())?.store;
        let old = wish.replaces.as_deref().map(|old| store.vm(old)).transpose()?.flatten();
        Ok::<_, Failure>(match old {
            Some(old) => replace(&request, &old, paths, &mut store, sink, cancel).await?,
            None => Some(run::run(&request, paths, &mut store, sink, cancel).await?),
        })
    })
    .await;
    match running {
        Ok(Some(running)) => keep(bench, running.starting, !wish.detach).await,
        // The task said why.
        Ok(None) | Err(_) => Ok(()),
    }
}

/// Ends a VM and boots it again; ends with the new one, unless that lives on its own.
pub async fn restart(bench: &Bench, vm: &str, leashed: bool) -> Result<(), Failure> {
    let Bench { paths, cancel, .. } = bench;
    let mut store = Store::open(&paths.database())?.store;
    let found = lifecycle::find(&store, vm)?;
    refuse_instance(&store, &found, "stop")?;
    let title = format!("restart {}", found.name);
    let running = recorded(bench, TaskKind::Run, title, async |sink| {
        restart::restart(vm, paths, &mut store, sink, cancel).await
    })
    .await;
    match running {
        Ok(running) => keep(bench, running.starting, leashed).await,
        // The task said why.
        Err(_) => Ok(()),
    }
}

/// Saves a VM; with `stop` it is over then, and so is a leash on it.
pub async fn save(bench: &Bench, vm: &str, stop: bool) -> Result<(), Failure> {
    let Bench { paths, cancel, .. } = bench;
    let mut store = Store::open(&paths.database())?.store;
    let found = lifecycle::find(&store, vm)?;
    refuse_instance(&store, &found, "sleep")?;
    let name = found.name;
    let saved = recorded(bench, TaskKind::Snapshot, format!("save {name}"), async |sink| {
        snapshot::save(vm, stop, paths, &mut store, sink, cancel).await
    })
    .await;
    // Where it failed, the task said why.
    if let Ok(Saved { bytes, paused_ms, ms }) = saved {
        let [paused, whole] = [paused_ms, ms].map(Duration::from_millis);
        bench.say(Level::Info, format!("saved {name} {}", saving(bytes, paused, whole)));
    }
    Ok(())
}

/// Has a VM that is over go on from its snapshot; it lives on its own.
pub async fn restore(bench: &Bench, vm: &str) -> Result<(), Failure> {
    let Bench { paths, cancel, .. } = bench;
    let mut store = Store::open(&paths.database())?.store;
    let found = lifecycle::find(&store, vm)?;
    refuse_instance(&store, &found, "wake")?;
    let title = format!("restore {}", found.name);
    let running = recorded(bench, TaskKind::Snapshot, title, async |sink| {
        snapshot::restore(vm, |_| {}, paths, &mut store, sink, cancel).await
    })
    .await;
    match running {
        Ok(running) => keep(bench, running.starting, false).await,
        // The task said why.
        Err(_) => Ok(()),
    }
}

/// Why a leash is held no longer.
enum Ended {
    VmOver,
    LetGo,
    ConsoleOver,
}

/// Holds a VM's leash until the VM is over, somebody wants it to live on its own, or the console
/// ends; without a leash it lives on its own at once.
async fn keep(bench: &Bench, mut starting: Starting, leashed: bool) -> Result<(), Failure> {
    let vm = starting.id.clone();
    let spawn = |error| Failure::from(LifecycleError::Spawn(error));
    if !leashed {
        return starting.detach().await.map_err(spawn);
    }
    let let_go = bench.hold(&vm, None);
    bench.out.send(Kind::VmLeashed { vm: vm.clone(), on: true });
    let ended = tokio::select! {
        biased;
        // The leash ends with the VM.
        () = async { while starting.next().await.is_some() {} } => Ended::VmOver,
        () = let_go.cancelled() => Ended::LetGo,
        () = bench.over.cancelled() => Ended::ConsoleOver,
    };
    match ended {
        Ended::VmOver => {}
        Ended::LetGo => {
            let name = starting.name.clone();
            starting.detach().await.map_err(spawn)?;
            bench.say(Level::Info, format!("{name} lives on when the console ends"));
        }
        Ended::ConsoleOver => super::vm::stop(bench, &vm, false).await?,
    }
    bench.out.send(Kind::VmLeashed { vm, on: false });
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::event::TaskId;
    use crate::host::paths::Paths;

    #[tokio::test]
    async fn a_job_is_over_only_when_the_end_of_its_task_is_in_the_record() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::at(dir.path().join("state"), dir.path().join("run")).unwrap();
        let (id, (out, _shown)) = (TaskId::new('b'), EventSink::new(TaskId::machine()));
        let record = paths.tasks().join(format!("{}.jsonl", id.as_str()));
        let (holds, _held) = mpsc::unbounded_channel();
        let (cancel, over) = (CancellationToken::new(), CancellationToken::new());
        let bench = Bench { id, paths, out, cancel, over, holds };
        let done = recorded(&bench, TaskKind::Build, "f".into(), async |sink| {
            (0..1000).for_each(|_| sink.info("a line"));
            Ok::<_, Failure>(())
        });
        done.await.unwrap();
        let record = std::fs::read_to_string(record).unwrap();
        assert!(record.lines().last().unwrap().contains(r#""event":"task_ended""#));
    }
}
