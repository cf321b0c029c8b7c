//! Descriptors: how many this process may have, and who has them. What would not fit is refused before
//! the system refuses, so that there are always some left for what controls.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Left for agents, listeners, logs and the status API.
const RESERVE: u64 = 256;

/// What is left; copies share it.
#[derive(Debug, Clone)]
pub struct Descriptors(Arc<AtomicU64>);

impl Descriptors {
    /// As many as the system allows this process, whose own limit is raised to that.
    pub fn of_this_process() -> io::Result<Self> {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        if soft < hard {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        }
        Ok(Self::new(hard.saturating_sub(RESERVE).max(RESERVE / 4)))
    }

    /// So many.
    pub fn new(count: u64) -> Self {
        Self(Arc::new(AtomicU64::new(count)))
    }

    /// Takes some, if there are so many.
    pub fn take(&self, count: u64) -> Option<Taken> {
        let less = |left: u64| left.checked_sub(count);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Relaxed, less).ok()?;
        Some(Taken { from: self.clone(), count })
    }
}

/// Descriptors that are in use, given back when it is dropped.
#[derive(Debug)]
pub struct Taken {
    from: Descriptors,
    count: u64,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.from.0.fetch_add(self.count, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let all = Descriptors::new(3);
        let two = all.take(2).unwrap();
        assert!(all.take(2).is_none());
        drop(two);
        assert!(all.take(3).is_some());
    }
}
