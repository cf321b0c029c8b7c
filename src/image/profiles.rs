//! `mvm-profiles.toml`: what a role and a profile stand for in a flake.

use std::fmt;
use std::io;
use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use super::flake::{FlakeRef, is_attribute};
use crate::event::words::nearest;

/// The file's name; it lies beside `flake.nix`.
pub const FILE: &str = "mvm-profiles.toml";

/// The only key outside of entries.
const TABLE: [&str; 1] = ["profile"];
const KEYS: [&str; 7] = ["role", "name", "attribute", "modules", "cpus", "memory", "disk"];

/// The entries of a flake's file, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profiles {
    /// The file; empty where there is none.
    pub path: PathBuf,
    /// The entries.
    pub entries: Vec<Entry>,
}

/// What one role and profile stand for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// The role; without it the entry is for requests without one.
    pub role: Option<String>,
    /// The profile; without it the entry is for requests without one.
    pub name: Option<String>,
    /// The attribute in `packages.<system>`; without it the usual one.
    pub attribute: Option<String>,
    /// Files beside the flake that `lib.mkGuests` makes the attribute of, besides the role.
    pub modules: Vec<String>,
    /// Number of CPUs, as written.
    pub cpus: Option<Amount>,
    /// Memory, as written.
    pub memory: Option<Amount>,
    /// Size of the upper disk, as written.
    pub disk: Option<Amount>,
}

/// A size or count, written as a number or as text with a unit. What it may be is for who uses it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Amount {
    /// `512`
    Number(i64),
    /// `"512M"`
    Text(String),
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfilesError {
    /// It cannot be read.
    #[error("cannot read the profiles in `{path}`: {source}\nhelp: mend its permissions, or remove it")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not TOML, or a value is not acceptable.
    #[error("the profiles in `{path}` are not valid: {message}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the place.
        message: String,
    },
    /// It has a key that mvm does not know.
    #[error("the profiles in `{path}` have an unknown key `{key}`\nhelp: {help}")]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The nearest known key, or all of them.
        help: String,
    },
}

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    profile: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    role: Option<String>,
    name: Option<String>,
    attribute: Option<String>,
    #[serde(default)]
    modules: Vec<String>,
    cpus: Option<Amount>,
    memory: Option<Amount>,
    disk: Option<Amount>,
}

impl Profiles {
    /// The file beside a flake; none of a flake that is elsewhere, or has none.
    pub fn of(flake: &FlakeRef) -> Result<Self, ProfilesError> {
        let Some(path) = flake.tree().map(|tree| tree.dir.join(FILE)) else { return Ok(Self::default()) };
        match std::fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text, path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(source) => Err(ProfilesError::Read { path, source }),
        }
    }

    /// The entry for this role and profile, which are as they were asked for.
    pub fn entry(&self, role: Option<&str>, name: Option<&str>) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.role.as_deref() == role && entry.name.as_deref() == name)
    }

    /// The error for a value of this file.
    pub fn invalid(&self, message: String) -> ProfilesError {
        ProfilesError::Invalid { path: self.path.clone(), message }
    }

    fn parse(text: &str, path: PathBuf) -> Result<Self, ProfilesError> {
        let invalid = |message: String| ProfilesError::Invalid { path: path.clone(), message };
        let table: toml::Table = toml::from_str(text).map_err(|error| invalid(error.to_string()))?;
        check_keys(&table, &TABLE, &path)?;
        let rows = table.get("profile").and_then(toml::Value::as_array).into_iter().flatten();
        rows.filter_map(toml::Value::as_table).try_for_each(|row| check_keys(row, &KEYS, &path))?;
        let file: File = toml::from_str(text).map_err(|error| invalid(error.to_string()))?;
        let mut profiles = Self { path: path.clone(), entries: Vec::new() };
        for row in file.profile {
            let Row { role, name, attribute, modules, cpus, memory, disk } = row;
            let entry = Entry { role, name, attribute, modules, cpus, memory, disk };
            entry.check(path.parent().unwrap_or(Path::new("."))).map_err(invalid)?;
            if profiles.entry(entry.role.as_deref(), entry.name.as_deref()).is_some() {
                return Err(invalid(format!("there are two entries for {entry}\nhelp: keep one of them")));
            }
            profiles.entries.push(entry);
        }
        Ok(profiles)
    }
}

