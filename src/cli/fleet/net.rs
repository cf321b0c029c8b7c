//! `mvm net`.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::json;

use super::super::context::{Context, print, print_json};
use crate::fleet::record;
use crate::vm::network::tenant;
use crate::vm::network::verify::{self, Try};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mvm net verify\n  mvm net verify --json\n\nIt tries to connect from each tenant's network to every guest of every other tenant, and as a\ncontrol to the tenant's own guests. It exits with 1 when one is reached that must not be, or none\nis that should. Guests without root are in user mode: they have no network in common."
)]
pub struct NetArgs {
    #[command(subcommand)]
    command: NetCommand,
}

#[derive(Debug, Subcommand)]
enum NetCommand {
    /// Prove that tenants cannot reach each other, by trying
    Verify,
}

/// Runs the command.
pub async fn net(context: &Context, args: NetArgs) -> Result<ExitCode> {
    let NetCommand::Verify = args.command;
    let networks = tenant::live(&context.store)?;
    let count = networks.len();
    let found = tokio::task::spawn_blocking(move || verify::verify(&networks)).await?;
    let code = if found.passes { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if context.json {
        let mut value = serde_json::to_value(&found)?;
        value["v"] = json!(1);
        print_json(&value)?;
        return Ok(code);
    }
    let tenants = record::load(&context.store)?;
    let name = |net_id: u16| {
        let tenant = tenants.iter().find(|tenant| tenant.network.tenant_net_id == net_id);
        tenant.map_or_else(|| format!("network {net_id}"), |tenant| tenant.id.to_string())
    };
    let tell = |verdict: &str, what: String, tries: &[Try]| {
        let seen = tries.iter().map(|one| format!("{} {}", one.address, one.seen));
        print(&format!("{verdict:<4} {what}: {}", seen.collect::<Vec<_>>().join(", ")))
    };
    for own in &found.own {
        tell(
            if own.reached { "ok" } else { "DEAD" },
            format!("{} reaches its own", name(own.net_id)),
            &own.tries,
        )?;
    }
    for pair in &found.pairs {
        let what = format!("{} is kept from {}", name(pair.from), name(pair.to));
        tell(if pair.isolated { "ok" } else { "LEAK" }, what, &pair.tries)?;
    }
    print(&match (count, found.passes) {
        (0, _) => "No tenant has a guest with a network of the tenant's.".to_string(),
        (_, true) => "The tenants' networks are apart.".into(),
        (_, false) => "The tenants' networks are NOT as they should be.".into(),
    })?;
    Ok(code)
}
