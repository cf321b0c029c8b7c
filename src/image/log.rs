//! Nix's log → events: activities, progress, log lines and, for a failure, what was said last.

mod tails;

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use memchr::memchr;

use super::builders::{Unreached, is_search};
use super::drv;
use super::nixmsg::{self, Message};
use super::origin::Origin;
use crate::event::text::{clean, cut, strip};
use crate::event::words::drv_name;
use crate::event::{Activity, EventSink, Kind, Source};
pub use tails::Tail;
use tails::Tails;

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
/// Machines remembered that cannot be used.
const MAX_UNREACHED: usize = 50;
/// Builds whose duration is kept.
const MAX_TIMES: usize = 4096;
/// Derivations remembered for what others need of them.
const MAX_BEGUN: usize = 50_000;
/// Lines kept of what is none of the log's own.
const MAX_OTHERS: usize = 10;
/// Nix's number for the activity that counts builds.
const BUILDS: u64 = 104;
/// Nix's level for information; what is above is talk.
const INFO: u64 = 3;

/// Reads Nix's stderr piece by piece and tells a sink what it means.
#[derive(Debug)]
pub struct NixLog<'a> {
    sink: &'a EventSink,
    origin: &'a Origin,
    usual: &'a Usual,
    home: &'a str,
    partial: Vec<u8>,
    activities: HashMap<u64, Tracked>,
    begun: HashSet<String>,
    /// Builds under way on other machines.
    remote: HashMap<String, u64>,
    shown: usize,
    building: bool,
    counted: bool,
    tails: Tails,
    times: Vec<BuildTime>,
    errors: Vec<String>,
    unreached: Vec<Unreached>,
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
    /// The activity that this one is, as another machine's Nix tells of it again.
    again: Option<u64>,
    build: Option<Instant>,
    drv: String,
    host: String,
    tail: Option<usize>,
    phase: String,
    phases: u16,
    progress: [u64; 4],
}

/// What the log said besides its events.
#[derive(Debug, Default)]
pub struct Report {
    /// Nix's error messages, with their colours.
    pub errors: Vec<String>,
    /// The last lines that were none of the log's own, e.g. about Nix's arguments.
    pub others: Vec<String>,
    /// Machines that could not be used; bounded.
    pub unreached: Vec<Unreached>,
    /// Derivations that were built, with the last lines of each; bounded.
    pub tails: Vec<Tail>,
    /// How long builds took that have ended, well or not; bounded.
    pub times: Vec<BuildTime>,
}

impl<'a> NixLog<'a> {
    /// A reader at the beginning of a log. `home` is where builds are done of which Nix names no machine.
    pub fn new(sink: &'a EventSink, origin: &'a Origin, usual: &'a Usual, home: &'a str) -> Self {
        Self {
            sink,
            origin,
            usual,
            home,
            partial: Vec::new(),
            activities: HashMap::new(),
            begun: HashSet::new(),
            remote: HashMap::new(),
            shown: 0,
            building: false,
            counted: false,
            tails: Tails::default(),
            times: Vec::new(),
            errors: Vec::new(),
            unreached: Vec::new(),
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
        Report {
            errors: self.errors,
            others: self.others.into(),
            unreached: self.unreached,
            tails: self.tails.all(),
            times: self.times,
        }
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
            if let Some(unreached) = Unreached::parse(&text) {
                return self.unreached(unreached);
            }
            if self.errors.len() < MAX_ERRORS {
                self.errors.push(cut(&text, 4 * crate::event::text::MAX_LINE).to_owned());
            }
            return;
        }
        // Expected: mvm's own inputs are never locked.
        if text.contains("not writing modified lock file") {
            return;
        }
        // Which machines there are is no warning by itself: without any, the error says what to do.
        let level = if is_search(&text) { INFO } else { message.level };
        for line in text.lines().take(200) {
            self.say(level as u8, &clean(line));
        }
    }

    /// Nix tries a machine again for each derivation: it is told of once.
    fn unreached(&mut self, mut unreached: Unreached) {
        // Nix only knows that ssh has ended; what that said stands before.
        if let Some(said) = self.others.back().filter(|_| unreached.machine.starts_with("ssh-ng:")) {
            unreached.why = strip(said);
        }
        let known = self.unreached.iter().any(|known| known.machine == unreached.machine);
        if !known && self.unreached.len() < MAX_UNREACHED {
            self.sink.warn(clean(&unreached.words()));
            self.unreached.push(unreached);
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
        let what = activity(message);
        if let Some(Activity::Build { drv, host, .. }) = &what
            && let Some(known) = self.remote.get(drv).filter(|_| host.is_empty())
        {
            tracked.again = Some(*known);
        } else if message.kind == BUILDS && std::mem::replace(&mut self.counted, true) {
            // Another machine counts its part of it.
        } else if let Some(mut what) = what
            && self.shown < MAX_SHOWN
        {
            self.edges(&mut what);
            if let Activity::Build { drv, host, usual_ms, .. } = &mut what {
                if host.is_empty() {
                    host.push_str(self.home);
                } else {
                    self.remote.insert(drv.clone(), message.id);
                }
                *usual_ms = self.usual.get(&(drv_name(drv).to_owned(), host.clone())).copied();
                tracked.build = Some(Instant::now());
                tracked.tail = self.tails.begin(drv, host);
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

    fn stop(&mut self, id: u64) {
        let Some(activity) = self.activities.remove(&id) else { return };
        self.tails.end(activity.tail);
        if self.remote.get(&activity.drv) == Some(&id) {
            self.remote.remove(&activity.drv);
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
        let id = self.activities.get(&message.id).and_then(|it| it.again).unwrap_or(message.id);
        match message.kind {
            101 | 107 => self.log_line(id, message),
            104 => self.phase(id, message),
            105 => self.progress(id, message),
            _ => {}
        }
    }

    fn log_line(&mut self, id: u64, message: &Message<'_>) {
        let text = clean(message.fields.text(0));
        let Some(activity) = self.activities.get(&id).filter(|activity| activity.build.is_some()) else {
            return self.say(INFO as u8, &text);
        };
        self.tails.add(activity.tail, &text);
        let source = Source::Build { drv: activity.drv.clone() };
        self.sink.send(Kind::Log { source, text: text.into_owned() });
    }

    fn phase(&mut self, id: u64, message: &Message<'_>) {
        let Some(activity) = self.activities.get_mut(&id).filter(|activity| activity.shown) else {
            return;
        };
        let phase = clean(cut(message.fields.text(0), MAX_NAME));
        if activity.phase == *phase || activity.phases >= MAX_PHASES {
            return;
        }
        activity.phases += 1;
        activity.phase = phase.clone().into_owned();
        self.sink.send(Kind::ActivityPhase { id, phase: phase.into_owned() });
    }

    fn progress(&mut self, id: u64, message: &Message<'_>) {
        let Some(activity) = self.activities.get_mut(&id).filter(|activity| activity.shown) else {
            return;
        };
        let [done, expected, running, failed] = [0, 1, 2, 3].map(|index| message.fields.int(index));
        // Failed builds leave Nix's `expected`, and anybody can forge numbers.
        let expected = expected.max(done.saturating_add(running).saturating_add(failed));
        if activity.progress != [done, expected, running, failed] {
            activity.progress = [done, expected, running, failed];
            self.sink.send(Kind::Progress { id: Some(id), done, expected, running, failed });
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
        BUILDS => Activity::Total { of: "builds".into() },
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
