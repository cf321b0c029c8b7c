//! The words: one file per command family, calling the rooms below.

pub mod report;

mod agent;
mod build;
mod cluster;
mod context;
mod coordinator;
mod dev;
mod exec;
mod fleet;
mod gc;
mod init;
mod log;
mod logs;
mod machine;
mod offers;
mod options;
mod run;
mod shell;
mod snapshot;
mod start;
mod status;
mod stdio;
mod task;
mod tui;
mod vm;
mod watch;

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};

use context::Context;

use crate::host::chamber::{BROKEN, COMPLAINT};
use crate::host::kvm;
use crate::image::bake::{App, BakeError};

const EXAMPLES: &str = "\
Examples:
  mvm init web --template gateway
  mvm run --setup --flake nix/examples/hello -- uname -a
  mvm dev
  mvm run --flake . --detach -p 8080:8080
  mvm ssh hello
  mvm status

State lives in $MVM_STATE_DIR, else /var/lib/mvm when it can be written, else
$XDG_STATE_HOME/mvm. Exit codes: 0 done, 1 failed, 2 wrong usage, 124 timed out,
130 interrupted; `run -- CMD`, `ssh -- CMD` and `exec -- CMD` exit as CMD does.";

/// Build a Nix flake into a microVM, boot it, and work in it.
#[derive(Debug, Parser)]
#[command(name = "mvm", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Cli {
    /// Plain lines instead of a live view (chosen by itself without a terminal or with CI set)
    #[arg(long, global = true)]
    no_tui: bool,
    /// Machine-readable output: events or lists as JSON on standard output
    #[arg(long, global = true)]
    json: bool,
    /// Show builders' and Nix's own lines as they come
    #[arg(long, global = true)]
    verbose: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a flake, or an Mvmfile, to begin with
    Init(init::InitArgs),
    /// Build a flake into kernel, initrd and root file system, or an Mvmfile.toml into one executable file
    Build(build::BuildArgs),
    /// Build a flake, boot it, and open ssh or run a command in it
    Run(run::RunArgs),
    /// Open the VM to work in, with all that takes: set up, build, boot, ssh
    Dev(dev::DevArgs),
    /// Open a shell with Nix, Firecracker and mvm on PATH, or run a command there
    Shell(shell::ShellArgs),
    /// Make everything ready without asking: set up, build the dev VM's image
    Bootstrap(dev::BootstrapArgs),
    /// Boot an app: a file that `mvm build` made of an Mvmfile.toml
    Start(start::StartArgs),
    /// Shut VMs down
    Stop(vm::StopArgs),
    /// Show versions, VMs and builds
    #[command(visible_alias = "ps")]
    Status(status::StatusArgs),
    /// Open ssh to a VM, or run a command over it
    Ssh(vm::SshArgs),
    /// Run a command in a VM through the guest agent (quicker than ssh)
    Exec(vm::ExecArgs),
    /// Show the log of a build, and of each derivation in it
    Log(log::LogArgs),
    /// Show a VM's console
    Logs(logs::LogsArgs),
    /// Forward a local port to a VM until ^C
    Forward(vm::ForwardArgs),
    /// Save VMs to disk, go on from there, and see what is kept
    Snapshot(snapshot::SnapshotArgs),
    /// Make and change tenants, with their quotas, networks and secrets
    Tenant(fleet::tenant::TenantArgs),
    /// Make, build and scale pools of instances
    Pool(fleet::pool::PoolArgs),
    /// See and operate instances
    Instance(fleet::instance::InstanceArgs),
    /// See to the tenants' networks
    Net(fleet::net::NetArgs),
    /// Show this machine as a node of a fleet
    Node(fleet::node::NodeArgs),
    /// Remove VMs with their disks and logs
    Destroy(vm::DestroyArgs),
    /// Remove what is not in use: ended VMs, old builds, old records
    Gc(gc::GcArgs),
    /// Serve a fleet of VMs to peers of its cluster, and see to their certificates
    Agent(agent::AgentArgs),
    /// Serve the front door, whose routes wake instances, and see what they do
    Coordinator(coordinator::CoordinatorArgs),
    /// Say what this machine has and lacks
    Doctor,
    /// Install what is missing and prepare kernel and tools
    Setup(machine::SetupArgs),
    /// Open the full-screen console
    Tui(tui::TuiArgs),
    /// Print a completion script
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, of mvm or of one command
    Man {
        /// The command, e.g. `run`
        command: Option<String>,
    },
    /// Runs one VM (started by `mvm run`)
    #[command(hide = true)]
    Shim(vm::ShimArgs),
    /// Runs the least of guests on /dev/kvm (started by mvm, which may end it)
    #[command(hide = true)]
    ProbeKvm,
    /// Runs a program apart from this machine (started by `mvm build`)
    #[command(hide = true)]
    Chamber(crate::host::chamber::Chamber),
    /// Connects standard input and output to a port of a VM (used by ssh)
    #[command(hide = true)]
    Proxy(vm::ProxyArgs),
    /// Connects standard input and output to a TCP address (used by the console)
    #[command(hide = true)]
    Connect(stdio::ConnectArgs),
}

