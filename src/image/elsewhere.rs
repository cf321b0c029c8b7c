//! Nix in another place than on this machine, such as a VM of its own. What comes from there is not trusted:
//! none of it enters this machine's Nix store.

use std::ffi::OsString;
use std::fmt::Debug;
use std::path::Path;

use async_trait::async_trait;

use super::error::BuildError;
use super::nix::Ran;

/// A place that has Nix, and the sources of the flake that is to be built. It knows itself when it is
/// cancelled.
#[async_trait(?Send)]
pub trait Elsewhere: Debug {
    /// Runs `nix ARGS…` where the flake is, giving each piece of stderr to `hear`.
    async fn run(
        &self,
        args: Vec<OsString>,
        hear: &mut dyn for<'b> FnMut(&'b [u8]),
    ) -> Result<Ran, BuildError>;

    /// Copies a file from there, of at most so many bytes; false when there is none.
    async fn copy(&self, file: &Path, to: &Path, most: u64) -> Result<bool, BuildError>;
}