impl Entry {
    fn check(&self, dir: &Path) -> Result<(), String> {
        for (what, value) in [("role", &self.role), ("name", &self.name), ("attribute", &self.attribute)] {
            if let Some(value) = value.as_ref().filter(|value| !is_attribute(value)) {
                let help = "letters, digits, `_`, `.` and `-` only";
                return Err(format!("the {what} `{value}` of {self} cannot be used\nhelp: {help}"));
            }
        }
        for module in &self.modules {
            let inside = Path::new(module).components().all(|part| matches!(part, Component::Normal(_)));
            let clean = module.bytes().all(|b| b.is_ascii_alphanumeric() || b"/_.-+".contains(&b));
            if !inside || !clean || module.is_empty() {
                let help = "name a file beside or below flake.nix, e.g. `modules/metrics.nix`";
                return Err(format!("the module `{module}` of {self} cannot be used\nhelp: {help}"));
            }
            if !dir.join(module).exists() {
                let help = "make it, or take it out of `modules`";
                return Err(format!("the module `{module}` of {self} does not exist\nhelp: {help}"));
            }
        }
        Ok(())
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.role, &self.name) {
            (Some(role), Some(name)) => write!(f, "role `{role}`, profile `{name}`"),
            (Some(role), None) => write!(f, "role `{role}`"),
            (None, Some(name)) => write!(f, "profile `{name}`"),
            (None, None) => f.write_str("no role and no profile"),
        }
    }
}

fn check_keys(table: &toml::Table, known: &[&str], path: &Path) -> Result<(), ProfilesError> {
    match table.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => {
            let help = suggest(key, known);
            Err(ProfilesError::UnknownKey { path: path.into(), key: key.clone(), help })
        }
        None => Ok(()),
    }
}

fn suggest(key: &str, known: &[&str]) -> String {
    match nearest(key, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known == TABLE => "write entries, each below a line `[[profile]]`".into(),
        None => format!("known keys are {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Profiles, String> {
        Profiles::parse(text, "/p/mvm-profiles.toml".into()).map_err(|error| error.to_string())
    }

    #[test]
    fn an_entry_is_for_its_very_role_and_profile() {
        let profiles = parse(
            "[[profile]]\nrole = \"gateway\"\nname = \"small\"\nattribute = \"gateway-minimal\"\n\
             [[profile]]\nname = \"small\"\ncpus = 2\nmemory = \"1G\"\n[[profile]]\ndisk = 64",
        )
        .unwrap();
        let attribute = |role, name| profiles.entry(role, name).map(|entry| entry.attribute.as_deref());
        assert_eq!(attribute(Some("gateway"), Some("small")), Some(Some("gateway-minimal")));
        assert_eq!(attribute(None, Some("small")), Some(None));
        assert_eq!(attribute(Some("gateway"), None), None);
        let small = profiles.entry(None, Some("small")).unwrap();
        assert_eq!(
            (&small.cpus, &small.memory),
            (&Some(Amount::Number(2)), &Some(Amount::Text("1G".into())))
        );
        assert_eq!(profiles.entry(None, None).unwrap().disk, Some(Amount::Number(64)));
    }

    #[test]
    fn an_unknown_key_is_an_error_with_the_nearest_known_one() {
        assert_eq!(
            parse("[[profile]]\nmemroy = 256").unwrap_err(),
            "the profiles in `/p/mvm-profiles.toml` have an unknown key `memroy`\nhelp: did you mean `memory`?"
        );
        assert!(parse("[[profiles]]\nname = \"x\"").unwrap_err().ends_with("help: did you mean `profile`?"));
        assert!(parse("cpus = 2").unwrap_err().ends_with("each below a line `[[profile]]`"));
    }

    #[test]
    fn what_is_no_entry_is_an_error_that_names_the_file() {
        for text in ["profile = 1", "profile = [1]", "[profile]\nname = \"x\"", "[[profile]]\nname = 1", "["]
        {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with("the profiles in `/p/mvm-profiles.toml` are not valid: "), "{error}");
        }
    }

    #[test]
    fn two_entries_for_the_same_are_an_error() {
        let twice = "[[profile]]\nname = \"small\"\n".repeat(2);
        assert!(parse(&twice).unwrap_err().contains("there are two entries for profile `small`"));
    }

    #[test]
    fn an_attribute_nix_could_misread_is_refused() {
        let error = parse("[[profile]]\nrole = \"gateway\"\nattribute = \"a b\"").unwrap_err();
        assert!(error.contains("the attribute `a b` of role `gateway` cannot be used\nhelp: "), "{error}");
    }

    #[test]
    fn a_module_lies_beside_the_flake() {
        for module in ["/etc/passwd", "../x.nix", "", "a b.nix"] {
            let error = parse(&format!("[[profile]]\nmodules = [\"{module}\"]")).unwrap_err();
            assert!(error.contains("cannot be used"), "{module}: {error}");
        }
        let error = parse("[[profile]]\nmodules = [\"x.nix\"]").unwrap_err();
        assert!(error.contains("the module `x.nix` of no role and no profile does not exist"), "{error}");
    }
}
