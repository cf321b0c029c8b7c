//! The way of a command into the VM.

use std::convert::Infallible;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::instance::{self, Instance};
use super::{INSTANCE, LimaError, PROGRAM, VERSION, command};

/// Commands that make the VM where there is none: all that take nothing for granted.
const MAKERS: [&str; 3] = ["bootstrap", "dev", "setup"];
/// Commands whose words name files by their place below the current directory.
const LOCAL: [&str; 5] = ["build", "dev", "run", "shell", "tui"];
/// Variables that go along.
const ALONG: [&str; 7] =
    ["CI", "COLORTERM", "MVM_ASCII", "MVM_HYPERVISOR", "NO_COLOR", "RUST_BACKTRACE", "TERM"];

/// Gives the command to the mvm in the VM, making and starting the VM first if need be.
///
/// On success it does not return: Lima's ssh is then this process, so that the terminal, signals
/// and the exit code are the command's own.
pub fn enter(args: &[OsString]) -> Result<Infallible, LimaError> {
    let name = command(args);
    let version = instance::version()?;
    let instance = ready(MAKERS.iter().any(|maker| name == *maker))?;
    let (args, dir) = place(args, &instance)?;
    let mut lima = Command::new(PROGRAM);
    lima.args(["shell", "--workdir"]).arg(dir).args([INSTANCE, "--", "env"]);
    lima.arg(format!("{VERSION}={version}"));
    for name in ALONG {
        if let Some(value) = std::env::var_os(name) {
            let mut pair = OsString::from(format!("{name}="));
            pair.push(value);
            lima.arg(pair);
        }
    }
    Err(LimaError::Start(lima.arg("mvm").args(args).exec()))
}

/// The VM, running.
fn ready(make: bool) -> Result<Instance, LimaError> {
    let found = Instance::find()?;
    match found.as_ref().map(|instance| instance.status.as_str()) {
        Some("Running") => {}
        Some("Stopped") => instance::start()?,
        Some(other) => return Err(LimaError::Unusable(other.to_lowercase())),
        None if make => instance::create()?,
        None => return Err(LimaError::NoInstance),
    }
    match found.filter(|instance| instance.status == "Running") {
        Some(instance) => Ok(instance),
        None => Instance::find()?.ok_or(LimaError::NoInstance),
    }
}

/// The arguments as they are right in the VM, and the directory there.
fn place(args: &[OsString], instance: &Instance) -> Result<(Vec<OsString>, PathBuf), LimaError> {
    let name = command(args);
    let here = std::env::current_dir().map_err(|source| LimaError::NoDir { dir: ".".into(), source })?;
    let (mut args, mut dir) = (args.to_vec(), here.clone());
    let project = (name == "shell").then(|| take_project(&mut args)).flatten();
    if let Some(project) = &project {
        dir = project.canonicalize().map_err(|source| LimaError::NoDir { dir: project.clone(), source })?;
    }
    if instance.sees(&dir) {
        return Ok((args, dir));
    }
    if LOCAL.iter().any(|local| name == *local) {
        return Err(unseen(dir, instance));
    }
    // To the others it is all one where they are.
    Ok((args, "/".into()))
}

/// Takes `--project DIR` out of the arguments before `--`: the directory says it.
fn take_project(args: &mut Vec<OsString>) -> Option<PathBuf> {
    let end = args.iter().position(|arg| arg == "--").unwrap_or(args.len());
    if let Some(index) = args[..end].iter().position(|arg| arg == "--project") {
        if index + 1 >= end {
            // The mvm inside says that its value is missing.
            return None;
        }
        args.remove(index);
        return Some(args.remove(index).into());
    }
    let joined = |arg: &OsString| arg.to_str()?.strip_prefix("--project=").map(PathBuf::from);
    let (index, dir) = args[..end].iter().enumerate().find_map(|(index, arg)| Some((index, joined(arg)?)))?;
    args.remove(index);
    Some(dir)
}

fn unseen(dir: PathBuf, instance: &Instance) -> LimaError {
    let seen: Vec<_> = instance.seen().iter().map(|place| format!("`{}`", place.display())).collect();
    let seen = if seen.is_empty() { "none of the host's".into() } else { seen.join(", ") };
    LimaError::Unseen { quoted: for_shell(&dir), dir, seen }
}

fn for_shell(path: &Path) -> String {
    let text = path.as_os_str().to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(plain) { text.into_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_project_is_taken_out_of_mvms_words_and_not_out_of_the_commands() {
        for (before, after, dir) in [
            ("shell --project a -- b", "shell -- b", Some("a")),
            ("shell --project=a", "shell", Some("a")),
            ("shell -- b --project a", "shell -- b --project a", None),
            ("shell --project", "shell --project", None),
        ] {
            let mut args = words(before);
            assert_eq!(take_project(&mut args).as_deref(), dir.map(Path::new), "{before}");
            assert_eq!(args, words(after));
        }
    }

    #[test]
    fn the_command_is_the_first_word_that_is_no_option() {
        assert_eq!(command(&words("--no-tui --json run --flake .")), OsStr::new("run"));
        assert_eq!(command(&words("--version")), OsStr::new(""));
    }
}
