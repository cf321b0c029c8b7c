//! `mvm run`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::context::{Context, print};
use super::exec::{self, Wish};
use super::options::{BuilderArgs, FlakeArgs, RuntimeArgs, WatchArgs};
use super::watch::Session;
use super::{machine, task, vm};
use crate::event::words::duration;
use crate::event::{Level, TaskKind};
use crate::host::setup::SetupOptions;
use crate::image::flake::FlakeRef;
use crate::image::watch::Change;
use crate::run::replace::replace;
use crate::run::watch::triggered;
use crate::run::{self, RunRequest, Running, STOP_DEADLINE};
use crate::store::vms::VmRow;
use crate::vm::lifecycle;
use crate::vm::shim::client;
use crate::vm::spec::{PortMap, StartedBy, VmName};
use crate::vm::ssh::Guest;

const EXAMPLES: &str = "\
Examples:
  mvm run --setup --flake nix/examples/hello -- uname -a
  mvm run --flake .                       build, boot, open ssh; the VM ends with it
  mvm run --flake . --detach -p 8080:80   leave it running; prints its name
  mvm run --flake . --watch -p 8080:80    replace it with each change, until ^C
  mvm run --flake . -v ./data:/srv/data -- ls /srv/data

The command is run as it stands, without a shell; its exit code is mvm's.
Settings come from the `mvm.toml` beside the flake (or --config FILE): cpus, memory,
disk, kernel_args, ports, volumes, network, egress, hypervisor, boot_timeout_secs.
Flags go over it; -p and -v replace what it says of the same guest port or path. Below it
is what `mvm-profiles.toml` says of role and profile (mvm build --help).";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RunArgs {
    #[command(flatten)]
    flake: FlakeArgs,
    #[command(flatten)]
    runtime: RuntimeArgs,
    #[command(flatten)]
    builder: BuilderArgs,
    #[command(flatten)]
    watch: WatchArgs,
    /// Install what is missing first
    #[arg(long)]
    setup: bool,
    /// Leave the VM running; its name is printed
    #[arg(short, long, conflicts_with_all = ["command", "watch"])]
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
    #[arg(last = true, value_name = "CMD", conflicts_with = "watch")]
    command: Vec<String>,
}

/// Builds, boots, and opens a session or runs a command.
pub async fn run(context: &mut Context, args: RunArgs) -> Result<ExitCode> {
    // Wrong words are said before anything is installed.
    let parsed = args.flake.parse()?;
    args.runtime.config(&args.flake)?;
    args.builder.wish_for(&args.flake)?;
    context.stdout_taken = !args.detach && !args.watch.watch;
    if args.setup {
        machine::prepare(context, SetupOptions::usual()).await?;
    }
    if args.watch.watch {
        return watch(context, &args, &parsed).await;
    }
    let flake = args.flake.flake.clone();
    let request = request(context, &args).await?;
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

async fn request(context: &Context, args: &RunArgs) -> Result<RunRequest> {
    Ok(RunRequest {
        config: args.runtime.config(&args.flake)?,
        build: args.flake.request(&context.paths, &[]).await?,
        builder: args.builder.wish_for(&args.flake)?,
        name: args.name.clone(),
        remove: args.rm,
        cold: args.cold,
        started_by: StartedBy::Run,
    })
}

/// Runs a VM, and replaces it with each change, until ^C.
async fn watch(context: &mut Context, args: &RunArgs, flake: &FlakeRef) -> Result<ExitCode> {
    let mut session = Session::begin(context, flake, args.watch.manner()).await?;
    let mut current: Option<Running> = None;
    loop {
        let old = current.as_ref().map(|running| running.starting.id.clone());
        let since = session.since();
        let work = session.work(async |change, cancel| once(context, args, old, change, cancel).await);
        if let Some(Some(running)) = work.await {
            if let Some(since) = since {
                let text = format!("in its place {} after the change", duration(since.elapsed()));
                session.note(context, Level::Info, text);
            }
            for PortMap { host, guest } in running.ports.iter().filter(|_| current.is_none()) {
                session.note(context, Level::Info, format!("port {guest} of the guest is {host}"));
            }
            current = Some(running);
        }
        let over = async {
            match &mut current {
                Some(running) => while running.starting.next().await.is_some() {},
                None => std::future::pending().await,
            }
        };
        let changed = tokio::select! {
            changed = session.change(context) => changed,
            () = over => {
                session.note(context, Level::Warning, "the VM has ended; the next change starts another".into());
                current = None;
                session.change(context).await
            }
        };
        if let Err(error) = changed {
            if let Some(running) = current
                && let Some(vm) = context.store.vm(&running.starting.id)?
            {
                let stop = lifecycle::stop(&context.paths, &mut context.store, &vm, Some(STOP_DEADLINE));
                session.bound(async { Ok(stop.await?) }).await?;
            }
            return Err(error);
        }
    }
}

/// Builds and boots, in the place of the `old` VM if there is one. None where that is like it.
async fn once(
    context: &mut Context,
    args: &RunArgs,
    old: Option<String>,
    change: Option<Change>,
    cancel: &CancellationToken,
) -> Result<Option<Running>> {
    let request = request(context, args).await?;
    let flake = args.flake.flake.clone();
    task::run_until(context, cancel, TaskKind::Run, flake, async |paths, store, sink, cancel| {
        change.iter().for_each(|change| sink.send(triggered(change)));
        let old = old.map(|id| store.vm(&id)).transpose()?.flatten();
        Ok(match old {
            Some(old) => replace(&request, &old, paths, store, sink, cancel).await?,
            None => Some(run::run(&request, paths, store, sink, cancel).await?),
        })
    })
    .await
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
