//! A build that failed: what is to be said about it.

use std::path::Path;

use super::error::{BuildError, DISK_FULL};
use super::flake::Tree;
use super::log::Report;
use super::nix::Nix;
use super::request::BuildRequest;
use super::source::{is_tracked, untracked};
use crate::event::text::{clean, strip};
use crate::host::languages::Language;

/// Lines kept of the failing log, the last ones.
const MAX_LINES: usize = 10_000;
/// Files named in a hint.
const MAX_NAMED: usize = 5;

/// Makes the error of a failed run of Nix.
pub async fn explain(request: &BuildRequest, attribute: &str, report: Report, nix: &Nix<'_>) -> BuildError {
    // What is wrong with its arguments Nix says before its log begins.
    let said = if report.errors.is_empty() { &report.others } else { &report.errors };
    let messages: Vec<String> = said.iter().map(|error| plain(error)).collect();
    let message = if messages.is_empty() { "nix failed without a word".into() } else { messages.join("\n") };
    if let Some(error) = lacking(request, &message) {
        return error;
    }
    // Nix does not say which derivation failed but in words: one that was built and is named.
    let failed = report.tails.into_iter().find(|(drv, _)| message.contains(drv.as_str()));
    let mut help = hint(request, &message);
    let mut log = Vec::new();
    if let Some((drv, tail)) = failed {
        log = whole_log(&drv, nix).await.unwrap_or(tail);
        help = help.or_else(|| Some(format!("`nix log {drv}` shows the whole log")));
    }
    let help =
        help.unwrap_or_else(|| "mend the flake, or add `-- --show-trace` to see where it comes from".into());
    let flake = match &request.flake.attribute {
        Some(_) => request.flake.display(),
        None => format!("{}#{attribute}", request.flake.display()),
    };
    BuildError::Nix { flake, message, help, log }
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
    // The last lines of a log, which Nix quotes, hold what builders tell Nix itself.
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("> @nix {"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The last lines of what Nix kept of a derivation's log.
async fn whole_log(drv: &str, nix: &Nix<'_>) -> Option<Vec<String>> {
    let drv_is_sane = drv.starts_with("/nix/store/") && drv.ends_with(".drv") && !drv.contains("..");
    if !drv_is_sane {
        return None;
    }
    let nix = Nix { inputs: None, ..*nix };
    let log = nix.ask(&["log"], &[drv.into()]).await.ok()??;
    let text = String::from_utf8_lossy(&log);
    // What builders tell Nix itself, such as the phase they are in, is among it.
    let lines = text.lines().filter(|line| !line.starts_with("@nix {"));
    let lines: Vec<String> = lines.rev().take(MAX_LINES).map(|line| clean(line).into_owned()).collect();
    if lines.is_empty() { None } else { Some(lines.into_iter().rev().collect()) }
}

/// What the user can do about it.
fn hint(request: &BuildRequest, message: &str) -> Option<String> {
    if message.contains("No space left on device") {
        return Some(DISK_FULL.into());
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
    let quoted = |path: &Path| {
        let path = path.display().to_string();
        let safe = path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_.-+".contains(&b));
        if safe { path } else { format!("'{}'", path.replace('\'', r"'\''")) }
    };
    let files: Vec<String> = files.iter().map(|file| quoted(file)).collect();
    format!(
        "git does not track this yet, so Nix does not see it: git -C {} add {}",
        quoted(&tree.root),
        files.join(" ")
    )
}

/// Whether a message says that an output, built again, came out differently.
pub fn differs(report: &Report) -> bool {
    report.errors.iter().any(|error| error.contains("deterministic"))
}
