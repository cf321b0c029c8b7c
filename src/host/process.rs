//! What the kernel tells of a process.

use std::fs::File;
use std::io::Read;

/// The part of `/proc/PID/stat` that is of use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// The program's name, cut to 15 bytes.
    pub name: String,
    /// Ended, but not yet waited for.
    pub zombie: bool,
    /// Its parent.
    pub parent: u32,
    /// CPU time of all its threads, in clock ticks.
    pub cpu_ticks: u64,
    /// When it started, in clock ticks since boot.
    pub start: u64,
    /// Resident memory, in pages.
    pub resident_pages: u64,
}

/// The process that has `pid` now.
pub fn stat(pid: u32) -> Option<Stat> {
    parse(&read(pid, "stat", &mut [0; 1024])?)
}

/// A small file of a process below `/proc`, as far as `buffer` takes it.
pub fn read<'a>(pid: u32, file: &str, buffer: &'a mut [u8]) -> Option<std::borrow::Cow<'a, str>> {
    let count = File::open(format!("/proc/{pid}/{file}")).ok()?.read(buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer[..count]))
}

/// All processes' numbers.
pub fn all() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Clock ticks a second.
pub fn ticks_per_second() -> u64 {
    setting(nix::libc::_SC_CLK_TCK, 100)
}

/// Size of a page, in bytes.
pub fn page_size() -> u64 {
    setting(nix::libc::_SC_PAGESIZE, 4096)
}

fn setting(name: nix::libc::c_int, usual: u64) -> u64 {
    // SAFETY: sysconf only reads.
    let value = unsafe { nix::libc::sysconf(name) };
    u64::try_from(value).ok().filter(|value| *value > 0).unwrap_or(usual)
}

fn parse(stat: &str) -> Option<Stat> {
    // The program's name may hold spaces and parentheses: fields count from the last one.
    let (open, close) = (stat.find('(')?, stat.rfind(')')?);
    let mut fields = stat.get(close + 2..)?.split(' ');
    let zombie = matches!(fields.next()?, "Z" | "X");
    let parent = fields.next()?.parse().ok()?;
    let mut number = |skip| fields.nth(skip)?.parse::<u64>().ok();
    let (user, system) = (number(9)?, number(0)?);
    let (start, resident_pages) = (number(6)?, number(1)?);
    let name = stat.get(open + 1..close)?.to_owned();
    Some(Stat { name, zombie, parent, cpu_ticks: user + system, start, resident_pages })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found_behind_any_program_name() {
        let line = "42 (a) b (c) S 7 1 1 0 -1 4194560 1 2 3 4 150 50 9 9 20 0 3 0 123456 99999 250 1 2\n";
        let stat = parse(line).unwrap();
        assert_eq!((stat.name.as_str(), stat.zombie, stat.parent), ("a) b (c", false, 7));
        assert_eq!((stat.cpu_ticks, stat.start, stat.resident_pages), (200, 123456, 250));
        for line in ["", "1", "1 )(", "1 (a)", "1 (a) S 2", ") ("] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    #[test]
    fn this_process_is_among_all_and_knows_its_parent() {
        let me = std::process::id();
        assert!(all().any(|pid| pid == me));
        assert_eq!(stat(me).unwrap().parent, nix::unistd::getppid().as_raw() as u32);
    }
}
