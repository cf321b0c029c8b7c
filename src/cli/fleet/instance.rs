//! `mvm instance`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::super::context::{Context, print, print_json};
use super::super::logs::{self, LogsArgs};
use super::super::vm::{confirm, open_ssh};
use super::{find_instance, since, table, work};
use crate::event::words::bytes;
use crate::fleet::by_hand;
use crate::fleet::error::FleetError;
use crate::fleet::ids::{PoolPath, TenantId};
use crate::fleet::record::{self, Instance, PoolRecord, TenantRecord};
use crate::fleet::vm;
use crate::fleet::work::Work;
use crate::guest::frames::{Answer, Request};
use crate::host::files;
use crate::vm::lifecycle;
use crate::vm::shim::client;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mvm instance list dev\n  mvm instance sleep dev/web/i-0a1b2c3d      by its path\n  mvm instance wake i-0a1b2c3d               or by its id; prints where it answers\n  mvm instance ssh i-0a1b2c3d -- uptime\n\nWhat is set by hand is left alone by the agent for a minute."
)]
pub struct InstanceArgs {
    #[command(subcommand)]
    command: InstanceCommand,
}

#[derive(Debug, Args)]
struct Which {
    /// Instances, as TENANT/POOL/INSTANCE or by id
    #[arg(required = true, value_name = "INSTANCE")]
    instances: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum InstanceCommand {
    /// List instances with their states and where they answer
    #[command(visible_alias = "ls")]
    List {
        /// Only those of a TENANT or TENANT/POOL
        of: Option<String>,
    },
    /// Boot instances that are stopped, or failed
    Start(Which),
    /// Shut instances down; their disks stay
    Stop(Which),
    /// Halt running instances in memory
    Warm(Which),
    /// Save instances to disk and end their processes
    Sleep(Which),
    /// Have instances run, whatever state they are in; prints where they answer
    Wake(Which),
    /// Open ssh to an instance, or run a command over it
    Ssh {
        /// The instance, as TENANT/POOL/INSTANCE or by id
        instance: String,
        /// User in the guest
        #[arg(long, short = 'l')]
        user: Option<String>,
        /// Command to run instead of a session
        #[arg(last = true, value_name = "CMD")]
        command: Vec<String>,
    },
    /// Show an instance's console
    Logs(LogsArgs),
    /// Show what an instance's guest uses
    Stats {
        /// The instance, as TENANT/POOL/INSTANCE or by id
        instance: String,
    },
    /// Remove instances with their disks
    Destroy {
        #[command(flatten)]
        which: Which,
        /// Do not ask
        #[arg(long, short)]
        force: bool,
    },
}

/// Runs the command.
pub async fn instance(context: &mut Context, args: InstanceArgs) -> Result<ExitCode> {
    match args.command {
        InstanceCommand::List { of } => list(context, of.as_deref())?,
        InstanceCommand::Start(which) => {
            each(context, "start", which, async |work, on| work.start(&on.tenant, &on.pool, &on.path).await)
                .await?;
        }
        InstanceCommand::Stop(which) => {
            each(context, "stop", which, async |work, on| work.stop(&on.pool.pool, &on.path).await).await?;
        }
        InstanceCommand::Warm(which) => {
            each(context, "warm", which, async |work, on| work.warm(&on.path).await).await?;
        }
        InstanceCommand::Sleep(which) => {
            each(context, "sleep", which, async |work, on| work.sleep(&on.pool.pool, &on.path).await).await?;
        }
        InstanceCommand::Wake(which) => {
            let woken = each(context, "wake", which, async |work, on| {
                work.wake(&on.tenant, &on.pool, &on.path).await
            });
            let woken = woken.await?;
            if !context.json {
                woken.iter().flatten().try_for_each(|endpoint| print(&endpoint.to_string()))?;
            }
        }
        InstanceCommand::Ssh { instance, user, command } => {
            let instance = find_instance(context, &instance)?;
            let vm = lifecycle::find_running(&context.store, instance.path.instance.as_str())?;
            return open_ssh(context, &vm, user.as_deref(), &command).await;
        }
        InstanceCommand::Logs(mut args) => {
            args.name = find_instance(context, &args.name)?.path.instance.to_string();
            return logs::logs(context, args).await;
        }
        InstanceCommand::Stats { instance } => stats(context, &instance).await?,
        InstanceCommand::Destroy { which, force } => {
            let question = format!("Remove {} with disks?", which.instances.join(", "));
            if !force && !confirm(&question, "--force")? {
                return Ok(ExitCode::FAILURE);
            }
            each(context, "destroy", which, async |work, on| work.destroy(&on.path).await).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// An instance and what it belongs to.
struct On {
    tenant: TenantRecord,
    pool: PoolRecord,
    path: crate::fleet::ids::InstancePath,
}

/// Does the same with some instances, one after the other; reconciling leaves them alone for a while.
async fn each<T>(
    context: &mut Context,
    verb: &str,
    which: Which,
    operate: impl AsyncFn(&mut Work<'_>, &On) -> Result<T, FleetError>,
) -> Result<Vec<T>> {
    let found: Vec<Instance> =
        which.instances.iter().map(|text| find_instance(context, text)).collect::<Result<_, _>>()?;
    let mut results = Vec::new();
    for instance in found {
        let (tenant, pool) = record::find_pool(&context.store, &instance.path.pool)?;
        by_hand::hold_instance(&mut context.store, &instance.path)?;
        let on = On { tenant, pool, path: instance.path };
        let title = format!("{verb} {}", on.path);
        let result = work(context, title, async |work| operate(work, &on).await).await;
        by_hand::hold_instance(&mut context.store, &on.path)?;
        results.push(result?);
    }
    Ok(results)
}

fn list(context: &Context, of: Option<&str>) -> Result<()> {
    let (tenant, pool) = match of {
        None => (None, None),
        Some(text) if text.contains('/') => (None, Some(text.parse::<PoolPath>()?)),
        Some(text) => (Some(text.parse::<TenantId>()?), None),
    };
    let all = record::load(&context.store)?;
    if let Some(id) = &tenant {
        record::find_tenant(&context.store, id)?;
    }
    if let Some(path) = &pool {
        record::find_pool(&context.store, path)?;
    }
    let wanted = |instance: &&Instance| {
        let path = &instance.path.pool;
        tenant.as_ref().is_none_or(|tenant| path.tenant == *tenant)
            && pool.as_ref().is_none_or(|pool| path == pool)
    };
    let pools = all.iter().flat_map(|tenant| &tenant.pools);
    let shown: Vec<&Instance> = pools.flat_map(|pool| &pool.instances).filter(wanted).collect();
    let endpoint = |instance: &Instance| vm::endpoint(&context.store, &instance.path);
    if context.json {
        let items = shown.iter().map(|instance| as_json(context, instance)).collect::<Result<Vec<_>>>()?;
        return print_json(&json!({ "v": 1, "instances": items }));
    }
    if shown.is_empty() {
        return print("No instances. `mvm pool scale TENANT/POOL --running N` makes some.");
    }
    let mut rows = Vec::new();
    for instance in &shown {
        rows.push([
            instance.path.to_string(),
            instance.state.as_str().into(),
            since(instance.row.since_ms),
            endpoint(instance)?.map(|endpoint| endpoint.to_string()).unwrap_or_default(),
            instance.row.build[..instance.row.build.len().min(12)].into(),
        ]);
    }
    table(["INSTANCE", "STATE", "SINCE", "ENDPOINT", "REVISION"], rows)?;
    for instance in shown {
        if let Some(detail) = &instance.row.detail {
            print(&format!(" {}: {}", instance.path, detail.lines().next().unwrap_or_default()))?;
        }
    }
    Ok(())
}

fn as_json(context: &Context, instance: &Instance) -> Result<Value> {
    let row = &instance.row;
    let vm = vm::vm(&context.paths, &context.store, &instance.path)?;
    let saved = vm.as_ref().map(|vm| files::disk_usage(&context.paths.vm_snapshot(&vm.id)));
    Ok(json!({
        "instance": instance.path, "state": instance.state, "detail": row.detail, "revision": row.build,
        "vm": vm.map(|vm| vm.id), "endpoint": vm::endpoint(&context.store, &instance.path)?,
        "snapshot_bytes": saved, "failures": row.failures, "retry_at_ms": row.retry_at_ms,
        "held_until_ms": row.held_until_ms, "since_ms": row.since_ms, "created_ms": row.created_ms,
    }))
}

async fn stats(context: &Context, text: &str) -> Result<()> {
    let instance = find_instance(context, text)?;
    let vm = lifecycle::find_running(&context.store, instance.path.instance.as_str())?;
    let agent = client::agent(&context.paths.shim_socket(&vm.id)).await?;
    let answer = agent.request(Request::Stats).await?;
    let Answer::Stats {
        load1_hundredths,
        mem_total_kib,
        mem_available_kib,
        uptime_seconds,
        cpu_busy_us,
        connections,
    } = answer
    else {
        bail!(
            "the guest of {} answers another question\nhelp: is its image of another version?",
            instance.path
        )
    };
    if context.json {
        return print_json(&answer);
    }
    let used = mem_total_kib.saturating_sub(mem_available_kib) * 1024;
    print(&format!("load         {}.{:02}", load1_hundredths / 100, load1_hundredths % 100))?;
    print(&format!("memory       {} of {}", bytes(used), bytes(mem_total_kib * 1024)))?;
    print(&format!("CPU time     {}.{:03} s", cpu_busy_us / 1_000_000, cpu_busy_us / 1000 % 1000))?;
    print(&format!("up           {uptime_seconds} s"))?;
    print(&format!("connections  {connections}"))
}
