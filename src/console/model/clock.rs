//! Time between events, by clocks that may jump.

use std::time::Duration;

use jiff::Timestamp;

/// Time from `from` to `to`, zero when the clock went back.
pub fn since(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}
