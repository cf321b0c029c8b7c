//! What the console has done for it, on a thread of its own: nothing slow holds up the screen.

use std::collections::HashMap;
use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, LocalSet};
use tokio_util::sync::CancellationToken;

use super::fault;
use super::source::{self, Interest};
use crate::event::{Event, EventSink, Kind, Level, SCHEMA_VERSION, Source, TaskId, TaskKind};
use crate::host::paths::Paths;
use crate::image;
use crate::run::record::{Recorded, Recorder};
use crate::run::task::{self, Failure};
use crate::run::wish::BuildWish;
use crate::run::{self};
use crate::store::Store;
use crate::vm::lifecycle;
use crate::vm::spec::VmName;

/// How long a guest has to end by itself.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// Something to be done.
#[derive(Debug)]
pub enum Job {
    /// Build a flake.
    Build(BuildWish),
    /// Build a flake and boot it.
    Run(RunWish),
    /// End a task of this console.
    Cancel(TaskId),
    /// End a VM: politely, or at once.
    Stop {
        /// Its id.
        vm: String,
        /// Do not ask the guest.
        at_once: bool,
    },
    /// Remove a VM with its disks and logs, ending it if it runs.
    Delete(String),
}

/// What to run, and how.
#[derive(Debug, Clone)]
pub struct RunWish {
    /// What to build.
    pub build: BuildWish,
    /// The VM's name; one near the flake's when absent.
    pub name: Option<VmName>,
    /// Whether it outlives the console.
    pub detach: bool,
    /// The VM it takes the place of, once it is built.
    pub replaces: Option<String>,
    /// What set it off, when a watch did.
    pub trigger: Option<Vec<String>>,
}

/// The thread that works.
#[derive(Debug)]
pub struct Worker {
    jobs: mpsc::UnboundedSender<(TaskId, Job)>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// Starts the thread. Everything that happens goes to `sink`.
    pub fn start(paths: Paths, sink: EventSink, interest: watch::Receiver<Interest>) -> io::Result<Self> {
        let (jobs, incoming) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("work".into()).spawn(move || {
            let desk = Desk { paths, sink, under_way: HashMap::new() };
            LocalSet::new().block_on(&runtime, desk.work(incoming, interest));
            runtime.shutdown_background();
        })?;
        Ok(Self { jobs, thread })
    }

    /// Has a job done; tasks among them are known by the id.
    pub fn take(&self, job: Job) -> TaskId {
        let letter = match &job {
            Job::Build(_) => TaskKind::Build.letter(),
            _ => TaskKind::Run.letter(),
        };
        let id = TaskId::new(letter);
        // A thread that is gone has said why; there is nobody to work.
        let _ = self.jobs.send((id.clone(), job));
        id
    }

    /// Ends what is under way, and waits until nothing of it is left.
    pub fn finish(self) {
        drop(self.jobs);
        // Its panic was reported already.
        let _ = self.thread.join();
    }
}

struct Desk {
    paths: Paths,
    sink: EventSink,
    under_way: HashMap<TaskId, CancellationToken>,
}

impl Desk {
    async fn work(
        mut self,
        mut incoming: mpsc::UnboundedReceiver<(TaskId, Job)>,
        interest: watch::Receiver<Interest>,
    ) {
        let all = CancellationToken::new();
        let mut doing = JoinSet::new();
        tokio::task::spawn_local(source::watch(
            self.paths.clone(),
            interest,
            self.sink.clone(),
            all.child_token(),
        ));
        loop {
            tokio::select! {
                job = incoming.recv() => match job {
                    Some((_, Job::Cancel(task))) => {
                        fault::at("cancel");
                        self.under_way.get(&task).inspect(|token| token.cancel());
                    }
                    Some((id, job)) => {
                        let cancel = all.child_token();
                        self.under_way.insert(id.clone(), cancel.clone());
                        let (paths, sink) = (self.paths.clone(), self.sink.clone());
                        doing.spawn_local(async move {
                            if let Err(error) = perform(id.clone(), job, paths, &sink, cancel).await {
                                say(&sink, Level::Warning, error);
                            }
                            id
                        });
                    }
                    None => break,
                },
                Some(done) = doing.join_next() => {
                    done.ok().and_then(|id| self.under_way.remove(&id));
                }
            }
        }
        all.cancel();
        while doing.join_next().await.is_some() {}
    }
}

