//! The cluster ended: first who takes connections, then who makes instances, then these.

use std::collections::HashSet;
use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::NAME;
use super::error::ClusterError;
use super::part::{Part, State};
use super::plan::{self, config_file, desired_file};
use super::turn;
use crate::agent::owner::watch;
use crate::coordinator::config::{Config, Settings};
use crate::event::EventSink;
use crate::fleet::desired::DesiredState;
use crate::fleet::error::FleetError;
use crate::fleet::ids::{PoolPath, TenantId};
use crate::fleet::record::{self, TenantRecord};
use crate::fleet::secrets;
use crate::fleet::square;
use crate::fleet::work::{AskedBy, Work};
use crate::host::files;
use crate::host::identity::ProcessId;
use crate::host::paths::Paths;
use crate::image::hold;
use crate::store::Store;
use crate::vm::lifecycle;

/// How long a part may take beyond what it gives what is under way.
const ON_TOP: Duration = Duration::from_secs(10);
/// How long the agent gives what is under way.
const AGENT: Duration = Duration::from_secs(30);

/// What was ended and removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Down {
    /// Parts that ran.
    pub stopped: Vec<Part>,
    /// Pools that were removed.
    pub pools: Vec<PoolPath>,
    /// How many instances they had.
    pub instances: usize,
    /// Builds that were removed.
    pub builds: usize,
}

/// Ends agent and coordinator and removes the pools of the desired state, with their instances. Files,
/// certificates and flakes stay, and images too unless `purge`.
pub async fn down(
    purge: bool,
    paths: &Paths,
    store: &mut Store,
    sink: &EventSink,
    cancel: &CancellationToken,
) -> Result<Down, ClusterError> {
    let mut done = Down::default();
    if !paths.cluster().exists() {
        return Ok(done);
    }
    let _turn = turn::take(paths, sink, cancel).await?;
    let ended = async {
        sink.phase("drain");
        let drain = Config::read(&config_file(paths))
            .map_or_else(|_| Settings::default().drain_timeout, |config| config.coordinator.drain_timeout);
        end(Part::Coordinator, drain + ON_TOP, paths, sink, &mut done).await?;
        end(Part::Agent, AGENT + ON_TOP, paths, sink, &mut done).await
    };
    tokio::select! {
        ended = ended => ended?,
        () = cancel.cancelled() => return Err(ClusterError::Cancelled),
    }
    // What the agent left, as it was killed now or before.
    lifecycle::square(paths, store)?;
    square::square(paths, store)?;
    sink.phase("remove");
    let (pools, ids) = match watch::read(&desired_file(paths)) {
        Ok(desired) => (
            recorded_pools(&desired, store)?,
            desired.tenants.into_iter().map(|tenant| tenant.tenant_id).collect::<Vec<_>>(),
        ),
        Err(error) => {
            sink.warn(format!("{}: the pools of the tenant `{NAME}` go", first(&error)));
            (all_pools(store, NAME)?, NAME.parse().into_iter().collect())
        }
    };
    let builds = builds_of(&pools, store)?;
    orphans(&pools, paths, store, sink).await?;
    for path in &pools {
        let (_, pool) = record::find_pool(store, path)?;
        done.instances += pool.instances.len();
        let work = &mut Work { paths, store: &mut *store, sink, cancel, asked_by: AskedBy::Person };
        // An agent of somebody else's would put others in their place.
        work.retire_pool(path)?;
        work.remove_pool(path).await?;
    }
    tenants(&ids, paths, store, sink, cancel).await?;
    if purge {
        done.builds = remove_builds(builds, paths, store, sink)?;
    }
    done.pools = pools;
    Ok(done)
}

/// Ends a part that runs, whoever started it.
async fn end(
    part: Part,
    grace: Duration,
    paths: &Paths,
    sink: &EventSink,
    done: &mut Down,
) -> Result<(), ClusterError> {
    let process: ProcessId = match part.look(paths) {
        State::Running { process, .. } => process,
        State::Starting(record) => record.process,
        State::Stopped => return Ok(()),
        State::Crashed => {
            sink.info(format!("the {part} had ended without a word"));
            return part.clear(paths);
        }
        State::Stranger(process) => {
            let who = process.map_or_else(String::new, |process| format!(" (process {})", process.pid));
            sink.warn(format!(
                "the {part} was started with other files than the cluster's{who}, and goes on"
            ));
            return part.forget(paths);
        }
    };
    sink.info(format!("stopping the {part} (process {})", process.pid));
    if part.end(&process, grace, paths).await? {
        sink.warn(format!("the {part} did not end within {} s, and was killed", grace.as_secs()));
    }
    done.stopped.push(part);
    Ok(())
}

