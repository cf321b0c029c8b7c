//! Nix's log → events: activities, progress, log lines and, for a failure, what was said last.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use memchr::memchr;

use super::drv;
use super::nixmsg::{self, Message};
use super::origin::Origin;
use crate::event::text::{clean, cut};
use crate::event::words::drv_name;
use crate::event::{Activity, EventSink, Kind, Source};

/// Longest raw line looked at; JSON escapes make it longer than the text in it.
const MAX_RAW: usize = 1024 * 1024;
/// Activities followed at once; a builder can forge them, so there is an end.
const MAX_ACTIVITIES: usize = 100_000;
/// Activities shown in the whole build.
const MAX_SHOWN: usize = 500_000;
/// Phases shown of one activity.
const MAX_PHASES: u16 = 256;
/// Longest name of a phase, path or activity.
const MAX_NAME: usize = 1024;
/// Error messages kept.
const MAX_ERRORS: usize = 50;
/// Builds whose last lines are kept.
const MAX_TAILS: usize = 64;
/// Lines kept of a build.
const TAIL_LINES: usize = 40;
/// Bytes kept of a line in a tail.
const TAIL_LINE: usize = 1024;
/// Builds whose duration is kept.
const MAX_TIMES: usize = 4096;
/// Derivations remembered for what others need of them.
const MAX_BEGUN: usize = 50_000;
/// Lines kept of what is none of the log's own.
const MAX_OTHERS: usize = 10;
/// Nix's level for information; what is above is talk.
const INFO: u64 = 3;

/// Reads Nix's stderr piece by piece and tells a sink what it means.
#[derive(Debug)]
pub struct NixLog<'a> {
    sink: &'a EventSink,
    origin: &'a Origin,
    usual: &'a Usual,
    partial: Vec<u8>,
    activities: HashMap<u64, Tracked>,
    begun: HashSet<String>,
    shown: usize,
    building: bool,
    tails: Vec<Tail>,
    times: Vec<BuildTime>,
    errors: Vec<String>,
    others: VecDeque<String>,
}

/// How long builds usually take, in milliseconds, by the derivation's name and its host.
pub type Usual = HashMap<(String, String), u64>;

/// One derivation that was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildTime {
    /// Its name, without the hash.
    pub name: String,
    /// The machine that built it; empty for this one.
    pub host: String,
    /// How long it took.
    pub time: Duration,
}

/// An activity under way.
#[derive(Debug, Default)]
struct Tracked {
    shown: bool,
    build: Option<Instant>,
    drv: String,
    host: String,
    tail: Option<usize>,
    phase: String,
    phases: u16,
    progress: [u64; 4],
}

/// The last lines of a derivation's log.
#[derive(Debug)]
struct Tail {
    drv: String,
    lines: VecDeque<String>,
    running: bool,
}

/// What the log said besides its events.
#[derive(Debug, Default)]
pub struct Report {
    /// Nix's error messages, with their colours.
    pub errors: Vec<String>,
    /// The last lines that were none of the log's own, e.g. about Nix's arguments.
    pub others: Vec<String>,
    /// Derivations that were built, with the last lines of each; bounded.
    pub tails: Vec<(String, Vec<String>)>,
    /// How long builds took that have ended, well or not; bounded.
    pub times: Vec<BuildTime>,
}

impl<'a> NixLog<'a> {
    /// A reader at the beginning of a log.
    pub fn new(sink: &'a EventSink, origin: &'a Origin, usual: &'a Usual) -> Self {
        Self {
            sink,
            origin,
            usual,
            partial: Vec::new(),
            activities: HashMap::new(),
            begun: HashSet::new(),
            shown: 0,
            building: false,
            tails: Vec::new(),
            times: Vec::new(),
            errors: Vec::new(),
            others: VecDeque::new(),
        }
    }

