//! What a user asks for, made into requests.

use super::request::RunRequest;
use crate::event::{EventSink, TaskId};
use crate::host::inputs::{FlakeInputs, InputsError};
use crate::host::paths::Paths;
use crate::host::setup::{self, SetupError};
use crate::image::flake::{FlakeRef, RefError};
use crate::image::machines::Machines;
use crate::image::profiles::{Amount, Entry, Profiles, ProfilesError};
use crate::image::request::BuildRequest;
use crate::vm::config::{ConfigError, RuntimeConfig};
use crate::vm::spec::{SpecError, StartedBy, VmName, parse_cpus, parse_disk, parse_memory};

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
    /// Other machines and stores.
    pub machines: Machines,
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
    /// `mvm-profiles.toml`.
    #[error(transparent)]
    Profiles(#[from] ProfilesError),
}

impl BuildWish {
    /// The request, with mvm's own inputs as they are now.
    pub async fn request(self, paths: &Paths) -> Result<BuildRequest, WishError> {
        let flake: FlakeRef = self.flake.parse()?;
        // What it would say is of no interest here.
        let (sink, _) = EventSink::new(TaskId::new('s'));
        setup::refresh(paths, &sink).await?;
        let profiles = Profiles::of(&flake)?;
        let entry = entry(&profiles, &flake, self.role.as_deref(), self.profile.as_deref()).cloned();
        if let Some(entry) = &entry {
            resources(&profiles, entry)?;
        }
        Ok(BuildRequest {
            flake,
            entry,
            profile: self.profile,
            role: self.role,
            rebuild: self.rebuild,
            background: self.background,
            machines: self.machines,
            nix_args: self.nix_args,
            inputs: FlakeInputs::find(paths).await?,
        })
    }

    /// The request to run it with the settings beside the flake.
    pub async fn run_request(self, name: Option<VmName>, paths: &Paths) -> Result<RunRequest, WishError> {
        let build = self.request(paths).await?;
        let below = defaults(&build.flake, build.role.as_deref(), build.profile.as_deref())?;
        let config = below.overlaid(RuntimeConfig::beside(build.flake.nix_dir())?);
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

/// What `mvm-profiles.toml` beside a flake says of how a role and profile run; `mvm.toml` goes over it.
pub fn defaults(
    flake: &FlakeRef,
    role: Option<&str>,
    profile: Option<&str>,
) -> Result<RuntimeConfig, ProfilesError> {
    let profiles = Profiles::of(flake)?;
    match entry(&profiles, flake, role, profile) {
        Some(entry) => resources(&profiles, entry),
        None => Ok(RuntimeConfig::default()),
    }
}

/// The entry for a role and profile; none when the user names the attribute himself.
fn entry<'a>(
    profiles: &'a Profiles,
    flake: &FlakeRef,
    role: Option<&str>,
    profile: Option<&str>,
) -> Option<&'a Entry> {
    profiles.entry(role, profile).filter(|_| flake.attribute.is_none())
}

/// The resources of an entry, as `mvm.toml` has them.
pub fn resources(profiles: &Profiles, entry: &Entry) -> Result<RuntimeConfig, ProfilesError> {
    let text = |amount: &Option<Amount>| amount.as_ref().map(Amount::to_string);
    let wrong = |error: SpecError| profiles.invalid(format!("of {entry}, {error}"));
    Ok(RuntimeConfig {
        cpus: text(&entry.cpus).map(|cpus| parse_cpus(&cpus)).transpose().map_err(wrong)?,
        memory_mib: text(&entry.memory).map(|memory| parse_memory(&memory)).transpose().map_err(wrong)?,
        disk_mib: text(&entry.disk).map(|disk| parse_disk(&disk)).transpose().map_err(wrong)?,
        ..RuntimeConfig::default()
    })
}
