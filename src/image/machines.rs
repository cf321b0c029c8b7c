//! What is built, stored or looked up elsewhere than on this machine, as Nix's own options say it.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::str::FromStr;

/// Which machines and stores a build uses; what is absent is as Nix is configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machines {
    /// Machines that build for this one.
    pub builders: Option<NixValue>,
    /// How many builds this machine does at once.
    pub max_jobs: Option<MaxJobs>,
    /// The store that is built in.
    pub store: Option<StoreUri>,
    /// The store that is evaluated in.
    pub eval_store: Option<StoreUri>,
    /// Binary caches.
    pub substituters: Option<NixValue>,
}

/// A value of Nix's that is not for mvm to understand; it can be taken for no option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NixValue(String);

/// A store, as Nix names it: a URI, or a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreUri(String);

/// A number of builds at once, or as many as there are cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxJobs {
    /// So many.
    Number(u32),
    /// One a core.
    Auto,
}

/// Why a value is refused.
#[derive(Debug, thiserror::Error)]
#[error("{what}\nhelp: {help}")]
pub struct ValueError {
    what: String,
    help: &'static str,
}

impl Machines {
    /// The arguments of a build.
    pub fn args(&self) -> Vec<OsString> {
        let mut args = Vec::new();
        let mut add = |name: &str, value: Option<&str>| {
            args.extend(value.iter().flat_map(|value| [OsString::from(name), OsString::from(value)]));
        };
        let jobs = self.max_jobs.map(|jobs| jobs.to_string());
        add("--builders", self.builders.as_ref().map(NixValue::as_str));
        add("--max-jobs", jobs.as_deref());
        add("--substituters", self.substituters.as_ref().map(NixValue::as_str));
        add("--store", self.store.as_ref().map(StoreUri::as_str));
        // Nix finds the flake's source in its own store, and would look for it in the other one.
        let here = self.store.as_ref().map(|_| "auto");
        add("--eval-store", self.eval_store.as_ref().map(StoreUri::as_str).or(here));
        args
    }

    /// The machine of builds for which Nix names none; empty for this one.
    pub fn home(&self) -> &str {
        self.store.as_ref().filter(|store| store.is_remote()).map_or("", StoreUri::as_str)
    }
}

impl NixValue {
    /// Of machines that build: as they are written, or in a file that is there.
    pub fn of_builders(text: &str) -> Result<Self, ValueError> {
        let there = text.strip_prefix('@').map_or(Ok(()), |file| File::open(file).map(drop));
        there.map_err(|error| ValueError {
            what: format!("the file of machines `{}` cannot be read: {error}", &text[1..]),
            help: "give one that is there, or the machines themselves: `ssh://HOST [SYSTEM]; …`",
        })?;
        text.parse()
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl StoreUri {
    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether another machine has it.
    pub fn is_remote(&self) -> bool {
        self.0
            .split_once("://")
            .is_some_and(|(scheme, _)| !["unix", "file", "local", "dummy"].contains(&scheme))
    }
}

impl FromStr for NixValue {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text.starts_with('-') {
            return Err(ValueError {
                what: format!("the value `{text}` begins with `-`"),
                help: "give a list of machines or caches, or '' for none; options for Nix go after `--`",
            });
        }
        if text.chars().any(|c| c.is_control() && c != '\n') {
            return Err(ValueError {
                what: "the value holds a control character".into(),
                help: "write entries in one line, with `;` or spaces between them",
            });
        }
        Ok(Self(text.into()))
    }
}

impl FromStr for StoreUri {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let wrong = text.is_empty() || text.starts_with('-') || text.chars().any(char::is_control);
        match wrong {
            true => Err(ValueError {
                what: format!("`{text}` is no store"),
                help: "give one that Nix knows, e.g. `ssh-ng://HOST` or a directory",
            }),
            false => Ok(Self(text.into())),
        }
    }
}

impl FromStr for MaxJobs {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text {
            "auto" => Ok(Self::Auto),
            number => number.parse().map(Self::Number).map_err(|_| ValueError {
                what: format!("`{text}` is no number of builds"),
                help: "give a number, 0 to build on other machines only, or `auto`",
            }),
        }
    }
}

impl fmt::Display for MaxJobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Auto => f.write_str("auto"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_in_another_store_is_evaluated_here_unless_told_otherwise() {
        let mut machines = Machines { store: Some("ssh-ng://far".parse().unwrap()), ..Machines::default() };
        assert_eq!(machines.args(), ["--store", "ssh-ng://far", "--eval-store", "auto"]);
        assert_eq!(machines.home(), "ssh-ng://far");
        machines.eval_store = Some("/other".parse().unwrap());
        assert_eq!(machines.args()[3], "/other");
        assert!(Machines::default().args().is_empty());
    }

    #[test]
    fn only_a_store_of_another_machine_is_where_builds_are_done() {
        for (store, remote) in [
            ("ssh-ng://me@far?remote-store=/x", true),
            ("/tmp/store", false),
            ("unix:///run/nix", false),
            ("local?root=/x", false),
            ("auto", false),
        ] {
            assert_eq!(store.parse::<StoreUri>().unwrap().is_remote(), remote, "{store}");
        }
    }

    #[test]
    fn what_could_be_taken_for_an_option_is_refused() {
        assert!("-x".parse::<NixValue>().is_err() && "a\x1bb".parse::<NixValue>().is_err());
        assert_eq!("".parse::<NixValue>().unwrap().as_str(), "");
        assert!("--impure".parse::<StoreUri>().is_err() && "".parse::<StoreUri>().is_err());
        assert!("-1".parse::<MaxJobs>().is_err() && "4294967296".parse::<MaxJobs>().is_err());
        assert_eq!("auto".parse::<MaxJobs>().unwrap().to_string(), "auto");
    }
}
