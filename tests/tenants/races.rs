//! Shims without guests: who comes, goes and is killed when.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use mvm::host::identity::ProcessId;
use mvm::host::paths::Paths;
use mvm::store::Store;
use mvm::store::vms::{VmRow, VmState};
use mvm::vm::lifecycle;
use mvm::vm::network::{self, TapPlace};
use mvm::vm::spec::VmSpec;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand_core::{OsRng, RngCore};
use serde_json::json;

use crate::support::{DEADLINE, Namespace, World, wait_until};

/// How many steps of coming, going and being killed.
const ROUNDS: usize = 12;

/// A process that does of a shim's work what concerns the network.
pub fn member(state: &str, runtime: &str, vm: &str) -> ExitCode {
    let paths = Paths::at(state.into(), runtime.into()).unwrap();
    let store = || Store::open(&paths.database()).unwrap().store;
    let spec: VmSpec = serde_json::from_str(&store().vm(vm).unwrap().unwrap().spec).unwrap();
    store().set_vm_process(vm, &ProcessId::of(std::process::id()).unwrap()).unwrap();
    store().set_vm_state(vm, VmState::Booting, None).unwrap();
    let entered = TapPlace::enter(&paths, &spec);
    let place = match entered.and_then(|(place, connecting)| connecting.made().map(|()| place)) {
        Ok(place) => place.unwrap(),
        Err(error) => {
            println!("refused: {}", error.to_string().replace('\n', " "));
            return ExitCode::FAILURE;
        }
    };
    println!("in {}", std::fs::read_link("/proc/self/ns/net").unwrap().display());
    // Until its end is wished.
    let _ = std::io::stdin().read(&mut [0]);
    place.leave().unwrap();
    store().set_vm_state(vm, VmState::Stopped, None).unwrap();
    println!("left");
    ExitCode::SUCCESS
}

/// A member under way.
struct Member {
    child: Child,
    tap: String,
}

/// Where members are made.
struct Tenants<'a> {
    world: &'a World,
    host: &'a Namespace,
    paths: Paths,
    store: Store,
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl<'a> Tenants<'a> {
    fn new(world: &'a World, host: &'a Namespace) -> Self {
        let paths = Paths::at(world.state(), world.path("run/mvm")).unwrap();
        let store = Store::open(&paths.database()).unwrap().store;
        Self { world, host, paths, store }
    }

    fn start(&mut self, net_id: u16, last: u8, egress: bool) -> Member {
        self.start_at(net_id, &format!("10.240.{net_id}.0/24"), &format!("10.240.{net_id}.{last}"), egress)
    }

    fn start_at(&mut self, net_id: u16, subnet: &str, address: &str, egress: bool) -> Member {
        let id = lifecycle::new_id();
        // Its TAPs outlive those who are killed.
        let spec: VmSpec = serde_json::from_value(json!({
            "id": id, "name": id, "build_dir": "/", "cpus": 1, "memory_mib": 256, "disk_mib": 64,
            "kernel_args": [], "ports": [], "volumes": [], "network": "tap", "egress": egress, "kvm": false,
            "role": null, "boot_timeout_secs": 60, "remove": false, "hypervisor": "firecracker",
            "tenant": { "net_id": net_id, "subnet": subnet, "address": address },
        }))
        .unwrap();
        let row = VmRow {
            id: id.clone(),
            name: id.clone(),
            build: String::new(),
            state: VmState::Created,
            detail: None,
            spec: serde_json::to_string(&spec).unwrap(),
            process: None,
            created_ms: 0,
            changed_ms: 0,
            beside: None,
        };
        assert!(self.store.insert_vm(&row).unwrap());
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("member").args([self.paths.state(), self.paths.runtime()]).arg(&id);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = self.host.enter(|| command.spawn().unwrap());
        Member { child, tap: network::tap_name(&spec).unwrap() }
    }

    /// Squares the records as every command does, and looks that nothing is left on the host.
    fn expect_nothing_left(&mut self) {
        let host = self.host;
        wait_until(DEADLINE, "no uplink on the host", || !host.ip(&["-o", "link"]).contains("mvm-"));
        host.enter(network::uplink::sweep).unwrap();
        assert_eq!(host.run("nft", &["list", "tables"]), "");
        self.world.expect_no_process();
    }
}

impl Member {
    /// What it says next.
    fn line(&mut self) -> String {
        let mut line = String::new();
        // It says one thing, then waits to be ended.
        BufReader::with_capacity(1, self.child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        line.trim().into()
    }

    /// Waits until it is in; its namespace.
    fn namespace(&mut self) -> String {
        let line = self.line();
        line.strip_prefix("in ").unwrap_or_else(|| panic!("{line}")).into()
    }

    /// Ends it in order.
    fn leave(mut self) {
        drop(self.child.stdin.take());
        assert_eq!(self.line(), "left");
        assert!(self.child.wait().unwrap().success());
    }

    fn kill(mut self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL).unwrap();
        self.child.wait().unwrap();
    }

