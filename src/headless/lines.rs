//! One line for each event that matters to somebody who reads along.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::console::model::clock::since;
use crate::console::model::doing::Doing;
use crate::event::text::{clean, strip};
use crate::event::words::{drv_name, duration, host_name, saving};
use crate::event::{Activity, Event, Kind, Level, Outcome, Source};

/// A line: a word that says what it is about, and the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// How it is meant.
    pub tone: Tone,
    /// e.g. `build`, `cached`, `warning`; empty for a log line.
    pub word: &'static str,
    /// The text.
    pub text: String,
}

/// How a line is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Passing news, which a live view shows by itself.
    Passing,
    /// A result, or something to know.
    Lasting,
    /// Something to mend.
    Warning,
    /// Somebody else's words.
    Log,
}

impl Line {
    /// The line for a terminal or a file, with its newline.
    pub fn render(&self, colour: bool) -> String {
        let Self { tone, word, text } = self;
        // A guest's console is anybody's words; and colours in them are for terminals only.
        let text = clean(text);
        let text = if colour || !text.contains('\x1b') { text } else { strip(&text).into() };
        let style = match tone {
            Tone::Log => return format!("{text}\n"),
            Tone::Passing => "36",
            Tone::Lasting => "1;36",
            Tone::Warning => "1;33",
        };
        match colour {
            true => format!("\x1b[{style}m{word:>9}\x1b[0m {text}\n"),
            false => format!("{word:>9} {text}\n"),
        }
    }
}

/// Turns events into lines. Silent about what needs no attention.
#[derive(Debug)]
pub struct Lines {
    verbose: bool,
    building: BTreeMap<u64, (String, Timestamp)>,
    doing: Doing,
    phase: String,
    since: Instant,
}

impl Lines {
    /// `verbose` shows builders' and Nix's own lines as they come.
    pub fn new(verbose: bool) -> Self {
        Self {
            verbose,
            building: BTreeMap::new(),
            doing: Doing::default(),
            phase: String::new(),
            since: Instant::now(),
        }
    }

    /// The lines for an event, if it deserves any.
    pub fn lines(&mut self, event: &Event) -> Vec<Line> {
        match &event.kind {
            Kind::TaskEnded { dropped, outcome, .. } => ended(*dropped, outcome),
            kind => self.line(kind, event.time).into_iter().collect(),
        }
    }

    fn line(&mut self, kind: &Kind, now: Timestamp) -> Option<Line> {
        self.doing.apply(kind, now);
        match kind {
            Kind::Phase { name } => {
                self.phase.clone_from(name);
                None
            }
            Kind::ActivityStarted { id, what: Activity::Build { drv, host, .. }, .. } => {
                let name = drv_name(drv).to_string();
                let at = if host.is_empty() { String::new() } else { format!(" on {}", host_name(host)) };
                self.building.insert(*id, (name.clone(), now));
                passing("build", name + &at)
            }
            Kind::ActivityStarted { what: Activity::Download { uri }, .. } => passing("fetch", uri.clone()),
            Kind::ActivityStopped { id } => {
                let (name, began) = self.building.remove(id)?;
                passing("ended", format!("{name} after {}", duration(since(began, now))))
            }
            Kind::Log { source, text } => self.log(source, text),
            Kind::WatchTriggered { paths, more } => lasting("changed", changed(paths, *more)),
            Kind::ArtifactsReady { path, cached, how, .. } => {
                lasting(if *cached { "cached" } else { "built" }, format!("{} ({how})", path.display()))
            }
            Kind::VmState { name, state, .. } => match state.as_str() {
                "booting" => passing("boot", name.clone()),
                "failed" => lasting("failed", name.clone()),
                _ => None,
            },
            Kind::VmStarted { name, how, why, steps, .. } => {
                let total = steps.iter().fold(0_u64, |sum, (_, ms)| sum.saturating_add(*ms));
                let parts: Vec<_> =
                    steps.iter().map(|(step, ms)| format!("{step} {}", millis(*ms))).collect();
                let why = why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
                lasting("ready", format!("{name} {how} in {}{why}: {}", millis(total), parts.join(", ")))
            }
            Kind::SnapshotTaken { name, bytes, paused_ms, ms, .. } => {
                let [paused, whole] = [*paused_ms, *ms].map(Duration::from_millis);
                lasting("saved", format!("{name} {}", saving(*bytes, paused, whole)))
            }
            _ => None,
        }
    }

    /// A sign of life for somebody who waits.
    pub fn heartbeat(&self) -> Line {
        let names: Vec<&str> = self.building.values().map(|(name, _)| name.as_str()).collect();
        let what = match self.doing.last() {
            _ if !names.is_empty() => names.join(", "),
            Some((text, _)) => text.to_owned(),
            None => self.phase.clone(),
        };
        let text = format!("{what} ({} so far)", duration(self.since.elapsed()));
        Line { tone: Tone::Passing, word: "still", text }
    }

    fn log(&self, source: &Source, text: &str) -> Option<Line> {
        match source {
            Source::Mvm { level: Level::Info } => lasting("note", text.into()),
            Source::Mvm { level: Level::Warning } => Some(warning(text.into())),
            Source::Nix { level: 1 } => {
                let plain = strip(text);
                Some(warning(plain.strip_prefix("warning: ").unwrap_or(&plain).to_string()))
            }
            Source::Build { drv } if self.verbose => Some(log(format!("{}> {text}", drv_name(drv)))),
            Source::Nix { .. } | Source::Console { .. } if self.verbose => Some(log(text.into())),
            _ => None,
        }
    }
}

/// What set a rebuild off, for people.
fn changed(paths: &[String], more: u64) -> String {
    match (paths, more) {
        ([], 0) => "the sources".into(),
        (paths, 0) => paths.join(", "),
        (paths, more) => format!("{} and {more} more", paths.join(", ")),
    }
}

fn passing(word: &'static str, text: String) -> Option<Line> {
    Some(Line { tone: Tone::Passing, word, text })
}

fn lasting(word: &'static str, text: String) -> Option<Line> {
    Some(Line { tone: Tone::Lasting, word, text })
}

fn warning(text: String) -> Line {
    Line { tone: Tone::Warning, word: "warning", text }
}

fn log(text: String) -> Line {
    Line { tone: Tone::Log, word: "", text }
}

fn ended(dropped: u64, outcome: &Outcome) -> Vec<Line> {
    let mut lines = Vec::new();
    if dropped > 0 {
        lines.push(warning(format!("{dropped} log lines were not shown")));
    }
    match outcome {
        Outcome::Failed { tail, .. } => lines.extend(tail.iter().cloned().map(log)),
        Outcome::Cancelled => lines.extend(lasting("cancelled", "nothing of it is left running".into())),
        Outcome::Ok => {}
    }
    lines
}

fn millis(ms: u64) -> String {
    duration(Duration::from_millis(ms))
}