/// Tells the user something that belongs to no task.
fn say(sink: &EventSink, level: Level, text: String) {
    let (time, task) = (jiff::Timestamp::now(), TaskId::machine());
    let kind = Kind::Log { source: Source::Mvm { level }, text };
    sink.forward(Event { v: SCHEMA_VERSION, time, task, kind });
}

async fn perform(
    id: TaskId,
    job: Job,
    paths: Paths,
    out: &EventSink,
    cancel: CancellationToken,
) -> Result<(), String> {
    match job {
        Job::Cancel(_) => Ok(()),
        Job::Build(wish) => {
            build(id, wish, &paths, out, &cancel).await;
            Ok(())
        }
        Job::Run(wish) => run_vm(id, wish, &paths, out, &cancel).await,
        Job::Stop { vm, at_once } => {
            let deadline = (!at_once).then_some(STOP_DEADLINE);
            stop(&paths, &vm, deadline).await.map_err(|error| error.to_string())
        }
        Job::Delete(vm) => delete(&paths, &vm).await.map_err(|error| error.to_string()),
    }
}

/// A sink for a task that is recorded, and shown in `out`.
fn recorded(id: TaskId, paths: &Paths, out: &EventSink) -> EventSink {
    let recorder = Recorder::new(paths, &id)
        .map_err(|error| say(out, Level::Warning, format!("a task leaves no record: {error}")))
        .ok();
    let (sink, events) = EventSink::new(id);
    let (mut events, out) = (Recorded::new(events, recorder), out.clone());
    tokio::task::spawn_local(async move {
        while let Some(event) = events.next().await {
            out.forward(event);
        }
    });
    sink
}

async fn build(id: TaskId, wish: BuildWish, paths: &Paths, out: &EventSink, cancel: &CancellationToken) {
    let (sink, title) = (recorded(id, paths, out), wish.flake.clone());
    // The task's last event tells how it went.
    let _ = task::frame(sink, TaskKind::Build, title, async |sink| {
        let request = wish.request(paths).await?;
        let mut store = Store::open(&paths.database())?.store;
        Ok::<_, Failure>(image::build::build(&request, paths, &mut store, sink, cancel).await?)
    })
    .await;
}

async fn run_vm(
    id: TaskId,
    wish: RunWish,
    paths: &Paths,
    out: &EventSink,
    cancel: &CancellationToken,
) -> Result<(), String> {
    let (sink, title) = (recorded(id, paths, out), wish.build.flake.clone());
    let running = task::frame(sink, TaskKind::Run, title, async |sink| {
        if let Some(paths) = &wish.trigger {
            sink.send(Kind::WatchTriggered { paths: paths.clone(), more: 0 });
        }
        let request = wish.build.clone().run_request(wish.name.clone(), paths).await?;
        let mut store = Store::open(&paths.database())?.store;
        if let Some(old) = &wish.replaces {
            // It goes on working until there is something to replace it with.
            image::build::build(&request.build, paths, &mut store, sink, cancel).await?;
            if let Some(vm) = store.vm(old)?.filter(|vm| vm.state.is_live()) {
                lifecycle::stop(paths, &mut store, &vm, Some(STOP_DEADLINE)).await?;
            }
        }
        Ok::<_, Failure>(run::run(&request, paths, &mut store, sink, cancel).await?)
    })
    .await;
    let Ok(mut running) = running else { return Ok(()) };
    if wish.detach {
        return running.starting.detach().await.map_err(|error| error.to_string());
    }
    let id = running.starting.id.clone();
    tokio::select! {
        // The leash ends with the VM.
        () = async { while running.starting.next().await.is_some() {} } => Ok(()),
        () = cancel.cancelled() => {
            stop(paths, &id, Some(STOP_DEADLINE)).await.map_err(|error| error.to_string())
        }
    }
}

async fn stop(paths: &Paths, id: &str, deadline: Option<Duration>) -> Result<(), Failure> {
    let mut store = Store::open(&paths.database())?.store;
    let vm = lifecycle::find_running(&store, id)?;
    Ok(lifecycle::stop(paths, &mut store, &vm, deadline).await?)
}

async fn delete(paths: &Paths, id: &str) -> Result<(), Failure> {
    let mut store = Store::open(&paths.database())?.store;
    let vm = lifecycle::find(&store, id)?;
    if vm.state.is_live() {
        lifecycle::stop(paths, &mut store, &vm, None).await?;
    }
    Ok(lifecycle::remove(paths, &mut store, &vm)?)
}
