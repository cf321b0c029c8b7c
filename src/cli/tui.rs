//! `mvm tui`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clap::Args;

use super::context::{Context, say};
use super::report::Interrupted;
use super::status::{self, StatusArgs};
use crate::console::app::{self, End, Options, Origin};
use crate::console::recording::Recording;
use crate::console::surroundings::Surroundings;
use crate::event::text::strip;
use crate::event::{EventSink, TaskId};
use crate::headless::{self, Mode};
use crate::run::record::{Recorded, Recorder};

/// The exit code of a program whose main thread panicked.
const PANICKED: u8 = 101;

const EXAMPLES: &str = "\
Examples:
  mvm tui
  mvm tui --flake nix/examples/hello
  mvm tui --flake . --watch
  mvm tui --demo

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
    /// Play a recording (mvm's own without FILE) and do nothing else
    #[arg(long, value_name = "FILE", conflicts_with_all = ["flake", "watch", "record"])]
    demo: Option<Option<PathBuf>>,
    /// Write what is shown into a new file, as events, for --demo
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

impl TuiArgs {
    /// Whether a recording is played, which needs no state.
    pub fn is_demo(&self) -> bool {
        self.demo.is_some()
    }
}

/// Opens the console; where there is no terminal for it, says how things stand.
pub async fn tui(mut context: Context, args: TuiArgs) -> Result<ExitCode> {
    let around = match Surroundings::here() {
        Ok(around) if !context.no_tui && !context.json => around,
        unfit => {
            let why = unfit.err().map_or("plain output is asked for".into(), |unfit| unfit.to_string());
            say(&format!("note: no console, as {why}; this is `mvm status`"));
            return status::status(&mut context, StatusArgs::default()).await;
        }
    };
    let recorder = args.record.map(|path| {
        let name = path.display().to_string();
        let failed = |error| anyhow!("the recording `{name}` cannot be made: {error}\nhelp: name a new file");
        Recorder::create(&path).map_err(failed)
    });
    let options = Options { flake: args.flake, watch: args.watch, recorder: recorder.transpose()? };
    let parting = app::run(Origin::State(context.paths), around, options).await?;
    for (title, error, tail) in &parting.failures {
        say(&format!("{title} failed:"));
        tail.iter().for_each(|line| say(&strip(line)));
        say(&format!("error: {error}"));
    }
    if !parting.ending.is_empty() {
        say(&format!("ending {}", parting.ending.join(", ")));
    }
    let end = parting.end;
    parting.finish().await;
    Ok(match end {
        End::Left => ExitCode::SUCCESS,
        End::Interrupted => return Err(Interrupted.into()),
        End::Panicked => ExitCode::from(PANICKED),
    })
}

/// Plays a recording; where there is no terminal for it, as lines.
pub async fn demo(args: TuiArgs, no_tui: bool, json: bool, verbose: bool) -> Result<ExitCode> {
    let recording = match args.demo.flatten() {
        Some(path) => Recording::open(&path)?,
        None => Recording::built_in()?,
    };
    match Surroundings::here() {
        Ok(around) if !no_tui && !json => {
            app::run(Origin::Recording(recording), around, Options::default()).await?;
        }
        _ => {
            let (sink, events) = EventSink::new(TaskId::machine());
            let mode = if json { Mode::Json } else { Mode::Plain };
            let shown = headless::show(Recorded::new(events, None), mode, verbose);
            tokio::join!(shown, recording.tell(sink));
        }
    }
    Ok(ExitCode::SUCCESS)
}
