//! Which build somebody means.

use std::collections::BTreeSet;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;

use super::Past;
use crate::artifacts::Artifacts;
use crate::event::text::strip;
use crate::event::words::{drv_name, short_duration};
use crate::image::flake::FlakeRef;
use crate::image::mvmfile;

/// How many builds or derivations an error lists.
const LISTED: usize = 8;

type IdOf = fn(&Past) -> Option<&str>;

/// A build that somebody means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// The newest, failed ones included.
    Newest,
    /// That of the task with an id that begins so.
    Task(String),
    /// That with an id that begins so.
    Build(String),
    /// The newest of a flake, absolute; of any attribute unless one is given.
    Flake(String),
}

/// Why there is no such build or derivation.
#[derive(Debug, thiserror::Error)]
#[error("{what}\nhelp: {help}")]
pub struct WantedError {
    what: String,
    help: String,
}

impl FromStr for Wanted {
    type Err = WantedError;

    fn from_str(text: &str) -> Result<Self, WantedError> {
        let path = Path::new(text);
        if is_of_task(text) && !path.is_dir() {
            return Ok(Self::Task(text.into()));
        }
        if let Ok(artifacts) = Artifacts::open(path) {
            return Ok(Self::Build(artifacts.manifest.build));
        }
        let is_id = !text.is_empty() && text.len() <= 32 && text.bytes().all(|b| b.is_ascii_alphanumeric());
        if is_id && !path.is_dir() {
            return Ok(Self::Build(text.into()));
        }
        if let Some(dir) = path.canonicalize().ok().filter(|dir| dir.join(mvmfile::FILE).is_file()) {
            return Ok(Self::Flake(dir.display().to_string()));
        }
        let flake = text.parse::<FlakeRef>().map_err(|_| WantedError {
            what: format!("`{text}` is neither a build nor a flake"),
            help: "give a build's id, its task (`b-…`), its directory or a flake; `mvm log` alone shows the newest".into(),
        })?;
        Ok(Self::Flake(flake.display()))
    }
}

impl Wanted {
    /// The one that is meant, of builds in the order of their age.
    pub fn find<'p>(&self, all: &'p [Past]) -> Result<&'p Past, WantedError> {
        let mut fits: Vec<&Past> = all.iter().filter(|past| self.fits(past)).collect();
        if let Some((begin, what, id)) = self.begin() {
            // The whole id of one may begin another's.
            if fits.iter().any(|past| id(past) == Some(begin)) {
                fits.retain(|past| id(past) == Some(begin));
            }
            let ids: BTreeSet<&str> = fits.iter().filter_map(|past| id(past)).collect();
            if ids.len() > 1 {
                let what = format!("`{begin}` begins the ids of {} {what}", ids.len());
                let ids: Vec<&str> = ids.into_iter().collect();
                let help = format!("write more of one: {}", first(&ids).join(", "));
                return Err(WantedError { what, help });
            }
        }
        // Who asks for a log means a time when there was one.
        let done = fits.iter().find(|past| !past.is_hit()).or(fits.first());
        done.copied().ok_or_else(|| self.missing(all))
    }

    /// How an id begins that is looked for, what has one, and where that is.
    fn begin(&self) -> Option<(&str, &str, IdOf)> {
        match self {
            Self::Build(begin) => Some((begin, "builds", |past| past.build.as_deref())),
            Self::Task(begin) => Some((begin, "tasks", |past| Some(past.task.as_str()))),
            _ => None,
        }
    }

    fn fits(&self, past: &Past) -> bool {
        match self {
            Self::Newest => true,
            Self::Task(begin) => past.task.as_str().starts_with(begin),
            Self::Build(begin) => past.build.as_ref().is_some_and(|build| build.starts_with(begin)),
            Self::Flake(flake) => {
                let rest = past.flake.strip_prefix(flake.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('#'))
            }
        }
    }

    fn missing(&self, all: &[Past]) -> WantedError {
        let what = match self {
            Self::Newest => "there is no record of a build".into(),
            Self::Task(id) => format!("there is no record of a build by the task `{id}`"),
            Self::Build(id) => format!("there is no record of a build `{id}`"),
            Self::Flake(flake) => format!("there is no record of a build of `{flake}`"),
        };
        let help = match all {
            [] => "`mvm build --flake DIR` makes one".into(),
            all => format!("records of the last 50 tasks are kept; the newest builds:\n{}", table(all)),
        };
        WantedError { what, help }
    }
}

/// Whether the id of a task may begin so: its letter, and at least some of its numbers.
fn is_of_task(text: &str) -> bool {
    let rest = text.get(1..).and_then(|rest| rest.strip_prefix('-'));
    text.starts_with(|first: char| first.is_ascii_lowercase())
        && rest
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-'))
}

/// Builds, one a line.
fn table(all: &[Past]) -> String {
    let now = Timestamp::now();
    let line = |past: &Past| {
        let ago = Duration::try_from(now.duration_since(past.began)).unwrap_or_default();
        let id = past.build.as_ref().map(|build| format!("  {build}")).unwrap_or_default();
        let (task, ago) = (past.task.as_str(), short_duration(ago));
        format!("  {task}  {:9}  {ago:>4} ago  {}{id}", past.state(), past.flake)
    };
    all.iter().take(LISTED).map(line).collect::<Vec<_>>().join("\n")
}

/// The first few, and that there are more.
fn first(all: &[&str]) -> Vec<String> {
    let mut listed: Vec<String> = all.iter().take(LISTED).map(|name| (*name).into()).collect();
    if all.len() > LISTED {
        listed.push(format!("and {} more", all.len() - LISTED));
    }
    listed
}

/// The error for a derivation that was not built.
pub fn no_drv(past: &Past, name: &str) -> WantedError {
    let task = past.task.as_str();
    let names: Vec<String> = past.drvs.iter().map(|drv| strip(drv_name(drv))).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let help = match names.as_slice() {
        [] => {
            "it built nothing; name an earlier build, or the derivation by its path in the Nix store".into()
        }
        names => format!("it built {}", first(names).join(", ")),
    };
    WantedError { what: format!("the build {task} has no derivation `{name}`"), help }
}

/// The error for a name that several derivations have.
pub fn several_drvs(name: &str, drvs: &[&str]) -> WantedError {
    let what = format!("`{name}` names {} derivations", drvs.len());
    WantedError { what, help: strip(&format!("give the path of one: {}", first(drvs).join(", "))) }
}
