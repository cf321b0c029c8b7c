//! `mvm tui`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use super::context::{Context, say};
use super::report::Interrupted;
use super::status::{self, StatusArgs};
use crate::console::app::{self, End, Options};
use crate::console::surroundings::Surroundings;
use crate::event::text::strip;

/// The exit code of a program whose main thread panicked.
const PANICKED: u8 = 101;

const EXAMPLES: &str = "\
Examples:
  mvm tui
  mvm tui --flake nix/examples/hello
  mvm tui --flake . --watch

Keys: ? lists all commands, : runs one by its name, q leaves. Colours, keys and more are
set in $XDG_CONFIG_HOME/mvm/config.toml.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct TuiArgs {
    /// The flake to work on
    #[arg(long, value_name = "REF", allow_hyphen_values = true)]
    flake: Option<String>,
    /// Build and run it, and replace the VM with each rebuild
    #[arg(long, requires = "flake")]
    watch: bool,
}

/// Opens the console; where there is no terminal for it, says how things stand.
pub async fn tui(mut context: Context, args: TuiArgs) -> Result<ExitCode> {
    let around = match Surroundings::here() {
        Ok(around) if !context.no_tui => around,
        unfit => {
            let why = unfit.err().map_or("--no-tui is given".into(), |unfit| unfit.to_string());
            say(&format!("note: no console, as {why}; this is `mvm status`"));
            return status::status(&mut context, StatusArgs::default()).await;
        }
    };
    let options = Options { flake: args.flake, watch: args.watch };
    let parting = app::run(context.paths, around, options).await?;
    for (title, error, tail) in parting.failures {
        say(&format!("{title} failed:"));
        tail.iter().for_each(|line| say(&strip(line)));
        say(&format!("error: {error}"));
    }
    Ok(match parting.end {
        End::Left => ExitCode::SUCCESS,
        End::Interrupted => return Err(Interrupted.into()),
        End::Panicked => ExitCode::from(PANICKED),
    })
}
