//! What running VMs use, as the host sees it: counters of the hypervisor's process, as rates.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::event::vm::VmSample;
use crate::host::identity::{ProcessId, boot_id};
use crate::host::process::{self, Stat};

/// Begin the names of hypervisors' processes.
const HYPERVISORS: [&str; 2] = ["qemu-system", "firecracker"];
/// Shortest time between two searches of all processes for hypervisors.
const SEARCH: Duration = Duration::from_secs(1);

/// A VM to be sampled.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Its id.
    pub id: &'a str,
    /// Its shim.
    pub shim: &'a ProcessId,
    /// Its TAP; none in user mode.
    pub tap: Option<&'a str>,
}

/// Remembers the counters of each VM, and which process is its hypervisor.
#[derive(Debug)]
pub struct Sampler {
    boot: String,
    ticks: u64,
    page_kib: u64,
    searched: Option<Instant>,
    known: HashMap<String, Known>,
}

#[derive(Debug)]
struct Known {
    hypervisor: Process,
    last: Option<(Instant, Counters)>,
}

/// A process of this boot, told from a later one of its number by when it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Process {
    pid: u32,
    start: u64,
}

/// What the kernel counted of a VM since it started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counters {
    cpu_ticks: u64,
    memory_kib: u64,
    /// Bytes read and written.
    disk: (u64, u64),
    /// Bytes the guest received and sent.
    network: Option<(u64, u64)>,
}

impl Default for Sampler {
    fn default() -> Self {
        Self {
            boot: boot_id(),
            ticks: process::ticks_per_second(),
            page_kib: process::page_size() / 1024,
            searched: None,
            known: HashMap::new(),
        }
    }
}

impl Sampler {
    /// What each of `targets` has used since the last call, by id. A VM is looked at twice before
    /// there is a sample, and not at all while it has no hypervisor.
    pub fn sample<'a>(&mut self, targets: &[Target<'a>], now: Instant) -> Vec<(&'a str, VmSample)> {
        self.known.retain(|id, _| targets.iter().any(|target| target.id == id));
        self.search(targets, now);
        let mut samples = Vec::new();
        for target in targets {
            let Some(known) = self.known.get_mut(target.id) else { continue };
            let Some(counters) = counters(known.hypervisor, target.tap, self.page_kib) else {
                // It ended, whoever has its number now.
                self.known.remove(target.id);
                continue;
            };
            if let Some((then, before)) = known.last.replace((now, counters)) {
                let elapsed = now.saturating_duration_since(then);
                samples
                    .extend(rates(&before, &counters, elapsed, self.ticks).map(|rates| (target.id, rates)));
            }
        }
        samples
    }

    /// Finds the hypervisors of VMs that have none yet: children of their shims.
    fn search(&mut self, targets: &[Target<'_>], now: Instant) {
        let is_new =
            |target: &&Target<'_>| !self.known.contains_key(target.id) && target.shim.boot == self.boot;
        let new: HashMap<u32, &Target<'_>> =
            targets.iter().filter(is_new).map(|target| (target.shim.pid, target)).collect();
        if new.is_empty() || self.searched.is_some_and(|last| now.saturating_duration_since(last) < SEARCH) {
            return;
        }
        self.searched = Some(now);
        for pid in process::all() {
            let Some(Stat { name, parent, start, .. }) = process::stat(pid) else { continue };
            let is_hypervisor = HYPERVISORS.iter().any(|known| name.starts_with(known));
            let Some(target) = new.get(&parent).filter(|_| is_hypervisor) else { continue };
            // Not the child of a stranger that has the shim's number now.
            if process::stat(parent).is_some_and(|shim| shim.start == target.shim.start) {
                let hypervisor = Process { pid, start };
                self.known.insert(target.id.to_owned(), Known { hypervisor, last: None });
            }
        }
    }
}

/// The counters of a hypervisor that still runs.
fn counters(hypervisor: Process, tap: Option<&str>, page_kib: u64) -> Option<Counters> {
    let pid = hypervisor.pid;
    let stat = process::stat(pid).filter(|stat| stat.start == hypervisor.start && !stat.zombie)?;
    let mut buffer = [0; 1024];
    let disk = process::read(pid, "io", &mut buffer).map(|text| disk(&text)).unwrap_or_default();
    // QEMU does not count what its user-mode networking passes on. A tenant's VMs have one long table.
    let network = tap.and_then(|tap| {
        let table = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()?;
        traffic(&table, tap)
    });
    let memory_kib = stat.resident_pages * page_kib;
    Some(Counters { cpu_ticks: stat.cpu_ticks, memory_kib, disk, network })
}

/// Bytes read from and written to disks, from `/proc/PID/io`.
fn disk(io: &str) -> (u64, u64) {
    let field = |name| io.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    (field("read_bytes:").unwrap_or_default(), field("write_bytes:").unwrap_or_default())
}

/// Bytes the guest received and sent, from `/proc/PID/net/dev`: what the TAP sends, the guest receives.
fn traffic(dev: &str, tap: &str) -> Option<(u64, u64)> {
    let fields = dev.lines().find_map(|line| line.trim().strip_prefix(tap)?.strip_prefix(':'))?;
    let mut fields = fields.split_whitespace();
    let (received, sent) = (fields.next()?, fields.nth(7)?);
    Some((sent.parse().ok()?, received.parse().ok()?))
}

