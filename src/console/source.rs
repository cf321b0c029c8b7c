//! What happens outside of this process, as events.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::event::EventSink;
use crate::host::paths::Paths;

/// What the user looks at, which decides what is read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interest {
    /// The VM whose console is shown.
    pub console: Option<String>,
}

/// Tells `sink` what happens, until it is cancelled.
pub async fn watch(
    _paths: Paths,
    _interest: watch::Receiver<Interest>,
    _sink: EventSink,
    cancel: CancellationToken,
) {
    cancel.cancelled().await;
}
