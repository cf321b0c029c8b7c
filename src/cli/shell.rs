//! `mvm shell`.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use clap::Args;

use super::context::say;
use super::report::Usage;
use crate::host::paths::Paths;
use crate::host::search_path;
use crate::host::versions::Versions;

/// Exit code for a program that is not there, as of shells.
const NOT_FOUND: u8 = 127;
/// Exit code for a program that cannot be run, as of shells.
const NOT_RUNNABLE: u8 = 126;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mvm shell\n  mvm shell --project ~/src/web\n  mvm shell -- nix --version\n\nThe shell is $SHELL, on this machine or, with Lima, in its VM. Nix (with flakes), Firecracker and\nmvm are on its PATH. Its exit code, or that of the command, is mvm's."
)]
pub struct ShellArgs {
    /// Directory to begin in [default: the current one]
    #[arg(long, value_name = "DIR")]
    project: Option<PathBuf>,
    /// Say the versions even before a command
    #[arg(long)]
    banner: bool,
    /// Command to run instead of a shell
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Becomes the shell or the command.
pub async fn shell(args: ShellArgs) -> Result<ExitCode> {
    let paths = Paths::find()?;
    let here = std::env::current_dir();
    let dir = match args.project {
        Some(dir) if !dir.is_dir() => {
            let text =
                format!("there is no directory `{}`\nhelp: check what is given to --project", dir.display());
            return Err(Usage(text).into());
        }
        Some(dir) => dir,
        None => here.context("the current directory is gone\nhelp: go to another one, or give --project")?,
    };
    if args.banner || args.command.is_empty() {
        say(&format!("mvm {}: {}", env!("CARGO_PKG_VERSION"), Versions::find(&paths).await.line()));
    }
    let shell = std::env::var_os("SHELL").filter(|shell| !shell.is_empty());
    let words = match args.command.is_empty() {
        true => vec![shell.unwrap_or_else(|| "/bin/sh".into())],
        false => args.command,
    };
    let path = search_path::extended(&std::env::var_os("PATH").unwrap_or_default(), &paths);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).current_dir(&dir).env("PATH", path);
    command.env("NIX_CONFIG", with_flakes(std::env::var_os("NIX_CONFIG").as_deref()));
    // In its place: terminal, signals and exit code are then the command's own.
    let error = command.exec();
    let name = words[0].to_string_lossy();
    let not_found = error.kind() == io::ErrorKind::NotFound;
    let help = if not_found { "is it installed, and spelt right?" } else { "is it a program?" };
    say(&format!("error: cannot run `{name}`: {error}\nhelp: {help}"));
    Ok(ExitCode::from(if not_found { NOT_FOUND } else { NOT_RUNNABLE }))
}

/// Nix's settings with the commands on that take flakes.
fn with_flakes(config: Option<&OsStr>) -> OsString {
    let mut config = config.unwrap_or_default().to_os_string();
    if !config.is_empty() {
        config.push("\n");
    }
    config.push("extra-experimental-features = nix-command flakes");
    config
}
