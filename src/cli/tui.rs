//! `mvm tui`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::context::Context;
use crate::console::app::{self, Options};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  mvm tui\n  mvm tui --flake nix/examples/hello")]
pub struct TuiArgs {
    /// The flake to work on
    #[arg(long, value_name = "REF", allow_hyphen_values = true)]
    flake: Option<String>,
    /// Rebuild and replace the VM when its source changes
    #[arg(long, requires = "flake")]
    watch: bool,
}

/// Opens the console.
pub async fn tui(context: Context, args: TuiArgs) -> Result<ExitCode> {
    let options = Options { flake: args.flake, watch: args.watch };
    app::run(context.paths, options).await?;
    Ok(ExitCode::SUCCESS)
}