impl Cli {
    /// Whether the command has to do with this machine's Linux: completions and manuals do not.
    pub fn is_for_linux(&self) -> bool {
        !matches!(self.command, Command::Completions { .. } | Command::Man { .. })
    }
}

/// Runs the command.
pub fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Shim(args) => return vm::shim(&args),
        Command::ProbeKvm => {
            kvm::try_guest()?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Chamber(chamber) => {
            let code = chamber.run().unwrap_or_else(|error| {
                eprintln!("{COMPLAINT}{error}");
                BROKEN
            });
            return Ok(task::exit_code(code));
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "mvm", &mut std::io::stdout());
            return Ok(ExitCode::SUCCESS);
        }
        Command::Man { command } => {
            man(command.as_deref())?;
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    in_runtime(dispatch(cli))
}

/// Runs the app whose launcher this program is, unless mvm itself has started it for one of its purposes.
pub fn run_app(app: Result<App, BakeError>) -> Option<Result<ExitCode>> {
    let word = std::env::args_os().nth(1).unwrap_or_default();
    let is_internal = Cli::command().find_subcommand(&word).is_some_and(clap::Command::is_hide_set);
    (!is_internal).then(|| start::alone(app?))
}

fn in_runtime(work: impl Future<Output = Result<ExitCode>>) -> Result<ExitCode> {
    // One thread: children end with the thread that started them.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(work);
    // A blocked read of standard input must not hold up the exit.
    runtime.shutdown_background();
    code
}

/// Prints a manual page.
fn man(name: Option<&str>) -> Result<()> {
    let mut all = Cli::command();
    // Only a built command knows its whole usage.
    all.build();
    let page = match name {
        None => all,
        Some(name) => {
            let found = all.find_subcommand(name).filter(|command| !command.is_hide_set());
            let found = found.ok_or_else(|| {
                report::Usage(format!("there is no command `{name}`\nhelp: `mvm --help` lists them"))
            })?;
            found.clone()
        }
    };
    Ok(clap_mangen::Man::new(page).render(&mut std::io::stdout())?)
}

async fn dispatch(cli: Cli) -> Result<ExitCode> {
    let command = match cli.command {
        // A recording is played without any state.
        Command::Tui(args) if args.is_demo() => {
            return tui::demo(args, cli.no_tui, cli.json, cli.verbose).await;
        }
        // It leaves the state alone.
        Command::Shell(args) => return shell::shell(args).await,
        Command::Connect(args) => return stdio::connect(args).await,
        Command::Init(args) => return init::init(&args, cli.json),
        command => command,
    };
    let frees = match &command {
        Command::Gc(args) => args.frees(),
        Command::Snapshot(args) => args.frees(),
        command => matches!(command, Command::Stop(_) | Command::Destroy(_)),
    };
    let mut context = Context::open(cli.no_tui, cli.json, cli.verbose, frees)?;
    match command {
        Command::Build(args) => build::build(&mut context, args).await,
        Command::Run(args) => run::run(&mut context, args).await,
        Command::Dev(args) => dev::dev(&mut context, args).await,
        Command::Bootstrap(args) => dev::bootstrap(&mut context, args).await,
        Command::Start(args) => start::start(&mut context, args).await,
        Command::Stop(args) => vm::stop(&mut context, args).await,
        Command::Status(args) => status::status(&mut context, args).await,
        Command::Ssh(args) => vm::ssh(&mut context, args).await,
        Command::Exec(args) => vm::exec(&mut context, args).await,
        Command::Log(args) => log::log(&mut context, args).await,
        Command::Logs(args) => logs::logs(&mut context, args).await,
        Command::Forward(args) => vm::forward(&mut context, args).await,
        Command::Destroy(args) => vm::destroy(&mut context, args).await,
        Command::Tenant(args) => fleet::tenant::tenant(&mut context, args).await,
        Command::Pool(args) => fleet::pool::pool(&mut context, args).await,
        Command::Instance(args) => fleet::instance::instance(&mut context, args).await,
        Command::Node(args) => fleet::node::node(&context, args).await,
        Command::Snapshot(args) => snapshot::snapshot(&mut context, args).await,
        Command::Gc(args) => gc::gc(&mut context, args).await,
        Command::Agent(args) => agent::agent(&mut context, args).await,
        Command::Coordinator(args) => coordinator::coordinator(&mut context, args).await,
        Command::Net(args) => fleet::net::net(&context, args).await,
        Command::Doctor => machine::doctor(&context).await,
        Command::Setup(args) => machine::setup(&mut context, args).await,
        Command::Tui(args) => tui::tui(context, args).await,
        Command::Proxy(args) => vm::proxy(&context, args).await,
        Command::Shell(_)
        | Command::Connect(_)
        | Command::Init(_)
        | Command::Shim(_)
        | Command::Chamber(_)
        | Command::ProbeKvm
        | Command::Completions { .. }
        | Command::Man { .. } => Ok(ExitCode::SUCCESS),
    }
}
