//! How much of what a server takes, and how it counts.

use std::time::{Duration, Instant};

/// Bounds of a server. What one peer can hold is at most its connections times what a connection
/// holds.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections, in all.
    pub connections: usize,
    /// Connections from one address.
    pub connections_per_address: usize,
    /// Requests at once on one connection.
    pub streams: u32,
    /// Subscriptions on one connection.
    pub subscriptions: usize,
    /// Bytes of requests and of answers at once on one connection, at least a frame.
    pub bytes: usize,
    /// Requests a second on one connection.
    pub rate: u32,
    /// Requests that may come at once on top of the rate.
    pub burst: u32,
    /// How long a handshake may take.
    pub handshake: Duration,
    /// How long a connection may be silent.
    pub idle: Duration,
    /// How long a request's bytes may take.
    pub read: Duration,
    /// How long a peer may take for an answer's bytes.
    pub write: Duration,
    /// How long a request waits for the fleet to take it.
    pub queue: Duration,
    /// How long requests may take once the server is to stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            connections_per_address: 32,
            streams: 128,
            subscriptions: 8,
            bytes: 4 << 20,
            rate: 20_000,
            burst: 2_000,
            handshake: Duration::from_secs(5),
            idle: Duration::from_secs(30),
            read: Duration::from_secs(5),
            write: Duration::from_secs(5),
            queue: Duration::from_secs(1),
            drain: Duration::from_secs(10),
        }
    }
}

/// A token bucket: so many a second, and some at once.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    last: Instant,
}

impl Bucket {
    /// A full one.
    pub fn new(rate: u32, burst: u32, now: Instant) -> Self {
        // Less than one a second, or none at once, would be a closed door.
        let (rate, burst) = (f64::from(rate.max(1)), f64::from(burst.max(1)));
        Self { rate, burst, tokens: burst, last: now }
    }

    /// Takes a token, or says how long until there is one.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let passed = now.saturating_duration_since(self.last).as_secs_f64();
        self.tokens = (self.tokens + passed * self.rate).min(self.burst);
        self.last = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            Ok(())
        } else {
            Err(Duration::from_secs_f64((1.0 - self.tokens) / self.rate))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_empty_bucket_says_when_to_come_again() {
        let now = Instant::now();
        let mut bucket = Bucket::new(10, 2, now);
        assert_eq!((bucket.take(now), bucket.take(now)), (Ok(()), Ok(())));
        let wait = bucket.take(now).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        assert_eq!(bucket.take(now + wait), Ok(()));
    }

    proptest! {
        #[test]
        fn no_more_pass_than_the_rate_and_the_burst(rate in 1u32..1000, burst in 1u32..100, gaps in prop::collection::vec(0u64..50, 0..500)) {
            let begin = Instant::now();
            let mut bucket = Bucket::new(rate, burst, begin);
            let mut now = begin;
            let mut passed = 0u32;
            for gap in gaps {
                now += Duration::from_millis(gap);
                passed += u32::from(bucket.take(now).is_ok());
            }
            let most = f64::from(burst) + (now - begin).as_secs_f64() * f64::from(rate);
            prop_assert!(f64::from(passed) <= most + 1e-6);
        }
    }
}
