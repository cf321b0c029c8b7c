//! Nix in another place than on this machine, such as a VM of its own.

use std::ffi::OsString;
use std::fmt::Debug;
use std::path::Path;

use async_trait::async_trait;

use super::error::BuildError;
use super::nix::Ran;

/// A place that has Nix, and the sources of the flake that is to be built.
#[async_trait(?Send)]
pub trait Elsewhere: Debug {
    /// Runs `nix ARGS…` where the flake is, giving each piece of stderr to `hear`.
    async fn run(
        &self,
        args: Vec<OsString>,
        hear: &mut dyn for<'b> FnMut(&'b [u8]),
    ) -> Result<Ran, BuildError>;

    /// Brings a store path, with all that it needs, into this machine's store.
    async fn fetch(&self, path: &Path) -> Result<(), BuildError>;
}
