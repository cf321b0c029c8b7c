//! The cluster's own certificates: one authority, and below it nodes, coordinators and clients.
//!
//! What a certificate's holder may do is in the certificate, as the URI `mvm://role/ROLE`, and so
//! is its name, as `NAME.mvm`. There is no revocation: certificates are short-lived compared with
//! the authority, and a new authority is a new cluster.

mod authority;
mod certificate;
mod error;
mod identity;

use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

pub use authority::{
    AUTHORITY, AUTHORITY_DAYS, DAYS, Founded, Issued, Listed, Status, file_name, init, issue, rotate, status,
};
pub use certificate::Certificate;
pub use error::PkiError;
pub use identity::{Authority, Identity};

use crate::vm::spec::VmName;

/// What the holder of a certificate may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Serve as an agent; ask nothing.
    Node,
    /// Wake, keep, release and put to sleep; look and listen.
    Coordinator,
    /// Everything: an operator.
    Client,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Node, Self::Coordinator, Self::Client];

    /// The role's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Coordinator => "coordinator",
            Self::Client => "client",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Role {
    type Err = PkiError;

    fn from_str(text: &str) -> Result<Self, PkiError> {
        let known = Self::ALL.into_iter().find(|role| role.as_str() == text);
        known.ok_or_else(|| PkiError::Role(text.chars().take(80).collect()))
    }
}

/// The name in a certificate: 1–63 of `[a-z0-9-]`, no dash at either end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PeerName(String);

impl PeerName {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As a host's name, which is what TLS compares. A name that is all digits would be no host's.
    pub fn host(&self) -> String {
        format!("{}.mvm", self.0)
    }

    /// From [`Self::host`].
    fn from_host(host: &str) -> Option<Self> {
        host.strip_suffix(".mvm")?.parse().ok()
    }
}

impl FromStr for PeerName {
    type Err = PkiError;

    fn from_str(text: &str) -> Result<Self, PkiError> {
        if text.parse::<VmName>().is_ok() && !text.ends_with('-') {
            Ok(Self(text.into()))
        } else {
            Err(PkiError::Name(text.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for PeerName {
    type Error = PkiError;

    fn try_from(text: String) -> Result<Self, PkiError> {
        text.parse()
    }
}

impl From<PeerName> for String {
    fn from(name: PeerName) -> Self {
        name.0
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// From when until when a certificate holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validity {
    /// The first moment.
    pub from: Timestamp,
    /// The last.
    pub until: Timestamp,
}

/// Clocks of one cluster differ by less.
const SKEW: SignedDuration = SignedDuration::from_mins(5);

const DAY: SignedDuration = SignedDuration::from_hours(24);

impl Validity {
    /// So many days from now on.
    pub fn days(days: u32) -> Result<Self, PkiError> {
        Self::lasting(DAY * i32::try_from(days).map_err(|_| PkiError::Days(days))?)
    }

    /// So long from now on.
    fn lasting(length: SignedDuration) -> Result<Self, PkiError> {
        let now = Timestamp::now();
        let until = now.checked_add(length).map_err(|_| PkiError::TooLong)?;
        Self::between(now - SKEW, until)
    }

    /// From one moment until another.
    pub fn between(from: Timestamp, until: Timestamp) -> Result<Self, PkiError> {
        if from < until { Ok(Self { from, until }) } else { Err(PkiError::Never) }
    }

    /// Whether it holds at this moment.
    pub fn holds(&self, now: Timestamp) -> bool {
        (self.from..=self.until).contains(&now)
    }

    /// Whole days that are left; negative when it is over.
    pub fn days_left(&self, now: Timestamp) -> i64 {
        self.until.duration_since(now).as_secs().div_euclid(DAY.as_secs())
    }

    fn length(&self) -> SignedDuration {
        self.until.duration_since(self.from) - SKEW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_plain_label_that_a_host_could_have() {
        for name in ["", "-a", "a-", "A", "a.b", "../x", "a b", "a/b", &"a".repeat(64)] {
            assert!(name.parse::<PeerName>().is_err(), "{name}");
        }
        for name in ["dev", "1", "127", &"a".repeat(63)] {
            let name: PeerName = name.parse().unwrap();
            assert_eq!(PeerName::from_host(&name.host()), Some(name));
        }
    }

    #[test]
    fn days_left_are_whole_and_negative_afterwards() {
        let now = Timestamp::now();
        let validity = Validity::days(30).unwrap();
        assert_eq!(validity.days_left(now), 30);
        assert_eq!(validity.days_left(validity.until + SignedDuration::from_secs(1)), -1);
        assert!(Validity::between(now, now).is_err() && Validity::days(u32::MAX).is_err());
    }
}
