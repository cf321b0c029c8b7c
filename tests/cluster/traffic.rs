//! Whatever is killed while clients ask: what is answered whole is right, and the next request mends it.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::place::{Cluster, answers};
use crate::support::{DEADLINE, wait_until};

/// Clients at once.
const CLIENTS: usize = 4;

/// What is killed.
#[derive(Debug, Clone, Copy)]
enum Victim {
    Hypervisor,
    Shim,
    Agent,
    Coordinator,
}

/// When it is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// While connections are carried.
    Carrying,
    /// While an instance is woken.
    Waking,
    /// While all sleep, or are about to.
    Resting,
}

/// Text in which every place can be told from every other.
fn page() -> String {
    (0..40_000u32).map(|number| format!("{:08x}\n", number.wrapping_mul(0x9e37_79b9))).collect()
}

/// The body of a whole answer: one with as many bytes as it says it has.
fn get(cluster: &Cluster) -> Option<String> {
    let mut stream = TcpStream::connect(cluster.gateways).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let length =
        head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
    (head.contains("200 OK") && length == Some(body.len())).then(|| body.into())
}

impl Cluster {
    fn kill_victim(&self, victim: Victim) {
        let process = |word: &str| {
            let all = self.world.processes();
            let line = all.into_iter().find(|line| line.contains(word))?;
            line.split_whitespace().next()?.parse().ok()
        };
        match victim {
            Victim::Agent => self.kill("agent"),
            Victim::Coordinator => self.kill("coordinator"),
            Victim::Hypervisor | Victim::Shim => {
                let word = if matches!(victim, Victim::Shim) { "/mvm shim " } else { "qemu-system" };
                // It may sleep, or end just now.
                if let Some(pid) = process(word) {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
            }
        }
    }

    fn wait_for(&self, moment: Moment) {
        match moment {
            Moment::Carrying => wait_until(DEADLINE, "connections", || self.route()["state"] == "running"),
            // Until those who ask have had their answers it is refused.
            Moment::Waking => wait_until(DEADLINE, "sleep", || {
                let listen = self.gateways.to_string();
                self.world.mvm(["coordinator", "sleep", &listen]).output().unwrap().status.success()
            }),
            Moment::Resting => wait_until(DEADLINE, "rest", || self.route()["state"] != "running"),
        }
    }
}

#[test]
fn under_traffic_whatever_is_killed_no_answer_is_corrupted_and_the_next_request_mends_it() {
    let cluster = Cluster::new();
    fs::write(cluster.file("flakes/gateway/www/index.html"), page()).unwrap();
    cluster.up();
    assert_eq!(get(&cluster), Some(page()));
    let (stop, busy) = (AtomicBool::new(false), AtomicBool::new(true));
    let (whole, wrong) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let asks = || {
        let page = page();
        while !stop.load(Ordering::Relaxed) {
            let mut body = None;
            // Nobody may listen for a moment, or nobody is to ask.
            wait_until(DEADLINE, "an answer, or the end", || {
                body = busy.load(Ordering::Relaxed).then(|| get(&cluster)).flatten();
                body.is_some() || stop.load(Ordering::Relaxed)
            });
            if let Some(body) = body {
                let count = if body == page { &whole } else { &wrong };
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(asks)).collect();
        let kills = || {
            for moment in [Moment::Carrying, Moment::Waking, Moment::Resting] {
                for victim in [Victim::Hypervisor, Victim::Shim, Victim::Agent, Victim::Coordinator] {
                    busy.store(moment == Moment::Carrying, Ordering::Relaxed);
                    cluster.wait_for(moment);
                    let wakes = cluster.route()["wakes"].as_u64();
                    busy.store(true, Ordering::Relaxed);
                    if moment == Moment::Waking {
                        wait_until(DEADLINE, "a wake", || {
                            let route = cluster.route();
                            route["state"] == "waking" || route["wakes"].as_u64() > wakes
                        });
                    }
                    cluster.kill_victim(victim);
                    if matches!(victim, Victim::Agent | Victim::Coordinator) {
                        cluster.up();
                    }
                    let before = whole.load(Ordering::Relaxed);
                    wait_until(DEADLINE, &format!("answers after {victim:?} was killed {moment:?}"), || {
                        whole.load(Ordering::Relaxed) > before && answers(cluster.gateways)
                    });
                }
            }
        };
        let killed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(kills));
        stop.store(true, Ordering::Relaxed);
        clients.into_iter().for_each(|client| client.join().unwrap());
        killed.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    assert_eq!(wrong.load(Ordering::Relaxed), 0);
    cluster.down();
    cluster.expect_nothing();
}
