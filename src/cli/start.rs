//! `mvm start`, and what an app does that is run by itself.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, anyhow};
use clap::{Args, CommandFactory, FromArgMatches, Parser, ValueHint};
use comfy_table::{Table, presets};
use tokio::signal::unix::{SignalKind, signal};

use super::context::{Context, print, print_json, say};
use super::logs::Console;
use super::options::RuntimeArgs;
use super::{in_runtime, task};
use crate::event::TaskKind;
use crate::event::fault::shown;
use crate::event::words::bytes;
use crate::image::bake::{App, Manifest, Settings};
use crate::run::app::{self, StartRequest};
use crate::run::{Running, STOP_DEADLINE};
use crate::vm::lifecycle;
use crate::vm::shim::protocol::Word;
use crate::vm::spec::{PortMap, VmName};

const EXAMPLES: &str = "\
Examples:
  mvm start web.elf                         boots it; prints its name
  mvm start web.elf --cpus 2 --memory 512M -p 9090:80
  mvm start web.elf --volume ./data:/srv/data --config prod.toml
  mvm start web.elf --attach                stay with it; ^C ends it
  mvm start web.elf --info                  what is in it

An app is what `mvm build` makes of an Mvmfile.toml: one file, which runs by itself as well
(`./web.elf`). Its digests are checked before anything of it runs. Flags go over --config,
and both over what the Mvmfile said.";

