//! The rate of this machine's time stamp counter.
//!
//! Under software emulation the guest's calibration by the PIT fails now and then and the boot
//! hangs with an empty console; told the rate on its command line, it does not calibrate.

/// Rate of the time stamp counter in kHz, measured against the raw monotonic clock for 10 ms.
/// `None` where there is no such counter.
#[cfg(target_arch = "x86_64")]
pub async fn khz() -> Option<u64> {
    use nix::time::{ClockId, clock_gettime};
    // SAFETY: the instruction exists on every x86_64 CPU and touches no memory.
    let ticks = || unsafe { core::arch::x86_64::_rdtsc() };
    let sample = || {
        let (before, time, after) = (ticks(), clock_gettime(ClockId::CLOCK_MONOTONIC_RAW).ok()?, ticks());
        Some((before / 2 + after / 2, time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64))
    };
    let (first_ticks, first_ns) = sample()?;
    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    let (last_ticks, last_ns) = sample()?;
    let ns = last_ns.checked_sub(first_ns).filter(|ns| *ns > 0)?;
    Some((u128::from(last_ticks.checked_sub(first_ticks)?) * 1_000_000 / u128::from(ns)) as u64)
}

/// Only x86 guests calibrate so.
#[cfg(not(target_arch = "x86_64"))]
pub async fn khz() -> Option<u64> {
    None
}
