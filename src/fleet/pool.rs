//! What can be done with one pool: its image built into a revision, an earlier one taken again, all of
//! it removed.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

use super::desired::{Counts, Pool};
use super::error::FleetError;
use super::ids::PoolPath;
use super::plan::actual::Source;
use super::policy::pause_ms;
use super::record::{self, PoolRecord};
use super::work::Work;
use crate::host::paths::Paths;
use crate::image::hold::InHand;
use crate::run::RunError;
use crate::run::builder;
use crate::run::request::BuilderWish;
use crate::run::wish::BuildWish;
use crate::store::StoreError;

/// How long nobody makes instances of a pool that is being removed.
const RETIRED: Duration = Duration::from_secs(600);
/// Most looks at what instances such a pool has left.
const MOST_LOOKS: usize = 10;

/// What a build of a pool gave.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Built {
    /// The build.
    pub build: String,
    /// Whether it became a new revision; the current one is the same otherwise.
    pub changed: bool,
}

impl Work<'_> {
    /// Builds a pool's flake, in a VM if one is wished for; what comes out is its current revision then. A failure is kept with the
    /// pool, whose instances go on.
    pub async fn build_pool(
        &mut self,
        path: &PoolPath,
        rebuild: bool,
        builder: Option<BuilderWish>,
    ) -> Result<Built, FleetError> {
        let (_, pool) = record::find_pool(self.store, path)?;
        let wish = BuildWish {
            flake: pool.pool.flake_ref.clone(),
            profile: pool.pool.profile.clone(),
            role: pool.pool.role.clone(),
            rebuild,
            ..BuildWish::default()
        };
        let built = async {
            let request = wish.request(self.paths).await.map_err(|error| FleetError::Refused {
                what: format!("the pool `{path}` cannot be built: {error}"),
                help: format!("`mvm pool update {path} --flake REF` gives it another flake"),
            })?;
            let built =
                builder::build(&request, builder, self.paths, self.store, self.sink, self.cancel).await;
            built.map_err(|error| FleetError::from(RunError::from(error)))
        };
        match built.await {
            Ok(InHand { artifacts, held: _held }) => {
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
    /// build begins with `to`. What that was built of is what the pool is built of from now on, as it
    /// would be built anew otherwise.
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
        let Source { flake_ref, profile, role } = pool.read(&chosen.source)?;
        let named = Pool { flake_ref, profile, role, ..pool.pool.clone() };
        if named != pool.pool {
            record::put_pool(self.store, &path.tenant, &named)?;
        }
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

    /// Has nobody make instances of a pool that a command is about to remove: an agent that reconciles at
    /// the same time would put others in their place.
    pub fn retire_pool(&mut self, path: &PoolPath) -> Result<(), FleetError> {
        let (_, pool) = record::find_pool(self.store, path)?;
        let until_ms = Timestamp::now().as_millisecond() + RETIRED.as_millis() as i64;
        self.store.hold_pool(path.tenant.as_str(), path.pool.as_str(), Some(until_ms))?;
        record::put_pool(self.store, &path.tenant, &Pool { desired_counts: Counts::default(), ..pool.pool })
    }

    /// Ends a pool's instances and forgets all of it.
    pub async fn remove_pool(&mut self, path: &PoolPath) -> Result<(), FleetError> {
        for _ in 0..MOST_LOOKS {
            let (_, pool) = record::find_pool(self.store, path)?;
            if pool.instances.is_empty() {
                // The record is the last that goes: until then it is known what is left.
                remove_dir(dir(self.paths, path))?;
                return Ok(self.store.remove_pool(path.tenant.as_str(), path.pool.as_str())?);
            }
            for instance in &pool.instances {
                match self.destroy(&instance.path).await {
                    // Somebody else has.
                    Err(FleetError::NoInstance(_)) => {}
                    destroyed => destroyed?,
                }
            }
        }
        Err(FleetError::Refused {
            what: format!("instances of the pool `{path}` are made as fast as they are destroyed"),
            help: "end what makes them, then try again".into(),
        })
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

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::event::{EventSink, TaskId};
    use crate::fleet::desired::{Tenant, TenantNetwork};
    use crate::store::Store;

    /// Does something with the pool `dev/web`, built of the flake `a`, then `b`; it is what is left then.
    async fn after(operate: impl AsyncFnOnce(&mut Work<'_>, &PoolPath)) -> Option<PoolRecord> {
        let world = tempfile::tempdir().unwrap();
        let paths = Paths::at(world.path().join("state"), world.path().join("run")).unwrap();
        let mut store = Store::open(std::path::Path::new(":memory:")).unwrap().store;
        let (sink, _stream) = EventSink::new(TaskId::new('t'));
        let cancel = CancellationToken::new();
        let network =
            TenantNetwork { tenant_net_id: 1, ipv4_subnet: "10.240.1.0/24".to_string().try_into().unwrap() };
        let tenant = Tenant {
            tenant_id: "dev".parse().unwrap(),
            network,
            quotas: Default::default(),
            pools: Vec::new(),
        };
        record::put_tenant(&mut store, &tenant).unwrap();
        let path: PoolPath = "dev/web".parse().unwrap();
        let mut work = Work {
            paths: &paths,
            store: &mut store,
            sink: &sink,
            cancel: &cancel,
            asked_by: super::super::work::AskedBy::Person,
        };
        for flake in ["a", "b"] {
            let pool = Pool {
                pool_id: path.pool.clone(),
                flake_ref: flake.into(),
                profile: None,
                role: None,
                instance_resources: Default::default(),
                desired_counts: Counts { running: 2, warm: 1, sleeping: 0 },
                runtime_policy: Default::default(),
                pinned: false,
                critical: false,
            };
            record::put_pool(work.store, &path.tenant, &pool).unwrap();
            let source = serde_json::to_string(&Source::of(&pool)).unwrap();
            let (_, found) = record::find_pool(work.store, &path).unwrap();
            work.set_revision(&found, &format!("build-{flake}"), &source).unwrap();
        }
        operate(&mut work, &path).await;
        record::find_pool(work.store, &path).ok().map(|(_, pool)| pool)
    }

    #[tokio::test]
    async fn a_pool_that_is_rolled_back_names_what_its_revision_was_built_of() {
        let left = after(async |work, path| {
            assert!(work.roll_back(path, None).unwrap().changed);
        });
        let left = left.await.unwrap();
        assert_eq!((left.pool.flake_ref.as_str(), left.row.build.as_deref()), ("a", Some("build-a")));
        let source: Source = left.read(left.row.source.as_deref().unwrap()).unwrap();
        assert!(source.is_of(&left.pool), "it would be built anew");
    }

    #[tokio::test]
    async fn nobody_makes_instances_of_a_pool_that_is_about_to_go() {
        let left = after(async |work, path| work.retire_pool(path).unwrap()).await.unwrap();
        assert_eq!(left.pool.desired_counts.total(), 0);
        assert!(left.row.held_until_ms.is_some_and(|until| until > Timestamp::now().as_millisecond()));
        let left = after(async |work, path| {
            work.retire_pool(path).unwrap();
            work.remove_pool(path).await.unwrap();
            assert!(!dir(work.paths, path).exists());
        });
        assert!(left.await.is_none());
    }
}
