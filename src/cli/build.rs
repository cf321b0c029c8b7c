//! `mvm build`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::context::{Context, print};
use super::options::{BuilderArgs, FlakeArgs, WatchArgs};
use super::watch::Session;
use super::{offers, task};
use crate::event::TaskKind;
use crate::image::watch::Change;
use crate::run::builder;
use crate::run::watch::triggered;

const EXAMPLES: &str = "\
Examples:
  mvm build --flake nix/examples/hello
  mvm build --flake . --profile dev --role worker
  mvm build --flake . --builder vm         in a VM that is gone afterwards
  mvm build --flake . --list               what there is to build, and what is built
  mvm build --flake . --watch              again with each change, until ^C
  mvm build --flake . --max-jobs 0 --builders 'ssh://me@far x86_64-linux'
  mvm build --flake . --store ssh-ng://me@far
  mvm build --flake github:owner/repo#guest -- --option cores 2

The directory with the artifacts is printed on standard output. With --json the
events are, and the last of them names it.

Role and profile choose packages.<system>.<ROLE>-<PROFILE>, else <PROFILE>, unless
`mvm-profiles.toml` beside the flake has an entry for the two:

  [[profile]]
  role = \"gateway\"                 # as --role; without it, for builds without one
  name = \"small\"                   # as --profile, likewise
  attribute = \"gateway-minimal\"    # what is built; without it as above
  modules = [\"modules/small.nix\"]  # of what mkGuests { profiles = ./mvm-profiles.toml; } makes it
  cpus = 1                         # and memory, disk: below mvm.toml and flags";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct BuildArgs {
    #[command(flatten)]
    flake: FlakeArgs,
    #[command(flatten)]
    builder: BuilderArgs,
    #[command(flatten)]
    watch: WatchArgs,
    /// Build nothing: show what the flake offers
    #[arg(long, conflicts_with_all = ["watch", "builder", "rebuild", "role", "profile", "nix_args"])]
    list: bool,
    /// Arguments for Nix
    #[arg(last = true, value_name = "NIX ARGS")]
    nix_args: Vec<String>,
}

/// Builds and prints the artifacts' directory.
pub async fn build(context: &mut Context, args: BuildArgs) -> Result<ExitCode> {
    args.builder.wish_for(&args.flake)?;
    if args.list {
        offers::list(context, &args.flake).await?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.watch.watch {
        return watch(context, args).await;
    }
    let cancel = task::on_interrupt();
    once(context, &args, None, &cancel).await?;
    Ok(ExitCode::SUCCESS)
}

async fn watch(context: &mut Context, args: BuildArgs) -> Result<ExitCode> {
    let mut session = Session::begin(context, &args.flake.parse()?, args.watch.manner()).await?;
    loop {
        session.work(async |change, cancel| once(context, &args, change, cancel).await).await;
        session.change(context).await?;
    }
}

async fn once(
    context: &mut Context,
    args: &BuildArgs,
    change: Option<Change>,
    cancel: &CancellationToken,
) -> Result<()> {
    let (builder, title) = (args.builder.wish_for(&args.flake)?, args.flake.flake.clone());
    let request = args.flake.request(&context.paths, &args.nix_args).await?;
    let built =
        task::run_until(context, cancel, TaskKind::Build, title, async |paths, store, sink, cancel| {
            change.iter().for_each(|change| sink.send(triggered(change)));
            Ok(builder::build(&request, builder, paths, store, sink, cancel).await?)
        });
    let artifacts = built.await?;
    match context.json {
        true => Ok(()),
        false => print(&artifacts.dir.display().to_string()),
    }
}
