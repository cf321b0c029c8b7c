//! Tenants with real guests.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;

use mvm::host::identity::ProcessId;
use mvm::host::paths::Paths;
use mvm::store::Store;
use mvm::vm::lifecycle;
use mvm::vm::network::tenant::{self, LiveNetwork};
use mvm::vm::network::verify::{Seen, Verification, verify};
use mvm::vm::shim::protocol::Word;
use mvm::vm::spec::VmSpec;
use serde_json::json;

use crate::support::{DEADLINE, Namespace, World, http_get, kill_process, published, serve, wait_until};

/// Two tenants on a host of their own.
struct Tenants<'a> {
    world: &'a World,
    host: &'a Namespace,
    paths: Paths,
    build: PathBuf,
}

impl<'a> Tenants<'a> {
    fn new(world: &'a World, host: &'a Namespace) -> Self {
        let own = [("MVM_STATE_DIR", world.state()), ("XDG_RUNTIME_DIR", world.path("run"))];
        // SAFETY: no other thread is there yet.
        own.into_iter().for_each(|(name, value)| unsafe { std::env::set_var(name, value) });
        let flake = world.example("gateway");
        let build = world.ok(["build", "--flake", flake.to_str().unwrap()]);
        Self { world, host, paths: Paths::find().unwrap(), build: build.trim().into() }
    }

    /// Starts guests all at once, the last byte of whose addresses is given; whether each was restored.
    fn start(&self, net_id: u16, last: &[u8]) -> Vec<bool> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let guests = last.iter().map(|last| self.start_one(net_id, *last));
        self.host.enter(|| runtime.block_on(futures_util::future::join_all(guests)))
    }

    async fn start_one(&self, net_id: u16, last: u8) -> bool {
        let spec: VmSpec = serde_json::from_value(json!({
            "id": lifecycle::new_id(), "name": name(net_id, last), "build_dir": self.build, "cpus": 1,
            "memory_mib": 256, "disk_mib": 64, "kernel_args": [], "ports": ["127.0.0.1:0:8080"], "volumes": [],
            "network": "tap", "egress": true, "kvm": false, "role": "gateway", "boot_timeout_secs": 90,
            "remove": false,
            "tenant": {
                "net_id": net_id, "subnet": format!("10.240.{net_id}.0/24"), "address": address(net_id, last),
            },
        }))
        .unwrap();
        let mut store = Store::open(&self.paths.database()).unwrap().store;
        let mut starting = lifecycle::start(&self.paths, &mut store, spec, true).unwrap();
        loop {
            match starting.next().await {
                Some(Word::Ready { restored, .. }) => {
                    starting.detach().await.unwrap();
                    return restored;
                }
                Some(Word::Failed { error, .. }) => panic!("{error}"),
                Some(_) => {}
                None => panic!("the shim ended without a word"),
            }
        }
    }

    /// What root's shell in a guest prints.
    fn inside(&self, vm: &str, script: &str) -> String {
        self.world.ok(["exec", vm, "--user", "root", "--", "sh", "-c", script])
    }

    /// What a guest gets from a server, `none` when it does not get there.
    fn fetch(&self, vm: &str, address: &str) -> String {
        self.inside(vm, &format!("timeout 3 wget -q -O - http://{address}/ || echo none"))
    }

    fn networks(&self) -> Vec<LiveNetwork> {
        tenant::live(&Store::open(&self.paths.database()).unwrap().store).unwrap()
    }

    fn verify(&self) -> Verification {
        verify(&self.networks())
    }

    /// Runs a program in a tenant's namespace.
    fn run(&self, net_id: u16, command: &str) -> String {
        let target = self.shim(net_id).pid.to_string();
        let mut nsenter = Command::new("nsenter");
        let output = nsenter.args(["-t", &target, "-n", "sh", "-c", command]).output().unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The shim of one of a tenant's VMs.
    fn shim(&self, net_id: u16) -> ProcessId {
        let networks = self.networks();
        let network = networks.iter().find(|network| network.net_id == net_id).unwrap();
        network.members[0].process.clone()
    }

    /// The namespace of a VM's shim.
    fn namespace(&self, vm: &str) -> PathBuf {
        fs::read_link(format!("/proc/{}/ns/net", self.world.vm(vm)["pid"])).unwrap()
    }
}

fn name(net_id: u16, last: u8) -> String {
    format!("t{net_id}-{last}")
}

