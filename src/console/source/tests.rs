//! What a console hears of a state that others change.

use tokio::sync::watch;

use super::*;
use crate::event::{EventStream, Outcome, TaskId};
use crate::fleet::lease::{self, Wakefulness};
use crate::fleet::state::InstanceState;
use crate::host::files::Lock;
use crate::host::identity::ProcessId;
use crate::store::Store;
use crate::store::builds::BuildRow;
use crate::store::fleet::InstanceRow;
use crate::store::vms::{VmRow, VmState};
use crate::vm::console::ConsoleLog;
use crate::vm::snapshot::{self, Taken, ready};

/// How long something may take to be heard of.
const DEADLINE: Duration = Duration::from_secs(30);

struct World {
    _dir: tempfile::TempDir,
    paths: Paths,
    store: Store,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::at(dir.path().join("state"), dir.path().join("run")).unwrap();
        let store = Store::open(&paths.database()).unwrap().store;
        Self { _dir: dir, paths, store }
    }

    /// Records a VM whose lock the caller holds.
    fn vm(&mut self, id: &str, name: &str) -> Lock {
        std::fs::create_dir_all(self.paths.vm(id)).unwrap();
        let lock = Lock::try_take(&self.paths.vm(id).join("lock")).unwrap().expect("the lock");
        let spec = serde_json::json!({
            "id": id, "name": name, "build_dir": "/b/x", "cpus": 2, "memory_mib": 256, "disk_mib": 4096,
            "kernel_args": [], "ports": ["8080:80"], "volumes": ["/a:/data:64M"], "network": "user",
            "egress": true, "kvm": false, "role": null, "boot_timeout_secs": 1, "remove": false,
        });
        // Of another boot, so that it is gone whatever has its number.
        let gone = ProcessId { pid: 1, start: 1, boot: "earlier".into() };
        let row = VmRow {
            id: id.into(),
            name: name.into(),
            build: "x".into(),
            state: VmState::Running,
            detail: None,
            spec: spec.to_string(),
            process: Some(gone),
            created_ms: 1000,
            changed_ms: 2000,
            beside: None,
        };
        assert!(self.store.insert_vm(&row).unwrap());
        lock
    }

    /// Runs `work` beside a watcher of this state.
    fn watched(self, work: impl AsyncFnOnce(Self, Heard)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (sink, events) = EventSink::new(TaskId::machine());
            let (interest, receiver) = watch::channel(Interest::default());
            let cancel = CancellationToken::new();
            let watching = watch(self.paths.clone(), receiver, sink, cancel.clone());
            let working = async {
                work(self, Heard { events, interest }).await;
                cancel.cancel();
            };
            tokio::join!(watching, working);
        });
    }
}

struct Heard {
    events: EventStream,
    interest: watch::Sender<Interest>,
}

impl Heard {
    /// The next event, but those of VMs' use.
    async fn next(&mut self) -> Event {
        loop {
            let event = tokio::time::timeout(DEADLINE, self.events.next()).await.expect("an event in time");
            let event = event.expect("a watcher");
            if !matches!(event.kind, Kind::VmSample { .. }) {
                return event;
            }
        }
    }

    async fn vm(&mut self) -> crate::event::vm::VmInfo {
        match self.next().await {
            Event { kind: Kind::VmSeen { info }, task, .. } if task == TaskId::machine() => *info,
            other => panic!("{other:?}"),
        }
    }

    fn look_at(&self, console: Option<&str>) {
        self.interest.send(Interest { console: console.map(Into::into), ..Interest::default() }).unwrap();
    }
}

#[test]
fn a_vm_of_another_process_is_told_of_when_it_appears_changes_and_goes() {
    World::new().watched(async |mut world, mut heard| {
        let build = BuildRow {
            id: "x".into(),
            flake: "/src/hello".into(),
            attribute: "default".into(),
            created_ms: 1,
            used_ms: 1,
            duration_ms: 1,
        };
        let _lock = world.vm("v-1", "hello");
        let info = heard.vm().await;
        assert_eq!((info.id.as_str(), info.name.as_str(), info.state.as_str()), ("v-1", "hello", "running"));
        assert_eq!((info.hypervisor.as_str(), info.network.as_str(), info.live), ("qemu/tcg", "user", true));
        assert_eq!(
            (info.ports, info.volumes),
            (vec!["127.0.0.1:8080:80".into()], vec!["/a:/data:64M".into()])
        );
        assert_eq!((info.flake, info.pid), (None, Some(1)));
        world.store.put_build(&build).unwrap();
        assert_eq!(heard.vm().await.flake.as_deref(), Some("/src/hello"));
        world.store.set_vm_state("v-1", VmState::Stopped, None).unwrap();
        let info = heard.vm().await;
        assert_eq!((info.state.as_str(), info.live), ("stopped", false));
        world.store.remove_vm("v-1").unwrap();
        assert_eq!(heard.next().await.kind, Kind::VmGone { vm: "v-1".into() });
    });
}

