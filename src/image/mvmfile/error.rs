//! Why an Mvmfile gives no image.

use std::io;
use std::path::PathBuf;

use crate::event::fault::Faults;
use crate::host::digest::Cancelled;
use crate::host::packages::MMDEBSTRAP;
use crate::host::program::ProgramError;
use crate::host::setup::SetupError;
use crate::image::error::file_help;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum MvmfileError {
    /// The user ended it.
    #[error("the build was cancelled\nhelp: run it again; layers that were complete are kept")]
    Cancelled,
    /// The directory has none.
    #[error("`{}` has no Mvmfile.toml\nhelp: {}", dir.display(), none_help(dir, *is_flake))]
    None {
        /// The directory.
        dir: PathBuf,
        /// Whether it has a flake.
        is_flake: bool,
    },
    /// It cannot be read.
    #[error("cannot read `{}`: {source}\nhelp: give the directory that holds an Mvmfile.toml", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It says what cannot be.
    #[error("the Mvmfile `{}` is not valid{faults}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// At least one fault, in the order of the file.
        faults: Faults,
    },
    /// Only root can make file systems of packages.
    #[error(
        "building from an Mvmfile takes root: it installs packages into a root directory of their own\nhelp: run `sudo mvm build`; a flake can be built without (`mvm init --template hello`)"
    )]
    NotRoot,
    /// The tool is missing.
    #[error("`{}` is not installed\nhelp: run `mvm setup --with mvmfile` as root", MMDEBSTRAP.provides)]
    NoTool,
    /// The distribution's keys are missing.
    #[error(
        "the keys of {base} are not on this machine (`{keys}`)\nhelp: install the package {package}, or give `sources` of your own in the Mvmfile"
    )]
    NoKeys {
        /// The distribution.
        base: String,
        /// The file.
        keys: &'static str,
        /// The package that has it.
        package: &'static str,
    },
    /// Something that no image takes.
    #[error("`{}` is neither a file, a directory nor a link\nhelp: take it out, or name it in a file .mvmignore beside it", path.display())]
    Odd {
        /// Where it is.
        path: PathBuf,
    },
    /// A file was written to while it was read.
    #[error("a file of the project was changed while it was read\nhelp: build again")]
    Changed,
    /// The root file system could not be made.
    #[error("cannot make the root file system: {message}\nhelp: is there space left? `mvm gc` frees some")]
    Rootfs {
        /// What the tool said.
        message: String,
    },
    /// Setup never ran here.
    #[error(
        "this machine is not prepared: the kernel and tools that images are made of are not laid out\nhelp: run `mvm setup --with mvmfile` as root, whose state this is"
    )]
    NotPrepared,
    /// A package does not exist.
    #[error(
        "{base} has no package `{package}`\nhelp: look for its name with `apt-cache search`, or at the distribution's package search"
    )]
    NoPackage {
        /// The distribution.
        base: String,
        /// The package.
        package: String,
    },
    /// The packages could not be installed.
    #[error(
        "cannot install the packages of {base}: {message}\nhelp: is the release's name right, and are its archives in reach? `sources` in the Mvmfile names others; what was half-done is removed"
    )]
    Packages {
        /// The distribution.
        base: String,
        /// What the tool said last.
        message: String,
        /// Its last lines.
        log: Vec<String>,
    },
    /// A command failed.
    #[error("{what} failed ({status}) in {}\nhelp: what it wrote is kept there until the next build; `mvm build {project} --shell` looks around where it stopped", kept.display())]
    Step {
        /// The command, as it is written.
        what: String,
        /// How it ended.
        status: String,
        /// Where the layer is kept.
        kept: PathBuf,
        /// The project's directory, as a shell takes it.
        project: String,
        /// Its last lines.
        log: Vec<String>,
    },
    /// The disk is full.
    #[error("{what}, and there is no space left in `{}`\nhelp: `mvm gc --builds` frees some, or set MVM_STATE_DIR to a larger disk; a Debian takes about 1 GiB", dir.display())]
    NoRoom {
        /// What failed.
        what: String,
        /// Where.
        dir: PathBuf,
        /// Its last lines.
        log: Vec<String>,
    },
    /// A layer's directory does not do.
    #[error("cannot make layers in `{}`: {message}\nhelp: the state has to lie on a file system that overlayfs can write on, such as ext4, xfs, btrfs or tmpfs (set MVM_STATE_DIR), and mvm needs the right to mount", dir.display())]
    Layers {
        /// The directory of layers.
        dir: PathBuf,
        /// What the system said.
        message: String,
    },
    /// Somebody looks around already.
    #[error("a shell is open in what a command of `{}` has left\nhelp: end that one first", dir.display())]
    ShellOpen {
        /// The project's directory.
        dir: PathBuf,
    },
    /// There is nothing to look at.
    #[error("no command of `{}` has failed since its last build\nhelp: `mvm build` builds it", dir.display())]
    NothingKept {
        /// The project's directory.
        dir: PathBuf,
    },
    /// Its layers were replaced meanwhile.
    #[error("another build has made layers of `{}` anew meanwhile\nhelp: build again", dir.display())]
    MadeAnew {
        /// The project.
        dir: PathBuf,
    },
    /// A program failed.
    #[error(transparent)]
    Program(ProgramError),
    /// mvm's own files.
    #[error(transparent)]
    Setup(SetupError),
    /// A file cannot be written or read.
    #[error("cannot {action} `{}`: {source}\nhelp: {}", path.display(), file_help(source))]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn none_help(dir: &std::path::Path, is_flake: bool) -> String {
    match is_flake {
        true => format!("it has a flake: `mvm build --flake {}`", dir.display()),
        false => "`mvm init --template debian` writes one; `mvm build --flake REF` builds a flake".into(),
    }
}

impl MvmfileError {
    /// The last lines of the log that matters.
    pub fn tail(&self) -> Vec<String> {
        match self {
            Self::Packages { log, .. } | Self::Step { log, .. } | Self::NoRoom { log, .. } => log.clone(),
            _ => Vec::new(),
        }
    }

    /// Whether the user ended it.
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Cancelled)
    }

    /// Makes an error of a failed file operation.
    pub fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| match Cancelled::caused(&source) {
            true => Self::Cancelled,
            false => Self::File { action, path, source },
        }
    }
}

impl From<ProgramError> for MvmfileError {
    fn from(error: ProgramError) -> Self {
        match error {
            ProgramError::Cancelled => Self::Cancelled,
            error => Self::Program(error),
        }
    }
}

impl From<SetupError> for MvmfileError {
    fn from(error: SetupError) -> Self {
        if error.is_cancelled() { Self::Cancelled } else { Self::Setup(error) }
    }
}
