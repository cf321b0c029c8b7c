//! `mvm pool`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::super::context::{Context, print, print_json, say};
use super::super::options::BuilderArgs;
use super::super::vm::confirm;
use super::{since, table, work};
use crate::fleet::by_hand;
use crate::fleet::desired::{Counts, Pool, Resources, RuntimePolicy};
use crate::fleet::error::FleetError;
use crate::fleet::ids::{PoolPath, TenantId};
use crate::fleet::pool::Built;
use crate::fleet::record::{self, PoolRecord};
use crate::fleet::state::InstanceState;
use crate::image::flake::FlakeRef;
use crate::vm::spec::{parse_cpus, parse_disk, parse_memory};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mvm pool create dev/web --flake nix/examples/gateway\n  mvm pool build dev/web\n  mvm pool scale dev/web --running 2 --warm 1 --sleeping 1\n  mvm pool rollback dev/web\n  mvm pool destroy dev/web --force"
)]
pub struct PoolArgs {
    #[command(subcommand)]
    command: PoolCommand,
}

#[derive(Debug, Subcommand)]
enum PoolCommand {
    /// Make a pool
    Create {
        /// TENANT/POOL
        pool: PoolPath,
        #[command(flatten)]
        settings: Settings,
    },
    /// List pools with how many instances there are and should be
    #[command(visible_alias = "ls")]
    List {
        /// Only those of this tenant
        tenant: Option<TenantId>,
    },
    /// Show a pool: what it is to be, its revisions, its instances
    Info {
        /// TENANT/POOL
        pool: PoolPath,
    },
    /// Build a pool's flake; what comes out is what new instances boot
    Build {
        /// TENANT/POOL
        pool: PoolPath,
        /// Build even if nothing changed
        #[arg(long)]
        rebuild: bool,
        #[command(flatten)]
        builder: BuilderArgs,
    },
    /// Set how many instances there are to be, and make it so
    Scale {
        /// TENANT/POOL
        pool: PoolPath,
        /// Running
        #[arg(long, value_name = "NUMBER")]
        running: Option<u32>,
        /// Halted in memory
        #[arg(long, value_name = "NUMBER")]
        warm: Option<u32>,
        /// Saved to disk
        #[arg(long, value_name = "NUMBER")]
        sleeping: Option<u32>,
    },
    /// Change what a pool is to be
    Update {
        /// TENANT/POOL
        pool: PoolPath,
        #[command(flatten)]
        settings: Settings,
    },
    /// Take an earlier revision again
    Rollback {
        /// TENANT/POOL
        pool: PoolPath,
        /// The revision, by the beginning of its build's id [default: the one before the current]
        #[arg(long, value_name = "REVISION")]
        to: Option<String>,
    },
    /// Remove a pool with its instances and their disks
    Destroy {
        /// TENANT/POOL
        pool: PoolPath,
        /// Do not ask
        #[arg(long, short)]
        force: bool,
    },
}

#[derive(Debug, Args)]
struct Settings {
    /// Flake of its image: a directory (with `#attribute` if wished) or any reference Nix knows
    #[arg(long, value_name = "REF", allow_hyphen_values = true)]
    flake: Option<String>,
    /// Profile of the flake
    #[arg(long)]
    profile: Option<String>,
    /// Role of the flake
    #[arg(long)]
    role: Option<String>,
    /// CPUs of an instance
    #[arg(long, value_parser = parse_cpus)]
    cpus: Option<u32>,
    /// Memory of an instance: MiB, or with a unit
    #[arg(long, value_name = "SIZE", value_parser = parse_memory)]
    mem: Option<u32>,
    /// Writable disk of an instance: MiB, or with a unit; it is sparse
    #[arg(long, value_name = "SIZE", value_parser = parse_disk)]
    disk: Option<u64>,
    /// An instance runs at least so long before it is put to sleep
    #[arg(long, value_name = "SECONDS")]
    min_running: Option<u64>,
    /// An instance is warm at least so long before it is put to sleep
    #[arg(long, value_name = "SECONDS")]
    min_warm: Option<u64>,
    /// How long its services may take to finish before it sleeps
    #[arg(long, value_name = "SECONDS")]
    drain_timeout: Option<u64>,
    /// How long its guest may take to shut down
    #[arg(long, value_name = "SECONDS")]
    shutdown_timeout: Option<u64>,
    /// Its instances are never put to sleep for being idle
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pinned: Option<bool>,
    /// It goes before others when a quota is short
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    critical: Option<bool>,
}