    /// Takes the next bytes. A line without its end is kept until that comes.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while let Some(end) = memchr(b'\n', bytes) {
            if self.partial.is_empty() {
                self.line(&bytes[..end]);
            } else {
                self.keep(&bytes[..end]);
                let mut line = std::mem::take(&mut self.partial);
                self.line(&line);
                line.clear();
                self.partial = line;
            }
            bytes = &bytes[end + 1..];
        }
        self.keep(bytes);
    }

    /// The log is over: the unterminated line is read and open activities are closed.
    pub fn finish(mut self) -> Report {
        let line = std::mem::take(&mut self.partial);
        self.line(&line);
        for (id, activity) in &self.activities {
            if activity.shown {
                self.sink.send(Kind::ActivityStopped { id: *id });
            }
        }
        let tails = self.tails.into_iter().map(|tail| (tail.drv, tail.lines.into())).collect();
        Report { errors: self.errors, others: self.others.into(), tails, times: self.times }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = MAX_RAW.saturating_sub(self.partial.len());
        self.partial.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn line(&mut self, line: &[u8]) {
        let Some(json) = line.strip_prefix(b"@nix ") else { return self.pass(line) };
        if let Some(message) = nixmsg::parse(json) {
            return self.message(&message);
        }
        let lossy = String::from_utf8_lossy(json);
        match nixmsg::parse(lossy.as_bytes()) {
            Some(message) => self.message(&message),
            // Whose line it was stood behind what was cut off.
            None if line.len() >= MAX_RAW => {
                self.pass(b"a line of a build's log is longer than 1 MiB: left out")
            }
            None => self.pass(line),
        }
    }

    /// A line that is not JSON: Nix says some things before its logger is up.
    fn pass(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let text = clean(cut(&line, MAX_RAW));
        if !text.is_empty() {
            if self.others.len() >= MAX_OTHERS {
                self.others.pop_front();
            }
            self.others.push_back(text.clone().into_owned());
            self.say(INFO as u8, &text);
        }
    }

    fn message(&mut self, message: &Message<'_>) {
        match &*message.action {
            "result" => self.result(message),
            "start" => self.start(message),
            "stop" => self.stop(message.id),
            "msg" => self.msg(message),
            _ => {}
        }
    }

    fn msg(&mut self, message: &Message<'_>) {
        if message.level > INFO {
            return;
        }
        let text = self.origin.map(cut(&message.msg, MAX_RAW));
        // Errors are kept back: the caller may yet recover, and otherwise reports them whole.
        if message.level == 0 {
            if self.errors.len() < MAX_ERRORS {
                self.errors.push(cut(&text, 4 * crate::event::text::MAX_LINE).to_owned());
            }
            return;
        }
        // Expected: mvm's own inputs are never locked.
        if text.contains("not writing modified lock file") {
            return;
        }
        for line in text.lines().take(200) {
            self.say(message.level as u8, &clean(line));
        }
    }

    fn say(&self, level: u8, text: &str) {
        self.sink.send(Kind::Log { source: Source::Nix { level }, text: text.to_owned() });
    }

    fn start(&mut self, message: &Message<'_>) {
        if self.activities.len() >= MAX_ACTIVITIES || self.activities.contains_key(&message.id) {
            return;
        }
        let mut tracked = Tracked::default();
        if let Some(mut what) = activity(message)
            && self.shown < MAX_SHOWN
        {
            self.edges(&mut what);
            if let Activity::Build { drv, host, usual_ms, .. } = &mut what {
                *usual_ms = self.usual.get(&(drv_name(drv).to_owned(), host.clone())).copied();
                tracked.build = Some(Instant::now());
                tracked.tail = self.tail(drv);
                tracked.drv.clone_from(drv);
                tracked.host.clone_from(host);
            }
            if !self.building
                && !matches!(
                    what,
                    Activity::Evaluate { .. } | Activity::Other { .. } | Activity::Total { .. }
                )
            {
                self.building = true;
                self.sink.phase("build");
            }
            tracked.shown = true;
            self.shown += 1;
            let parent =
                Some(message.parent).filter(|parent| self.activities.get(parent).is_some_and(|p| p.shown));
            self.sink.send(Kind::ActivityStarted { id: message.id, parent, what });
        }
        self.activities.insert(message.id, tracked);
    }

    /// Finds what a build needs. What that is began before it, so what began later need not be looked at.
    fn edges(&mut self, what: &mut Activity) {
        let Activity::Build { drv, needs, .. } = what else { return };
        if self.begun.len() < MAX_BEGUN && self.begun.insert(drv.clone()) {
            *needs = drv::needs(drv, |input| input != drv.as_str() && self.begun.contains(input));
        }
    }

    /// A place for the last lines of `drv`: a new one, or that of the build that ended first.
    fn tail(&mut self, drv: &str) -> Option<usize> {
        let tail = Tail { drv: drv.to_owned(), lines: VecDeque::new(), running: true };
        if self.tails.len() < MAX_TAILS {
            self.tails.push(tail);
            return Some(self.tails.len() - 1);
        }
        let free = self.tails.iter().position(|tail| !tail.running)?;
        self.tails[free] = tail;
        Some(free)
    }

    fn stop(&mut self, id: u64) {
        let Some(activity) = self.activities.remove(&id) else { return };
        if let Some(tail) = activity.tail.and_then(|tail| self.tails.get_mut(tail)) {
            tail.running = false;
        }
        if let Some(since) = activity.build
            && self.times.len() < MAX_TIMES
        {
            let name = drv_name(&activity.drv).to_owned();
            self.times.push(BuildTime { name, host: activity.host, time: since.elapsed() });
        }
        if activity.shown {
            self.sink.send(Kind::ActivityStopped { id });
        }
    }

    fn result(&mut self, message: &Message<'_>) {
        match message.kind {
            101 | 107 => self.log_line(message),
            104 => self.phase(message),
            105 => self.progress(message),
            _ => {}
        }
    }

    fn log_line(&mut self, message: &Message<'_>) {
        let text = clean(message.fields.text(0));
        let Some(activity) = self.activities.get(&message.id).filter(|activity| activity.build.is_some())
        else {
            return self.say(INFO as u8, &text);
        };
        if let Some(tail) = activity.tail.and_then(|tail| self.tails.get_mut(tail)) {
            // The buffer of the line that falls out serves the one that comes in.
            let mut line = if tail.lines.len() >= TAIL_LINES { tail.lines.pop_front() } else { None }
                .unwrap_or_default();
            line.clear();
            line.push_str(cut(&text, TAIL_LINE));
            tail.lines.push_back(line);
        }
        let source = Source::Build { drv: activity.drv.clone() };
        self.sink.send(Kind::Log { source, text: text.into_owned() });
    }

    fn phase(&mut self, message: &Message<'_>) {
        let Some(activity) = self.activities.get_mut(&message.id).filter(|activity| activity.shown) else {
            return;
        };
        let phase = clean(cut(message.fields.text(0), MAX_NAME));
        if activity.phase == *phase || activity.phases >= MAX_PHASES {
            return;
        }
        activity.phases += 1;
        activity.phase = phase.clone().into_owned();
        self.sink.send(Kind::ActivityPhase { id: message.id, phase: phase.into_owned() });
    }

    fn progress(&mut self, message: &Message<'_>) {
        let Some(activity) = self.activities.get_mut(&message.id).filter(|activity| activity.shown) else {
            return;
        };
        let [done, expected, running, failed] = [0, 1, 2, 3].map(|index| message.fields.int(index));
        // Failed builds leave Nix's `expected`, and anybody can forge numbers.
        let expected = expected.max(done.saturating_add(running).saturating_add(failed));
        if activity.progress != [done, expected, running, failed] {
            activity.progress = [done, expected, running, failed];
            self.sink.send(Kind::Progress { id: Some(message.id), done, expected, running, failed });
        }
    }
}

/// What an activity is; `None` for one nobody needs to see.
fn activity(message: &Message<'_>) -> Option<Activity> {
    let name = |text: &str| clean(cut(text, MAX_NAME)).into_owned();
    let field = |index| name(message.fields.text(index));
    let what = match message.kind {
        100 | 108 => Activity::Copy { path: field(0) },
        101 => Activity::Download { uri: field(0) },
        103 => Activity::Total { of: "copies".into() },
        104 => Activity::Total { of: "builds".into() },
        105 => Activity::Build { drv: field(0), host: field(1), usual_ms: None, needs: Vec::new() },
        _ if message.text.is_empty() || message.level > INFO + 1 => return None,
        112 => Activity::Evaluate { text: name(&message.text) },
        0 if message.text.starts_with("evaluating") || message.text.starts_with("copying") => {
            Activity::Evaluate { text: name(&message.text) }
        }
        _ => Activity::Other { text: name(&message.text) },
    };
    Some(what)
}

#[cfg(test)]
mod tests;
