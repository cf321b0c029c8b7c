//! What the guest's kernel says of itself: listening ports, load, memory.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use super::frames::Answer;

const ESTABLISHED: &str = "01";
const LISTEN: &str = "0A";

/// TCP ports that listen on any address but loopback's.
pub fn ports(root: &Path) -> Vec<u16> {
    let mut ports = BTreeSet::new();
    for table in tables(root) {
        ports.extend(sockets(&table).filter_map(|(address, state)| listening(address, state)));
    }
    ports.into_iter().collect()
}

/// The answer to [`super::frames::Request::Stats`].
pub fn stats(root: &Path) -> io::Result<Answer> {
    let read = |file: &str| std::fs::read_to_string(root.join("proc").join(file));
    let meminfo = read("meminfo")?;
    let memory = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    let established = |table: &String| sockets(table).filter(|(_, s)| *s == ESTABLISHED).count();
    Ok(Answer::Stats {
        load1_hundredths: hundredths(&read("loadavg")?),
        mem_total_kib: memory("MemTotal:"),
        mem_available_kib: memory("MemAvailable:"),
        uptime_seconds: hundredths(&read("uptime")?) / 100,
        cpu_busy_us: busy_us(&read("stat")?),
        connections: tables(root).iter().map(established).sum::<usize>() as u32,
    })
}

fn tables(root: &Path) -> [String; 2] {
    // A kernel without IPv6 has no tcp6.
    ["tcp", "tcp6"].map(|name| std::fs::read_to_string(root.join("proc/net").join(name)).unwrap_or_default())
}

/// Local address and state of each socket of a table.
fn sockets(table: &str) -> impl Iterator<Item = (&str, &str)> {
    table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace();
        Some((fields.nth(1)?, fields.nth(1)?))
    })
}

fn listening(address: &str, state: &str) -> Option<u16> {
    let (host, port) = address.split_once(':')?;
    // The kernel prints each 32-bit word as it lies in memory, so 127.0.0.1 is 0100007F.
    let loopback = match host.len() {
        8 => host.ends_with("7F"),
        _ => {
            host == "00000000000000000000000001000000"
                || (host.starts_with("0000000000000000FFFF0000") && host.ends_with("7F"))
        }
    };
    if state != LISTEN || loopback {
        return None;
    }
    u16::from_str_radix(port, 16).ok()
}

/// The first number of `text`, such as `1.25`, in hundredths.
fn hundredths(text: &str) -> u64 {
    let number: f64 = text.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0.0);
    (number * 100.0) as u64
}

fn busy_us(stat: &str) -> u64 {
    let ticks: Vec<u64> = stat
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .map(|field| field.parse().unwrap_or(0))
        .collect();
    // user nice system idle iowait irq softirq; a guest's own guests count as user already.
    let busy: u64 = [0, 1, 2, 5, 6].iter().filter_map(|index| ticks.get(*index)).sum();
    // USER_HZ is 100 on every architecture mvm runs on.
    busy * 10_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn proc_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("proc/net")).unwrap();
        for (name, text) in files {
            std::fs::write(root.path().join("proc").join(name), text).unwrap();
        }
        root
    }

    #[test]
    fn ports_on_loopback_do_not_count_as_ready() {
        let v4 = "  sl  local_address rem_address   st\n\
             0: 00000000:0016 00000000:0000 0A 0\n\
             1: 0100007F:1F90 00000000:0000 0A 0\n\
             2: 020010AC:0016 010010AC:D431 01 0\n";
        let v6 = "  sl  local_address rem_address   st\n\
             0: 00000000000000000000000000000000:0050 0:0000 0A 0\n\
             1: 00000000000000000000000001000000:0051 0:0000 0A 0\n\
             2: 0000000000000000FFFF00000100007F:0052 0:0000 0A 0\n";
        let root = proc_with(&[("net/tcp", v4), ("net/tcp6", v6)]);
        assert_eq!(ports(root.path()), [22, 80]);
    }

    #[test]
    fn stats_come_from_proc() {
        let root = proc_with(&[
            ("stat", "cpu  10 1 20 999 5 2 3 0 0 0\ncpu0 1\n"),
            ("meminfo", "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:   400 kB\n"),
            ("loadavg", "1.25 0.5 0.1 1/99 7\n"),
            ("uptime", "61.90 50.00\n"),
            ("net/tcp", "head\n0: 020010AC:0016 010010AC:D431 01 0\n"),
        ]);
        let expected = Answer::Stats {
            load1_hundredths: 125,
            mem_total_kib: 1000,
            mem_available_kib: 400,
            uptime_seconds: 61,
            cpu_busy_us: 360_000,
            connections: 1,
        };
        assert_eq!(stats(root.path()).unwrap(), expected);
    }

    proptest! {
        #[test]
        fn any_table_is_read_without_panic(text: String) {
            for (address, state) in sockets(&text) {
                listening(address, state);
            }
        }
    }
}