impl Settings {
    fn over(self, old: Pool) -> Result<Pool> {
        let flake_ref = match self.flake {
            // The agent stands elsewhere: a directory is kept with its whole path.
            Some(flake) => flake.parse::<FlakeRef>()?.display(),
            None => old.flake_ref,
        };
        let (resources, policy) = (old.instance_resources, old.runtime_policy);
        Ok(Pool {
            flake_ref,
            profile: self.profile.or(old.profile),
            role: self.role.or(old.role),
            instance_resources: Resources {
                vcpus: self.cpus.unwrap_or(resources.vcpus),
                mem_mib: self.mem.unwrap_or(resources.mem_mib),
                data_disk_mib: self.disk.unwrap_or(resources.data_disk_mib),
            },
            runtime_policy: RuntimePolicy {
                min_running_seconds: self.min_running.unwrap_or(policy.min_running_seconds),
                min_warm_seconds: self.min_warm.unwrap_or(policy.min_warm_seconds),
                drain_timeout_seconds: self.drain_timeout.unwrap_or(policy.drain_timeout_seconds),
                graceful_shutdown_seconds: self.shutdown_timeout.unwrap_or(policy.graceful_shutdown_seconds),
            },
            pinned: self.pinned.unwrap_or(old.pinned),
            critical: self.critical.unwrap_or(old.critical),
            ..old
        })
    }
}

