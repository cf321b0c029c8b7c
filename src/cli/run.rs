//! `mvm run`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::context::{Context, print};
use super::exec::{self, Wish};
use super::options::{FlakeArgs, RuntimeArgs};
use super::{machine, task, vm};
use crate::event::TaskKind;
use crate::run::{self, RunRequest, STOP_DEADLINE};
use crate::store::vms::VmRow;
use crate::vm::lifecycle;
use crate::vm::shim::client;
use crate::vm::spec::{StartedBy, VmName};
use crate::vm::ssh::Guest;

const EXAMPLES: &str = "\
Examples:
  mvm run --setup --flake nix/examples/hello -- uname -a
  mvm run --flake .                       build, boot, open ssh; the VM ends with it
  mvm run --flake . --detach -p 8080:80   leave it running; prints its name
  mvm run --flake . -v ./data:/srv/data -- ls /srv/data

The command is run as it stands, without a shell; its exit code is mvm's.
Settings come from the `mvm.toml` beside the flake (or --config FILE): cpus, memory,
disk, kernel_args, ports, volumes, network, egress, hypervisor, boot_timeout_secs.
Flags go over it; -p and -v replace what it says of the same guest port or path.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RunArgs {
    #[command(flatten)]
    flake: FlakeArgs,
    #[command(flatten)]
    runtime: RuntimeArgs,
    /// Install what is missing first
    #[arg(long)]
    setup: bool,
    /// Leave the VM running; its name is printed
    #[arg(short, long, conflicts_with = "command")]
    detach: bool,
    /// Leave nothing of the VM once it is over
    #[arg(long)]
    rm: bool,
    /// Boot, even where a ready snapshot could be restored
    #[arg(long)]
    cold: bool,
    /// The VM's name [default: that of the flake's directory, numbered while it is taken]
    #[arg(long, allow_hyphen_values = true)]
    name: Option<VmName>,
    /// User for the command or the session
    #[arg(long)]
    user: Option<String>,
    /// Command to run in the guest
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Builds, boots, and opens a session or runs a command.
pub async fn run(context: &mut Context, args: RunArgs) -> Result<ExitCode> {
    let flake = args.flake.flake.clone();
    // Wrong words are said before anything is installed.
    let parsed = args.flake.parse()?;
    let config = args.runtime.config(&parsed)?;
    context.stdout_taken = !args.detach;
    if args.setup {
        machine::prepare(context, false).await?;
    }
    let build = args.flake.request(&context.paths, &[]).await?;
    let request = RunRequest {
        build,
        config,
        name: args.name,
        remove: args.rm,
        cold: args.cold,
        started_by: StartedBy::Run,
    };
    let running = task::run(context, TaskKind::Run, flake, async |paths, store, sink, cancel| {
        Ok(run::run(&request, paths, store, sink, cancel).await?)
    })
    .await?;
    let id = running.starting.id.clone();
    if args.detach {
        let name = running.starting.name.clone();
        running.starting.detach().await?;
        if !context.json {
            print(name.as_str())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let vm = lifecycle::find_running(&context.store, &id)?;
    let code = enter(context, &vm, args.user, args.command).await;
    // However the command went, the VM was for it alone.
    if let Some(row) = context.store.vm(&id)? {
        lifecycle::stop(&context.paths, &mut context.store, &row, Some(STOP_DEADLINE)).await?;
    }
    drop(running);
    code
}

/// Opens ssh, or runs a command by the quickest way there is.
pub async fn enter(
    context: &Context,
    vm: &VmRow,
    user: Option<String>,
    command: Vec<String>,
) -> Result<ExitCode> {
    if command.is_empty() || vm::guest(vm) == Guest::Unknown {
        return vm::open_ssh(context, vm, user.as_deref(), &command).await;
    }
    let agent = client::agent(&context.paths.shim_socket(&vm.id)).await?;
    exec::exec(&agent, Wish { command, user, tty: exec::is_terminal(), ..Wish::default() }).await
}
