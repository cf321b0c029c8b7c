//! Makes this machine ready: packages, kernel, tools for images, the offline flake.
//!
//! Each step is skipped when its work is there, and is whole or not at all, so setup can be
//! interrupted anywhere and run again.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::files::Lock;
use super::firecracker;
use super::kernel::{self, KernelError};
use super::languages::{self, Language};
use super::layout;
use super::offline;
use super::packages::{self, MMDEBSTRAP, Package};
use super::paths::Paths;
use super::program::ProgramError;
use super::tools::{self, ToolsError};
use crate::event::EventSink;

/// How often a setup looks whether another one is done.
const POLL: Duration = Duration::from_millis(5);

/// What setup shall do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetupOptions {
    /// Install missing packages; without it a missing one is an error.
    pub install: bool,
    /// Lay everything out again, the kernel's download too.
    pub recreate: bool,
    /// Languages for guests besides those that are laid out.
    pub with: Vec<Language>,
    /// Whether images shall be built from an Mvmfile too.
    pub mvmfile: bool,
}

impl SetupOptions {
    /// All that is missing, and nothing besides.
    pub fn usual() -> Self {
        Self { install: true, recreate: false, with: Vec::new(), mvmfile: false }
    }
}

/// What setup did.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Done {
    /// Packages it installed.
    pub packages: Vec<&'static str>,
    /// Whether it laid out the kernel.
    pub kernel: bool,
    /// Whether it laid out the host tools.
    pub host_tools: bool,
    /// Whether it laid out the offline flake.
    pub offline_flake: bool,
    /// Languages it laid out.
    pub languages: Vec<&'static str>,
    /// Whether it fetched Firecracker.
    pub firecracker: bool,
}

/// Why the machine is not ready.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// Packages are missing and were not to be installed.
    #[error(
        "packages are missing: {packages}\nhelp: run `mvm setup`, or install them yourself: sudo apt-get install --no-install-recommends {packages}"
    )]
    Missing {
        /// Their names.
        packages: String,
    },
    /// Packages are missing and this user may not install any.
    #[error(
        "packages are missing, and installing them needs root: {packages}\nhelp: run `sudo apt-get install --no-install-recommends {packages}`, then `mvm setup` again"
    )]
    NotPrivileged {
        /// Their names.
        packages: String,
    },
    /// Packages are missing on a system without apt.
    #[error(
        "programs are missing, and mvm installs packages on Debian and Ubuntu only: {programs}\nhelp: install them with your system's package manager (busybox must be a static one), then run `mvm setup` again"
    )]
    NotDebian {
        /// Names of programs.
        programs: String,
    },
    /// The kernel.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The tools.
    #[error(transparent)]
    Tools(#[from] ToolsError),
    /// A program failed.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The state.
    #[error(
        "cannot write in `{path}`: {source}\nhelp: free some space or mend its permissions, then run `mvm setup` again"
    )]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl SetupError {
    /// Whether the user ended it.
    pub fn is_cancelled(&self) -> bool {
        matches!(
            self,
            Self::Program(ProgramError::Cancelled)
                | Self::Kernel(KernelError::Program(ProgramError::Cancelled))
                | Self::Tools(ToolsError::Program(ProgramError::Cancelled))
        )
    }
}

/// Makes the machine ready. Costs a few milliseconds when it is; two at once take turns.
pub async fn setup(
    paths: &Paths,
    options: SetupOptions,
    sink: &EventSink,
    cancel: &CancellationToken,
) -> Result<Done, SetupError> {
    let _lock = lock(paths, sink, cancel).await?;
    let mut done = Done::default();
    let missing = missing(&options.with, options.mvmfile);
    if !missing.is_empty() {
        done.packages = missing.iter().map(|package| package.name).collect();
        if !options.install {
            return Err(SetupError::Missing { packages: done.packages.join(" ") });
        }
        sink.phase("packages");
        packages::install(&missing, sink, cancel).await?;
    }
    done.kernel = kernel::lay_out(paths, options.recreate, sink, cancel).await?;
    done.host_tools = tools::lay_out(paths, options.recreate, sink).await?;
    done.offline_flake =
        offline::lay_out(paths, options.recreate).map_err(|source| io_error(paths, source))?;
    for language in Language::ALL {
        let wanted = options.with.contains(&language) || language.is_kept(paths);
        if wanted && languages::lay_out(language, paths, options.recreate, sink, cancel).await? {
            done.languages.push(language.name());
        }
    }
    done.firecracker = firecracker::lay_out(paths, sink, cancel).await?;
    Ok(done)
}

/// Brings what an earlier setup laid out up to this mvm, and lays out what needs nothing
/// installed. Costs less than a millisecond when nothing changed.
pub async fn refresh(paths: &Paths, sink: &EventSink) -> Result<(), SetupError> {
    // Half of what another command lays out is of no use.
    let _lock = lock(paths, sink, &CancellationToken::new()).await?;
    offline::lay_out(paths, false).map_err(|source| io_error(paths, source))?;
    if layout::stamp(&paths.host_tools()).is_some() && packages::missing().is_empty() {
        tools::lay_out(paths, false, sink).await?;
    }
    for language in Language::ALL {
        if language.is_kept(paths) {
            languages::lay_out(language, paths, false, sink, &CancellationToken::new()).await?;
        }
    }
    Ok(())
}

/// The packages that are not installed, with those of these languages, and of Mvmfiles if wished.
pub fn missing(with: &[Language], mvmfile: bool) -> Vec<Package> {
    let mut missing = packages::missing();
    let more = with.iter().map(|language| language.package()).chain(mvmfile.then_some(MMDEBSTRAP));
    missing.extend(more.filter(|package| package.installed().is_none()));
    missing
}

async fn lock(paths: &Paths, sink: &EventSink, cancel: &CancellationToken) -> Result<Lock, SetupError> {
    let file = paths.state().join("setup.lock");
    let mut told = false;
    loop {
        if let Some(lock) = Lock::try_take(&file).map_err(|source| io_error(paths, source))? {
            return Ok(lock);
        }
        if !told {
            sink.info("waiting for another setup to end");
            told = true;
        }
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            () = cancel.cancelled() => return Err(ProgramError::Cancelled.into()),
        }
    }
}

fn io_error(paths: &Paths, source: io::Error) -> SetupError {
    SetupError::Io { path: paths.state().to_path_buf(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Kind, TaskId};

    #[tokio::test]
    async fn a_second_setup_waits_for_the_first_and_can_be_cancelled() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::at(dir.path().join("s"), dir.path().join("r")).unwrap();
        let _held = Lock::try_take(&paths.state().join("setup.lock")).unwrap().unwrap();
        let (sink, mut stream) = EventSink::new(TaskId::new('s'));
        let cancel = CancellationToken::new();
        let options = SetupOptions { install: false, recreate: false, with: Vec::new(), mvmfile: false };
        let second = setup(&paths, options, &sink, &cancel);
        let watch = async {
            let event = stream.next().await.unwrap();
            assert!(matches!(event.kind, Kind::Log { ref text, .. } if text.contains("another setup")));
            cancel.cancel();
        };
        let (ended, ()) = tokio::join!(second, watch);
        assert!(ended.unwrap_err().is_cancelled());
    }
}
