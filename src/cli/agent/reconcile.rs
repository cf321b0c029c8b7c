//! `mvm agent reconcile`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clap::Args;
use serde_json::json;

use super::super::context::{Context, print, print_json};
use super::super::fleet::{told, work};
use crate::agent::owner::watch;
use crate::fleet::execute::{self, Activities};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mvm agent reconcile --desired desired.json --dry-run\n  mvm agent reconcile --desired desired.json --prune"
)]
pub struct ReconcileArgs {
    /// File with the desired state, JSON
    #[arg(long, value_name = "FILE")]
    desired: PathBuf,
    /// Remove tenants and pools that it does not name
    #[arg(long)]
    prune: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

/// Runs the command.
pub async fn reconcile(context: &mut Context, args: ReconcileArgs) -> Result<ExitCode> {
    let mut desired = watch::read(&args.desired).map_err(|error| anyhow!(error))?;
    desired.prune_unknown_tenants |= args.prune;
    desired.prune_unknown_pools |= args.prune;
    if args.dry_run {
        let plan = execute::preview(&context.store, &desired, &Activities::new())?;
        match context.json {
            true => print_json(&json!({ "v": 1, "plans": [plan] }))?,
            false => print(&plan.to_string())?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let outcome = work(context, "reconcile".into(), async |work| {
        execute::reconcile(work.paths, &desired, &Activities::new(), work.sink, work.cancel).await
    })
    .await?;
    told(context, &outcome)?;
    Ok(ExitCode::SUCCESS)
}
