//! Builds in hand: found or made, and not yet named by the record of a VM or a pool. They are not removed
//! while somebody has one.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use super::BuildError;
use crate::artifacts::Artifacts;
use crate::event::EventSink;
use crate::host::files::Lock;

/// A build in hand. It stays where it is as long as this lives: until a record names it.
#[derive(Debug)]
pub struct InHand {
    /// The build.
    pub artifacts: Artifacts,
    /// Keeps it.
    pub held: Lock,
}

/// Keeps every build where it is until the lock is let go. Waits while some are being removed.
pub async fn hold(builds: &Path, sink: &EventSink, cancel: &CancellationToken) -> Result<Lock, BuildError> {
    let file = lock_of(builds).map_err(BuildError::file("make", builds))?;
    let failed = |error| BuildError::file("lock", &file)(error);
    if let Some(lock) = Lock::try_share(&file).map_err(failed)? {
        return Ok(lock);
    }
    sink.info("waiting while builds are being removed");
    Lock::share_at_last(&file, cancel).await.map_err(failed)?.ok_or(BuildError::Cancelled)
}

/// The right to remove builds; none while somebody has one in hand. What has need of a build is looked up after it.
pub fn alone(builds: &Path) -> io::Result<Option<Lock>> {
    Lock::try_take(&lock_of(builds)?)
}

/// The lock beside a directory of builds.
fn lock_of(builds: &Path) -> io::Result<PathBuf> {
    DirBuilder::new().recursive(true).mode(0o700).create(builds)?;
    Ok(builds.with_extension("lock"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::TaskId;

    #[tokio::test]
    async fn builds_are_not_removed_while_somebody_has_one_in_hand() {
        let base = tempfile::tempdir().unwrap();
        let (builds, cancel) = (base.path().join("builds"), CancellationToken::new());
        let (sink, _stream) = EventSink::new(TaskId::new('t'));
        let hold = async || hold(&builds, &sink, &cancel).await;
        let held = (hold().await.unwrap(), hold().await.unwrap());
        assert!(alone(&builds).unwrap().is_none());
        drop(held);
        let alone = alone(&builds).unwrap().expect("nobody has one");
        let waiting = hold();
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(alone);
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn who_waits_for_builds_to_be_removed_may_give_up() {
        let base = tempfile::tempdir().unwrap();
        let (builds, cancel) = (base.path().join("builds"), CancellationToken::new());
        let (sink, _stream) = EventSink::new(TaskId::new('t'));
        let _alone = alone(&builds).unwrap().unwrap();
        cancel.cancel();
        assert!(matches!(hold(&builds, &sink, &cancel).await, Err(BuildError::Cancelled)));
    }
}
