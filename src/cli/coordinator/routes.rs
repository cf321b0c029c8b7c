//! `mvm coordinator routes`.

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Args;
use crossterm::cursor::MoveToPreviousLine;
use crossterm::queue;
use crossterm::terminal::{self, Clear, ClearType};
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};

use super::super::context::{Context, print, print_json};
use super::show;
use crate::console::view::columns::fit;
use crate::coordinator::admin::client::{self, ClientError, Watch};
use crate::coordinator::status::Status;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mvm coordinator routes\n  mvm coordinator routes --watch                       until ^C\n  mvm coordinator routes --json | jq '.routes[].state'\n\nWithout a terminal, --watch prints a line whenever a route changes its state; with --json, all there\nis to know, an object a line, whenever anything changes. A wake is told with its parts in ms."
)]
pub struct RoutesArgs {
    /// Go on showing them as they change
    #[arg(long, short)]
    watch: bool,
}

/// Runs the command.
pub async fn routes(context: &Context, args: RoutesArgs) -> Result<ExitCode> {
    let socket = context.paths.coordinator_socket();
    if !args.watch {
        let status = client::status(&socket).await?;
        match context.json {
            true => print_json(&status)?,
            false => show::table(&status).iter().try_for_each(|line| print(line))?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut watch = client::watch(&socket).await?;
    let mut shown = Shown::new(context);
    let mut terminate = signal(SignalKind::terminate())?;
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => return Ok(ExitCode::SUCCESS),
            _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
            status = watch.next() => match status {
                Ok(Some(status)) => shown.show(status)?,
                // Of one that was halted for long the coordinator tires.
                Ok(None) | Err(ClientError::Lost(_)) => watch = again(&socket).await?,
                Err(error) => return Err(error.into()),
            },
        }
    }
}

/// Watches again, if there is anybody.
async fn again(socket: &Path) -> Result<Watch> {
    match client::watch(socket).await {
        Err(ClientError::Absent(_)) => {
            bail!(
                "the coordinator has ended\nhelp: `mvm dev cluster up` starts it again, or `mvm coordinator serve`"
            )
        }
        watch => Ok(watch?),
    }
}

/// How what is watched is shown.
enum Shown {
    /// An object a line.
    Json,
    /// A line for each change of a state.
    Lines(Option<Status>),
    /// A table in place of the one before: the rows of that, and the terminal's size then.
    Table(u16, (u16, u16)),
}

impl Shown {
    fn new(context: &Context) -> Self {
        let terminal =
            io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        match () {
            () if context.json => Self::Json,
            () if terminal && !context.no_tui => Self::Table(0, (0, 0)),
            () => Self::Lines(None),
        }
    }

    fn show(&mut self, status: Status) -> Result<()> {
        match self {
            Self::Json => print(&serde_json::to_string(&status)?),
            Self::Lines(before) => {
                let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
                let lines = show::changes(before.as_ref(), &status);
                lines.iter().try_for_each(|line| print(&format!("{now} {line}")))?;
                *before = Some(status);
                Ok(())
            }
            Self::Table(rows, size) => {
                let now = terminal::size().unwrap_or((80, 24));
                // A terminal that was resized has put lines elsewhere.
                let above = if now == *size { *rows } else { 0 };
                *rows = draw(&mut io::stdout().lock(), &show::table(&status), above, now)?;
                *size = now;
                Ok(())
            }
        }
    }
}

/// Writes as many lines as the terminal has room for over the `above` ones before. Its modes are left
/// alone, so that it needs no mending whatever ends this.
fn draw(out: &mut impl Write, lines: &[String], above: u16, (width, height): (u16, u16)) -> io::Result<u16> {
    if above > 0 {
        queue!(out, MoveToPreviousLine(above))?;
    }
    queue!(out, Clear(ClearType::FromCursorDown))?;
    let mut rows = 0;
    for line in lines.iter().take(usize::from(height.saturating_sub(1))) {
        writeln!(out, "{}", fit(line, usize::from(width), "…"))?;
        rows += 1;
    }
    out.flush()?;
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_takes_the_place_of_the_one_before_and_fits_the_terminal() {
        let lines = ["a long line", "b", "c", "d"].map(String::from);
        let mut out = Vec::new();
        assert_eq!(draw(&mut out, &lines, 0, (6, 4)).unwrap(), 3);
        assert_eq!(String::from_utf8(out).unwrap(), "\x1b[Ja lon…\nb\nc\n");
        let mut out = Vec::new();
        assert_eq!(draw(&mut out, &lines[1..2], 3, (6, 4)).unwrap(), 1);
        assert_eq!(String::from_utf8(out).unwrap(), "\x1b[3F\x1b[Jb\n");
    }
}
