//! `mvm dev cluster logs`.

use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use serde_json::json;

use super::super::context::{Context, print, say};
use crate::cluster::logs::{LogLine, Logs};
use crate::cluster::part::Part;
use crate::event::text::clean;

/// Pause between two looks at logs that are followed.
const POLL: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mvm dev cluster logs -f\n  mvm dev cluster logs coordinator --lines 20\n  mvm dev cluster logs agent\n\nOf both, each line begins with whose it is. The files are agent.log and coordinator.log in `cluster` of\nthe state; one over 4 MiB becomes *.log.1 at the next start. Guests' consoles: `mvm logs`."
)]
pub struct LogsArgs {
    /// Whose; both, unless given
    part: Option<Which>,
    /// Go on until ^C
    #[arg(long, short)]
    follow: bool,
    /// So many lines of the past, at most
    #[arg(long, short = 'n', value_name = "N", default_value_t = 200, value_parser = parse_lines)]
    lines: usize,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Which {
    Agent,
    Coordinator,
}

/// Most lines of the past: they are kept in memory to be put in order.
const MOST_LINES: usize = 1_000_000;

fn parse_lines(text: &str) -> Result<usize, String> {
    let lines = text.parse().ok().filter(|lines| *lines <= MOST_LINES);
    lines.ok_or_else(|| format!("write a number from 0 to {MOST_LINES}"))
}

/// Shows them.
pub async fn logs(context: &Context, args: LogsArgs) -> Result<()> {
    let parts = match args.part {
        None => &Part::ALL[..],
        Some(Which::Agent) => &[Part::Agent],
        Some(Which::Coordinator) => &[Part::Coordinator],
    };
    let cannot = || format!("cannot read the logs in `{}`", context.paths.cluster().display());
    let (mut logs, last) = Logs::open(parts, args.lines, &context.paths).with_context(cannot)?;
    let show = |lines: Vec<LogLine>| {
        lines.iter().try_for_each(|line| print(&render(line, parts.len() > 1, context.json)))
    };
    if last.is_empty() && !args.follow {
        say("note: nothing was logged yet; `mvm dev cluster up` starts who does");
    }
    show(last)?;
    if !args.follow {
        return Ok(());
    }
    loop {
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
        show(logs.read().with_context(cannot)?)?;
    }
}

fn render(line: &LogLine, both: bool, as_json: bool) -> String {
    // What guests and peers have said is in it: nothing of that may steer the terminal.
    let text = clean(&line.text);
    match (as_json, both) {
        (true, _) => json!({ "v": 1, "part": line.part, "text": text }).to_string(),
        (false, true) => format!("{:<11} {text}", line.part.as_str()),
        (false, false) => text.into_owned(),
    }
}
