//! `mvm setup` and `mvm doctor`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::context::{Context, print, print_json, say};
use super::{dev, task, vm};
use crate::event::TaskKind;
use crate::host::doctor::{self, Status};
use crate::host::languages::Language;
use crate::host::setup::{self, SetupOptions};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mvm setup\n  mvm setup --yes --recreate\n  mvm setup --with python       for the template of `mvm init --template python`\n  mvm setup --with mvmfile      for `mvm build` of an Mvmfile.toml\n\nInstalls Debian packages (asking first), unpacks a kernel and lays out the tools that\nimages are made from. Nothing is done twice; what an earlier setup left half-done is mended.\nWith --recreate all of it is laid out anew, and the dev VM's image is built from scratch."
)]
pub struct SetupArgs {
    /// Do not ask before packages are installed
    #[arg(long, short)]
    yes: bool,
    /// Lay out kernel and tools anew, and build the default root file system from scratch
    #[arg(long)]
    recreate: bool,
    /// Make ready for more than flakes of mvm's own take; may be repeated
    #[arg(long, value_enum, value_name = "WHAT")]
    with: Vec<Extra>,
}

/// What not everybody needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Extra {
    /// Python 3 with its standard library, taken from this machine for guests
    Python,
    /// Node, likewise
    Node,
    /// Debian's mmdebstrap, for images from an Mvmfile.toml
    Mvmfile,
}

impl SetupArgs {
    fn options(&self) -> SetupOptions {
        let language = |extra: &Extra| match extra {
            Extra::Python => Some(Language::Python),
            Extra::Node => Some(Language::Node),
            Extra::Mvmfile => None,
        };
        SetupOptions {
            install: true,
            recreate: self.recreate,
            with: self.with.iter().filter_map(language).collect(),
            mvmfile: self.with.contains(&Extra::Mvmfile),
        }
    }
}

/// Prepares the machine; without `--yes` it asks before installing.
pub async fn setup(context: &mut Context, args: SetupArgs) -> Result<ExitCode> {
    let options = args.options();
    let missing: Vec<_> =
        setup::missing(&options.with, options.mvmfile).iter().map(|package| package.name).collect();
    if !missing.is_empty() && !args.yes && !vm::confirm(&format!("Install {}?", missing.join(" ")), "--yes")?
    {
        return Ok(ExitCode::FAILURE);
    }
    let changed = prepare(context, options).await?;
    if args.recreate {
        dev::image(context, true).await?;
    }
    if !changed {
        say("nothing to do: this machine is ready");
    }
    Ok(ExitCode::SUCCESS)
}

/// Installs and lays out what is missing, without asking. Returns whether anything was.
pub async fn prepare(context: &mut Context, options: SetupOptions) -> Result<bool> {
    let title = "prepare this machine".to_string();
    let done = task::run(context, TaskKind::Setup, title, async |paths, _, sink, cancel| {
        Ok(setup::setup(paths, options, sink, cancel).await?)
    })
    .await?;
    let changed = [
        (done.kernel, "kernel"),
        (done.host_tools, "host tools"),
        (done.offline_flake, "offline flake"),
        (done.firecracker, "Firecracker"),
    ];
    let mut laid_out: Vec<&str> = changed.into_iter().filter_map(|(is, what)| is.then_some(what)).collect();
    laid_out.extend(&done.languages);
    if !done.packages.is_empty() {
        say(&format!("installed {}", done.packages.join(" ")));
    }
    if !laid_out.is_empty() {
        say(&format!("prepared {}", laid_out.join(", ")));
    }
    Ok(!done.packages.is_empty() || !laid_out.is_empty())
}

/// Says what this machine has and lacks; exit code 1 when something needed is missing.
pub async fn doctor(context: &Context) -> Result<ExitCode> {
    let report = doctor::doctor(&context.paths).await;
    let code = if report.is_ready() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if context.json {
        print_json(&report)?;
        return Ok(code);
    }
    for check in &report.checks {
        let mark = match check.status {
            Status::Ok => "ok",
            Status::Warning => "note",
            Status::Missing => "MISSING",
            Status::Broken => "BROKEN",
        };
        print(&format!("{mark:>8}  {:<14} {}", check.name, check.found))?;
        if !check.help.is_empty() {
            print(&format!("{:>8}  {:<14} {}", "", "", check.help))?;
        }
    }
    Ok(code)
}
