//! The words of an Mvmfile, each parsed at the door.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::Deserialize;

use crate::event::words::is_label;

/// A word that cannot be used: what it was and what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} `{value}` cannot be used\nhelp: {help}")]
pub struct WordError {
    what: &'static str,
    value: String,
    help: &'static str,
}

fn wrong<T>(what: &'static str, value: &str, help: &'static str) -> Result<T, WordError> {
    Err(WordError { what, value: value.into(), help })
}

/// A newtype of a text that is parsed when it is read.
macro_rules! word {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(String);

        impl $name {
            /// As it was written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = WordError;

            fn try_from(text: String) -> Result<Self, WordError> {
                text.parse()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

word! {
    /// The name of an image or a service.
    Label
}
word! {
    /// A user or group.
    User
}
word! {
    /// A package, perhaps with its version: `nginx`, `curl=7.88.1-10`, `nginx/bookworm-backports`.
    Package
}
word! {
    /// An absolute path in the guest.
    GuestPath
}
impl FromStr for Label {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        match is_label(text) {
            true => Ok(Self(text.into())),
            false => wrong("the name", text, "use 1 to 63 of a-z, 0-9 and `-`, not beginning with `-`"),
        }
    }
}

impl FromStr for User {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let is_start = |c: char| c.is_ascii_lowercase() || c == '_';
        let fits = text.starts_with(is_start)
            && text.len() <= 32
            && text.chars().all(|c| is_start(c) || c.is_ascii_digit() || c == '-');
        match fits {
            true => Ok(Self(text.into())),
            false => wrong(
                "the user or group",
                text,
                "use up to 32 of a-z, 0-9, `_` and `-`, beginning with a letter or `_`",
            ),
        }
    }
}

impl FromStr for Package {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let fits = text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.len() <= 200
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.:=~/_".contains(&b));
        match fits {
            true => Ok(Self(text.into())),
            false => wrong("the package", text, "write a name as apt knows it, e.g. `nginx-light`"),
        }
    }
}

impl FromStr for GuestPath {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let path = Path::new(text);
        let plain = path.components().skip(1).all(|part| matches!(part, std::path::Component::Normal(_)));
        let fits = path.is_absolute()
            && plain
            && path.file_name().is_some()
            && text.len() < 1024
            && !text.contains(char::is_control);
        match fits {
            true => Ok(Self(text.trim_end_matches('/').into())),
            false => wrong("the path", text, "write an absolute path below `/`, without `..`"),
        }
    }
}

impl GuestPath {
    /// The path without its leading slash.
    pub fn inside(&self) -> &str {
        self.0.trim_start_matches('/')
    }
}

/// A distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distribution {
    /// Debian.
    Debian,
    /// Ubuntu.
    Ubuntu,
}

impl Distribution {
    /// As a base begins.
    pub fn name(self) -> &'static str {
        match self {
            Self::Debian => "debian",
            Self::Ubuntu => "ubuntu",
        }
    }
}

/// The distribution an image begins with: `debian:bookworm`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Base {
    /// The distribution.
    pub distribution: Distribution,
    /// Its release, by the code name.
    pub suite: String,
}

impl Default for Base {
    fn default() -> Self {
        Self { distribution: Distribution::Debian, suite: "bookworm".into() }
    }
}

impl TryFrom<String> for Base {
    type Error = WordError;

    fn try_from(text: String) -> Result<Self, WordError> {
        let known = [Distribution::Debian, Distribution::Ubuntu];
        let read = text.split_once(':').and_then(|(name, suite)| {
            let distribution = known.into_iter().find(|known| known.name() == name)?;
            is_label(suite).then(|| Self { distribution, suite: suite.into() })
        });
        match read {
            Some(base) => Ok(base),
            None => wrong(
                "the base",
                &text,
                "write DISTRIBUTION:RELEASE, e.g. `debian:bookworm` or `ubuntu:noble`",
            ),
        }
    }
}

impl fmt::Display for Base {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.distribution.name(), self.suite)
    }
}

/// Permissions, in octal: `"644"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Mode(pub u32);

impl TryFrom<String> for Mode {
    type Error = WordError;

    fn try_from(text: String) -> Result<Self, WordError> {
        match u32::from_str_radix(&text, 8) {
            Ok(mode) if mode <= 0o7777 && !text.starts_with('+') => Ok(Self(mode)),
            _ => wrong("the mode", &text, "write it in octal, e.g. `\"644\"` or `\"755\"`"),
        }
    }
}

/// A port of the guest, and where it is published.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "PortWord")]
pub struct Port {
    /// The host's, on loopback; 0 lets the system choose.
    pub host: u16,
    /// The guest's port.
    pub guest: u16,
}

/// A port as it is written.
#[derive(Deserialize)]
#[serde(untagged)]
enum PortWord {
    Number(i64),
    Text(String),
}

impl TryFrom<PortWord> for Port {
    type Error = WordError;

    fn try_from(word: PortWord) -> Result<Self, WordError> {
        let text = match word {
            PortWord::Number(number) => number.to_string(),
            PortWord::Text(text) => text,
        };
        let number = |text: &str| text.parse::<u16>().ok();
        let (host, guest) = match text.split_once(':') {
            Some((host, guest)) => (number(host), number(guest)),
            None => (number(&text), number(&text)),
        };
        // An address to listen on is for who starts it.
        match (host, guest.filter(|guest| *guest != 0)) {
            (Some(host), Some(guest)) => Ok(Self { host, guest }),
            _ => wrong("the port", &text, "write the guest's port, `80`, or HOST:GUEST, `\"8080:80\"`"),
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.guest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_port_is_published_at_its_own_number_unless_it_says_otherwise() {
        let port = |word| Port::try_from(word).map(|port| port.to_string());
        assert_eq!(port(PortWord::Number(80)).unwrap(), "80:80");
        assert_eq!(port(PortWord::Text("8080:80".into())).unwrap(), "8080:80");
        for text in ["", "0", "80:", "80:0", "x", "70000", "0.0.0.0:80:80"] {
            assert!(port(PortWord::Text(text.into())).is_err(), "{text}");
        }
        assert!(port(PortWord::Number(-1)).is_err());
    }

    #[test]
    fn a_path_leads_below_the_root_and_nowhere_else() {
        assert_eq!("/srv/app/".parse::<GuestPath>().unwrap().inside(), "srv/app");
        for text in ["", "/", "srv", "/srv/../etc", "/a\nb", "//"] {
            assert!(text.parse::<GuestPath>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_mode_is_octal_and_a_base_has_a_release() {
        assert_eq!(Mode::try_from("0755".to_string()), Ok(Mode(0o755)));
        for text in ["9", "", "+755", "-1", "77777", "u+x"] {
            assert!(Mode::try_from(text.to_string()).is_err(), "{text}");
        }
        assert_eq!(Base::try_from("ubuntu:noble".to_string()).unwrap().to_string(), "ubuntu:noble");
        for text in ["debian", "fedora:42", "debian:", "debian:a b"] {
            assert!(Base::try_from(text.to_string()).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_word_begins_like_an_option(text: String) {
            let option = format!("-{text}");
            prop_assert!(option.parse::<Package>().is_err());
            prop_assert!(option.parse::<User>().is_err());
            prop_assert!(option.parse::<Label>().is_err());
            prop_assert!(option.parse::<GuestPath>().is_err());
        }
    }
}
