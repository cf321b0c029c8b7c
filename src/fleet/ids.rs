//! Names of tenants, pools and instances. Everything from outside is parsed here: what passes is
//! safe in a path, in a command line and in a guest's hostname.

use std::fmt;
use std::str::FromStr;

use rand_core::RngCore;
use serde::{Deserialize, Serialize};

use crate::event::words::is_label;

/// A name that cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} `{value}` is not valid\nhelp: {help}")]
pub struct IdError {
    what: &'static str,
    value: String,
    help: &'static str,
}

const LABEL: &str = "use 1 to 63 of a-z, 0-9 and `-`, not beginning with `-`";

/// Beginning of an error: so much of what was given is shown.
const SHOWN: usize = 80;

fn bad(what: &'static str, value: &str, help: &'static str) -> IdError {
    IdError { what, value: value.chars().take(SHOWN).collect(), help }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $help:expr, $fits:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// As text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let fits: fn(&str) -> bool = $fits;
                if fits(text) { Ok(Self(text.into())) } else { Err(bad($what, text, $help)) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

id!(
    /// A tenant: 1–63 of `[a-z0-9-]`, no leading dash.
    TenantId, "the tenant", LABEL, is_label
);
id!(
    /// A pool of one tenant: 1–63 of `[a-z0-9-]`, no leading dash.
    PoolId, "the pool", LABEL, is_label
);
id!(
    /// An instance, unique on its node: `i-<8 hex>`.
    InstanceId, "the instance", "instances are named `i-` and 8 of 0-9 and a-f", is_instance
);

fn is_instance(text: &str) -> bool {
    text.strip_prefix("i-").is_some_and(|digits| {
        digits.len() == 8 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    })
}

impl InstanceId {
    /// A new one.
    pub fn random() -> Self {
        Self(format!("i-{:08x}", rand_core::OsRng.next_u32()))
    }
}

/// A pool as it is addressed: `TENANT/POOL`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PoolPath {
    /// The tenant.
    pub tenant: TenantId,
    /// The pool.
    pub pool: PoolId,
}

/// An instance as it is addressed: `TENANT/POOL/INSTANCE`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstancePath {
    /// The pool.
    pub pool: PoolPath,
    /// The instance.
    pub instance: InstanceId,
}

impl PoolPath {
    /// The path of one of its instances.
    pub fn instance(&self, instance: InstanceId) -> InstancePath {
        InstancePath { pool: self.clone(), instance }
    }
}

impl FromStr for PoolPath {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let Some((tenant, pool)) = text.split_once('/') else {
            return Err(bad("the pool", text, "write TENANT/POOL, e.g. `dev/gateways`"));
        };
        Ok(Self { tenant: tenant.parse()?, pool: pool.parse()? })
    }
}

impl FromStr for InstancePath {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let Some((pool, instance)) = text.rsplit_once('/').filter(|(pool, _)| pool.contains('/')) else {
            let help = "write TENANT/POOL/INSTANCE, e.g. `dev/gateways/i-0a1b2c3d`";
            return Err(bad("the instance", text, help));
        };
        Ok(Self { pool: pool.parse()?, instance: instance.parse()? })
    }
}

impl fmt::Display for PoolPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.tenant, self.pool))
    }
}

impl fmt::Display for InstancePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.pool, self.instance))
    }
}

macro_rules! as_text {
    ($($name:ident)*) => { $(
        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(path: $name) -> Self {
                path.to_string()
            }
        }
    )* };
}

as_text!(PoolPath InstancePath);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_plain_label_is_refused() {
        let long = "a".repeat(64);
        for text in ["", "-a", "A", "a b", "a/b", "..", "../x", "a.b", "ä", &long] {
            assert!(text.parse::<TenantId>().is_err(), "{text}");
            assert!(text.parse::<PoolId>().is_err(), "{text}");
        }
        for text in ["", "i-", "i-1", "i-0123456g", "i-0123ABCD", "v-01234567", "i-012345678"] {
            assert!(text.parse::<InstanceId>().is_err(), "{text}");
        }
        for text in ["dev", "dev/web", "dev/web/x/y", "/web/i-01234567", "dev/../i-01234567"] {
            assert!(text.parse::<InstancePath>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_error_says_what_to_write_and_shows_no_more_than_a_line() {
        let error = "x".repeat(4000).parse::<PoolPath>().unwrap_err().to_string();
        assert!(error.len() < 200 && error.contains("help: write TENANT/POOL"), "{error}");
    }

    proptest! {
        #[test]
        fn what_is_printed_is_parsed_again(tenant in "[a-z0-9][a-z0-9-]{0,62}", pool in "[a-z0-9][a-z0-9-]{0,62}") {
            let pool: PoolPath = format!("{tenant}/{pool}").parse().unwrap();
            let path = pool.instance(InstanceId::random());
            prop_assert_eq!(path.to_string().parse::<InstancePath>().unwrap(), path);
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text: String) {
            let _ = (text.parse::<PoolPath>(), text.parse::<InstancePath>());
        }
    }
}
