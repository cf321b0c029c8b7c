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
    /// Who wants it.
    pub asked_by: AskedBy,
}

/// Who wants something of the fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskedBy {
    /// A plan: it has counted the quotas, and gives way to leases.
    Plan,
    /// A person, who goes over leases, but not over quotas.
    Person,
    /// A peer of the agent's.
    Peer,
}
