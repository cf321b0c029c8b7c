//! What a user asks for, made into requests.

use super::RunRequest;
use crate::event::{EventSink, TaskId};
use crate::host::inputs::{FlakeInputs, InputsError};
use crate::host::paths::Paths;
use crate::host::setup::{self, SetupError};
use crate::image::flake::{FlakeRef, RefError};
use crate::image::request::BuildRequest;
use crate::vm::config::{ConfigError, RuntimeConfig};
use crate::vm::spec::{StartedBy, VmName};

/// A flake and what to build of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BuildWish {
    /// Flake reference, as the user wrote it.
    pub flake: String,
    /// Profile.
    pub profile: Option<String>,
    /// Role.
    pub role: Option<String>,
    /// Build even if nothing changed.
    pub rebuild: bool,
    /// Leave the CPUs to others first, e.g. to a screen that is looked at.
    pub background: bool,
    /// The user's own arguments for `nix build`.
    pub nix_args: Vec<String>,
}

/// Why a wish cannot be asked for.
#[derive(Debug, thiserror::Error)]
pub enum WishError {
    /// The reference.
    #[error(transparent)]
    Flake(#[from] RefError),
    /// What mvm lays out is not there.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// It is not in the Nix store.
    #[error(transparent)]
    Inputs(#[from] InputsError),
    /// `mvm.toml`.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl BuildWish {
    /// The request, with mvm's own inputs as they are now.
    pub async fn request(self, paths: &Paths) -> Result<BuildRequest, WishError> {
        let flake: FlakeRef = self.flake.parse()?;
        // What it would say is of no interest here.
        let (sink, _) = EventSink::new(TaskId::new('s'));
        setup::refresh(paths, &sink).await?;
        Ok(BuildRequest {
            flake,
            profile: self.profile,
            role: self.role,
            rebuild: self.rebuild,
            background: self.background,
            nix_args: self.nix_args,
            inputs: FlakeInputs::find(paths).await?,
        })
    }

    /// The request to run it with the settings beside the flake.
    pub async fn run_request(self, name: Option<VmName>, paths: &Paths) -> Result<RunRequest, WishError> {
        let build = self.request(paths).await?;
        let config = RuntimeConfig::beside(build.flake.nix_dir())?;
        Ok(RunRequest {
            build,
            builder: None,
            config,
            name,
            remove: false,
            cold: false,
            started_by: StartedBy::Run,
        })
    }
}
