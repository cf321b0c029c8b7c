//! Why the fleet does not do as asked.

use std::path::PathBuf;

use super::ids::{IdError, InstancePath, PoolPath, TenantId};
use super::state::NoSuchChange;
use crate::run::RunError;
use crate::run::task::Failure;
use crate::store::StoreError;
use crate::vm::lifecycle::LifecycleError;

/// Why the fleet does not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// A name from outside.
    #[error(transparent)]
    Id(#[from] IdError),
    /// No such tenant.
    #[error("there is no tenant `{0}`\nhelp: `mvm tenant list` lists them; `mvm tenant create {0}` makes it")]
    NoTenant(TenantId),
    /// No such pool.
    #[error("there is no pool `{0}`\nhelp: `mvm pool list` lists them; `mvm pool create {0}` makes it")]
    NoPool(PoolPath),
    /// No such instance.
    #[error("there is no instance `{0}`\nhelp: `mvm instance list` lists them")]
    NoInstance(InstancePath),
    /// A pool whose image was never built.
    #[error("the pool `{0}` has no image yet\nhelp: `mvm pool build {0}` builds it")]
    NotBuilt(PoolPath),
    /// The state does not allow it.
    #[error("{path}: {source}\nhelp: `mvm instance list` shows its state")]
    Change {
        /// The instance.
        path: InstancePath,
        /// What does not go.
        source: NoSuchChange,
    },
    /// Another command changed it meanwhile.
    #[error(
        "{0} was changed by another command meanwhile\nhelp: look at `mvm instance list`, then try again"
    )]
    Raced(InstancePath),
    /// Another command works on it, for long.
    #[error("{0} is being worked on by another command\nhelp: try again when that is done")]
    Busy(InstancePath),
    /// It is held awake.
    #[error("{0} is held awake by a connection\nhelp: it goes to sleep once its lease has lapsed")]
    Leased(InstancePath),
    /// A limit of the tenant's.
    #[error(
        "the tenant `{tenant}` has reached its quota: {what}\nhelp: `mvm tenant update {tenant}` changes it"
    )]
    Quota {
        /// The tenant.
        tenant: TenantId,
        /// The quota, what is used of it, and how much it is.
        what: String,
    },
    /// The subnet is full.
    #[error(
        "the subnet of `{0}` has no address left\nhelp: destroy instances, or give the tenant a larger subnet"
    )]
    NoAddress(TenantId),
    /// Something is in the way.
    #[error("{what}\nhelp: {help}")]
    Refused {
        /// What.
        what: String,
        /// What to do.
        help: String,
    },
    /// A record that this mvm cannot read.
    #[error("the record of {of} cannot be read: {reason}\nhelp: was it written by another version of mvm?")]
    Record {
        /// Of what.
        of: String,
        /// What is wrong.
        reason: String,
    },
    /// A file.
    #[error("cannot write `{path}`: {source}\nhelp: is the disk full? `mvm gc` frees space")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Starting or saving a VM.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Ending a VM.
    #[error(transparent)]
    Lifecycle(#[from] LifecycleError),
    /// Database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl FleetError {
    /// Whether the user ended it.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Run(error) if error.is_cancelled())
    }
}

impl From<FleetError> for Failure {
    fn from(error: FleetError) -> Self {
        match error {
            FleetError::Run(error) => error.into(),
            error => Self { error: error.to_string(), tail: Vec::new(), cancelled: false, late: false },
        }
    }
}
