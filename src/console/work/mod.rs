//! What the console has done for it, on a thread of its own: nothing slow holds up the screen.

mod cluster;
mod fleet;
mod machine;
mod route;
mod task;
mod vm;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::thread::JoinHandle;

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, LocalSet};
use tokio_util::sync::CancellationToken;

use super::action::Turn;
use super::fault;
use super::source::{self, Interest};
use crate::coordinator::control::RouteOp;
use crate::event::{EventSink, Kind, Level, Source, TaskId, TaskKind};
use crate::fleet::desired::Counts;
use crate::fleet::ids::{InstancePath, PoolPath};
use crate::host::paths::Paths;
use crate::run::wish::BuildWish;
use crate::vm::spec::{PortMap, VmName};

/// Something to be done. VMs are known by their ids.
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
    /// End a VM if it runs, and boot it again with its disks as a new VM of the same name. One on
    /// the leash stays on it; any other lives on its own.
    Restart(String),
    /// Save a VM, in the place of its earlier snapshot.
    Save {
        /// Its id.
        vm: String,
        /// Whether it is over then.
        stop: bool,
    },
    /// Have a VM that is over go on from its snapshot, as a new VM of the same name that lives on
    /// its own.
    Restore(String),
    /// Have a VM of this console's live on when the console ends.
    Detach(String),
    /// Remove a VM with its disks and logs, ending it if it runs.
    Delete(String),
    /// Forward a local port to a VM until either ends.
    Forward {
        /// The VM.
        vm: String,
        /// From where to where.
        map: PortMap,
    },
    /// Change something of the fleet.
    Fleet(FleetWish),
    /// Start or end the cluster of this machine.
    Cluster(ClusterWish),
    /// Do something with a route of the coordinator.
    Route {
        /// Where it listens.
        listen: SocketAddr,
        /// What.
        op: RouteOp,
    },
    /// Forward a port no more.
    Unforward {
        /// The VM.
        vm: String,
        /// From where to where, as [`Kind::Forwarded`] told.
        map: PortMap,
    },
}

impl Job {
    /// The sort of task it is, if it is one.
    pub fn task(&self) -> Option<TaskKind> {
        match self {
            Self::Build(_) => Some(TaskKind::Build),
            Self::Run(_) | Self::Restart(_) => Some(TaskKind::Run),
            Self::Save { .. } | Self::Restore(_) => Some(TaskKind::Snapshot),
            Self::Fleet(_) => Some(TaskKind::Fleet),
            Self::Cluster(_) => Some(TaskKind::Cluster),
            _ => None,
        }
    }
}

/// What to change of the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FleetWish {
    /// Have so many instances of a pool.
    Scale {
        /// The pool.
        path: PoolPath,
        /// How many.
        counts: Counts,
    },
    /// Build a pool's flake; what comes out is its current revision then.
    Build(PoolPath),
    /// Change an instance's state.
    Turn {
        /// The instance.
        path: InstancePath,
        /// How.
        turn: Turn,
    },
    /// Remove an instance with its disk.
    Destroy(InstancePath),
}

