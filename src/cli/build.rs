//! `mvm build`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::context::{Context, print};
use super::options::FlakeArgs;
use super::task;
use crate::event::TaskKind;
use crate::image;

const EXAMPLES: &str = "\
Examples:
  mvm build --flake nix/examples/hello
  mvm build --flake . --profile dev --role worker
  mvm build --flake github:owner/repo#guest -- --option cores 2

The directory with the artifacts is printed on standard output. With --json the
events are, and the last of them names it.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct BuildArgs {
    #[command(flatten)]
    flake: FlakeArgs,
    /// Arguments for Nix
    #[arg(last = true, value_name = "NIX ARGS")]
    nix_args: Vec<String>,
}

/// Builds and prints the artifacts' directory.
pub async fn build(context: &mut Context, args: BuildArgs) -> Result<ExitCode> {
    let request = args.flake.request(&context.paths, &args.nix_args).await?;
    let title = args.flake.flake.clone();
    let artifacts = task::run(context, TaskKind::Build, title, async |paths, store, sink, cancel| {
        Ok(image::build::build(&request, paths, store, sink, cancel).await?)
    })
    .await?;
    if !context.json {
        print(&artifacts.dir.display().to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}