fn address(net_id: u16, last: u8) -> String {
    format!("10.240.{net_id}.{last}")
}

pub fn guests_reach_their_own_tenants_and_no_others_and_verify_notices_a_leak() {
    let (Some(host), Some(outside)) = (Namespace::new(), Namespace::new()) else { return };
    let world = World::new();
    let tenants = Tenants::new(&world, &host);
    // Whatever the host lets go meets a server outside that has every address.
    host.connect(&outside, "192.0.2.1", "192.0.2.2");
    host.ip(&["route", "add", "default", "via", "192.0.2.2"]);
    outside.ip(&["route", "add", "local", "10.0.0.0/8", "dev", "lo"]);
    outside.ip(&["route", "add", "local", "172.16.0.0/12", "dev", "lo"]);
    let listen = |namespace: &Namespace| namespace.enter(|| TcpListener::bind("0.0.0.0:8000").unwrap());
    let (_outside, _host) = (serve(listen(&outside), "outside"), serve(listen(&host), "host"));

    assert_eq!(tenants.start(1, &[3]), [false]);
    wait_until(DEADLINE, "a ready snapshot", || {
        let mut entries = fs::read_dir(world.state().join("dev/snapshots")).unwrap().flatten();
        entries.any(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
    });
    assert_eq!(tenants.start(2, &[3, 4]), [true, true], "a ready snapshot does for any address");
    assert_eq!(tenants.namespace("t2-3"), tenants.namespace("t2-4"));
    assert_ne!(tenants.namespace("t1-3"), tenants.namespace("t2-3"));
    a_guest_is_where_it_is_to_be(&tenants);
    guests_reach_their_own_tenants_only(&tenants);
    verify_tells_apart_from_not(&tenants);
    a_killed_vm_leaves_its_tenants_others_alone(&tenants);
    a_woken_guest_is_who_it_was(&tenants);

    // One tenant in order, the other by force.
    let end = ["t2-4", "t2-5"];
    host.enter(|| end.iter().for_each(|vm| drop(world.ok(["stop", vm]))));
    kill_process(&world.vm("t1-3")["pid"]);
    world.expect_no_process();
    wait_until(DEADLINE, "no uplink on the host", || !host.ip(&["-o", "link"]).contains("mvm-"));
    host.enter(|| drop(world.ok(["status"])));
    host.enter(|| world.expect_nothing_left());
    assert_eq!(host.run("nft", &["list", "tables"]), "");
}

fn a_guest_is_where_it_is_to_be(tenants: &Tenants<'_>) {
    let said = tenants.inside("t2-4", "ip -4 -o addr show eth0; cat /sys/class/net/eth0/address; ip route");
    assert!(said.contains("inet 10.240.2.4/24 ") && !said.contains("172.16."), "{said}");
    assert!(said.contains("02:6d:0a:f0:02:04") && said.contains("default via 10.240.2.1 "), "{said}");
    let port = published(&tenants.world.vm("t2-4"));
    assert!(tenants.host.enter(|| http_get(port)).contains("200 OK"));
}

fn guests_reach_their_own_tenants_only(tenants: &Tenants<'_>) {
    assert_eq!(tenants.inside("t2-3", "ping -c 1 -W 5 10.240.2.4 >/dev/null && echo there"), "there\n");
    let page = tenants.fetch("t2-3", "10.240.2.4:8080");
    assert!(page.contains("<"), "{page}");
    let unreached = || {
        for address in ["10.240.1.3:8080", "10.240.1.1:8000", "172.16.0.2:8000", "100.127.255.254:8000"] {
            assert_eq!(tenants.fetch("t2-3", address), "none\n", "{address}");
        }
        assert_eq!(tenants.fetch("t1-3", "10.240.2.3:8080"), "none\n");
        // Neither the host nor, behind it, one who has an address of a tenant.
        assert_eq!(tenants.fetch("t1-3", "192.0.2.1:8000"), "none\n");
        assert_eq!(tenants.fetch("t1-3", "10.240.9.9:8000"), "none\n");
        assert_eq!(tenants.fetch("t1-3", "192.0.2.2:8000"), "outside");
    };
    unreached();
    // The host holds even where the namespace does not.
    let routes = ["10.240.0.0/12", "172.16.0.0/24", "100.64.0.0/10"];
    for (net_id, route) in [1, 2].into_iter().flat_map(|net_id| routes.map(|route| (net_id, route))) {
        tenants.run(net_id, &format!("ip route del unreachable {route}"));
    }
    unreached();
    let verification = tenants.verify();
    assert!(verification.passes, "{verification:#?}");
    let tries = verification.pairs.iter().flat_map(|pair| &pair.tries);
    assert!(tries.into_iter().all(|one| one.seen == Seen::TimedOut), "{verification:#?}");
    for (net_id, route) in [1, 2].into_iter().flat_map(|net_id| routes.map(|route| (net_id, route))) {
        tenants.run(net_id, &format!("ip route add unreachable {route}"));
    }
}

fn verify_tells_apart_from_not(tenants: &Tenants<'_>) {
    let passing = tenants.verify();
    assert!(passing.passes, "{passing:#?}");
    assert_eq!(passing.own.iter().map(|own| own.tries.len()).collect::<Vec<_>>(), [1, 2]);
    let pairs: Vec<_> = passing.pairs.iter().map(|pair| (pair.from, pair.to, pair.tries.len())).collect();
    assert_eq!(pairs, [(1, 2, 3), (2, 1, 2)], "the gateways as well");

    // A cable from one tenant to the other.
    let other = tenants.shim(2).pid;
    tenants.run(1, &format!("ip link add leak type veth peer name leak netns {other}"));
    tenants.run(1, "ip addr add 192.0.2.101/24 dev leak; ip link set leak up");
    tenants.run(2, "ip addr add 192.0.2.102/24 dev leak; ip link set leak up");
    tenants.run(1, "ip route add 10.240.2.0/24 via 192.0.2.102");
    let leaking = tenants.verify();
    assert!(!leaking.passes);
    let [there, back] = &leaking.pairs[..] else { panic!("{leaking:#?}") };
    assert!(!there.isolated && back.isolated, "{leaking:#?}");
    let seen: Vec<_> = there.tries.iter().map(|one| (one.vm.as_deref(), one.seen.clone())).collect();
    assert!(seen.contains(&(None, Seen::Refused)), "{seen:?}");
    assert!(seen.contains(&(Some("t2-3"), Seen::Connected)), "{seen:?}");
    assert_eq!(serde_json::from_value::<Verification>(json!(leaking)).unwrap(), leaking);
    tenants.run(1, "ip link del leak");
    assert!(tenants.verify().passes);

    // A dead network is not an isolated one.
    tenants.run(1, "ip link set br-tenant-1 down");
    let dead = tenants.verify();
    assert!(!dead.passes && !dead.own[0].reached && dead.own[1].reached, "{dead:#?}");
    tenants.run(1, "ip link set br-tenant-1 up");
    assert!(tenants.verify().passes);
}

fn a_killed_vm_leaves_its_tenants_others_alone(tenants: &Tenants<'_>) {
    kill_process(&tenants.world.vm("t2-3")["pid"]);
    wait_until(DEADLINE, "a word about the killed VM", || tenants.world.vm("t2-3")["state"] == "failed");
    assert_eq!(tenants.fetch("t2-4", "192.0.2.2:8000"), "outside");
    let port = published(&tenants.world.vm("t2-4"));
    assert!(tenants.host.enter(|| http_get(port)).contains("200 OK"));
    assert_eq!(tenants.start(2, &[5]), [true]);
    assert!(tenants.fetch("t2-5", "10.240.2.4:8080").contains("<"));
    assert!(tenants.verify().passes);
}

fn a_woken_guest_is_who_it_was(tenants: &Tenants<'_>) {
    tenants.inside("t2-4", "echo kept > /run/file");
    let (world, id) = (tenants.world, tenants.world.vm("t2-4")["id"].clone());
    tenants.host.enter(|| drop(world.ok(["snapshot", "create", "t2-4", "--stop"])));
    assert_eq!(tenants.fetch("t2-5", "10.240.2.4:8080"), "none\n");
    tenants.host.enter(|| drop(world.ok(["snapshot", "restore", "t2-4"])));
    assert_ne!(world.vm("t2-4")["id"], id);
    assert_eq!(tenants.inside("t2-4", "cat /run/file"), "kept\n");
    a_guest_is_where_it_is_to_be(tenants);
    assert!(tenants.fetch("t2-5", "10.240.2.4:8080").contains("<"));
}