/// Runs the command.
pub async fn pool(context: &mut Context, args: PoolArgs) -> Result<ExitCode> {
    match args.command {
        PoolCommand::Create { pool, settings } => create(context, pool, settings)?,
        PoolCommand::List { tenant } => list(context, tenant.as_ref())?,
        PoolCommand::Info { pool } => info(context, &pool)?,
        PoolCommand::Build { pool, rebuild, builder } => {
            let (title, builder) = (format!("build the pool {pool}"), builder.wish()?);
            let built =
                work(context, title, async |work| work.build_pool(&pool, rebuild, builder).await).await?;
            tell(context, &built)?;
        }
        PoolCommand::Scale { pool, running, warm, sleeping } => {
            let (_, found) = record::find_pool(&context.store, &pool)?;
            let old = found.pool.desired_counts;
            let counts = Counts {
                running: running.unwrap_or(old.running),
                warm: warm.unwrap_or(old.warm),
                sleeping: sleeping.unwrap_or(old.sleeping),
            };
            scale(context, &pool, counts).await?;
        }
        PoolCommand::Update { pool, settings } => {
            let (_, found) = record::find_pool(&context.store, &pool)?;
            let changed = settings.over(found.pool)?;
            record::put_pool(&mut context.store, &pool.tenant, &changed)?;
            context.store.hold_pool(pool.tenant.as_str(), pool.pool.as_str(), by_hand::hold())?;
        }
        PoolCommand::Rollback { pool, to } => {
            let title = format!("roll back the pool {pool}");
            let built = work(context, title, async |work| {
                let built = work.roll_back(&pool, to.as_deref())?;
                work.store.hold_pool(pool.tenant.as_str(), pool.pool.as_str(), by_hand::hold())?;
                Ok(built)
            })
            .await?;
            tell(context, &built)?;
        }
        PoolCommand::Destroy { pool, force } => {
            let (_, found) = record::find_pool(&context.store, &pool)?;
            let question =
                format!("Remove the pool `{pool}` with {} instances and their disks?", found.instances.len());
            if !force && !confirm(&question, "--force")? {
                return Ok(ExitCode::FAILURE);
            }
            let title = format!("destroy the pool {pool}");
            work(context, title, async |work| {
                work.retire_pool(&pool)?;
                work.remove_pool(&pool).await
            })
            .await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn create(context: &mut Context, path: PoolPath, settings: Settings) -> Result<()> {
    let refuse = |what: String, help: String| Err(FleetError::Refused { what, help }.into());
    let tenant = record::find_tenant(&context.store, &path.tenant)?;
    if tenant.pools.iter().any(|pool| pool.path == path) {
        let help = format!("`mvm pool update {path}` changes it");
        return refuse(format!("there is a pool `{path}` already"), help);
    }
    if tenant.pools.len() >= tenant.quotas.max_pools as usize {
        let what = format!("{} pools", tenant.quotas.max_pools);
        return Err(FleetError::Quota { tenant: tenant.id, what }.into());
    }
    if settings.flake.is_none() {
        let help = format!("e.g. `mvm pool create {path} --flake nix/examples/gateway`");
        return refuse(format!("the pool `{path}` needs a flake"), help);
    }
    let new = Pool {
        pool_id: path.pool.clone(),
        flake_ref: String::new(),
        profile: None,
        role: None,
        instance_resources: Resources::default(),
        desired_counts: Counts::default(),
        runtime_policy: RuntimePolicy::default(),
        pinned: false,
        critical: false,
    };
    record::put_pool(&mut context.store, &path.tenant, &settings.over(new)?)?;
    if context.json {
        return Ok(());
    }
    print(&path.to_string())
}

/// Records how many instances there are to be, and makes it so.
async fn scale(context: &mut Context, path: &PoolPath, counts: Counts) -> Result<()> {
    by_hand::set_counts(&mut context.store, path, counts)?;
    let outcome = work(context, format!("scale {path}"), async |work| work.reach(path).await).await?;
    super::told(context, &outcome)
}

/// How many of a pool's instances are in which state.
pub fn counts(pool: &PoolRecord) -> Counts {
    let count = |state| pool.instances.iter().filter(|instance| instance.state == state).count() as u32;
    Counts {
        running: count(InstanceState::Running),
        warm: count(InstanceState::Warm),
        sleeping: count(InstanceState::Sleeping),
    }
}

fn as_json(pool: &PoolRecord) -> Value {
    json!({ "pool": pool.path, "desired": pool.pool, "actual": counts(pool), "instances": pool.instances.len(),
            "revision": pool.row.build, "failure": pool.row.detail, "retry_at_ms": pool.row.retry_at_ms })
}

fn list(context: &Context, tenant: Option<&TenantId>) -> Result<()> {
    let all = match tenant {
        Some(id) => vec![record::find_tenant(&context.store, id)?],
        None => record::load(&context.store)?,
    };
    let pools: Vec<&PoolRecord> = all.iter().flat_map(|tenant| &tenant.pools).collect();
    if context.json {
        let items: Vec<Value> = pools.iter().map(|pool| as_json(pool)).collect();
        return print_json(&json!({ "v": 1, "pools": items }));
    }
    if pools.is_empty() {
        return print("No pools. `mvm pool create TENANT/POOL --flake REF` makes one.");
    }
    table(
        ["POOL", "RUNNING", "WARM", "SLEEPING", "OTHER", "REVISION", "FLAKE"],
        pools.iter().map(|pool| {
            let (is, wish) = (counts(pool), pool.pool.desired_counts);
            let other = pool.instances.len() as u32 - is.running - is.warm - is.sleeping;
            let revision = pool.row.build.as_deref().unwrap_or("not built");
            [
                pool.path.to_string(),
                format!("{}/{}", is.running, wish.running),
                format!("{}/{}", is.warm, wish.warm),
                format!("{}/{}", is.sleeping, wish.sleeping),
                other.to_string(),
                revision[..revision.len().min(12)].into(),
                pool.pool.flake_ref.clone(),
            ]
        }),
    )?;
    for pool in pools {
        if let Some(detail) = &pool.row.detail {
            print(&format!(" {}: {}", pool.path, detail.lines().next().unwrap_or_default()))?;
        }
    }
    Ok(())
}

fn info(context: &Context, path: &PoolPath) -> Result<()> {
    let (_, pool) = record::find_pool(&context.store, path)?;
    let revisions = context.store.revisions(path.tenant.as_str(), path.pool.as_str())?;
    if context.json {
        let mut value = as_json(&pool);
        let revisions = revisions.iter();
        value["revisions"] =
            revisions.map(|one| json!({ "build": one.build, "created_ms": one.created_ms })).collect();
        value["instances"] = pool.instances.iter().map(|one| json!(one.path.instance)).collect();
        return print_json(&value);
    }
    let Pool { flake_ref, profile, role, instance_resources: each, runtime_policy: policy, .. } = &pool.pool;
    let (is, wish) = (counts(&pool), pool.pool.desired_counts);
    print(&format!("pool       {path}"))?;
    print(&format!("flake      {flake_ref}"))?;
    for (name, value) in [("profile", profile), ("role", role)] {
        if let Some(value) = value {
            print(&format!("{name:<10} {value}"))?;
        }
    }
    print(&format!(
        "each has   {} CPUs, {} MiB, {} MiB of disk",
        each.vcpus, each.mem_mib, each.data_disk_mib
    ))?;
    print(&format!(
        "instances  {} of {} running, {} of {} warm, {} of {} sleeping, {} in all",
        is.running,
        wish.running,
        is.warm,
        wish.warm,
        is.sleeping,
        wish.sleeping,
        pool.instances.len()
    ))?;
    print(&format!(
        "policy     runs at least {} s, warm at least {} s; {} s to drain, {} s to shut down{}{}",
        policy.min_running_seconds,
        policy.min_warm_seconds,
        policy.drain_timeout_seconds,
        policy.graceful_shutdown_seconds,
        if pool.pool.pinned { "; pinned" } else { "" },
        if pool.pool.critical { "; critical" } else { "" },
    ))?;
    for (index, revision) in revisions.iter().enumerate() {
        let current = if pool.row.build.as_ref() == Some(&revision.build) { ", current" } else { "" };
        let head = if index == 0 { "revisions" } else { "" };
        print(&format!("{head:<10} {} ({} ago{current})", revision.build, since(revision.created_ms)))?;
    }
    match &pool.row.detail {
        Some(detail) => print(&format!("failure    {detail}")),
        None => Ok(()),
    }
}

fn tell(context: &Context, built: &Built) -> Result<()> {
    match (context.json, built.changed) {
        (true, _) => return Ok(()),
        (false, true) => say("it is the current revision now"),
        (false, false) => say("it was the current revision already"),
    }
    print(&built.build)
}