/// Ends the guests of pools; their disks stay.
pub async fn rest(
    pools: &[PoolPath],
    paths: &Paths,
    store: &mut Store,
    sink: &EventSink,
    cancel: &CancellationToken,
) -> Result<(), ClusterError> {
    lifecycle::square(paths, store)?;
    square::square(paths, store)?;
    for path in pools {
        let Ok((_, pool)) = record::find_pool(store, path) else { continue };
        for instance in pool.instances.iter().filter(|instance| instance.state.is_live()) {
            let work = &mut Work { paths, store: &mut *store, sink, cancel, asked_by: AskedBy::Person };
            work.stop(&pool.pool, &instance.path).await?;
        }
    }
    Ok(())
}

/// Of the pools that are desired those that there are.
fn recorded_pools(desired: &DesiredState, store: &Store) -> Result<Vec<PoolPath>, ClusterError> {
    let mut pools = plan::pools(desired);
    let fleet = record::load(store)?;
    let known: HashSet<&PoolPath> =
        fleet.iter().flat_map(|tenant| &tenant.pools).map(|pool| &pool.path).collect();
    pools.retain(|path| known.contains(path));
    Ok(pools)
}

fn all_pools(store: &Store, tenant: &str) -> Result<Vec<PoolPath>, ClusterError> {
    let fleet = record::load(store)?;
    let pools = fleet.iter().filter(|one| one.id.as_str() == tenant).flat_map(|tenant| &tenant.pools);
    Ok(pools.map(|pool| pool.path.clone()).collect())
}

/// Ends and removes VMs of the pools' that the database knows no instances for.
async fn orphans(
    pools: &[PoolPath],
    paths: &Paths,
    store: &mut Store,
    sink: &EventSink,
) -> Result<(), ClusterError> {
    for (path, _, vm) in square::orphans(store)? {
        if pools.contains(&path.pool) {
            sink.info(format!("removing the VM `{}`, which no instance is known for", vm.name));
            if vm.state.is_live() {
                lifecycle::stop(paths, store, &vm, None).await?;
            }
            lifecycle::remove(paths, store, &vm)?;
        }
    }
    Ok(())
}

/// Removes tenants of which nothing is left; what the user has added stays, and is told.
async fn tenants(
    ids: &[TenantId],
    paths: &Paths,
    store: &mut Store,
    sink: &EventSink,
    cancel: &CancellationToken,
) -> Result<(), ClusterError> {
    for id in ids {
        let tenant = match record::find_tenant(store, id) {
            Err(FleetError::NoTenant(_)) => continue,
            tenant => tenant?,
        };
        if !tenant.pools.is_empty() || !secrets::names(paths, id).is_empty() {
            sink.info(format!("the tenant `{id}` stays, with {}", what_is_left(&tenant)));
            continue;
        }
        let work = &mut Work { paths, store: &mut *store, sink, cancel, asked_by: AskedBy::Person };
        work.remove_tenant(id).await?;
    }
    Ok(())
}

fn what_is_left(tenant: &TenantRecord) -> String {
    let pools: Vec<String> = tenant.pools.iter().map(|pool| format!("`{}`", pool.path)).collect();
    match pools.as_slice() {
        [] => "its secrets".into(),
        pools => format!("pools that the desired state does not name: {}", pools.join(", ")),
    }
}

/// The builds of pools' revisions and instances.
fn builds_of(pools: &[PoolPath], store: &Store) -> Result<HashSet<String>, ClusterError> {
    let mut builds = HashSet::new();
    for path in pools {
        let revisions = store.revisions(path.tenant.as_str(), path.pool.as_str())?;
        builds.extend(revisions.into_iter().map(|revision| revision.build));
        let (_, pool) = record::find_pool(store, path)?;
        builds.extend(pool.instances.into_iter().map(|instance| instance.row.build));
    }
    Ok(builds)
}

/// Removes builds that nobody else has a use for.
fn remove_builds(
    builds: HashSet<String>,
    paths: &Paths,
    store: &mut Store,
    sink: &EventSink,
) -> Result<usize, ClusterError> {
    let fail = |path| move |source| ClusterError::Write { path, source };
    let Some(_alone) = hold::alone(&paths.builds()).map_err(fail(paths.builds()))? else {
        sink.warn("another build or start is at work: the images stay, for `mvm gc --builds`");
        return Ok(0);
    };
    let others: HashSet<String> =
        store.fleet_builds()?.into_iter().chain(store.vms()?.into_iter().map(|vm| vm.build)).collect();
    let mut removed = 0;
    for build in builds.difference(&others) {
        let path = paths.builds().join(build);
        files::remove_dir_if_there(&path).map_err(fail(path))?;
        store.remove_build(build)?;
        removed += 1;
    }
    Ok(removed)
}

fn first(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
