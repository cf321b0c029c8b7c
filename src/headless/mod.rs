//! Events as plain text, as JSON lines, and as a live view above the prompt.

pub mod inline;
pub mod lines;

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use jiff::Timestamp;

use crate::event::{Event, Kind, SCHEMA_VERSION, TaskId};
use crate::run::record::Recorded;
use inline::Inline;
use lines::Lines;

/// How events are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A live view on standard error, which is a terminal.
    Inline,
    /// Plain lines on standard error.
    Plain,
    /// One JSON object a line on standard output.
    Json,
    /// One JSON object a line on standard error, as standard output is somebody else's.
    JsonAside,
}

/// Silence after which plain output says that it is still at work: CI systems end silent jobs.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// How often the clocks in a live view move.
const TICK: Duration = Duration::from_millis(250);

/// Whether standard error takes colours.
pub fn colours() -> bool {
    takes_colours(&io::stderr())
}

/// Whether a stream takes colours: a terminal, and `NO_COLOR` is not set.
pub fn takes_colours(stream: &impl IsTerminal) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !refused && stream.is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Shows a task's events until its last sink is gone, and records them.
pub async fn show(mut events: Recorded, mode: Mode, verbose: bool) {
    // Where the terminal does not answer, plain lines serve.
    let mut inline = (mode == Mode::Inline).then(|| Inline::open(colours()).ok()).flatten();
    let plain = mode == Mode::Plain || mode == Mode::Inline && inline.is_none();
    let mut lines = Lines::new(verbose);
    let quiet = if inline.is_some() { TICK } else { HEARTBEAT };
    loop {
        let event = match tokio::time::timeout(quiet, events.next()).await {
            Ok(Some(event)) => event,
            Ok(None) => break,
            Err(_) => {
                match &mut inline {
                    Some(view) => drop(view.tick()),
                    None if plain => put(&mut io::stderr(), &lines.heartbeat().render(colours())),
                    None => {}
                }
                continue;
            }
        };
        match &mut inline {
            // Drawn once the events that wait are taken in.
            Some(view) => drop(view.apply(&event).and_then(|()| view.draw())),
            None if plain => {
                lines.lines(&event).iter().for_each(|line| put(&mut io::stderr(), &line.render(colours())))
            }
            None if mode == Mode::JsonAside => put(&mut io::stderr(), &json(&event)),
            None => put(&mut io::stdout(), &json(&event)),
        }
    }
    if let Some(view) = inline {
        drop(view.close());
    }
}

/// Tells something that belongs to no task.
pub fn tell(kind: Kind, mode: Mode, verbose: bool) {
    let event = Event { v: SCHEMA_VERSION, time: Timestamp::now(), task: TaskId::machine(), kind };
    match mode {
        Mode::Json => put(&mut io::stdout(), &json(&event)),
        Mode::JsonAside => put(&mut io::stderr(), &json(&event)),
        Mode::Plain | Mode::Inline => {
            let lines = Lines::new(verbose).lines(&event);
            lines.iter().for_each(|line| put(&mut io::stderr(), &line.render(colours())));
        }
    }
}

fn json(event: &Event) -> String {
    serde_json::to_string(event).map(|line| line + "\n").unwrap_or_default()
}

/// Writes text; a reader that went away is no reason to end the task.
fn put(out: &mut impl Write, text: &str) {
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::event::{EventSink, Kind, Source, TaskId};
    use crate::host::paths::Paths;
    use crate::run::record::Recorder;

    #[test]
    fn a_log_line_reaches_the_record_though_nothing_follows_it() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::at(dir.path().join("state"), dir.path().join("run")).unwrap();
        let task = TaskId::new('t');
        let recorder = Recorder::new(&paths, &task).unwrap();
        let record = paths.tasks().join(format!("{}.jsonl", task.as_str()));
        let (sink, events) = EventSink::new(task);
        sink.send(Kind::Log { source: Source::Nix { level: 3 }, text: "a line".into() });
        let written = async {
            let deadline = Instant::now() + Duration::from_secs(30);
            while !std::fs::read_to_string(&record).unwrap().contains("a line") {
                assert!(Instant::now() < deadline, "nothing is written while the task is silent");
                tokio::task::yield_now().await;
            }
            drop(sink);
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::join!(show(Recorded::new(events, Some(recorder)), Mode::Plain, false), written)
        });
    }
}