/// Puts a complete snapshot of a build into `dir`.
fn put_snapshot(dir: &std::path::Path, build: &str) {
    let fit = serde_json::json!({
        "build": build, "files": [], "contract": 1, "layout": 1, "hypervisor": "qemu", "version": "7",
        "kvm": false, "cpu": "some", "host_kernel": null, "cpus": 1, "memory_mib": 256, "disk_mib": 64,
        "volumes": [], "network": "user", "kernel_args": [],
    });
    let fit = serde_json::from_value(fit).unwrap();
    let next = dir.with_extension("next");
    std::fs::create_dir_all(&next).unwrap();
    std::fs::write(next.join("state"), "state").unwrap();
    let taken = Taken { fit, vm: "v-1".into(), name: "hello".into(), outside: vec![] };
    snapshot::complete(&next, taken).unwrap();
    std::fs::rename(next, dir).unwrap();
}

#[test]
fn a_snapshot_is_told_of_when_it_is_taken_and_when_it_is_removed() {
    World::new().watched(async |mut world, mut heard| {
        let _lock = world.vm("v-1", "hello");
        let info = heard.vm().await;
        assert_eq!((info.snapshot, info.ready), (None, None));
        assert_eq!((info.started_by.as_deref(), info.shares), (Some("run"), false));
        let own = world.paths.vm_snapshot("v-1");
        put_snapshot(&own, "x");
        let info = heard.vm().await;
        assert!(info.snapshot.is_some_and(|snapshot| snapshot.bytes > 0), "{info:?}");

        // That of another build is none of its own.
        std::fs::create_dir_all(world.paths.snapshots()).unwrap();
        put_snapshot(&world.paths.snapshots().join("other"), "y");
        put_snapshot(&world.paths.snapshots().join("ready"), "x");
        let info = heard.vm().await;
        assert!(info.snapshot.is_some() && info.ready.is_some(), "{info:?}");

        ready::remove(&own).unwrap();
        let info = heard.vm().await;
        assert!(info.snapshot.is_none() && info.ready.is_some(), "{info:?}");
        ready::remove(&world.paths.snapshots().join("ready")).unwrap();
        assert_eq!(heard.vm().await.ready, None);
    });
}

#[test]
fn a_vm_whose_process_is_gone_is_shown_as_failed() {
    let mut world = World::new();
    let lock = world.vm("v-1", "hello");
    world.watched(async |world, mut heard| {
        assert_eq!(heard.vm().await.state, "running");
        drop(lock);
        let info = heard.vm().await;
        assert_eq!((info.state.as_str(), info.detail.is_some()), ("failed", true));
        assert_eq!(world.store.vm("v-1").unwrap().unwrap().state, VmState::Failed);
    });
}

#[test]
fn a_store_that_another_process_writes_delays_the_news_and_holds_nobody_up() {
    let mut world = World::new();
    let lock = world.vm("v-1", "hello");
    let (sink, mut events) = EventSink::new(TaskId::machine());
    let mut database = Database::new(world.paths.clone());
    let (mut vms, mut fleet) = (Vms::new(world.paths.clone()), Fleet::default());
    let mut state = || match events.try_next().map(|event| event.kind) {
        Some(Kind::VmSeen { info }) => Some(info.state),
        Some(other) => panic!("{other:?}"),
        None => None,
    };
    look(&mut database, &mut vms, &mut fleet, &sink);
    assert_eq!(state().as_deref(), Some("running"));
    drop(lock);
    let since = Instant::now();
    world
        .store
        .transaction(|_| {
            square(&mut database, &vms, &fleet);
            look(&mut database, &mut vms, &mut fleet, &sink);
            Ok(())
        })
        .unwrap();
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    assert_eq!(state(), None);
    let heard = loop {
        square(&mut database, &vms, &fleet);
        look(&mut database, &mut vms, &mut fleet, &sink);
        if let Some(state) = state() {
            break state;
        }
        assert!(since.elapsed() < DEADLINE, "nothing is told");
    };
    assert_eq!(heard, "failed");
}