/// How to start an app.
#[derive(Debug, Args)]
#[command(mut_arg("config", |arg| arg.help("Configuration file, with the keys of an `mvm.toml`")))]
struct HowArgs {
    #[command(flatten)]
    runtime: RuntimeArgs,
    /// The VM's name [default: the app's, numbered while it is taken]
    #[arg(long, allow_hyphen_values = true)]
    name: Option<VmName>,
    /// Boot, even where a ready snapshot could be restored
    #[arg(long)]
    cold: bool,
    /// Start nothing: show what is in the app
    #[arg(long)]
    info: bool,
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct StartArgs {
    /// The app
    #[arg(value_hint = ValueHint::FilePath)]
    elf: PathBuf,
    #[command(flatten)]
    how: HowArgs,
    /// Stay with it and show its console; the VM ends with this command and leaves nothing
    #[arg(short, long)]
    attach: bool,
    /// Leave nothing of the VM once it is over
    #[arg(long)]
    rm: bool,
}

/// Boots an app.
pub async fn start(context: &mut Context, args: StartArgs) -> Result<ExitCode> {
    let app = App::open(&args.elf)?;
    run(context, app, args.how, args.attach, args.rm).await
}

/// The command line of an app that is run by itself.
#[derive(Debug, Parser)]
#[command(disable_version_flag = true)]
struct Alone {
    #[command(flatten)]
    how: HowArgs,
    /// Start nothing: remove what earlier starts have unpacked on this machine
    #[arg(long, conflicts_with = "info")]
    forget: bool,
    /// Plain lines instead of a live view (chosen by itself without a terminal or with CI set)
    #[arg(long)]
    no_tui: bool,
    /// Machine-readable output
    #[arg(long)]
    json: bool,
    /// Show every line as it comes
    #[arg(long)]
    verbose: bool,
}

/// Runs an app whose launcher this program is.
pub fn alone(app: App) -> Result<ExitCode> {
    let Manifest { name, base, settings, .. } = &app.manifest;
    let ports = match settings.ports.as_slice() {
        [] => "nothing".to_string(),
        ports => ports.join(", "),
    };
    let about = format!("{name}: a microVM in one file, from {base}. It publishes {ports} (HOST:GUEST).");
    let file = app.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let examples = format!(
        "Examples:\n  ./{file}                       until ^C; its console is shown\n  ./{file} -p 9090:80 --mem 512M\n  ./{file} --info                what is in it\n  ./{file} --forget              frees the disk that earlier starts have filled\n\nThe VM ends with this command. It takes QEMU, or Firecracker and KVM, on this machine (Debian: qemu-system-x86, e2fsprogs)."
    );
    let command = Alone::command().bin_name(file).about(about).after_help(examples);
    let alone = Alone::from_arg_matches(&command.get_matches())?;
    in_runtime(async {
        let mut context = Context::open(alone.no_tui, alone.json, alone.verbose, alone.forget)?;
        if alone.forget {
            return forget(&mut context, &app);
        }
        run(&mut context, app, alone.how, true, false).await
    })
}

fn forget(context: &mut Context, app: &App) -> Result<ExitCode> {
    let path = app.path.display();
    let in_use =
        || format!("`{path}` is in use\nhelp: end its VMs, or what is being built or started, first");
    let freed = app::forget(app, &context.paths, &mut context.store)?.with_context(in_use)?;
    match context.json {
        true => print_json(&serde_json::json!({ "v": 1, "bytes": freed }))?,
        false => print(&format!("removed {}", bytes(freed)))?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn run(context: &mut Context, app: App, how: HowArgs, attach: bool, rm: bool) -> Result<ExitCode> {
    if how.info {
        match context.json {
            true => print_json(&app.manifest)?,
            false => print(&info(&app.manifest).to_string())?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let config = how.runtime.over(None)?;
    let title = app.path.display().to_string();
    let request = StartRequest { app, config, name: how.name, remove: attach || rm, cold: how.cold };
    context.stdout_taken = attach;
    let running = task::run(context, TaskKind::Run, title, async |paths, store, sink, cancel| {
        Ok(app::start(&request, paths, store, sink, cancel).await?)
    })
    .await?;
    for PortMap { host, guest } in &running.ports {
        if !context.json {
            say(&format!("port {guest} of the guest is {host}"));
        }
    }
    if attach {
        return attached(context, running).await;
    }
    let name = running.starting.name.clone();
    running.starting.detach().await?;
    if !context.json {
        print(name.as_str())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is in an app, for people.
fn info(manifest: &Manifest) -> Table {
    let Manifest { name, base, mvm, arch, created, settings, parts, .. } = manifest;
    let Settings { cpus, memory, disk, ports } = settings;
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    let mut row = |word: &str, text: &str| {
        table.add_row([word, &shown(text)]);
    };
    row("name", name);
    row("base", base);
    row("made", &format!("{created:.0} by mvm {mvm}, for {arch}"));
    for (word, amount) in [("cpus", cpus), ("memory", memory), ("disk", disk)] {
        row(word, amount.as_deref().unwrap_or("as usual"));
    }
    row("ports", if ports.is_empty() { "none".into() } else { ports.join(", ") }.as_str());
    for part in parts {
        row(&part.name, &format!("{}, unpacked {}", bytes(part.length), bytes(part.size)));
    }
    table
}

/// Shows the VM's console until it is over, or somebody asks for its end.
async fn attached(context: &mut Context, mut running: Running) -> Result<ExitCode> {
    let id = running.starting.id.clone();
    let mut console = Console::open(context, &id)?;
    let [mut interrupt, mut terminate, mut hangup] =
        [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?];
    let over = async {
        loop {
            match running.starting.next().await {
                Some(Word::Ended) => return Ok(()),
                Some(Word::Failed { error, .. }) => return Err(anyhow!(error)),
                Some(_) => {}
                None => {
                    return Err(anyhow!(
                        "the VM's process ended without a word\nhelp: was it killed? start it again"
                    ));
                }
            }
        }
    };
    let follow = async {
        let shown = console.follow().await;
        // How it ended is told by its process.
        if shown.is_ok() { std::future::pending().await } else { shown }
    };
    let shown = tokio::select! {
        shown = follow => shown,
        over = over => over,
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        _ = hangup.recv() => Ok(()),
    };
    let shown = console.rest().and(shown).and_then(|()| match console.has_panicked() {
        true => Err(anyhow!(
            "the guest's kernel has panicked\nhelp: its last words are above; more memory, `--mem`, may help"
        )),
        false => Ok(()),
    });
    if let Some(vm) = context.store.vm(&id)? {
        tokio::select! {
            stopped = lifecycle::stop(&context.paths, &mut context.store, &vm, Some(STOP_DEADLINE)) => drop(stopped?),
            // Again: the VM ends with this process.
            _ = interrupt.recv() => {}
        }
    }
    drop(running);
    shown.map(|()| ExitCode::SUCCESS)
}
