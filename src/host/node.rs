//! How much this machine has.

/// CPUs that this process may use.
pub fn cpus() -> u32 {
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get());
    u32::try_from(cpus).unwrap_or(u32::MAX)
}

/// Memory, MiB.
pub fn memory_mib() -> u64 {
    nix::sys::sysinfo::sysinfo().map_or(0, |info| info.ram_total() / (1024 * 1024))
}