    /// Runs `ip` where it is.
    fn ip(&self, args: &[&str]) -> String {
        let target = self.child.id().to_string();
        let output = Command::new("nsenter").args(["-t", &target, "-n", "ip"]).args(args).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

pub fn shims_that_come_go_and_are_killed_share_one_network_and_leave_nothing() {
    let Some(host) = Namespace::new() else { return };
    let world = World::empty();
    let mut tenants = Tenants::new(&world, &host);
    let (mut inside, mut last): (Vec<Member>, u8) = (Vec::new(), 2);
    let below = |most: usize| OsRng.next_u32() as usize % most;
    for round in 0..ROUNDS {
        let (come, go) = (1 + below(3), below(inside.len() + 1));
        // All at once: those who come, those who go, and those who are killed on the way in or later.
        let going: Vec<Member> = inside.drain(..go).collect();
        let mut coming: Vec<Member> = (0..come + 1)
            .map(|_| {
                last = if last == 250 { 3 } else { last + 1 };
                tenants.start(7, last, true)
            })
            .collect();
        let killed = coming.pop().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Nothing is waited for: it is killed at a moment of chance.
                std::thread::sleep(Duration::from_millis(below(150) as u64));
                killed.kill();
            });
            for member in going {
                let at_once = below(2) == 0;
                scope.spawn(move || if at_once { member.kill() } else { member.leave() });
            }
        });
        let mut namespaces: Vec<String> = coming.iter_mut().map(Member::namespace).collect();
        if let Some(other) = inside.first() {
            namespaces.push(
                std::fs::read_link(format!("/proc/{}/ns/net", other.child.id()))
                    .unwrap()
                    .display()
                    .to_string(),
            );
        }
        namespaces.dedup();
        assert_eq!(namespaces.len(), 1, "round {round}: {namespaces:?}");
        inside.extend(coming);
        let links = inside[0].ip(&["-o", "link"]);
        for Member { tap, .. } in &inside {
            let line = links.lines().find(|line| line.contains(&format!(" {tap}:")));
            assert!(line.is_some_and(|line| line.contains("master br-tenant-7")), "round {round}: {links}");
        }
        assert_eq!(links.matches(" up0@").count(), 1, "round {round}: {links}");
        // The kernel takes its time with the namespace of one that was killed on the way in.
        let uplinks = || host.ip(&["-o", "link"]).matches("mvm-").count();
        wait_until(DEADLINE, &format!("one uplink on the host, round {round}"), || uplinks() == 1);
    }
    let survivor = inside.pop();
    inside.into_iter().for_each(Member::kill);
    survivor.into_iter().for_each(Member::leave);
    assert_eq!(host.run("nft", &["list", "tables"]), "", "the last one in order takes the table along");
    tenants.expect_nothing_left();
    // A network that was killed as a whole.
    let mut members = [tenants.start(7, 3, true), tenants.start(7, 4, true)];
    members.iter_mut().for_each(|member| drop(member.namespace()));
    members.into_iter().for_each(Member::kill);
    tenants.expect_nothing_left();
}

pub fn a_vm_that_does_not_fit_into_its_tenants_network_is_refused() {
    let Some(host) = Namespace::new() else { return };
    let world = World::empty();
    let mut tenants = Tenants::new(&world, &host);
    let mut first = tenants.start(7, 3, false);
    let namespace = first.namespace();
    for (subnet, address, egress, words) in [
        ("10.240.7.0/24", "10.240.7.3", false, "belongs to the VM"),
        ("10.240.8.0/24", "10.240.8.4", false, "stop the tenant's VMs first"),
        ("10.240.7.0/24", "10.240.7.4", true, "with a way out behind 10.240.7.1"),
        ("10.240.7.0/24", "10.240.7.1", false, "cannot have the address 10.240.7.1"),
        ("192.168.7.0/24", "192.168.7.4", false, "cannot have the address 192.168.7.4"),
    ] {
        let said = tenants.start_at(7, subnet, address, egress).line();
        assert!(said.contains("refused") && said.contains(words) && said.contains("help: "), "{said}");
    }
    // Another tenant has a namespace of its own.
    let mut other = tenants.start(8, 3, false);
    assert_ne!(other.namespace(), namespace);
    assert!(!first.ip(&["-o", "link"]).contains("up0"));
    first.leave();
    other.leave();
    tenants.expect_nothing_left();
}
