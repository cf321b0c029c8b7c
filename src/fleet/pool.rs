//! What can be done with one pool: its image built into a revision, an earlier one taken again, all of
//! it removed.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use jiff::Timestamp;

use super::error::FleetError;
use super::ids::PoolPath;
use super::plan::actual::Source;
use super::policy::pause_ms;
use super::record::{self, PoolRecord};
use super::work::Work;
use crate::host::paths::Paths;
use crate::image::build;
use crate::run::RunError;
use crate::run::wish::BuildWish;
use crate::store::StoreError;

/// What a build of a pool gave.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Built {
    /// The build.
    pub build: String,
    /// Whether it became a new revision; the current one is the same otherwise.
    pub changed: bool,
}

impl Work<'_> {
    /// Builds a pool's flake; what comes out is its current revision then. A failure is kept with the
    /// pool, whose instances go on.
    pub async fn build_pool(&mut self, path: &PoolPath, rebuild: bool) -> Result<Built, FleetError> {
        let (_, pool) = record::find_pool(self.store, path)?;
        let wish = BuildWish {
            flake: pool.pool.flake_ref.clone(),
            profile: pool.pool.profile.clone(),
            role: pool.pool.role.clone(),
            rebuild,
            background: false,
            nix_args: Vec::new(),
        };
        let built = async {
            let request = wish.request(self.paths).await.map_err(|error| FleetError::Refused {
                what: format!("the pool `{path}` cannot be built: {error}"),
                help: format!("`mvm pool update {path} --flake REF` gives it another flake"),
            })?;
            let built = build::build(&request, self.paths, self.store, self.sink, self.cancel).await;
            built.map_err(|error| FleetError::from(RunError::from(error)))
        };
        match built.await {
            Ok(artifacts) => {
                let source = serde_json::to_string(&Source::of(&pool.pool)).map_err(StoreError::from)?;
                self.set_revision(&pool, &artifacts.manifest.build, &source)
            }
            Err(error) if error.is_cancelled() => Err(error),
            Err(error) => {
                let retry = Timestamp::now().as_millisecond() + pause_ms(pool.row.failures + 1);
                let (tenant, id) = (path.tenant.as_str(), path.pool.as_str());
                self.store.set_pool_failed(tenant, id, &error.to_string(), retry)?;
                Err(error)
            }
        }
    }

    /// Makes an earlier revision the current one again: the one before the current, or the one whose
    /// build begins with `to`.
    pub fn roll_back(&mut self, path: &PoolPath, to: Option<&str>) -> Result<Built, FleetError> {
        let (_, pool) = record::find_pool(self.store, path)?;
        let revisions = self.store.revisions(path.tenant.as_str(), path.pool.as_str())?;
        let current = pool.row.build.as_deref();
        let fits = |build: &str| match to {
            Some(to) => build.starts_with(to),
            None => Some(build) != current,
        };
        let chosen = revisions.iter().find(|revision| fits(&revision.build));
        let chosen = chosen.ok_or_else(|| FleetError::Refused {
            what: match to {
                Some(to) => format!("the pool `{path}` has no revision `{to}`"),
                None => format!("the pool `{path}` has no earlier revision"),
            },
            help: format!("`mvm pool info {path}` lists its revisions"),
        })?;
        self.set_revision(&pool, &chosen.build, &chosen.source)
    }

    fn set_revision(&mut self, pool: &PoolRecord, build: &str, source: &str) -> Result<Built, FleetError> {
        let path = &pool.path;
        let changed = pool.row.build.as_deref() != Some(build);
        // Another source may give the same: then it is that one's from now on.
        if changed || pool.row.source.as_deref() != Some(source) || pool.row.detail.is_some() {
            self.store.put_revision(path.tenant.as_str(), path.pool.as_str(), build, source)?;
        }
        point(self.paths, path, build)?;
        Ok(Built { build: build.into(), changed })
    }

    /// Ends a pool's instances and forgets all of it.
    pub async fn remove_pool(&mut self, path: &PoolPath) -> Result<(), FleetError> {
        let (_, pool) = record::find_pool(self.store, path)?;
        for instance in &pool.instances {
            self.destroy(&instance.path).await?;
        }
        self.store.remove_pool(path.tenant.as_str(), path.pool.as_str())?;
        remove_dir(dir(self.paths, path))
    }
}

/// What lies on disk of a pool.
pub fn dir(paths: &Paths, path: &PoolPath) -> PathBuf {
    paths.tenant(path.tenant.as_str()).join("pools").join(path.pool.as_str())
}

/// Removes a directory, if it is there.
pub fn remove_dir(path: PathBuf) -> Result<(), FleetError> {
    match std::fs::remove_dir_all(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(FleetError::File { path, source }),
        _ => Ok(()),
    }
}

/// Has `artifacts/current` lead to a build, and `artifacts/revisions/<build>` too; for people and
/// scripts, as mvm itself asks the database.
fn point(paths: &Paths, path: &PoolPath, build: &str) -> Result<(), FleetError> {
    let artifacts = dir(paths, path).join("artifacts");
    let revisions = artifacts.join("revisions");
    let fail = |path: PathBuf| move |source| FleetError::File { path, source };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&revisions)
        .map_err(fail(revisions.clone()))?;
    for link in [revisions.join(build), artifacts.join("current")] {
        let beside = link.with_extension(format!("new-{}", std::process::id()));
        // Left by a process of the same number that was killed.
        drop(std::fs::remove_file(&beside));
        std::os::unix::fs::symlink(paths.builds().join(build), &beside).map_err(fail(beside.clone()))?;
        std::fs::rename(&beside, &link).map_err(fail(link))?;
    }
    Ok(())
}
