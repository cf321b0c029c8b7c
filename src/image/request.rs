//! What a build is asked for.

use super::flake::FlakeRef;
use super::machines::Machines;
use super::profiles::Entry;
use crate::host::inputs::FlakeInputs;

/// What is to be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildRequest {
    /// The flake, and perhaps an attribute.
    pub flake: FlakeRef,
    /// Profile; see [`super::attribute::candidates`] for how it and the role choose the attribute.
    pub profile: Option<String>,
    /// Role.
    pub role: Option<String>,
    /// What `mvm-profiles.toml` says of the two.
    pub entry: Option<Entry>,
    /// Go round the caches and build even what is built.
    pub rebuild: bool,
    /// Leave the CPUs to others first, e.g. to a screen that is looked at.
    pub background: bool,
    /// Other machines and stores.
    pub machines: Machines,
    /// The user's own arguments for `nix build`.
    pub nix_args: Vec<String>,
    /// mvm's own inputs, told to every call of Nix.
    pub inputs: FlakeInputs,
}
