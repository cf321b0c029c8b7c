//! A build that failed: what is to be said about it.

use std::collections::{HashSet, VecDeque};
use std::path::Path;

use serde::de::IgnoredAny;

use super::attribute::system;
use super::builders::{self, Unreached};
use super::drvlog;
use super::error::{BuildError, DISK_FULL};
use super::flake::Tree;
use super::log::{Report, Tail};
use super::nix::Nix;
use super::request::BuildRequest;
use super::source::{is_tracked, untracked};
use crate::event::TaskId;
use crate::event::text::strip;
use crate::event::words::{as_word, drv_name, host_name};
use crate::host::languages::Language;

/// Lines kept of the failing logs, the last ones.
const MAX_LINES: usize = 10_000;
/// Derivations whose failure is told of one by one.
const MAX_FAILED: usize = 10;
/// Files named in a hint.
const MAX_NAMED: usize = 5;

/// A derivation that failed.
struct Failed {
    drv: String,
    host: String,
    /// The last lines of its log.
    lines: VecDeque<String>,
    /// How many lines its log has.
    whole: usize,
}

/// Makes the error of a failed run of Nix, in the task whose record shows all of it again.
pub async fn explain(
    request: &BuildRequest,
    attribute: &str,
    report: Report,
    nix: &Nix<'_>,
    task: &TaskId,
) -> BuildError {
    let message = message(request, &report);
    if let Some(error) = lacking(request, &message) {
        return error;
    }
    let names: Vec<&str> = report.tails.iter().map(|tail| drv_name(&tail.drv)).collect();
    // A name is short, but may be that of several derivations.
    let called = |drv: &str| match names.iter().filter(|name| **name == drv_name(drv)).count() {
        1 => drv_name(drv).to_owned(),
        _ => drv.to_owned(),
    };
    let failed = failed(request, &message, &report.tails, nix).await;
    let mut lines = vec![message.clone()];
    lines.extend(failed.iter().map(|it| it.words(&called(&it.drv))));
    let mut help: Vec<String> = hint(request, &report, &message).into_iter().collect();
    // Of what another Nix has built, the record keeps so much only.
    let whole = if nix.elsewhere.is_none() { "its whole log" } else { "its log" };
    let again = |it: &Failed| format!("`mvm log {} --drv {}` shows {whole}", task.as_str(), called(&it.drv));
    help.extend(failed.iter().map(again));
    if help.is_empty() {
        help.push("mend the flake, or add `-- --show-trace` to see where it comes from".into());
    }
    let flake = match &request.flake.attribute {
        Some(_) => request.flake.display(),
        None => format!("{}#{attribute}", request.flake.display()),
    };
    let log = match <[Failed; 1]>::try_from(failed) {
        Ok([failed]) => failed.lines.into(),
        Err(several) => several.into_iter().flat_map(Failed::named_lines).collect(),
    };
    BuildError::Nix { flake, message: lines.join("\n"), help: help.join("\nhelp: "), log }
}

/// What Nix said, in so far as it is news.
fn message(request: &BuildRequest, report: &Report) -> String {
    // What is wrong with its arguments Nix says before its log begins; and so does ssh with the store.
    let far = report.errors.iter().any(|error| is_of_store(request, error));
    let others = report.others.iter().filter(|_| far || report.errors.is_empty());
    let said = report.errors.iter().map(|error| plain(error)).chain(others.map(|line| plain(line)));
    let lost = !report.unreached.is_empty();
    let news = said.filter(|said| !(lost && builders::is_idle(said)));
    let mut messages: Vec<String> = news.collect();
    if lost && messages.is_empty() {
        messages.push("no builder can be used".into());
        messages.extend(report.unreached.iter().map(Unreached::words));
    }
    if messages.is_empty() { "nix failed without a word".into() } else { messages.join("\n") }
}

