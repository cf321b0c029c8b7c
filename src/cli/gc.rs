//! `mvm gc`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::context::{Context, print, print_json, say};
use crate::event::words::bytes;
use crate::run::gc::{Wish, collect};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mvm gc --dry-run\n  mvm gc --builds\n\nVMs that run or are saved (`mvm snapshot`), the dev VM, instances, their builds,\nrevisions of pools, and builds and ready snapshots used in the last 14 days stay; all builds do while one is being started. Nix's own store is freed by\n`nix-collect-garbage` afterwards."
)]
pub struct GcArgs {
    /// Only say what would go, and why
    #[arg(long)]
    dry_run: bool,
    /// Remove every build that no running VM uses, and what makes the next ones quick, however young: ready snapshots, the builder VM's stores, layers of Mvmfiles
    #[arg(long)]
    builds: bool,
}

impl GcArgs {
    /// Whether disk is to be freed.
    pub fn frees(&self) -> bool {
        !self.dry_run
    }
}

/// Removes what is not in use.
pub async fn gc(context: &mut Context, args: GcArgs) -> Result<ExitCode> {
    let GcArgs { dry_run, builds } = args;
    let collected = collect(Wish { dry_run, builds }, &context.paths, &mut context.store)?;
    for why in collected.kept {
        say(&format!("note: {why}"));
    }
    let waste = collected.waste;
    let total = waste.iter().map(|item| item.bytes).sum();
    if context.json {
        print_json(&serde_json::json!({ "v": 1, "dry_run": dry_run, "bytes": total, "items": waste }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let verb = if dry_run { "would remove" } else { "removed" };
    for item in &waste {
        print(&format!("{verb} {} ({}): {}", item.what, item.why, bytes(item.bytes)))?;
    }
    print(&format!("{verb} {} in all", bytes(total)))?;
    Ok(ExitCode::SUCCESS)
}