/// What is to become of the cluster of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterWish {
    /// Write its files where there are none, and start what does not run.
    Up,
    /// End it and remove its instances.
    Down,
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
    /// What set it off, when a watch did: what changed, the first few, and how many more.
    pub trigger: Option<(Vec<String>, u64)>,
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
            let desk = Desk { paths, sink, under_way: HashMap::new(), held: Vec::new() };
            LocalSet::new().block_on(&runtime, desk.work(incoming, interest));
            runtime.shutdown_background();
        })?;
        Ok(Self { jobs, thread })
    }

    /// Has a job done; tasks among them are known by the id.
    pub fn take(&self, job: Job) -> TaskId {
        let id = TaskId::new(job.task().unwrap_or(TaskKind::Run).letter());
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

/// Where jobs come in and what is under way is known.
struct Desk {
    paths: Paths,
    sink: EventSink,
    under_way: HashMap<TaskId, CancellationToken>,
    held: Vec<Held>,
}

/// A leash or a forward, which a job holds until it is told to let go.
struct Held {
    task: TaskId,
    vm: String,
    /// The forward; absent for a leash.
    map: Option<PortMap>,
    let_go: CancellationToken,
}

/// What a job needs.
struct Bench {
    id: TaskId,
    paths: Paths,
    out: EventSink,
    /// Ends its task.
    cancel: CancellationToken,
    /// The console ends.
    over: CancellationToken,
    holds: mpsc::UnboundedSender<Held>,
}

impl Bench {
    /// Tells the user something that belongs to no task.
    fn say(&self, level: Level, text: impl Into<String>) {
        self.out.send(Kind::Log { source: Source::Mvm { level }, text: text.into() });
    }

    /// Makes it known that this job holds a VM's leash, or a forward to it. The token is cancelled
    /// when it is to let go.
    fn hold(&self, vm: &str, map: Option<PortMap>) -> CancellationToken {
        let let_go = CancellationToken::new();
        let held = Held { task: self.id.clone(), vm: vm.into(), map, let_go: let_go.clone() };
        // A desk that is gone ends everything anyway.
        let _ = self.holds.send(held);
        let_go
    }
}

impl Desk {
    async fn work(
        mut self,
        mut incoming: mpsc::UnboundedReceiver<(TaskId, Job)>,
        interest: watch::Receiver<Interest>,
    ) {
        let all = CancellationToken::new();
        let mut doing = JoinSet::new();
        let (holds, mut held) = mpsc::unbounded_channel();
        let (paths, sink) = (self.paths.clone(), self.sink.clone());
        let following =
            source::coordinator::follow(paths.coordinator_socket(), sink.clone(), all.child_token());
        tokio::task::spawn_local(following);
        let sources =
            source::sources::follow(paths.clone(), interest.clone(), sink.clone(), all.child_token());
        tokio::task::spawn_local(sources);
        tokio::task::spawn_local(source::watch(paths, interest, sink, all.child_token()));
        tokio::task::spawn_local(machine::describe(self.paths.clone(), self.sink.clone()));
        loop {
            tokio::select! {
                biased;
                Some(held) = held.recv() => self.held.push(held),
                Some(done) = doing.join_next() => if let Ok(id) = done {
                    self.under_way.remove(&id);
                    self.held.retain(|held| held.task != id);
                },
                job = incoming.recv() => match job {
                    Some((id, job)) => {
                        let Some(work) = self.begin(id.clone(), job, &all, &holds) else { continue };
                        doing.spawn_local(async move {
                            work.await;
                            id
                        });
                    }
                    None => break,
                },
            }
        }
        all.cancel();
        while doing.join_next().await.is_some() {}
    }

    /// The work of a job, unless a word to one under way does it.
    fn begin(
        &mut self,
        id: TaskId,
        job: Job,
        all: &CancellationToken,
        holds: &mpsc::UnboundedSender<Held>,
    ) -> Option<impl Future<Output = ()> + use<>> {
        let mut leashed = false;
        match &job {
            Job::Cancel(task) => {
                fault::at("cancel");
                self.under_way.get(task).inspect(|token| token.cancel());
                return None;
            }
            Job::Restart(vm) => leashed = self.held(vm, None).is_some(),
            Job::Detach(vm) if self.let_go(vm, None) => return None,
            Job::Unforward { vm, map } if self.let_go(vm, Some(map)) => return None,
            _ => {}
        }
        let (cancel, over) = (all.child_token(), all.clone());
        self.under_way.insert(id.clone(), cancel.clone());
        let (paths, out, holds) = (self.paths.clone(), self.sink.clone(), holds.clone());
        let bench = Bench { id, paths, out, cancel, over, holds };
        Some(perform(bench, job, leashed))
    }

    fn held(&self, vm: &str, map: Option<&PortMap>) -> Option<&Held> {
        self.held.iter().find(|held| held.vm == vm && held.map.as_ref() == map)
    }

    /// Has what is held let go; false when it is not held.
    fn let_go(&self, vm: &str, map: Option<&PortMap>) -> bool {
        self.held(vm, map).inspect(|held| held.let_go.cancel()).is_some()
    }
}

/// Does a job; what keeps it from being done is told to the user.
async fn perform(bench: Bench, job: Job, leashed: bool) {
    let done = match job {
        Job::Cancel(_) => Ok(()),
        Job::Build(wish) => {
            task::build(&bench, wish).await;
            Ok(())
        }
        Job::Run(wish) => task::run_vm(&bench, wish).await,
        Job::Restart(vm) => task::restart(&bench, &vm, leashed).await,
        Job::Save { vm, stop } => task::save(&bench, &vm, stop).await,
        Job::Restore(vm) => task::restore(&bench, &vm).await,
        Job::Fleet(wish) => fleet::perform(&bench, wish).await,
        Job::Cluster(wish) => cluster::perform(&bench, wish).await,
        Job::Route { listen, op } => route::order(&bench, listen, op).await,
        Job::Stop { vm, at_once } => vm::stop(&bench, &vm, at_once).await,
        Job::Delete(vm) => vm::delete(&bench, &vm).await,
        Job::Forward { vm, map } => vm::forward(&bench, &vm, &map).await,
        Job::Detach(vm) => vm::refuse(&bench, &vm, "does not end with this console"),
        Job::Unforward { vm, map } => {
            vm::refuse(&bench, &vm, &format!("is not reached by {map} of this console"))
        }
    };
    if let Err(failure) = done {
        bench.say(Level::Warning, failure.to_string());
    }
}
