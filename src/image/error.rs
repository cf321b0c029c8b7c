//! Why a build gives no artifacts.

use std::io;
use std::path::PathBuf;

use crate::store::StoreError;

/// Why there are no artifacts.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The user ended it.
    #[error("the build was cancelled\nhelp: run it again; Nix keeps what is built already")]
    Cancelled,
    /// Setup never ran here.
    #[error(
        "this machine is not prepared: the kernel and tools that the flake takes from mvm are not laid out\nhelp: run `mvm setup`, or add --setup to `mvm run`"
    )]
    NotPrepared,
    /// A language the flake wants is not laid out.
    #[error(
        "the flake takes `{0}` from this machine, and it is not laid out\nhelp: run `mvm setup --with {0}`"
    )]
    NoLanguage(&'static str),
    /// There is no Nix.
    #[error("Nix is not installed\nhelp: `mvm doctor` says what is missing, `mvm setup` installs it")]
    NoNix,
    /// Nix could not be started or heard.
    #[error("cannot run `{program}`: {source}\nhelp: `mvm doctor` checks the Nix installation")]
    Run {
        /// The program.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// A profile, role or Nix argument is not acceptable.
    #[error("{what} `{value}` cannot be used\nhelp: {help}")]
    Argument {
        /// What it is.
        what: &'static str,
        /// As given.
        value: String,
        /// What to give instead.
        help: &'static str,
    },
    /// The place that was to build.
    #[error("{0}")]
    Elsewhere(String),
    /// Nix failed.
    #[error("cannot build `{flake}`: {message}\nhelp: {help}")]
    Nix {
        /// The flake and attribute.
        flake: String,
        /// Nix's own words.
        message: String,
        /// What to do next.
        help: String,
        /// The logs of the failing derivations, with the name before each line where there are several.
        log: Vec<String>,
    },
    /// What another store built did not come here.
    #[error(
        "cannot copy `{out}` from the store `{from}`: {message}\nhelp: it is built there; build again, or see what `nix copy --from '{from}' {out}` says"
    )]
    Copy {
        /// The output.
        out: PathBuf,
        /// The store.
        from: String,
        /// Nix's own words.
        message: String,
    },
    /// The flake does not have it.
    #[error("`{flake}` has no {wanted}\nhelp: {help}")]
    Attribute {
        /// The flake.
        flake: String,
        /// What was looked for, in order.
        wanted: String,
        /// What there is.
        help: String,
    },
    /// The output is not an image.
    #[error("{what}\nhelp: {help}")]
    Output {
        /// What is wrong with it.
        what: String,
        /// What it should be.
        help: &'static str,
    },
    /// A file of mvm's own cannot be written or read.
    #[error("cannot {action} `{path}`: {source}\nhelp: {}", file_help(source))]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl BuildError {
    /// The logs of the failing derivations; empty when no builder failed.
    pub fn tail(&self) -> Vec<String> {
        match self {
            Self::Nix { log, .. } => log.clone(),
            _ => Vec::new(),
        }
    }

    /// Makes an error of a failed file operation.
    pub fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}

/// What to do when the disk is full; Nix says it in the C library's words.
pub const DISK_FULL: &str = "the disk is full: `mvm gc` and `nix-collect-garbage` free space";

pub(super) fn file_help(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DISK_FULL,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "mend its permissions, or set MVM_STATE_DIR to a directory you can write"
        }
        _ => "`mvm doctor` checks the state directory",
    }
}
