//! An agent that owns real guests, asked by a real QUIC client, killed and started again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use mvm::agent::client::Client;
use mvm::agent::pki::{AUTHORITY, Authority, Identity};
use mvm::agent::request::{InstanceFilter, Request};
use mvm::agent::response::{FaultCode, InstanceSummary, Response, Woken};
use mvm::fleet::ids::InstancePath;
use mvm::fleet::state::InstanceState;
use mvm::fleet::step::{KILL_AT, STEPS};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{DEADLINE, Running, World, http_get, wait_until};

/// How long an agent is left alone between two looks.
const POLL: Duration = Duration::from_millis(100);

/// A state with certificates and a desired state of one tenant and one pool.
struct Node {
    world: World,
    desired: PathBuf,
    flake: String,
}

impl Node {
    fn new(counts: [u32; 3]) -> Self {
        let world = World::new();
        world.ok(["agent", "certs", "init"]);
        world.ok(["agent", "certs", "issue", "node", "here"]);
        world.ok(["agent", "certs", "issue", "client", "me"]);
        let flake = world.example("gateway").to_str().unwrap().to_string();
        let node = Self { desired: world.path("desired.json"), world, flake };
        node.wish(counts);
        node
    }

    /// Desires so many running, warm and sleeping instances.
    fn wish(&self, counts: [u32; 3]) {
        let [running, warm, sleeping] = counts;
        let desired = json!({ "schema_version": 1, "node_id": "here", "tenants": [{
            "tenant_id": "dev", "network": { "tenant_net_id": 1, "ipv4_subnet": "10.240.1.0/24" },
            "pools": [{ "pool_id": "web", "flake_ref": self.flake,
                "desired_counts": { "running": running, "warm": warm, "sleeping": sleeping },
                "runtime_policy": { "min_running_seconds": 1, "min_warm_seconds": 1,
                    "drain_timeout_seconds": 2, "graceful_shutdown_seconds": 5 } }] }] });
        self.write(&desired);
    }

    fn write(&self, desired: &Value) {
        let beside = self.desired.with_extension("new");
        fs::write(&beside, desired.to_string()).unwrap();
        fs::rename(beside, &self.desired).unwrap();
    }

    /// Desires that there is nothing at all.
    fn wish_nothing(&self) {
        let desired = json!({ "schema_version": 1, "node_id": "here", "tenants": [],
            "prune_unknown_tenants": true, "prune_unknown_pools": true });
        self.write(&desired);
    }

    fn agent(&self) -> Command {
        let desired = self.desired.to_str().unwrap();
        self.world.mvm(["agent", "serve", "--listen", "127.0.0.1:0", "--desired", desired])
    }

    /// An agent, and where it listens.
    fn serve(&self) -> (Running, SocketAddr) {
        let mut agent = Running::start(self.agent());
        let line = agent.line("listens on ");
        (agent, line.trim().rsplit(' ').next().unwrap().parse().unwrap())
    }

    /// An operator.
    async fn connect(&self, address: SocketAddr) -> Client {
        let pki = self.world.state().join("cluster/pki");
        let identity = Identity::load(&pki.join("client-me.pem")).unwrap();
        let authority = Authority::load(&pki.join(AUTHORITY)).unwrap();
        Client::connect(address, &"here".parse().unwrap(), &identity, &authority).await.unwrap()
    }

    fn instances(&self) -> Vec<Value> {
        let list: Value = serde_json::from_str(&self.world.ok(["instance", "list", "--json"])).unwrap();
        list["instances"].as_array().unwrap().clone()
    }

    fn has(&self, counts: [usize; 3]) -> bool {
        let all = self.instances();
        let count = |state: &str| all.iter().filter(|one| one["state"] == state).count();
        [count("running"), count("warm"), count("sleeping")] == counts
    }

    fn expect(&self, counts: [usize; 3]) {
        wait_until(DEADLINE, &format!("{counts:?} running, warm and sleeping"), || self.has(counts));
    }

    fn shell(&self, path: &InstancePath, script: &str) -> String {
        self.world.ok(["instance", "ssh", &path.to_string(), "-l", "root", "--", "sh", "-c", script])
    }

