//! A cluster of a test's own.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;

use crate::support::{DEADLINE, World, wait_until};
use mvm::host::files::is_locked;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// A state with the files of a cluster, on ports of its own.
pub struct Cluster {
    pub world: World,
    pub agent: SocketAddr,
    pub gateways: SocketAddr,
    pub workers: SocketAddr,
}

impl Cluster {
    pub fn new() -> Self {
        let taken = [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
        let [gateways, workers] = taken.map(|listener| listener.local_addr().unwrap());
        let agent = free_udp();
        let cluster = Self { world: World::new(), agent, gateways, workers };
        cluster.init(&[]);
        cluster
    }

    pub fn init(&self, more: &[&str]) -> String {
        let [agent, gateways, workers] = [self.agent, self.gateways, self.workers].map(|at| at.to_string());
        let addresses = ["--agent", &agent, "--listen", &gateways, "--listen-workers", &workers];
        self.world.ok([&["dev", "cluster", "init"], &addresses[..], more].concat())
    }

    pub fn up(&self) -> String {
        self.world.ok(["dev", "cluster", "up"])
    }

    pub fn down(&self) {
        self.world.ok(["dev", "cluster", "down"]);
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.world.state().join("cluster").join(name)
    }

    /// What `status` tells programs; it fails unless both parts run.
    pub fn status(&self) -> Value {
        let output = self.world.mvm(["dev", "cluster", "status", "--json"]).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub fn states(&self) -> [String; 2] {
        let status = self.status();
        ["agent", "coordinator"].map(|part| status[part]["state"].as_str().unwrap().to_string())
    }

    pub fn gateway(&self) -> Value {
        let status = self.status();
        let all = status["instances"].as_array().unwrap();
        let of = |one: &&Value| one["path"].as_str().unwrap().starts_with("dev/gateways/");
        all.iter().find(of).cloned().unwrap_or_default()
    }

    pub fn route(&self) -> Value {
        let status = self.status();
        let listen = self.gateways.to_string();
        let all = status["routes"].as_array().unwrap();
        all.iter().find(|route| route["listen"] == listen.as_str()).cloned().unwrap_or_default()
    }

    pub fn expect_asleep(&self) {
        let asleep = || self.gateway()["state"] == "sleeping" && self.guests() == 0;
        wait_until(DEADLINE, "all instances asleep, without a process", asleep);
    }

    /// Processes that run guests.
    pub fn guests(&self) -> usize {
        self.world
            .processes()
            .iter()
            .filter(|line| line.contains("qemu") || line.contains("/mvm shim "))
            .count()
    }

    /// Ends a part as abruptly as can be.
    pub fn kill(&self, part: &str) {
        let pid = self.status()[part]["pid"].as_i64().unwrap();
        kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
        let lock = self.file(&format!("{part}.lock"));
        wait_until(DEADLINE, "the end of what was killed", || !is_locked(&lock).unwrap());
    }

    pub fn expect_nothing(&self) {
        self.world.expect_nothing_left();
        let vms = fs::read_dir(self.world.state().join("vms")).into_iter().flatten().count();
        assert_eq!(vms, 0, "disks of VMs are left");
    }
}

pub fn free_udp() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Whether a guest answers through a route; a connection may be closed while the cluster is mended.
pub fn answers(route: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(route) else { return false };
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut answer = String::new();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.contains("200 OK")
}
