//! Machines that build for this one: what Nix says of those it cannot use.

use crate::event::text::strip;
use crate::event::words::host_name;
use crate::host::nix::has_daemon;

/// How Nix begins to speak of a machine it cannot use, in all versions so far.
const CANNOT: &str = "cannot build on '";
/// How it tells that no machine is left, with a table of them behind it.
const NONE_LEFT: &str = "Failed to find a machine for remote build";
/// How it ends when nobody builds.
const NO_BUILD: &str = "unable to start any build";

/// A machine that builds were to be done on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreached {
    /// The machine, as Nix names it.
    pub machine: String,
    /// Why it cannot be used.
    pub why: String,
}

impl Unreached {
    /// What one of Nix's errors says, if it is about a machine.
    pub fn parse(message: &str) -> Option<Self> {
        let text = strip(message);
        let (machine, why) = text.trim_start_matches("error: ").strip_prefix(CANNOT)?.split_once("': ")?;
        let why = why.trim_start_matches("error: ");
        // The machine is named already.
        let why = match why.strip_prefix("cannot connect to '").and_then(|why| why.split_once("': ")) {
            Some((_, why)) => why,
            None => why,
        };
        let why = why.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
        Some(Self { machine: machine.into(), why })
    }

    /// For people.
    pub fn words(&self) -> String {
        format!("the builder `{}` cannot be used: {}", host_name(&self.machine), self.why)
    }
}

/// Whether a warning only lists the machines among which none was found.
pub fn is_search(message: &str) -> bool {
    message.starts_with(NONE_LEFT)
}

/// Whether an error only says that nobody builds.
pub fn is_idle(message: &str) -> bool {
    message.starts_with(NO_BUILD)
}

/// What to do where nobody builds for `system`.
pub fn help(unreached: &[Unreached], system: &str) -> String {
    let here = "`--max-jobs 1` builds on this machine";
    match unreached.first() {
        Some(Unreached { machine, .. }) => format!("{}\nhelp: {here} meanwhile", try_ssh(machine)),
        None => format!("{here}; `--builders 'ssh://HOST {system}'` names one that builds for it"),
    }
}

/// How to see what keeps Nix from a machine.
pub fn try_ssh(machine: &str) -> String {
    let (sudo, who) = if has_daemon() { ("sudo ", "Nix's daemon, as root,") } else { ("", "Nix") };
    format!(
        "`{sudo}ssh {} nix-store --version` must do without asking anything; {who} connects the same way, with the options in $NIX_SSHOPTS",
        host_name(machine)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_cannot_be_used_is_told_from_other_errors() {
        let said = "cannot build on 'ssh://me@far?remote-store=/x': \u{1b}[31;1merror:\u{1b}[0m cannot connect to '\u{1b}[35;1mfar\u{1b}[0m': ssh: connect to host far port 22: Connection refused\r\n";
        let unreached = Unreached::parse(said).expect("a machine");
        assert_eq!(unreached.machine, "ssh://me@far?remote-store=/x");
        assert_eq!(
            unreached.words(),
            "the builder `me@far` cannot be used: ssh: connect to host far port 22: Connection refused"
        );
        let other = Unreached::parse("error: cannot build on 'ssh-ng://far': some: other\nreason").unwrap();
        assert_eq!(other.why, "some: other; reason");
        assert_eq!(Unreached::parse("error: cannot build '/nix/store/x.drv'"), None);
    }
}
