//! `mvm logs`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::context::{Context, print};
use super::report::Usage;
use crate::host::paths::Paths;
use crate::store::vms::VmRow;
use crate::vm::console::{ConsoleLine, Follower};
use crate::vm::lifecycle;

/// Pause between two looks at a log that is followed.
const POLL: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mvm logs hello\n  mvm logs -f --since 5m hello\n  mvm logs --since 2026-01-31T12:00:00Z hello"
)]
pub struct LogsArgs {
    /// The VM, by name or id
    pub name: String,
    /// Go on until the VM is over
    #[arg(long, short)]
    follow: bool,
    /// Only lines since then: a time, or how long ago (`30s`, `5m`, `2h`)
    #[arg(long, value_name = "T")]
    since: Option<String>,
    /// Put its time before each line
    #[arg(long, short)]
    timestamps: bool,
}

/// Shows the console.
pub async fn logs(context: &mut Context, args: LogsArgs) -> Result<ExitCode> {
    let since = args.since.as_deref().map(parse_since).transpose()?.unwrap_or(Timestamp::MIN);
    let mut console = Console { since, timestamps: args.timestamps, ..Console::open(context, &args.name)? };
    if !args.follow {
        console.rest()?;
        return Ok(ExitCode::SUCCESS);
    }
    tokio::select! {
        shown = console.follow() => shown?,
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// A VM's console on its way to standard output.
pub struct Console<'a> {
    paths: &'a Paths,
    vm: VmRow,
    follower: Follower,
    since: Timestamp,
    begun: bool,
    timestamps: bool,
    json: bool,
    panicked: bool,
}

impl<'a> Console<'a> {
    /// The console of a VM, by name or id, from its beginning.
    pub fn open(context: &'a Context, name: &str) -> Result<Self> {
        let vm = lifecycle::find(&context.store, name)?;
        Ok(Self {
            paths: &context.paths,
            follower: Follower::new(&context.paths.vm(&vm.id)),
            vm,
            since: Timestamp::MIN,
            begun: false,
            timestamps: false,
            json: context.json,
            panicked: false,
        })
    }

    /// Shows what there is.
    pub fn rest(&mut self) -> Result<()> {
        for line in self.follower.read()? {
            // What follows the first line is shown even if the clock was set back since.
            self.begun |= line.time >= self.since;
            self.panicked |= line.text.contains("Kernel panic - not syncing");
            if self.begun {
                print(&render(&line, &self.vm.name, self.timestamps, self.json))?;
            }
        }
        Ok(())
    }

    /// Whether the guest's kernel said so.
    pub fn has_panicked(&self) -> bool {
        self.panicked
    }

    /// Shows what comes until the VM is over.
    pub async fn follow(&mut self) -> Result<()> {
        loop {
            let running = lifecycle::is_running(self.paths, &self.vm.id);
            self.rest()?;
            if !running {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

fn render(line: &ConsoleLine, vm: &str, timestamps: bool, as_json: bool) -> String {
    if as_json {
        return json!({ "v": 1, "time": line.time, "vm": vm, "text": line.text }).to_string();
    }
    // The guest writes what it likes: nothing of it may steer the terminal.
    let text = crate::event::text::clean(&line.text).into_owned();
    match timestamps {
        true => format!("{:.3} {text}", line.time),
        false => text,
    }
}

fn parse_since(text: &str) -> Result<Timestamp, Usage> {
    let ago = || {
        let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        let number: i64 = number.parse().ok().filter(|number| *number >= 0)?;
        let factor = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86400,
            _ => return None,
        };
        Timestamp::now().checked_sub(SignedDuration::from_secs(number.checked_mul(factor)?)).ok()
    };
    text.parse().ok().or_else(ago).ok_or_else(|| {
        Usage(format!("`{text}` is not a time\nhelp: write how long ago (`30s`, `5m`, `2h`, `1d`) or a time such as 2026-01-31T12:00:00Z"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_takes_a_time_or_how_long_ago() {
        assert!(parse_since("2026-01-31T12:00:00Z").is_ok());
        assert!(parse_since("5m").unwrap() < Timestamp::now());
        for text in ["", "m", "5", "-5m", "5y", "99999999999999999d", "ümlaut"] {
            assert!(parse_since(text).is_err(), "{text}");
        }
    }
}
