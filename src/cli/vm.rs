//! `mvm stop`, `ssh`, `exec`, `forward`, `destroy`, and the hidden `shim` and `proxy`.

use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use super::context::{Context, print, say};
use super::exec::{self, Wish};
use super::report::{Interrupted, Usage};
use super::stdio;
use super::task::exit_code;
use crate::fleet::vm::refuse_instance;
use crate::host::child;
use crate::host::paths::Paths;
use crate::store::vms::VmRow;
use crate::vm::forward::Forward;
use crate::vm::lifecycle;
use crate::vm::shim::{self, client};
use crate::vm::spec::PortMap;
use crate::vm::ssh::{self as vm_ssh, Guest};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  mvm stop hello\n  mvm stop --all\n  mvm stop --timeout 30 db")]
pub struct StopArgs {
    /// VMs, by name or id
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    names: Vec<String>,
    /// All running VMs
    #[arg(long)]
    all: bool,
    /// Seconds the guest has to end by itself
    #[arg(long, default_value_t = 10, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(0..=86400))]
    timeout: u64,
    /// Do not ask the guest
    #[arg(long)]
    kill: bool,
}

/// Ends VMs.
pub async fn stop(context: &mut Context, args: StopArgs) -> Result<ExitCode> {
    let vms: Vec<VmRow> = match args.all {
        true => context.store.vms()?.into_iter().filter(|vm| vm.state.is_live()).collect(),
        false => args
            .names
            .iter()
            .map(|name| lifecycle::find_running(&context.store, name))
            .collect::<Result<_, _>>()?,
    };
    let deadline = (!args.kill).then(|| Duration::from_secs(args.timeout));
    // All guests are asked at once; then the end of each is waited for.
    for vm in &vms {
        let socket = context.paths.shim_socket(&vm.id);
        if let Some(deadline) = deadline {
            tokio::spawn(async move { client::stop(&socket, deadline).await });
        }
    }
    for vm in &vms {
        lifecycle::stop(&context.paths, &mut context.store, vm, deadline).await?;
        if !context.json {
            say(&format!("stopped {}", vm.name));
        }
    }
    if context.json {
        super::context::print_json(&vms.iter().map(|vm| &vm.name).collect::<Vec<_>>())?;
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  mvm ssh hello\n  mvm ssh hello --user root -- cat /etc/os-release")]
pub struct SshArgs {
    /// The VM, by name or id
    name: String,
    /// User in the guest
    #[arg(long, short = 'l')]
    user: Option<String>,
    /// Command to run instead of a session
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Opens ssh.
pub async fn ssh(context: &mut Context, args: SshArgs) -> Result<ExitCode> {
    let vm = lifecycle::find_running(&context.store, &args.name)?;
    open_ssh(context, &vm, args.user.as_deref(), &args.command).await
}

/// Runs the system's ssh to a VM and returns its exit code.
pub async fn open_ssh(
    context: &Context,
    vm: &VmRow,
    user: Option<&str>,
    command: &[String],
) -> Result<ExitCode> {
    let (program, arguments) = vm_ssh::command_line(&context.paths, &vm.id, guest(vm), user, command)?;
    // The session's ^C is the guest's: ssh has the terminal, mvm only waits.
    let _interrupts = signal(SignalKind::interrupt())?;
    let [mut terminate, mut hangup] = [signal(SignalKind::terminate())?, signal(SignalKind::hangup())?];
    let mut ssh = Command::new(program);
    ssh.args(arguments).current_dir(context.paths.state()).kill_on_drop(true);
    let mut ssh = child::leash(&mut ssh).spawn()?;
    tokio::select! {
        status = ssh.wait() => return Ok(exit_code(status?.code().unwrap_or(255))),
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
    // Not killed, so that it leaves the terminal as it was. It may just have ended by itself.
    let _ = ssh.id().map(|pid| kill(Pid::from_raw(pid as i32), Signal::SIGHUP));
    ssh.wait().await?;
    Err(Interrupted.into())
}

/// What is known of the VM's guest.
pub fn guest(vm: &VmRow) -> Guest {
    lifecycle::spec_of(vm).map_or(Guest::Personalised, |spec| vm_ssh::guest(&spec.build_dir))
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mvm exec hello -- ps\n  mvm exec hello --user root --env A=1 -- sh -c 'echo $A'"
)]
pub struct ExecArgs {
    /// The VM, by name or id
    name: String,
    /// User in the guest [default: mvm, where there is one]
    #[arg(long)]
    user: Option<String>,
    /// Directory in the guest
    #[arg(long, value_name = "DIR")]
    workdir: Option<String>,
    /// Set a variable; may be repeated
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = parse_variable)]
    env: Vec<(String, String)>,
    /// No terminal for the command, even when there is one
    #[arg(long, short = 'T')]
    no_tty: bool,
    /// Program and arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

fn parse_variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("write NAME=VALUE".into()),
    }
}

