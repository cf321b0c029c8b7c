//! Events as plain text and as JSON lines.

pub mod lines;
pub mod text;

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use crate::event::{Event, EventStream};
use crate::run::record::Recorder;
use lines::Lines;

/// How events are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Plain lines on standard error.
    Plain,
    /// One JSON object a line on standard output.
    Json,
}

/// Silence after which plain output says that it is still at work: CI systems end silent jobs.
const HEARTBEAT: Duration = Duration::from_secs(30);

/// Whether standard error takes colours: a terminal, and `NO_COLOR` is not set.
pub fn colours() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !refused && io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Shows a task's events until its last sink is gone, and records them.
pub async fn show(mut events: EventStream, mode: Mode, verbose: bool, mut recorder: Option<Recorder>) {
    let mut lines = Lines::new(verbose, colours());
    loop {
        let event = match tokio::time::timeout(HEARTBEAT, events.next()).await {
            Ok(Some(event)) => event,
            Ok(None) => return,
            Err(_) => {
                if mode == Mode::Plain {
                    put(&mut io::stderr(), lines.heartbeat());
                }
                continue;
            }
        };
        // A full disk loses the record, not the task.
        if recorder.as_mut().is_some_and(|recorder| recorder.add(&event).is_err()) {
            recorder = None;
        }
        match mode {
            Mode::Plain => put(&mut io::stderr(), lines.render(&event)),
            Mode::Json => put(&mut io::stdout(), json(&event)),
        }
    }
}

fn json(event: &Event) -> Option<String> {
    serde_json::to_string(event).ok().map(|line| line + "\n")
}

/// Writes text; a reader that went away is no reason to end the task.
fn put(out: &mut impl Write, text: Option<String>) {
    if let Some(text) = text {
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}