    fn end(&self) {
        self.world.ok(["tenant", "destroy", "dev", "--force"]);
        self.world.expect_no_process();
    }
}

async fn list(client: &Client) -> Vec<InstanceSummary> {
    client.instances(InstanceFilter::default()).await.unwrap()
}

async fn wake(client: &Client, target: &str, ttl_ms: u64) -> Woken {
    let ttl = Duration::from_millis(ttl_ms).try_into().unwrap();
    match client.ask(Request::Wake { target: target.to_string().try_into().unwrap(), ttl }).await.unwrap() {
        Response::Woken(woken) => woken,
        other => panic!("{other:?}"),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

#[test]
fn a_woken_instance_remembers_stays_for_its_lease_and_then_sleeps_again() {
    let node = Node::new([0, 0, 1]);
    let (agent, address) = node.serve();
    node.expect([0, 0, 1]);
    runtime().block_on(async {
        let client = node.connect(address).await;
        let woken = wake(&client, "dev/web", 3_600_000).await;
        assert!(http_get(woken.endpoint).contains("200 OK"));
        node.shell(&woken.instance, "echo kept >/run/note");
        // Nobody puts to sleep what is leased.
        let sleep = || Request::Sleep { instance: woken.instance.clone() };
        let refused = client.ask(sleep()).await.unwrap_err();
        assert!(refused.to_string().contains("held awake"), "{refused}");
        // Many who come at once have one instance, each with a lease of its own.
        let many = futures_util::future::join_all((0..20).map(|_| wake(&client, "dev/web", 60_000))).await;
        assert!(many.iter().all(|one| one.instance == woken.instance && one.lease != woken.lease));
        for lease in many.into_iter().chain([woken.clone()]).map(|one| one.lease) {
            assert_eq!(client.ask(Request::Release { lease }).await.unwrap(), Response::Released);
        }
        node.expect([0, 0, 1]);
        assert_eq!(node.instances().len(), 1, "the leased one was not replaced");
        let again = wake(&client, "dev/web", 2_000).await;
        assert_eq!(again.instance, woken.instance);
        assert_eq!(node.shell(&again.instance, "cat /run/note"), "kept\n");
        // It lapses by itself.
        node.expect([0, 0, 1]);
        let ttl = Duration::from_secs(2).try_into().unwrap();
        let lapsed = client.ask(Request::Renew { lease: again.lease, ttl }).await.unwrap_err();
        assert!(lapsed.to_string().contains("has lapsed"), "{lapsed}");
        let states: Vec<_> = list(&client).await.into_iter().map(|one| (one.state, one.leased)).collect();
        assert_eq!(states, [(InstanceState::Sleeping, false)]);
    });
    agent.signal(Signal::SIGTERM);
    let (status, said) = agent.end();
    assert!(status.success(), "{said}");
    node.end();
}

#[test]
fn an_agent_that_ends_or_is_killed_leaves_its_instances_to_the_next() {
    let node = Node::new([1, 0, 0]);
    let (mut agent, _) = node.serve();
    node.expect([1, 0, 0]);
    let first = node.instances()[0]["vm"].clone();
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        agent.signal(signal);
        agent.end();
        assert!(node.has([1, 0, 0]));
        agent = node.serve().0;
    }
    assert_eq!(node.instances()[0]["vm"], first, "the same guest all the time");
    // What is wished is read again when it changes, and a mistake in it changes nothing.
    fs::write(&node.desired, "{ half").unwrap();
    agent.line("desired.json");
    node.wish([2, 0, 0]);
    node.expect([2, 0, 0]);
    // A guest that dies is replaced.
    let pid =
        node.world.vm(node.instances()[0]["instance"].as_str().unwrap().rsplit('/').next().unwrap())["pid"]
            .as_u64()
            .unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
    wait_until(DEADLINE, "its end to be seen", || !node.has([2, 0, 0]));
    node.expect([2, 0, 0]);
    agent.signal(Signal::SIGTERM);
    agent.end();
    node.end();
}

#[test]
fn an_agent_killed_at_any_step_of_a_change_is_made_good_by_the_next() {
    let node = Node::new([1, 0, 0]);
    let mut reached = Vec::new();
    for step in STEPS {
        // Together they come to all steps.
        for counts in [Some([1, 1, 1]), Some([2, 0, 0]), Some([0, 0, 1]), None] {
            counts.map_or_else(|| node.wish_nothing(), |counts| node.wish(counts));
            let counts = counts.unwrap_or_default().map(|count| count as usize);
            let is_done = || node.has(counts) && (counts != [0; 3] || node.instances().is_empty());
            let mut killed = Running::start({
                let mut command = node.agent();
                command.env(KILL_AT, step);
                command
            });
            killed.line("listens on ");
            let mut is_over = false;
            wait_until(DEADLINE, "the change or the end", || {
                is_over = !killed.run_for(POLL);
                is_over || is_done()
            });
            if is_over {
                reached.push(step);
            }
            killed.signal(Signal::SIGKILL);
            killed.end();
            let (agent, _) = node.serve();
            wait_until(DEADLINE, &format!("{counts:?} after {step}"), is_done);
            agent.signal(Signal::SIGTERM);
            agent.end();
        }
        assert_eq!(fs::read_dir(node.world.state().join("vms")).unwrap().count(), 0);
    }
    reached.dedup();
    assert_eq!(reached, STEPS, "each step is come to");
    node.world.expect_nothing_left();
}

#[test]
fn peers_of_an_agent_that_was_killed_hear_it_from_the_next_one_at_their_first_word() {
    let node = Node::new([0, 0, 0]);
    let (agent, address) = node.serve();
    runtime().block_on(async {
        let client = node.connect(address).await;
        agent.signal(Signal::SIGKILL);
        agent.end();
        let mut again = Running::start({
            let desired = node.desired.to_str().unwrap();
            node.world.mvm(["agent", "serve", "--listen", &address.to_string(), "--desired", desired])
        });
        again.line("listens on ");
        let error = client.ask(Request::NodeInfo).await.unwrap_err();
        assert!(error.to_string().contains("it has started anew"), "{error}");
        again.signal(Signal::SIGTERM);
        again.end();
    });
    node.end();
}

#[test]
fn reconciling_twice_does_nothing_the_second_time_and_changes_are_planned_then_done() {
    let node = Node::new([1, 0, 0]);
    let desired = node.desired.to_str().unwrap().to_string();
    let reconcile =
        |more: &[&str]| node.world.ok([&["agent", "reconcile", "--desired", &desired], more].concat());
    assert!(reconcile(&["--dry-run"]).contains("create 1 instance → running"));
    assert!(node.instances().is_empty());
    reconcile(&[]);
    assert!(node.has([1, 0, 0]));
    assert_eq!(reconcile(&[]).trim(), "nothing to do");
    let old = node.instances()[0]["revision"].clone();
    // Another image, and another number.
    fs::write(PathBuf::from(&node.flake).join("www/index.html"), "another page").unwrap();
    node.world.ok(["pool", "build", "dev/web"]);
    node.wish([2, 0, 0]);
    let plan = reconcile(&["--dry-run"]);
    assert!(plan.contains("create 1 instance → running"), "{plan}");
    reconcile(&[]);
    assert!(node.has([2, 0, 0]));
    let all = node.instances();
    assert!(all.iter().all(|one| one["revision"] != old), "{all:#?}");
    node.wish([0, 0, 0]);
    fs::write(&node.desired, r#"{"schema_version": 1, "node_id": "here", "tenants": []}"#).unwrap();
    assert_eq!(reconcile(&[]).trim(), "nothing to do");
    reconcile(&["--prune"]);
    assert!(node.instances().is_empty());
    node.world.expect_nothing_left();
}

#[test]
fn a_lost_database_loses_no_guest() {
    let node = Node::new([1, 0, 1]);
    let desired = node.desired.to_str().unwrap().to_string();
    let reconcile = || node.world.ok(["agent", "reconcile", "--desired", &desired]);
    reconcile();
    assert!(node.has([1, 0, 1]));
    let paths = |all: Vec<Value>| {
        let mut paths: Vec<_> =
            all.iter().map(|one| (one["instance"].clone().to_string(), one["vm"].clone())).collect();
        paths.sort_by(|a, b| a.0.cmp(&b.0));
        paths
    };
    let before = paths(node.instances());
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(node.world.state().join(format!("state.db{suffix}")));
    }
    fs::write(node.world.state().join("state.db"), [b'x'; 8192]).unwrap();
    let said = support::stderr(&node.world.mvm(["status"]).output().unwrap());
    assert!(said.contains("was set aside") && said.contains("recorded again"), "{said}");
    reconcile();
    assert!(node.has([1, 0, 1]), "{:#?}", node.instances());
    assert_eq!(paths(node.instances()), before);
    assert!(
        http_get(node.instances().iter().find_map(|one| one["endpoint"].as_str()).unwrap().parse().unwrap())
            .contains("200 OK")
    );
    node.end();
}

#[test]
fn a_flake_that_does_not_build_holds_up_no_other_pool() {
    let node = Node::new([1, 0, 0]);
    let broken = node.world.flake("broken", "{ outputs = { ... }: { packages = throw \"no\"; }; }");
    let mut desired: Value = serde_json::from_str(&fs::read_to_string(&node.desired).unwrap()).unwrap();
    let mut pool = desired["tenants"][0]["pools"][0].clone();
    (pool["pool_id"], pool["flake_ref"]) = ("bad".into(), broken.to_str().unwrap().into());
    desired["tenants"][0]["pools"].as_array_mut().unwrap().insert(0, pool);
    fs::write(&node.desired, desired.to_string()).unwrap();
    let args = ["agent", "reconcile", "--desired", node.desired.to_str().unwrap()];
    let output = node.world.mvm(args).output().unwrap();
    assert!(!output.status.success());
    assert!(node.has([1, 0, 0]), "{}", support::stderr(&output));
    let pools: Value = serde_json::from_str(&node.world.ok(["pool", "list", "--json"])).unwrap();
    let failure = pools["pools"].as_array().unwrap().iter().find_map(|pool| pool["failure"].as_str());
    assert!(failure.is_some(), "{pools:#}");
    // Not again before its time.
    let again = support::stdout(&node.world.mvm(args).output().unwrap());
    assert!(again.contains("the last build failed"), "{again}");
    node.end();
}

#[test]
fn the_api_tells_what_is_wrong_with_what_it_is_asked() {
    let node = Node::new([0, 0, 0]);
    let (agent, address) = node.serve();
    runtime().block_on(async {
        let client = node.connect(address).await;
        let ttl = Duration::from_secs(2).try_into().unwrap();
        let target = |text: &str| text.to_string().try_into().unwrap();
        for (request, code) in [
            (Request::Wake { target: target("dev/none"), ttl }, FaultCode::NotFound),
            (Request::Wake { target: target("dev/none/i-00000000"), ttl }, FaultCode::NotFound),
            (Request::Release { lease: "i-00000000-1".parse().unwrap() }, FaultCode::NotFound),
            (Request::Sleep { instance: "dev/web/i-00000000".parse().unwrap() }, FaultCode::NotFound),
        ] {
            let error = client.ask(request.clone()).await.unwrap_err();
            let mvm::agent::client::ClientError::Refused(fault) = error else {
                panic!("{request:?}: {error}")
            };
            assert_eq!(fault.code, code, "{request:?}: {fault}");
        }
        let Response::NodeInfo(info) = client.ask(Request::NodeInfo).await.unwrap() else { panic!() };
        assert_eq!(info.node, "here");
        let Response::NodeStats(_) = client.ask(Request::NodeStats).await.unwrap() else { panic!() };
        let Response::Tenants { .. } = client.ask(Request::TenantList).await.unwrap() else { panic!() };
    });
    let second = node.world.fails(["agent", "serve", "--listen", "127.0.0.1:0"]);
    assert!(second.contains("serves the state"), "{second}");
    agent.signal(Signal::SIGTERM);
    agent.end();
}