#[test]
fn a_state_that_is_not_there_yet_and_one_that_was_replaced_are_found() {
    let world = World::new();
    let database = world.paths.database();
    let aside = world.paths.state().join("aside.db");
    std::fs::rename(&database, &aside).unwrap();
    world.watched(async |mut world, mut heard| {
        // The first look finds none.
        tokio::task::yield_now().await;
        world.store = Store::open(&database).unwrap().store;
        let _lock = world.vm("v-1", "hello");
        assert_eq!(heard.vm().await.id, "v-1");
        for side in ["state.db", "state.db-wal", "state.db-shm"] {
            let _ = std::fs::remove_file(world.paths.state().join(side));
        }
        world.store = Store::open(&database).unwrap().store;
        assert_eq!(heard.next().await.kind, Kind::VmGone { vm: "v-1".into() });
    });
}

#[test]
fn a_console_is_told_from_its_last_lines_on_and_goes_on_where_it_was_left() {
    let mut world = World::new();
    let _locks = [world.vm("v-1", "one"), world.vm("v-2", "two")];
    let mut logs = ["v-1", "v-2"].map(|id| ConsoleLog::open(&world.paths.vm(id)).unwrap());
    for number in 0..PAST + 5 {
        logs[0].write(format!("\x1b[2J{number}\n").as_bytes()).unwrap();
    }
    logs[1].write(b"other\n").unwrap();
    world.watched(async |_world, mut heard| {
        let text = |event: Event| match event.kind {
            Kind::Log { source: Source::Console { vm }, text } => (vm, text),
            other => panic!("{other:?}"),
        };
        let line = |vm: &str, text: String| (vm.to_owned(), text);
        heard.vm().await;
        heard.vm().await;
        heard.look_at(Some("v-1"));
        for number in 5..PAST + 5 {
            assert_eq!(text(heard.next().await), line("v-1", number.to_string()));
        }
        heard.look_at(Some("v-2"));
        assert_eq!(text(heard.next().await), line("v-2", "other".into()));
        logs[0].write(b"meanwhile\n").unwrap();
        heard.look_at(Some("v-1"));
        assert_eq!(text(heard.next().await), line("v-1", "meanwhile".into()));
        logs[0].write(b"and later\n").unwrap();
        assert_eq!(text(heard.next().await), line("v-1", "and later".into()));
        heard.look_at(None);
    });
}

#[test]
fn a_task_of_another_process_is_told_as_it_stands_and_our_own_is_not() {
    let world = World::new();
    world.watched(async |world, mut heard| {
        std::fs::create_dir(world.paths.tasks()).unwrap();
        let other = (std::process::id() + 1) & 0xffff;
        let now = jiff::Timestamp::now().as_millisecond();
        for id in [TaskId::new('b'), TaskId::parse(&format!("b-{now:011x}-{other:04x}")).unwrap()] {
            let kind = Kind::TaskEnded { outcome: Outcome::Ok, duration_ms: 7, dropped: 0 };
            let event =
                Event { v: SCHEMA_VERSION, time: jiff::Timestamp::UNIX_EPOCH, task: id.clone(), kind };
            let line = serde_json::to_string(&event).unwrap() + "\n";
            std::fs::write(world.paths.tasks().join(format!("{}.jsonl", id.as_str())), line).unwrap();
            if !id.is_own() {
                assert_eq!(heard.next().await, event);
            }
        }
    });
}

/// The next event, as far as it is of the fleet, as JSON.
async fn of_fleet(heard: &mut Heard) -> serde_json::Value {
    loop {
        let event = heard.next().await;
        if !matches!(event.kind, Kind::VmSeen { .. } | Kind::VmGone { .. }) {
            return serde_json::to_value(event.kind).unwrap();
        }
    }
}

/// Who holds an instance awake that slept, as the agent writes it down.
fn awake() -> String {
    let mut awake = Wakefulness::new(InstanceState::Sleeping);
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let _ = awake.take(lease::Event::Wake { lease: 1, ttl_ms: 60_000 }, now_ms);
    serde_json::to_string(&awake).unwrap()
}

