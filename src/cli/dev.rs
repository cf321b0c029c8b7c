//! `mvm dev` and `mvm bootstrap`: from nothing to a guest's prompt.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

use super::context::{Context, print, print_json, say};
use super::options::RuntimeArgs;
use super::{cluster, machine, run, task};
use crate::event::TaskKind;
use crate::host::doctor::{self, Status};
use crate::host::setup::SetupOptions;
use crate::image::build;
use crate::run::dev;
use crate::vm::lifecycle;

const EXAMPLES: &str = "\
Examples:
  mvm dev                            a shell in the dev VM, from nothing if need be
  mvm dev -- uname -a                a command in it instead
  mvm dev --recreate --mem 2G -v ~/src:/src -p 8080:8080
  mvm stop dev                       `mvm dev` boots it again, with what it wrote
  mvm snapshot create dev --stop     `mvm dev` goes on from there
  mvm dev cluster --help             agent, coordinator and guests on this machine

Installs what is missing, boots the VM named `dev` unless it runs, and opens ssh. It stays
when the session ends. What it is made of is said when it is made: --recreate makes it anew.";

// What is to run comes after `--`: no command of it is taken for a subcommand.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct DevArgs {
    #[command(subcommand)]
    beside: Option<DevCommand>,
    /// Build its image again, and boot a new VM in the place of the old one and its disk
    #[arg(long)]
    recreate: bool,
    #[command(flatten)]
    runtime: RuntimeArgs,
    /// User for the command or the session
    #[arg(long, short = 'l')]
    user: Option<String>,
    /// Command to run in the guest
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum DevCommand {
    /// Run agent and coordinator on this machine, as on a production host
    Cluster(cluster::ClusterArgs),
}

/// Opens the dev VM, with all that takes.
pub async fn dev(context: &mut Context, args: DevArgs) -> Result<ExitCode> {
    if let Some(DevCommand::Cluster(args)) = args.beside {
        return cluster::cluster(context, args).await;
    }
    context.stdout_taken = true;
    let asked = args.runtime.is_any();
    dev::wish(&context.paths, false)?;
    // Wrong words are said before anything is installed.
    let config = args.runtime.over(Some(&context.paths.dev_flake()))?;
    let lock = dev::lock(&context.paths, || say("waiting for another `mvm dev`")).await?;
    if args.recreate {
        dev::remove(&context.paths, &mut context.store).await?;
    }
    let had = dev::find(&context.paths, &context.store)?.is_some();
    if had && asked {
        say("note: the dev VM is there already, and stays what it was made of; --recreate makes it anew");
    }
    let vm = match dev::running(&context.paths, &mut context.store).await? {
        Some(vm) => vm,
        None => {
            machine::prepare(context, SetupOptions::usual()).await?;
            let title = "the dev VM".to_string();
            let running = task::run(context, TaskKind::Run, title, async |paths, store, sink, cancel| {
                Ok(dev::start(config, args.recreate, paths, store, sink, cancel).await?)
            })
            .await;
            if had && running.is_err() {
                say("note: `mvm dev --recreate` makes a new one in its place, without what it wrote");
            }
            let running = running?;
            let id = running.starting.id.clone();
            running.starting.detach().await?;
            lifecycle::find_running(&context.store, &id)?
        }
    };
    drop(lock);
    run::enter(context, &vm, args.user, args.command).await
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mvm bootstrap\n\nDoes what `mvm setup --yes` does, builds the image of `mvm dev`, and says in short what\n`mvm doctor` says. Nothing is done twice."
)]
pub struct BootstrapArgs {}

/// Makes everything ready, without asking.
pub async fn bootstrap(context: &mut Context, _: BootstrapArgs) -> Result<ExitCode> {
    machine::prepare(context, SetupOptions::usual()).await?;
    image(context, false).await?;
    let report = doctor::doctor(&context.paths).await;
    let code = if report.is_ready() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if context.json {
        print_json(&report)?;
        return Ok(code);
    }
    for check in report.checks.iter().filter(|check| check.status != Status::Ok) {
        say(&format!("{}: {}\n  {}", check.name, check.found, check.help));
    }
    print(match report.is_ready() {
        true => "ready: `mvm dev` opens a shell in a VM, `mvm run --flake DIR` boots a flake",
        false => "not ready: `mvm doctor` says more",
    })?;
    Ok(code)
}

/// Builds the dev VM's image, the default one of this machine; from scratch if wished.
pub async fn image(context: &mut Context, scratch: bool) -> Result<()> {
    let title = "the dev VM's image".to_string();
    task::run(context, TaskKind::Build, title, async |paths, store, sink, cancel| {
        let request = dev::wish(paths, scratch)?.request(paths).await?;
        Ok(build::build(&request, paths, store, sink, cancel).await?)
    })
    .await?;
    Ok(())
}
