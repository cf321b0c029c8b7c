//! What an operation on the fleet works with.

use tokio_util::sync::CancellationToken;

use crate::event::EventSink;
use crate::host::paths::Paths;
use crate::store::Store;

/// What an operation works with.
#[derive(Debug)]
pub struct Work<'a> {
    /// Directories.
    pub paths: &'a Paths,
    /// Database.
    pub store: &'a mut Store,
    /// Who hears of it.
    pub sink: &'a EventSink,
    /// Ends it.
    pub cancel: &'a CancellationToken,
}