/// What was used between two looks; `None` when there was no time between them.
fn rates(before: &Counters, after: &Counters, elapsed: Duration, ticks: u64) -> Option<VmSample> {
    let millis = u64::try_from(elapsed.as_millis()).ok().filter(|millis| *millis > 0)?;
    let rate = |before: u64, after: u64| after.saturating_sub(before).saturating_mul(1000) / millis;
    let permille = rate(before.cpu_ticks, after.cpu_ticks).saturating_mul(1000) / ticks;
    let network = before.network.zip(after.network);
    Some(VmSample {
        cpu_permille: u32::try_from(permille).unwrap_or(u32::MAX),
        memory_kib: after.memory_kib,
        rx_bps: network.map(|(before, after)| rate(before.0, after.0)),
        tx_bps: network.map(|(before, after)| rate(before.1, after.1)),
        read_bps: rate(before.disk.0, after.disk.0),
        write_bps: rate(before.disk.1, after.disk.1),
    })
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    #[test]
    fn rates_are_differences_over_time_and_the_guest_receives_what_the_tap_sends() {
        let dev = "Inter-| Receive | Transmit\n face |bytes packets\n    lo: 1 2 3 4 5 6 7 8 9 10\n  tap0: 100 2 0 0 0 0 0 0 900 4 0 0 0 0 0 0\n";
        assert_eq!(traffic(dev, "tap0"), Some((900, 100)));
        assert_eq!(traffic("  tap01: 1 2 3 4 5 6 7 8 9\n", "tap0"), None);
        assert_eq!(disk("rchar: 9\nread_bytes: 40\nwrite_bytes: 50\ncancelled_write_bytes: 7\n"), (40, 50));

        let before = Counters { cpu_ticks: 100, memory_kib: 7, disk: (0, 50), network: Some((900, 100)) };
        let after = Counters { cpu_ticks: 150, memory_kib: 8, disk: (40, 50), network: Some((1900, 100)) };
        let sample = rates(&before, &after, Duration::from_secs(2), 100).unwrap();
        assert_eq!((sample.cpu_permille, sample.memory_kib), (250, 8));
        assert_eq!((sample.read_bps, sample.write_bps), (20, 0));
        assert_eq!((sample.rx_bps, sample.tx_bps), (Some(500), Some(0)));
        assert_eq!(rates(&before, &after, Duration::ZERO, 100), None);
        let backwards = rates(&after, &before, Duration::from_secs(1), 100).unwrap();
        assert_eq!((backwards.cpu_permille, backwards.rx_bps), (0, Some(0)));
    }

    /// A busy process that bears a hypervisor's name, and ends with the test.
    struct Busy(Child, #[allow(dead_code, reason = "keeps the directory")] tempfile::TempDir);

    impl Busy {
        fn start() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let program = dir.path().join("qemu-system-busy");
            std::os::unix::fs::symlink("/bin/sh", &program).unwrap();
            Self(Command::new(program).args(["-c", "while :; do :; done"]).spawn().unwrap(), dir)
        }
    }

    impl Drop for Busy {
        fn drop(&mut self) {
            let _ = self.0.kill().and_then(|()| self.0.wait());
        }
    }

    #[test]
    fn the_shims_child_is_found_and_sampled_until_it_ends() {
        let mut busy = Busy::start();
        let shim = ProcessId::of(std::process::id()).unwrap();
        let target = Target { id: "v-1", shim: &shim, tap: None };
        let mut sampler = Sampler::default();
        let deadline = Instant::now() + Duration::from_secs(30);
        let sample = loop {
            assert!(Instant::now() < deadline, "no sample of {busy:?}", busy = busy.0);
            match sampler.sample(&[target], Instant::now()).first() {
                Some((_, sample)) if sample.cpu_permille > 0 => break *sample,
                _ => {}
            }
        };
        assert!(sample.memory_kib > 0);
        assert_eq!(sample.rx_bps, None);
        busy.0.kill().unwrap();
        busy.0.wait().unwrap();
        assert!(sampler.sample(&[target], Instant::now()).is_empty());
    }

    #[test]
    fn a_stranger_with_the_number_of_a_shim_or_hypervisor_is_not_sampled() {
        let busy = Busy::start();
        let me = ProcessId::of(std::process::id()).unwrap();
        let earlier = ProcessId { start: me.start - 1, ..me.clone() };
        let before_boot = ProcessId { boot: "other".into(), ..me };
        let mut sampler = Sampler::default();
        for shim in [&earlier, &before_boot] {
            let target = Target { id: "v-1", shim, tap: None };
            sampler.searched = None;
            sampler.sample(&[target], Instant::now());
            assert!(sampler.known.is_empty());
        }
        let pid = busy.0.id();
        let start = process::stat(pid).unwrap().start;
        assert!(counters(Process { pid, start }, None, 4).is_some());
        assert_eq!(counters(Process { pid, start: start + 1 }, None, 4), None);
    }
}
