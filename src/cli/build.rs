//! `mvm build`.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use clap::{Args, ValueHint};
use tokio_util::sync::CancellationToken;

use super::context::{Context, print, say};
use super::options::{BuilderArgs, FlakeArgs, WatchArgs};
use super::report::Usage;
use super::task::Interrupt;
use super::watch::Session;
use super::{offers, task};
use crate::event::{EventSink, TaskId, TaskKind};
use crate::host::child;
use crate::image::mvmfile::{FILE, Project, build as image};
use crate::image::watch::Change;
use crate::run::app::{self, BuildRequest};
use crate::run::builder;
use crate::run::watch::triggered;

const EXAMPLES: &str = "\
Examples:
  mvm build web                            web/Mvmfile.toml into ./web.elf
  mvm build --flake nix/examples/hello
  mvm build --flake . --profile dev --role worker
  mvm build --flake . --builder vm         in a VM that is gone afterwards
  mvm build --flake . --list               what there is to build, and what is built
  mvm build --flake . --watch              again with each change, until ^C
  mvm build --flake . --max-jobs 0 --builders 'ssh://me@far x86_64-linux'
  mvm build --flake . --store ssh-ng://me@far
  mvm build --flake github:owner/repo#guest -- --option cores 2

The directory with the artifacts, or the file, is printed on standard output. With --json the
events are, and the last of them names it.

An `Mvmfile.toml`, of which all may be left out (`mvm init --template debian` writes one with comments):

  name = \"web\"
  base = \"debian:bookworm\"
  sources = [\"https://mirror.example/debian\"]
  packages = [\"nginx-light\"]
  run = [\"shell commands in the image\"]
  ports = [\"8080:80\"]
  [files]
  \"/srv/site\" = \"site\"
  \"/etc/motd\" = { text = \"hello\\n\", mode = \"644\", owner = \"keeper:www-data\" }
  [users.keeper]             # uid, groups, home, shell
  [services.nginx]           # run, user, dir, env
  run = \"exec nginx -g 'daemon off;'\"
  [resources]                # cpus, memory, disk
  memory = \"256M\"

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
    /// Directory with an Mvmfile.toml, to build into one file that runs by itself [default: here, if there is one
    /// and no flake]
    #[arg(value_hint = ValueHint::DirPath, conflicts_with_all = ["flake", "profile", "role", "builder", "list", "nix_args"])]
    dir: Option<PathBuf>,
    /// The file to write [default: NAME.elf, here]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: Option<PathBuf>,
    /// Build nothing: open a shell in the image as the last build's failed command left it
    #[arg(long)]
    shell: bool,
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
    if let Some(dir) = args.mvmfile() {
        return app(context, &args, dir).await;
    }
    if args.output.is_some() || args.shell {
        let what = "--output and --shell are for an Mvmfile.toml, and there is none here";
        return Err(Usage(format!("{what}\nhelp: give its directory: `mvm build DIR`")).into());
    }
    if args.list {
        offers::list(context, &args.flake).await?;
        return Ok(ExitCode::SUCCESS);
    }
    if args.watch.watch {
        return watch(context, args).await;
    }
    let interrupt = Interrupt::heard();
    interrupt.bound(once(context, &args, None, &interrupt)).await?;
    Ok(ExitCode::SUCCESS)
}

impl BuildArgs {
    /// The directory of the Mvmfile that is meant, if none of a flake is.
    fn mvmfile(&self) -> Option<PathBuf> {
        let here = || {
            let only = Path::new(FILE).exists() && !Path::new("flake.nix").exists();
            (only && self.flake.flake == "." && !self.list).then(|| ".".into())
        };
        self.dir.clone().or_else(here)
    }
}

/// Builds an Mvmfile into an app and prints where it is.
async fn app(context: &mut Context, args: &BuildArgs, dir: PathBuf) -> Result<ExitCode> {
    if args.watch.watch {
        let what = "--watch follows the sources of a flake, and an Mvmfile.toml is none";
        return Err(Usage(format!(
            "{what}\nhelp: build again after a change; layers that it is not in stay"
        ))
        .into());
    }
    let nix_only = !args.flake.is_usual() || args.builder.wish()?.is_some() || !args.nix_args.is_empty();
    if nix_only {
        let what = "an Mvmfile.toml is built without Nix, on this machine";
        return Err(Usage(format!(
            "{what}\nhelp: leave out the options that are about Nix and the builder VM"
        ))
        .into());
    }
    let project = Project::read(&dir)?;
    if args.shell {
        return shell(context, &project).await;
    }
    let output = args.output.clone().unwrap_or_else(|| format!("{}.elf", project.name).into());
    let output =
        std::path::absolute(&output).with_context(|| format!("cannot write `{}`", output.display()))?;
    let title = project.dir.display().to_string();
    let request = BuildRequest { project, output, rebuild: args.flake.rebuild };
    task::run(context, TaskKind::Build, title, async |paths, _, sink, cancel| {
        Ok(app::build(&request, paths, sink, cancel).await?)
    })
    .await?;
    if !context.json {
        print(&request.output.display().to_string())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A shell in the image of a build that failed; gives its exit code.
async fn shell(context: &Context, project: &Project) -> Result<ExitCode> {
    let (sink, _) = EventSink::new(TaskId::new('s'));
    let (chamber, _held) = image::look_around(project, &context.paths, &sink).await?;
    say("the image as the failed command left it; what is changed here is not kept by any build");
    let mvm = child::itself()?;
    let status = Command::new(&mvm).args(chamber.args()).status();
    let status = status.with_context(|| format!("cannot run `{}`", mvm.display()))?;
    let by_signal = || 128 + status.signal().unwrap_or_default();
    Ok(task::exit_code(status.code().unwrap_or_else(by_signal)))
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
    let artifacts = built.await?.artifacts;
    match context.json {
        true => Ok(()),
        false => print(&artifacts.dir.display().to_string()),
    }
}
