//! The Linux VM that mvm works in on macOS: made, started, and given the command.
//!
//! This room stands on the standard library alone: on macOS there is nothing else of mvm.

mod instance;
mod passage;

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;

pub use instance::{Instance, TEMPLATE};
pub use passage::enter;

/// Lima's program.
pub const PROGRAM: &str = "limactl";
/// The VM's name in Lima.
pub const INSTANCE: &str = "mvm";
/// Set to `1`, it has mvm work in Lima on Linux too.
const CHOICE: &str = "MVM_LIMA";
/// Tells an mvm inside which Lima it is inside of.
const VERSION: &str = "MVM_LIMA_VERSION";

/// Why the command did not get into the VM.
#[derive(Debug, thiserror::Error)]
pub enum LimaError {
    /// No Lima.
    #[error("Lima is not installed: there is no `{PROGRAM}` on PATH\nhelp: {}", how_to_install())]
    NotInstalled,
    /// A program does not start.
    #[error("cannot run `{PROGRAM}`: {0}\nhelp: does `{PROGRAM} --version` work?")]
    Start(io::Error),
    /// A call of it failed.
    #[error("`{PROGRAM} {words}` failed ({status})\n{said}\nhelp: run it by hand to see more")]
    Failed {
        /// Its arguments.
        words: String,
        /// How it ended.
        status: String,
        /// What it said.
        said: String,
    },
    /// It says something else than JSON.
    #[error(
        "cannot read what `{PROGRAM} list --json` says: {0}\nhelp: mvm knows Lima 2.0 and newer; does it work by hand?"
    )]
    Unreadable(serde_json::Error),
    /// No such VM.
    #[error("Lima has no VM named `{INSTANCE}` yet\nhelp: `mvm bootstrap` makes it; `mvm dev` does so too")]
    NoInstance,
    /// The VM is in a state that mvm does not mend.
    #[error(
        "Lima's VM `{INSTANCE}` is {0}\nhelp: `{PROGRAM} list` shows it; `{PROGRAM} delete --force {INSTANCE}` removes it, `mvm bootstrap` makes it anew"
    )]
    Unusable(String),
    /// There is nothing to put into the VM.
    #[error(
        "mvm has nothing to install in Lima's VM: its source is not at `{0}` any more\nhelp: set MVM_SOURCE to a clone of mvm below your home, or MVM_RELEASE to the URL of an archive with mvm for Linux"
    )]
    NoSource(PathBuf),
    /// A directory is not in the VM.
    #[error(
        "Lima's VM `{INSTANCE}` does not see the directory `{dir}`\nhelp: it sees {seen}; work below one of them, or add the directory: `{PROGRAM} stop {INSTANCE}`, then `{PROGRAM} edit {INSTANCE} --mount {quoted}:w`"
    )]
    Unseen {
        /// The directory.
        dir: PathBuf,
        /// Those the VM sees.
        seen: String,
        /// The directory, for a shell.
        quoted: String,
    },
    /// No such directory.
    #[error("there is no directory `{dir}`: {source}\nhelp: check what is given to --project")]
    NoDir {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The template.
    #[error(
        "cannot write the template of Lima's VM to `{path}`: {source}\nhelp: mend its permissions, or set MVM_STATE_DIR"
    )]
    Template {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn how_to_install() -> &'static str {
    if cfg!(target_os = "macos") {
        "brew install lima"
    } else {
        "see lima-vm.io, or unset MVM_LIMA: on Linux mvm works without it"
    }
}

/// Whether commands go into the VM: on macOS always, on Linux if asked for.
pub fn is_chosen() -> bool {
    let asked = std::env::var_os(CHOICE).is_some_and(|value| value == "1");
    outside().is_none() && (cfg!(target_os = "macos") || asked)
}

/// The version of the Lima whose VM this is.
pub fn outside() -> Option<String> {
    std::env::var(VERSION).ok().filter(|version| !version.is_empty())
}

/// What mvm says outside of the VM, where there is nothing else of it.
const HELP: &str = "\
Build a Nix flake into a microVM, boot it, and work in it.

Usage: mvm [OPTIONS] COMMAND

Commands go into a Linux VM of Lima's:
  mvm bootstrap                      make the VM, and all in it
  mvm dev                            a shell in a microVM, from nothing if need be
  mvm run --flake DIR [-- CMD]       build a flake, boot it, and work in it
  mvm shell                          a shell in the Linux VM
  mvm help                           all commands, once the VM is there";

/// The answer to what needs no VM: nothing at all, and options before the first word that ask for the version
/// or for help.
pub fn answer(args: &[OsString]) -> Option<String> {
    let asks = |names: [&str; 2]| {
        args.iter().take_while(|arg| is_option(arg)).any(|arg| names.iter().any(|name| arg == name))
    };
    match () {
        () if asks(["--version", "-V"]) => Some(format!("mvm {}", env!("CARGO_PKG_VERSION"))),
        () if args.is_empty() || asks(["--help", "-h"]) => Some(HELP.into()),
        () => None,
    }
}

fn is_option(arg: &OsString) -> bool {
    arg.as_encoded_bytes().starts_with(b"-")
}

/// The command among the arguments: the first that is no option.
fn command(args: &[OsString]) -> &OsStr {
    args.iter().find(|arg| !is_option(arg)).map_or(OsStr::new(""), OsString::as_os_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_no_vm_is_answered_and_a_guests_command_is_not_looked_at() {
        let answer = |words: &str| answer(&words.split_whitespace().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(answer("--no-tui --version").as_deref(), Some(concat!("mvm ", env!("CARGO_PKG_VERSION"))));
        for words in ["", "--help", "--json -h"] {
            assert_eq!(answer(words).as_deref(), Some(HELP), "{words}");
        }
        for words in ["dev -- uname --version", "run --help", "ssh web -- ls -V"] {
            assert_eq!(answer(words), None, "{words}");
        }
    }
}
