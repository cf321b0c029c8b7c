//! One line for each event that matters to somebody who reads along.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::text::{drv_name, duration};
use crate::event::{Activity, Event, Kind, Level, Outcome, Source};

/// Turns events into lines. Silent about what needs no attention.
#[derive(Debug)]
pub struct Lines {
    verbose: bool,
    colour: bool,
    building: BTreeMap<u64, (String, Instant)>,
    phase: String,
    since: Instant,
}

impl Lines {
    /// `verbose` shows builders' and Nix's own lines as they come.
    pub fn new(verbose: bool, colour: bool) -> Self {
        Self { verbose, colour, building: BTreeMap::new(), phase: String::new(), since: Instant::now() }
    }

    /// The text for an event, if it deserves one.
    pub fn render(&mut self, event: &Event) -> Option<String> {
        match &event.kind {
            Kind::Phase { name } => {
                self.phase.clone_from(name);
                None
            }
            Kind::ActivityStarted { id, what: Activity::Build { drv, host }, .. } => {
                let name = drv_name(drv).to_string();
                let at = if host.is_empty() { String::new() } else { format!(" on {host}") };
                let line = self.say("build", &format!("{name}{at}"));
                self.building.insert(*id, (name, Instant::now()));
                Some(line)
            }
            Kind::ActivityStarted { what: Activity::Download { uri }, .. } => Some(self.say("fetch", uri)),
            Kind::ActivityStopped { id } => {
                let (name, since) = self.building.remove(id)?;
                Some(self.say("ended", &format!("{name} after {}", duration(since.elapsed()))))
            }
            Kind::Log { source, text } => self.log(source, text),
            Kind::ArtifactsReady { path, cached, how, .. } => {
                let word = if *cached { "cached" } else { "built" };
                Some(self.say(word, &format!("{} ({how})", path.display())))
            }
            Kind::VmState { name, state, .. } => match state.as_str() {
                "booting" => Some(self.say("boot", name)),
                "running" => None,
                state => Some(self.say(state, name)),
            },
            Kind::VmStarted { name, how, steps, .. } => {
                let total = steps.iter().map(|(_, ms)| ms).sum();
                let parts: Vec<_> = steps.iter().map(|(step, ms)| format!("{step} {}", millis(*ms))).collect();
                Some(self.say("ready", &format!("{name} {how} in {}: {}", millis(total), parts.join(", "))))
            }
            Kind::TaskEnded { dropped, outcome, .. } => {
                let lost = (*dropped > 0).then(|| self.warning(&format!("{dropped} log lines were not shown")));
                let end = (*outcome == Outcome::Cancelled).then(|| self.say("cancelled", "nothing is left behind"));
                Some(lost.unwrap_or_default() + &end.unwrap_or_default())
            }
            _ => None,
        }
    }

    /// A sign of life for somebody who waits.
    pub fn heartbeat(&mut self) -> Option<String> {
        let names: Vec<&str> = self.building.values().map(|(name, _)| name.as_str()).collect();
        let what = if names.is_empty() { self.phase.clone() } else { names.join(", ") };
        Some(self.say("still", &format!("{what} ({} so far)", duration(self.since.elapsed()))))
    }

    fn log(&self, source: &Source, text: &str) -> Option<String> {
        match source {
            Source::Mvm { level: Level::Warning } => Some(self.warning(text)),
            Source::Mvm { level: Level::Info } => Some(self.say("note", text)),
            Source::Nix { level: 1 } => Some(self.warning(text)),
            Source::Build { drv } if self.verbose => Some(format!("{}> {text}\n", drv_name(drv))),
            Source::Nix { .. } | Source::Console { .. } if self.verbose => Some(format!("{text}\n")),
            _ => None,
        }
    }

    fn say(&self, word: &str, text: &str) -> String {
        self.styled("1;36", word, text)
    }

    fn warning(&self, text: &str) -> String {
        self.styled("1;33", "warning", text)
    }

    fn styled(&self, style: &str, word: &str, text: &str) -> String {
        match self.colour {
            true => format!("\x1b[{style}m{word:>9}\x1b[0m {text}\n"),
            false => format!("{word:>9} {text}\n"),
        }
    }
}

fn millis(ms: u64) -> String {
    duration(Duration::from_millis(ms))
}
