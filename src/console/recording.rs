//! Recorded events, played again: `mvm tui --demo`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::model::clock::since;
use crate::event::line::Line;
use crate::event::text::clean;
use crate::event::{Event, EventSink, Kind};

/// The recording that is compiled in.
const BUILT_IN: &str = include_str!("../../assets/demo.jsonl");
/// Longest pause between two events when they are played.
const LONGEST_PAUSE: Duration = Duration::from_millis(1500);
/// Most bytes of a recording; the records of tasks hold less.
const MOST_BYTES: u64 = 64 * 1024 * 1024;

/// Events in the order in which they were seen.
#[derive(Debug)]
pub struct Recording {
    /// The events.
    pub events: Vec<Event>,
    /// How many were left out, as only a newer mvm knows them.
    pub unknown: usize,
}

/// Why a recording cannot be played.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// It cannot be read.
    #[error("the recording `{path}` cannot be read: {error}\nhelp: {HELP}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// A line of it is no event.
    #[error("line {line} of `{path}` is no event: {error}\nhelp: {HELP}")]
    Line {
        /// The file.
        path: String,
        /// The line's number, from 1.
        line: usize,
        /// Why.
        error: serde_json::Error,
    },
    /// It has no event at all.
    #[error("the recording `{path}` has no event\nhelp: {HELP}")]
    Empty {
        /// The file.
        path: String,
    },
}

const HELP: &str =
    "`mvm tui --record FILE` writes recordings, and `tasks/*.jsonl` below the state directory are some";

impl Recording {
    /// The recording that is compiled in.
    pub fn built_in() -> Result<Self, RecordingError> {
        Self::parse("assets/demo.jsonl", BUILT_IN.as_bytes())
    }

    /// Reads a file of events, one JSON object a line.
    pub fn open(path: &Path) -> Result<Self, RecordingError> {
        let read = || {
            let mut text = Vec::new();
            File::open(path)?.take(MOST_BYTES + 1).read_to_end(&mut text)?;
            if text.len() as u64 > MOST_BYTES {
                return Err(io::Error::other(format!("it is larger than {} MiB", MOST_BYTES >> 20)));
            }
            Ok(text)
        };
        let path = path.display().to_string();
        match read() {
            Ok(text) => Self::parse(&path, &text),
            Err(error) => Err(RecordingError::Read { path, error }),
        }
    }

    fn parse(path: &str, text: &[u8]) -> Result<Self, RecordingError> {
        let mut recording = Self { events: Vec::new(), unknown: 0 };
        for (index, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
            if line.trim_ascii().is_empty() {
                continue;
            }
            match Line::parse(line) {
                Line::Event(event) => recording.events.push(harmless(*event)),
                Line::Unknown => recording.unknown += 1,
                // Its writer was ended in the middle of it, or is at it.
                Line::Garbage(_) if index > 0 && !line.ends_with(b"\n") => {}
                Line::Garbage(error) => {
                    return Err(RecordingError::Line { path: path.into(), line: index + 1, error });
                }
            }
        }
        match recording.events.is_empty() {
            true => Err(RecordingError::Empty { path: path.into() }),
            false => Ok(recording),
        }
    }

    /// Tells `sink` what happened, as it was and without any pause.
    pub async fn tell(self, sink: EventSink) {
        for event in self.events {
            sink.forward(event);
            // One that waits is never dropped.
            tokio::task::yield_now().await;
        }
    }

    /// Tells `sink` what happened, at the pace it happened but without long pauses, as if it were now.
    pub async fn play(self, sink: EventSink) {
        if self.unknown > 0 {
            sink.warn(format!("{} events that only a newer mvm knows were left out", self.unknown));
        }
        let mut due = Instant::now();
        for (pause, seen, event) in paced(self.events) {
            due += pause;
            tokio::time::sleep_until(due).await;
            sink.forward(moved(event, seen, Timestamp::now()));
        }
        sink.info("the recording is over");
    }
}

/// Each event with the pause before it, and when it was seen: some are told of later than they happened.
fn paced(events: Vec<Event>) -> impl Iterator<Item = (Duration, Timestamp, Event)> {
    let mut clock = events.first().map_or(Timestamp::MIN, |event| event.time);
    events.into_iter().map(move |event| {
        let pause = since(clock, event.time).min(LONGEST_PAUSE);
        clock = clock.max(event.time);
        (pause, clock, event)
    })
}

/// What a file says is anybody's words.
fn harmless(mut event: Event) -> Event {
    if let Kind::Log { text, .. } = &mut event.kind {
        *text = clean(text).into_owned();
    }
    event
}

/// The event with all its times moved by as much as there is between `from` and `to`.
fn moved(mut event: Event, from: Timestamp, to: Timestamp) -> Event {
    let by = to.duration_since(from);
    let shift = |time: &mut Timestamp| *time = time.checked_add(by).unwrap_or(*time);
    shift(&mut event.time);
    match &mut event.kind {
        Kind::VmSeen { info } => {
            shift(&mut info.created);
            shift(&mut info.changed);
        }
        Kind::PoolSeen { pool, .. } => {
            pool.revisions.iter_mut().for_each(|revision| shift(&mut revision.created));
            [&mut pool.retry, &mut pool.held].into_iter().flatten().for_each(shift);
        }
        Kind::InstanceSeen { instance, .. } => {
            let times = [&mut instance.since, &mut instance.created, &mut instance.retry, &mut instance.held];
            times.into_iter().flatten().for_each(shift);
            instance.lease.iter_mut().for_each(|lease| shift(&mut lease.until));
        }
        _ => {}
    }
    event
}

#[cfg(test)]
mod tests;