/// Whether an error is about the other machine's store that is built in.
fn is_of_store(request: &BuildRequest, error: &str) -> bool {
    let remote = request.machines.store.as_ref().filter(|store| store.is_remote());
    remote.is_some_and(|store| error.contains(host_name(store.as_str())))
}

/// The derivations that failed. Nix does not say which but in words: those that were built and are named.
async fn failed(request: &BuildRequest, message: &str, tails: &[Tail], nix: &Nix<'_>) -> Vec<Failed> {
    let mut seen = HashSet::new();
    // A builder can forge names, and this one goes into a command that people copy.
    let is_sane = |tail: &Tail| drvlog::is_store_path(&tail.drv) && message.contains(tail.drv.as_str());
    let named = |tail: &&Tail| is_sane(tail) && seen.insert(tail.drv.clone());
    let named: Vec<&Tail> = tails.iter().filter(named).take(MAX_FAILED).collect();
    let most = MAX_LINES / named.len().max(1);
    let mut failed = Vec::new();
    for tail in named {
        let Tail { drv, host, lines: last, .. } = tail;
        let (mut lines, mut whole) = (VecDeque::new(), 0);
        let keep = |line: &str| {
            whole += 1;
            if lines.len() >= most {
                lines.pop_front();
            }
            lines.push_back(line.to_owned());
        };
        // Where Nix cannot tell, what came by will do.
        let read = drvlog::read(drv, request.machines.store.as_ref(), nix, keep).await;
        if !read.unwrap_or(false) || whole < last.len() {
            (lines, whole) = (last.clone(), last.len());
        }
        failed.push(Failed { drv: drv.clone(), host: host.clone(), lines, whole });
    }
    failed
}

impl Failed {
    /// That it failed, where, and how much it said.
    fn words(&self, called: &str) -> String {
        let at = if self.host.is_empty() { String::new() } else { format!(" on {}", host_name(&self.host)) };
        let lines = match self.whole {
            0 => "without a line of log".into(),
            1 => "after 1 line of log".into(),
            whole if whole > self.lines.len() => {
                format!("after {whole} lines of log, of which the last {} are above", self.lines.len())
            }
            whole => format!("after {whole} lines of log"),
        };
        format!("{called} failed{at} {lines}")
    }

    /// Its log with its name before each line, for where there are others.
    fn named_lines(self) -> impl Iterator<Item = String> {
        let Self { drv, lines, .. } = self;
        lines.into_iter().map(move |line| format!("{}> {line}", drv_name(&drv)))
    }
}

/// The error for a flake that takes from mvm what is not laid out here.
pub fn lacking(request: &BuildRequest, message: &str) -> Option<BuildError> {
    let lacks =
        |name: &str| message.contains(name) && request.inputs.overrides.iter().all(|(had, _)| had != name);
    if ["mvm-kernel", "mvm-host-tools"].into_iter().any(lacks) {
        return Some(BuildError::NotPrepared);
    }
    let language = Language::ALL.into_iter().find(|language| lacks(language.input()));
    language.map(|language| BuildError::NoLanguage(language.name()))
}

fn plain(error: &str) -> String {
    let text = strip(error);
    let text = text.strip_prefix("error:").unwrap_or(&text).trim();
    let mut lines = text.lines().peekable();
    let mut kept = Vec::new();
    while let Some(line) = lines.next() {
        if !line.trim_end().ends_with("log lines:") {
            kept.push(line);
            continue;
        }
        // Nix quotes the last lines of a log, which is shown anyway, and then its own way to see it.
        while lines.next_if(|line| line.trim_start().starts_with('>')).is_some() {}
        while lines
            .next_if(|line| ["For full log", "nix log"].iter().any(|way| line.trim_start().starts_with(way)))
            .is_some()
        {}
    }
    kept.join("\n").trim_end_matches([';', '\n']).to_owned()
}