/// Records an instance of `dev/web`.
fn put_instance(store: &mut Store, id: &str, state: &str) -> InstanceRow {
    let row = InstanceRow {
        id: id.into(),
        tenant: "dev".into(),
        pool: "web".into(),
        build: "x".into(),
        state: state.into(),
        detail: None,
        host: 0,
        resources: r#"{"vcpus":2,"mem_mib":512}"#.into(),
        lease: Some(awake()),
        failures: 0,
        retry_at_ms: None,
        held_until_ms: Some(7000),
        since_ms: 1000,
        created_ms: 500,
    };
    store.insert_instance(&row, 3, 250).unwrap();
    row
}

#[test]
fn a_fleet_is_told_of_piece_by_piece_and_only_what_changed() {
    World::new().watched(async |mut world, mut heard| {
        let body = r#"{"network":{"tenant_net_id":1,"ipv4_subnet":"10.240.1.0/24"},"quotas":{"max_warm":7}}"#;
        world.store.put_tenant("dev", body).unwrap();
        let tenant = of_fleet(&mut heard).await;
        assert_eq!((&tenant["event"], &tenant["tenant"]["name"]), (&"tenant_seen".into(), &"dev".into()));
        assert_eq!(tenant["tenant"]["quotas"]["warm"], 7);
        let body = r#"{"pool_id":"web","flake_ref":"/f","desired_counts":{"running":2,"warm":1}}"#;
        world.store.put_pool("dev", "web", body).unwrap();
        let pool = of_fleet(&mut heard).await;
        assert_eq!((&pool["event"], &pool["pool"]["desired"]), (&"pool_seen".into(), &3.into()));
        world.store.put_revision("dev", "web", "x", "{}").unwrap();
        let pool = of_fleet(&mut heard).await;
        assert_eq!(
            (&pool["pool"]["revision"], &pool["pool"]["revisions"][0]["build"]),
            (&"x".into(), &"x".into())
        );

        let _lock = world.vm("v-1", "i-00000001");
        let row = put_instance(&mut world.store, "i-00000001", "running");
        let told = of_fleet(&mut heard).await;
        let instance = &told["instance"];
        assert_eq!((&told["event"], &told["pool"]), (&"instance_seen".into(), &"web".into()));
        assert_eq!((&instance["state"], &instance["vm"]), (&"running".into(), &"v-1".into()));
        assert_eq!((&instance["cpus"], &instance["endpoint"]), (&2.into(), &"127.0.0.1:8080".into()));
        assert_eq!((&instance["lease"]["from"], &instance["doing"]), (&"sleeping".into(), &"waking".into()));

        world.store.move_instance(&row, "warm", None).unwrap();
        let told = of_fleet(&mut heard).await;
        assert_eq!((&told["instance"]["state"], told["instance"].get("endpoint")), (&"warm".into(), None));
        world.store.remove_instance(&row).unwrap();
        let gone = |path: &str| serde_json::json!({ "event": "fleet_gone", "path": path });
        assert_eq!(of_fleet(&mut heard).await, gone("dev/web/i-00000001"));
        world.store.remove_pool("dev", "web").unwrap();
        world.store.remove_tenant("dev").unwrap();
        assert_eq!(of_fleet(&mut heard).await, gone("dev/web"));
        assert_eq!(of_fleet(&mut heard).await, gone("dev"));
    });
}

#[test]
fn an_instance_whose_vm_is_gone_is_shown_as_failed() {
    let mut world = World::new();
    world
        .store
        .put_tenant("dev", r#"{"network":{"tenant_net_id":1,"ipv4_subnet":"10.240.1.0/24"},"quotas":{}}"#)
        .unwrap();
    world.store.put_pool("dev", "web", r#"{"pool_id":"web","flake_ref":"/f"}"#).unwrap();
    put_instance(&mut world.store, "i-00000001", "running");
    let lock = world.vm("v-1", "i-00000001");
    world.watched(async |_world, mut heard| {
        let state = async |heard: &mut Heard| loop {
            let told = of_fleet(heard).await;
            if told["event"] == "instance_seen" {
                return told["instance"]["state"].as_str().unwrap().to_owned();
            }
        };
        assert_eq!(state(&mut heard).await, "running");
        drop(lock);
        loop {
            // The VM's end may be told of first.
            if state(&mut heard).await == "failed" {
                break;
            }
        }
    });
}