/// Runs a command through the guest agent.
pub async fn exec(context: &mut Context, args: ExecArgs) -> Result<ExitCode> {
    let vm = lifecycle::find_running(&context.store, &args.name)?;
    let agent = client::agent(&context.paths.shim_socket(&vm.id)).await?;
    let tty = !args.no_tty && exec::is_terminal();
    let wish = Wish { command: args.command, user: args.user, dir: args.workdir, env: args.env, tty };
    exec::exec(&agent, wish).await
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mvm forward hello 8080:80\n  mvm forward hello 0:5432     the system chooses the port and mvm prints it"
)]
pub struct ForwardArgs {
    /// The VM, by name or id
    name: String,
    /// Local and guest port
    #[arg(required = true, value_name = "[ADDR:]HOST:GUEST")]
    ports: Vec<PortMap>,
}

/// Forwards ports until interrupted.
pub async fn forward(context: &mut Context, args: ForwardArgs) -> Result<ExitCode> {
    let vm = lifecycle::find_running(&context.store, &args.name)?;
    let socket = context.paths.shim_socket(&vm.id);
    for map in &args.ports {
        let forward = Forward::listen(map, &socket)?;
        print(&format!("{} -> {}:{}", forward.map.host, vm.name, forward.map.guest))?;
        tokio::spawn(forward.serve(|error| say(&format!("warning: {error}"))));
    }
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => Ok(ExitCode::SUCCESS),
        _ = terminate.recv() => Ok(ExitCode::SUCCESS),
        () = lifecycle::over(&context.paths, &vm.id, lifecycle::LATER) => bail!("the VM `{}` has ended\nhelp: `mvm logs {}` shows its console", vm.name, vm.name),
    }
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  mvm destroy hello\n  mvm destroy --all --force")]
pub struct DestroyArgs {
    /// VMs, by name or id
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    names: Vec<String>,
    /// All VMs, running or not
    #[arg(long)]
    all: bool,
    /// Do not ask
    #[arg(long, short)]
    force: bool,
}

/// Removes VMs, ending those that run.
pub async fn destroy(context: &mut Context, args: DestroyArgs) -> Result<ExitCode> {
    let vms: Vec<VmRow> = match args.all {
        true => context.store.vms()?,
        false => {
            let found = |name: &String| {
                let vm = lifecycle::find(&context.store, name)?;
                refuse_instance(&context.store, &vm, "destroy")?;
                Ok(vm)
            };
            args.names.iter().map(found).collect::<Result<_>>()?
        }
    };
    let names: Vec<_> =
        vms.iter().map(|vm| format!("{} ({}, {})", vm.name, vm.id, vm.state.as_str())).collect();
    if !vms.is_empty()
        && !args.force
        && !confirm(&format!("Remove {} with disks and logs?", names.join(", ")), "--force")?
    {
        return Ok(ExitCode::FAILURE);
    }
    for vm in &vms {
        if vm.state.is_live() {
            lifecycle::stop(&context.paths, &mut context.store, vm, None).await?;
        }
        lifecycle::remove(&context.paths, &mut context.store, vm)?;
        say(&format!("removed {} ({})", vm.name, vm.id));
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks on the terminal; without one it is an error, so that nothing goes unasked.
pub fn confirm(question: &str, flag: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(Usage(format!("{question} There is no terminal to answer on\nhelp: add {flag}")).into());
    }
    write!(std::io::stderr(), "{question} [y/N] ")?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[derive(Debug, Args)]
pub struct ShimArgs {
    id: String,
    /// For people who look at the process list
    _name: String,
    state: PathBuf,
    runtime: PathBuf,
}

/// Runs one VM until it is over.
pub fn shim(args: &ShimArgs) -> Result<ExitCode> {
    let paths = Paths::at(args.state.clone(), args.runtime.clone())?;
    shim::main(&paths, &args.id)?;
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, Args)]
pub struct ProxyArgs {
    id: String,
    port: u16,
}

/// Connects standard input and output to a guest port.
pub async fn proxy(context: &Context, args: ProxyArgs) -> Result<ExitCode> {
    let guest = client::dial(&context.paths.shim_socket(&args.id), args.port).await?;
    stdio::join(guest).await?;
    Ok(ExitCode::SUCCESS)
}
