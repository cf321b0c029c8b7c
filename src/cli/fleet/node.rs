//! `mvm node`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::json;

use super::super::context::{Context, print, print_json};
use crate::fleet::record;
use crate::fleet::state::InstanceState;
use crate::host::versions::Versions;
use crate::host::{kvm, node};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  mvm node info\n  mvm node stats --json")]
pub struct NodeArgs {
    #[command(subcommand)]
    command: NodeCommand,
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    /// Show what this machine is and has
    Info,
    /// Show how much of it the fleet uses
    Stats,
}

/// Runs the command.
pub async fn node(context: &Context, args: NodeArgs) -> Result<ExitCode> {
    match args.command {
        NodeCommand::Info => info(context).await?,
        NodeCommand::Stats => stats(context)?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn info(context: &Context) -> Result<()> {
    let (cpus, memory) = (node::cpus(), node::memory_mib());
    let versions = Versions::find(&context.paths).await;
    let kvm = kvm::usable(&context.paths).is_ok();
    if context.json {
        return print_json(&json!({ "v": 1, "version": env!("CARGO_PKG_VERSION"), "cpus": cpus,
            "mem_mib": memory, "kvm": kvm, "versions": versions, "state": context.paths.state() }));
    }
    print(&format!("mvm {}, state in {}", env!("CARGO_PKG_VERSION"), context.paths.state().display()))?;
    print(&versions.line())?;
    print(&format!("{cpus} CPUs, {memory} MiB, KVM {}", if kvm { "used" } else { "not used" }))
}

fn stats(context: &Context) -> Result<()> {
    let fleet = record::load(&context.store)?;
    let pools: Vec<_> = fleet.iter().flat_map(|tenant| &tenant.pools).collect();
    let instances = || pools.iter().flat_map(|pool| &pool.instances);
    let count = |state| instances().filter(|instance| instance.state == state).count();
    let counts: Vec<(&str, usize)> =
        InstanceState::ALL.into_iter().map(|state| (state.as_str(), count(state))).collect();
    let (mut vcpus, mut mem_mib) = (0, 0);
    for pool in &pools {
        let live = pool.instances.iter().filter(|instance| instance.state.is_live()).count() as u64;
        vcpus += live * u64::from(pool.pool.instance_resources.vcpus);
        mem_mib += live * u64::from(pool.pool.instance_resources.mem_mib);
    }
    if context.json {
        let counts: serde_json::Map<_, _> =
            counts.iter().map(|(state, count)| (state.to_string(), json!(count))).collect();
        return print_json(&json!({ "v": 1, "tenants": fleet.len(), "pools": pools.len(),
            "instances": counts, "vcpus": vcpus, "mem_mib": mem_mib }));
    }
    print(&format!("{} tenants, {} pools, {} instances", fleet.len(), pools.len(), instances().count()))?;
    for (state, count) in counts.iter().filter(|(_, count)| *count > 0) {
        print(&format!("  {count} {state}"))?;
    }
    print(&format!("{vcpus} CPUs and {mem_mib} MiB are in the hands of live guests"))
}