/// What the user can do about it.
fn hint(request: &BuildRequest, report: &Report, message: &str) -> Option<String> {
    if message.contains("No space left on device") {
        return Some(DISK_FULL.into());
    }
    if report.tails.is_empty() && (!report.unreached.is_empty() || builders::is_idle(message)) {
        return Some(builders::help(&report.unreached, &system()));
    }
    if let Some(tree) = request.flake.tree() {
        let lock = tree.dir.join("flake.lock");
        let is_broken = |text: Vec<u8>| serde_json::from_slice::<IgnoredAny>(&text).is_err();
        if std::fs::read(&lock).is_ok_and(is_broken) {
            let lock = as_word(&lock);
            return Some(format!(
                "{lock} is no JSON; is a merge unfinished? Mend it, or remove it: Nix makes it anew"
            ));
        }
    }
    let unknown = ["unrecognised flag '", "cannot find flake 'flake:"].iter().find_map(|begin| {
        let (_, rest) = message.split_once(begin)?;
        rest.split('\'').next()
    });
    if unknown.is_some_and(|unknown| request.nix_args.iter().any(|arg| arg == unknown)) {
        return Some("what comes after `--` are options, as `nix build --help` has them".into());
    }
    if message.contains("don't know how to open Nix store") {
        return Some("Nix knows stores such as `ssh-ng://HOST`, `local?root=DIR` and `https://CACHE`".into());
    }
    if let Some(store) = &request.machines.store {
        // Nix refuses with words that lead nowhere.
        if let Some(rest) = store.as_str().strip_prefix("ssh://").filter(|_| report.tails.is_empty()) {
            return Some(format!("Nix builds in a store by ssh only as `--store 'ssh-ng://{rest}'`"));
        }
        if is_of_store(request, message) {
            return Some(builders::try_ssh(store.as_str()));
        }
    }
    let tree = request.flake.tree().filter(|tree| tree.git)?;
    let flake = tree.dir.strip_prefix(&tree.root).ok()?.join("flake.nix");
    if !is_tracked(tree, &flake) {
        return Some(add(tree, &[flake.as_path()]));
    }
    let files = untracked(tree);
    // The path as the message names it, or at least the file or one of its directories.
    let named: Vec<&Path> = files
        .iter()
        .map(|file| file.as_path())
        .filter(|file| {
            file.ancestors()
                .filter(|part| !part.as_os_str().is_empty())
                .any(|part| ends_a_path(message, &format!("/{}", part.display())) && !is_tracked(tree, part))
        })
        .take(MAX_NAMED)
        .collect();
    (!named.is_empty()).then(|| add(tree, &named))
}

/// Whether `message` has `path` with nothing more of a name behind it.
fn ends_a_path(message: &str, path: &str) -> bool {
    message.match_indices(path).any(|(at, _)| {
        !message[at + path.len()..].starts_with(|c: char| c.is_alphanumeric() || matches!(c, '-' | '_'))
    })
}

fn add(tree: &Tree, files: &[&Path]) -> String {
    let command = git_add(&tree.root, files);
    format!("git does not track this yet, so Nix does not see it: {command}")
}

/// The command that has git track files of the tree at `root`.
pub fn git_add(root: &Path, files: &[&Path]) -> String {
    let files: Vec<String> = files.iter().map(|file| as_word(file)).collect();
    format!("git -C {} add {}", as_word(root), files.join(" "))
}

/// Whether a message says that an output, built again, came out differently.
pub fn differs(report: &Report) -> bool {
    report.errors.iter().any(|error| error.contains("deterministic"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nix_quotes_of_a_log_is_left_out() {
        let older = "error: builder for 'x' failed with exit code 9;\n       last 2 log lines:\n       > a\n       > @nix { }\n       For full logs, run 'nix log x'.";
        assert_eq!(plain(older), "builder for 'x' failed with exit code 9");
        let newer = "error: builder for 'x' failed;\n       last 1 log lines:\n       > a\n       For full logs, run:\n         nix log x\n       and more";
        assert_eq!(plain(newer), "builder for 'x' failed;\n       and more");
    }
}
