//! What the console's worker does with real guests, told by its events.
//!
//! A VM's shim is the running program itself, so this one is no test harness: called with `shim`
//! it is mvm.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::Read;
use std::net::TcpStream;
use std::process::ExitCode;

use mvm::console::action::Turn;
use mvm::console::source::Interest;
use mvm::console::work::{ClusterWish, FleetWish, Job, RunWish, Worker};
use mvm::event::{Event, EventSink, EventStream, Kind, Outcome, Source, TaskId};
use mvm::fleet::desired::Counts;
use mvm::fleet::ids::PoolPath;
use mvm::host::paths::Paths;
use mvm::run::wish::BuildWish;
use support::shims::{self, Test};
use support::{DEADLINE, World, http_get};
use tokio::sync::watch;

const TESTS: [Test; 3] = [
    (
        "a_vm_keeps_its_disk_when_it_is_restarted_and_lives_on_when_it_is_detached",
        a_vm_keeps_its_disk_when_it_is_restarted_and_lives_on_when_it_is_detached,
    ),
    (
        "a_pool_is_scaled_and_its_instance_changed_and_destroyed",
        a_pool_is_scaled_and_its_instance_changed_and_destroyed,
    ),
    (
        "a_cluster_is_started_and_ended_and_the_console_may_go",
        a_cluster_is_started_and_ended_and_the_console_may_go,
    ),
];

fn main() -> ExitCode {
    shims::main(&TESTS)
}

/// A console without a screen.
struct Desk {
    worker: Worker,
    events: EventStream,
    runtime: tokio::runtime::Runtime,
    _interest: watch::Sender<Interest>,
}

impl Desk {
    fn new(world: &World) -> Self {
        let own = [
            ("MVM_STATE_DIR", world.state()),
            ("XDG_RUNTIME_DIR", world.path("run")),
            ("NIX_CONFIG", "substituters =".into()),
        ];
        // SAFETY: no other thread is there yet.
        own.into_iter().for_each(|(name, value)| unsafe { std::env::set_var(name, value) });
        let paths = Paths::find().unwrap();
        let (sink, events) = EventSink::new(TaskId::machine());
        let (interest, interested) = watch::channel(Interest::default());
        let worker = Worker::start(paths, sink, interested).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { worker, events, runtime, _interest: interest }
    }

    /// Has a job done and waits for the first event that `pick` takes.
    fn until<T>(&mut self, job: Job, pick: impl Fn(&Kind) -> Option<T>) -> T {
        let what = format!("{job:?}");
        self.worker.take(job);
        let events = &mut self.events;
        let search = async {
            while let Some(Event { kind, .. }) = events.next().await {
                if let Kind::TaskEnded { outcome: Outcome::Failed { error, tail }, .. } = &kind {
                    panic!("{what}: {error}\n{}", tail.join("\n"));
                }
                if let Some(found) = pick(&kind) {
                    return found;
                }
            }
            panic!("{what}: no more events");
        };
        let found = self.runtime.block_on(async { tokio::time::timeout(DEADLINE, search).await });
        found.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
    }

    /// Has a job done and waits until the user is told so.
    fn says(&mut self, job: Job, words: &str) {
        self.until(job, |kind| match kind {
            Kind::Log { source: Source::Mvm { .. }, text } if text.contains(words) => Some(()),
            _ => None,
        });
    }

    /// Has a job done and waits until a VM that ends with the console is ready; its id.
    fn leashed(&mut self, job: Job) -> String {
        self.until(job, |kind| match kind {
            Kind::VmLeashed { vm, on: true } => Some(vm.clone()),
            _ => None,
        })
    }
}

fn started(kind: &Kind) -> Option<String> {
    match kind {
        Kind::VmStarted { vm, .. } => Some(vm.clone()),
        _ => None,
    }
}

fn a_vm_keeps_its_disk_when_it_is_restarted_and_lives_on_when_it_is_detached() {
    let world = World::new();
    let root = |script: &str| world.ok(["exec", "hello", "--user", "root", "--", "sh", "-c", script]);
    let mut desk = Desk::new(&world);
    let build = BuildWish { flake: world.example("hello").to_str().unwrap().into(), ..BuildWish::default() };
    std::fs::write(world.path("hello/mvm.toml"), "network = \"user\"\n").unwrap();
    let run = |name: &str| {
        let (build, name) = (build.clone(), Some(name.parse().unwrap()));
        Job::Run(RunWish { build, name, detach: false, replaces: None, trigger: None })
    };

    let first = desk.leashed(run("hello"));
    let log = world.ok(["logs", "hello"]);
    root("echo kept > /root/file && sync");
    let second = desk.leashed(Job::Restart(first.clone()));
    assert_ne!(first, second);
    assert_eq!(root("cat /root/file"), "kept\n");
    let ids: Vec<_> = world.vms().iter().map(|vm| vm["id"].clone()).collect();
    assert_eq!(ids, [second.as_str()], "the old VM is no more");
    assert!(world.ok(["logs", "hello"]).starts_with(log.trim_end()), "the log does not go on");

    // A restart of what is over finds the disk as well; nobody holds its leash any more.
    desk.says(Job::Stop { vm: second.clone(), at_once: false }, "stopped hello");
    desk.says(Job::Stop { vm: second.clone(), at_once: false }, "is not running");
    desk.says(Job::Restart("v-nobody".into()), "there is no VM named `v-nobody`");
    let third = desk.until(Job::Restart(second), started);
    assert_eq!(root("cat /root/file"), "kept\n");
    desk.says(Job::Detach(third.clone()), "hello does not end with this console");

    a_port_is_forwarded_until_it_is_not(&mut desk, &third);

    desk.says(Job::Delete(third), "removed hello");
    assert!(world.vms().is_empty());

    desk.leashed(run("tied"));
    let free = desk.leashed(run("free"));
    desk.says(Job::Detach(free), "free lives on when the console ends");
    desk.worker.finish();
    assert_eq!(world.vm("tied")["state"], "stopped");
    assert_eq!(world.vm("free")["state"], "running");
    world.ok(["stop", "free"]);
    world.expect_nothing_left();
}

