//! Why there is no cluster, or why it goes on.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::NAME;
use super::part::Part;
use crate::agent::client::ClientError;
use crate::agent::pki::PkiError;
use crate::coordinator::config::ConfigError;
use crate::event::words::duration;
use crate::fleet::error::FleetError;
use crate::fleet::ids::PoolPath;
use crate::image::flake::RefError;
use crate::run::task::Failure;
use crate::store::StoreError;
use crate::vm::lifecycle::LifecycleError;

/// Why the cluster does not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// It was never made.
    #[error(
        "there is no cluster in this state: `{0}` is missing\nhelp: `mvm dev cluster init` writes what is missing"
    )]
    Missing(PathBuf),
    /// The coordinator's configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The desired state.
    #[error("{0}")]
    Desired(String),
    /// No node is this machine.
    #[error(
        "`{0}` has no node `{NAME}`, which is this machine\nhelp: add it as [[nodes]] with name and address; `mvm dev cluster init --recreate` writes the file anew"
    )]
    NoNode(PathBuf),
    /// An address that is not for a dev cluster.
    #[error("{what} cannot be {address}: {why}\nhelp: give another, such as {like}")]
    Address {
        /// Whose.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// What is wrong with it.
        why: &'static str,
        /// One that would do.
        like: &'static str,
    },
    /// All networks are taken.
    #[error("no network is free for the tenant `{NAME}`\nhelp: remove a tenant: `mvm tenant list`")]
    NoNetwork,
    /// Certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// A file.
    #[error("cannot write `{path}`: {source}\nhelp: free some space or mend its permissions")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file to look at.
    #[error("cannot read `{path}`: {source}\nhelp: mend its permissions")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A process could not be started.
    #[error("cannot start the {part}: {source}\nhelp: is the machine out of processes or memory?")]
    Spawn {
        /// Which.
        part: Part,
        /// What the system said.
        source: io::Error,
    },
    /// Another command is at it.
    #[error(
        "another `mvm dev cluster` command is at work, and has been for long\nhelp: end it, or wait for it"
    )]
    Busy,
    /// Somebody else has the state.
    #[error(
        "the {part} of this state was started with other files than the cluster's ({who})\nhelp: end it{how}, then `mvm dev cluster up` again"
    )]
    Stranger {
        /// Which.
        part: Part,
        /// Who it is.
        who: String,
        /// How to end it.
        how: String,
    },
    /// A port.
    #[error(
        "{what} cannot listen on {address}: it is taken by {holder}\nhelp: end what holds it, or write another address into `{file}`"
    )]
    Taken {
        /// Who was to listen.
        what: String,
        /// Where.
        address: SocketAddr,
        /// Who does.
        holder: String,
        /// Where the address is written.
        file: PathBuf,
    },
    /// An address that cannot be had.
    #[error("{what} cannot listen on {address}: {source}\nhelp: write another address into `{file}`")]
    Listen {
        /// Who was to listen.
        what: String,
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
        /// Where the address is written.
        file: PathBuf,
    },
    /// A part ended by itself.
    #[error("the {part} has ended{said}\nhelp: its log is `{log}`", said = said(.tail))]
    Died {
        /// Which.
        part: Part,
        /// Its log.
        log: PathBuf,
        /// The last it wrote.
        tail: Vec<String>,
    },
    /// A part is there and says nothing.
    #[error("the {part} does not answer within {after}: {why}\nhelp: its log is `{log}`", after = duration(*.after))]
    Silent {
        /// Which.
        part: Part,
        /// How long it had.
        after: Duration,
        /// What was wrong last.
        why: String,
        /// Its log.
        log: PathBuf,
    },
    /// An image cannot be built.
    #[error("the image of the pool `{pool}` cannot be built: {why}")]
    Build {
        /// The pool.
        pool: PoolPath,
        /// What Nix said.
        why: String,
    },
    /// It is taking too long.
    #[error("{what} within {after}{why}\nhelp: `mvm dev cluster logs` shows why; `--timeout` gives it longer", after = duration(*.after))]
    Late {
        /// What did not happen.
        what: String,
        /// How long it had.
        after: Duration,
        /// What was wrong last.
        why: String,
    },
    /// A part that does not end.
    #[error("the {part} (process {pid}) does not end\nhelp: see `mvm dev cluster logs {part}`")]
    Stuck {
        /// Which.
        part: Part,
        /// Its process.
        pid: u32,
    },
    /// A part that is not ours to signal.
    #[error(
        "cannot end the {part} (process {pid}): {source}\nhelp: it belongs to another user; end it as that one"
    )]
    Signal {
        /// Which.
        part: Part,
        /// Its process.
        pid: u32,
        /// What the system said.
        source: io::Error,
    },
    /// The user had enough.
    #[error("cancelled")]
    Cancelled,
    /// A flake's directory.
    #[error(transparent)]
    Flake(#[from] RefError),
    /// The agent.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The fleet.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// VMs.
    #[error(transparent)]
    Lifecycle(#[from] LifecycleError),
    /// Database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn said(tail: &[String]) -> String {
    match tail {
        [] => " without a word".into(),
        lines => format!(": \n{}", lines.join("\n")),
    }
}

impl ClusterError {
    /// Whether the user ended it.
    pub fn is_cancelled(&self) -> bool {
        match self {
            Self::Cancelled => true,
            Self::Fleet(error) => error.is_cancelled(),
            _ => false,
        }
    }
}

impl From<ClusterError> for Failure {
    fn from(error: ClusterError) -> Self {
        let cancelled = error.is_cancelled();
        let late = matches!(error, ClusterError::Late { .. });
        Self { error: error.to_string(), tail: Vec::new(), cancelled, late }
    }
}
