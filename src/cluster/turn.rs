//! One command on the cluster at a time.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::ClusterError;
use crate::event::EventSink;
use crate::host::files::Lock;
use crate::host::paths::Paths;

/// How long one waits for another: `up` may build.
const PATIENCE: Duration = Duration::from_secs(900);
/// Pause between two looks at whether it is done.
const POLL: Duration = Duration::from_millis(50);

/// Waits until no other command starts or ends the cluster, and keeps others from it.
pub async fn take(paths: &Paths, sink: &EventSink, cancel: &CancellationToken) -> Result<Lock, ClusterError> {
    let path = paths.cluster().join("up.lock");
    let until = Instant::now() + PATIENCE;
    let mut told = false;
    loop {
        match Lock::try_take(&path) {
            Ok(Some(lock)) => return Ok(lock),
            Ok(None) if Instant::now() > until => return Err(ClusterError::Busy),
            Ok(None) => {}
            Err(source) => return Err(ClusterError::Write { path, source }),
        }
        if !told {
            sink.info("waiting for another `mvm dev cluster` command");
            told = true;
        }
        tokio::select! {
            () = cancel.cancelled() => return Err(ClusterError::Cancelled),
            () = tokio::time::sleep(POLL) => {}
        }
    }
}