fn a_pool_is_scaled_and_its_instance_changed_and_destroyed() {
    let world = World::new();
    let flake = world.example("gateway");
    world.ok(["tenant", "create", "dev"]);
    world.ok(["pool", "create", "dev/web", "--flake", flake.to_str().unwrap(), "--min-running", "0"]);
    let mut desk = Desk::new(&world);
    let pool: PoolPath = "dev/web".parse().unwrap();
    // An instance in a state, as the console is told of it: its name and where it answers.
    let is = |state: &'static str| {
        move |kind: &Kind| match kind {
            Kind::InstanceSeen { instance, .. } if instance.state == state => {
                Some((instance.name.clone(), instance.endpoint.clone()))
            }
            _ => None,
        }
    };

    let counts = Counts { running: 1, ..Counts::default() };
    // What the agent is to leave alone is written when all is done.
    desk.until(Job::Fleet(FleetWish::Scale { path: pool.clone(), counts }), |kind| match kind {
        Kind::PoolSeen { pool, .. } => pool.held,
        _ => None,
    });
    let (name, endpoint) = desk.until(Job::Fleet(FleetWish::Build(pool.clone())), is("running"));
    assert!(http_get(endpoint.unwrap().parse().unwrap()).contains("200 OK"));
    let path = pool.instance(name.parse().unwrap());
    let turn = |turn| Job::Fleet(FleetWish::Turn { path: path.clone(), turn });
    for (change, state) in [
        (Turn::Warm, "warm"),
        (Turn::Wake, "running"),
        (Turn::Sleep, "sleeping"),
        (Turn::Wake, "running"),
        (Turn::Stop, "stopped"),
        (Turn::Start, "running"),
    ] {
        assert_eq!(desk.until(turn(change), is(state)).0, name, "{change:?}");
        let list: serde_json::Value =
            serde_json::from_str(&world.ok(["instance", "list", "--json"])).unwrap();
        assert_eq!(list["instances"][0]["state"], state);
        assert!(list["instances"][0]["held_until_ms"].is_i64(), "{change:?}");
    }
    desk.until(Job::Fleet(FleetWish::Destroy(path.clone())), |kind| match kind {
        Kind::FleetGone { path: gone } => (*gone == path.to_string()).then_some(()),
        _ => None,
    });
    desk.worker.finish();
    world.ok(["tenant", "destroy", "dev", "--force"]);
    world.expect_nothing_left();
}

fn a_cluster_is_started_and_ended_and_the_console_may_go() {
    let world = World::new();
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let agent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (gateways, workers) = (free(), free());
    let addresses = ["--agent", &agent, "--listen", &gateways, "--listen-workers", &workers];
    world.ok([&["dev", "cluster", "init"], &addresses[..]].concat());
    let mut desk = Desk::new(&world);
    desk.says(Job::Cluster(ClusterWish::Up), "answers from dev/gateways");
    assert!(http_get(gateways.parse().unwrap()).contains("200 OK"));
    desk.worker.finish();
    assert!(http_get(gateways.parse().unwrap()).contains("200 OK"), "it lives on");
    let mut desk = Desk::new(&world);
    desk.says(Job::Cluster(ClusterWish::Up), "the cluster runs already");
    desk.says(Job::Cluster(ClusterWish::Down), "removed 2 instances of 2 pools");
    desk.worker.finish();
    world.expect_nothing_left();
}

fn a_port_is_forwarded_until_it_is_not(desk: &mut Desk, vm: &str) {
    let forward = Job::Forward { vm: vm.into(), map: "0:22".parse().unwrap() };
    let map = desk.until(forward, |kind| match kind {
        Kind::Forwarded { map, on: true, .. } => Some(map.parse::<mvm::vm::spec::PortMap>().unwrap()),
        _ => None,
    });
    let mut greeting = [0; 4];
    TcpStream::connect(map.host).unwrap().read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"SSH-");
    desk.says(Job::Forward { vm: vm.into(), map }, "is taken by");
    desk.until(Job::Unforward { vm: vm.into(), map }, |kind| match kind {
        Kind::Forwarded { on: false, .. } => Some(()),
        _ => None,
    });
    assert!(TcpStream::connect(map.host).is_err());
    desk.says(Job::Unforward { vm: vm.into(), map }, "is not reached by");
}
