//! What may be asked of an agent: version 1 of the protocol, named `mvm/1` in the handshake.
//!
//! What an agent does not know is refused, unknown fields too: it must not do less than it was
//! asked to. Answers only grow.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::pki::Role;
use super::response::{Fault, FaultCode};
use crate::fleet::desired::DesiredState;
use crate::fleet::ids::{IdError, InstancePath, PoolId, PoolPath, TenantId};

/// A request: `{"request": "wake", "target": "dev/web", "ttl_ms": 30000}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Who is there, and as whom it sees the asker; answered by the server itself.
    Hello,
    /// Make this true.
    Reconcile {
        /// The desired state.
        desired: Box<DesiredState>,
        /// Only say what would be done.
        #[serde(default)]
        dry_run: bool,
    },
    /// What the node is.
    NodeInfo,
    /// What the node does.
    NodeStats,
    /// Its tenants.
    TenantList,
    /// Its instances, as many as an answer holds.
    InstanceList(InstanceFilter),
    /// Have an instance run, and keep it running until the lease is over.
    Wake {
        /// The instance, or the pool of which to take one.
        target: Target,
        /// Time to live of the lease.
        #[serde(rename = "ttl_ms")]
        ttl: Ttl,
    },
    /// Keep a lease.
    Renew {
        /// The lease.
        lease: LeaseId,
        /// Time to live from now on.
        #[serde(rename = "ttl_ms")]
        ttl: Ttl,
    },
    /// Give a lease back.
    Release {
        /// The lease.
        lease: LeaseId,
    },
    /// Put an instance to sleep, if nothing speaks against it.
    Sleep {
        /// The instance.
        instance: InstancePath,
    },
    /// Tell what happens from now on, until the stream is closed.
    Subscribe,
}

/// Names of all requests, as on the wire.
pub const NAMES: [&str; 11] = [
    "hello",
    "reconcile",
    "node_info",
    "node_stats",
    "tenant_list",
    "instance_list",
    "wake",
    "renew",
    "release",
    "sleep",
    "subscribe",
];

impl Request {
    /// Reads a request; what is wrong with it becomes the answer.
    pub fn parse(json: &[u8]) -> Result<Self, Fault> {
        serde_json::from_slice(json).map_err(|error| {
            #[derive(Deserialize)]
            struct Named {
                request: String,
            }
            match serde_json::from_slice(json) {
                Ok(Named { request }) if !NAMES.contains(&request.as_str()) => {
                    let shown: String = request.chars().take(80).collect();
                    let message =
                        format!("there is no request `{shown}`\nhelp: there are {}", NAMES.join(", "));
                    Fault::new(FaultCode::UnknownRequest, message)
                }
                _ => {
                    let message = format!(
                        "the request cannot be read: {error}\nhelp: write an object such as {{\"request\": \"node_info\"}}"
                    );
                    Fault::new(FaultCode::BadRequest, message)
                }
            }
        })
    }

    /// The request's name, as on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Reconcile { .. } => "reconcile",
            Self::NodeInfo => "node_info",
            Self::NodeStats => "node_stats",
            Self::TenantList => "tenant_list",
            Self::InstanceList(_) => "instance_list",
            Self::Wake { .. } => "wake",
            Self::Renew { .. } => "renew",
            Self::Release { .. } => "release",
            Self::Sleep { .. } => "sleep",
            Self::Subscribe => "subscribe",
        }
    }

    /// Whether a peer of this role may ask this.
    pub fn is_open_to(&self, role: Role) -> bool {
        match role {
            Role::Client => true,
            Role::Coordinator => !matches!(self, Self::Reconcile { .. }),
            Role::Node => false,
        }
    }

    /// How long an answer may take.
    pub fn patience(&self) -> Duration {
        match self {
            Self::Reconcile { .. } | Self::Wake { .. } | Self::Sleep { .. } => Duration::from_secs(120),
            _ => Duration::from_secs(15),
        }
    }
}

/// Which instances to list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceFilter {
    /// Of this tenant only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// Of pools of this name only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolId>,
    /// Only those behind this one, to go on with a list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<InstancePath>,
}

impl InstanceFilter {
    /// Whether the instance is asked for.
    pub fn takes(&self, path: &InstancePath) -> bool {
        self.tenant.as_ref().is_none_or(|tenant| *tenant == path.pool.tenant)
            && self.pool.as_ref().is_none_or(|pool| *pool == path.pool.pool)
            && self.after.as_ref().is_none_or(|after| path > after)
    }
}

/// What to wake: `TENANT/POOL/INSTANCE`, or `TENANT/POOL` for one of its instances.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// One of the pool's instances.
    Pool(PoolPath),
    /// This instance.
    Instance(InstancePath),
}

impl FromStr for Target {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        match text.matches('/').count() {
            2.. => Ok(Self::Instance(text.parse()?)),
            _ => Ok(Self::Pool(text.parse()?)),
        }
    }
}

impl TryFrom<String> for Target {
    type Error = IdError;

    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pool(pool) => pool.fmt(f),
            Self::Instance(instance) => instance.fmt(f),
        }
    }
}

/// How long a lease lasts: between a second and an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Ttl(Duration);

impl Ttl {
    /// The shortest.
    pub const LEAST: Duration = Duration::from_secs(1);
    /// The longest.
    pub const MOST: Duration = Duration::from_secs(3600);

    /// Of so many seconds, at least one and at most an hour.
    pub const fn seconds(seconds: u64) -> Self {
        let seconds = if seconds == 0 { 1 } else { seconds };
        Self(if seconds > 3600 { Self::MOST } else { Duration::from_secs(seconds) })
    }

    /// As a duration.
    pub fn get(self) -> Duration {
        self.0
    }
}

/// A time to live that is too short or too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a lease of {0} ms is not possible; it lasts between a second and an hour")]
pub struct TtlError(u128);

impl TryFrom<Duration> for Ttl {
    type Error = TtlError;

    fn try_from(ttl: Duration) -> Result<Self, TtlError> {
        if (Self::LEAST..=Self::MOST).contains(&ttl) { Ok(Self(ttl)) } else { Err(TtlError(ttl.as_millis())) }
    }
}

impl TryFrom<u64> for Ttl {
    type Error = TtlError;

    fn try_from(millis: u64) -> Result<Self, TtlError> {
        Duration::from_millis(millis).try_into()
    }
}

impl From<Ttl> for u64 {
    fn from(ttl: Ttl) -> Self {
        // At most an hour.
        ttl.0.as_millis() as Self
    }
}

/// A lease, as the agent names it: up to 64 of `[a-z0-9-]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LeaseId(String);

/// A name that no lease has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no lease")]
pub struct LeaseError(String);

impl LeaseId {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for LeaseId {
    type Error = LeaseError;

    fn try_from(text: String) -> Result<Self, LeaseError> {
        let fits = (1..=64).contains(&text.len())
            && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if fits { Ok(Self(text)) } else { Err(LeaseError(text.chars().take(80).collect())) }
    }
}

impl FromStr for LeaseId {
    type Err = LeaseError;

    fn from_str(text: &str) -> Result<Self, LeaseError> {
        text.to_string().try_into()
    }
}

impl From<LeaseId> for String {
    fn from(lease: LeaseId) -> Self {
        lease.0
    }
}

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn code(json: &str) -> FaultCode {
        Request::parse(json.as_bytes()).unwrap_err().code
    }

    #[test]
    fn every_request_is_read_as_it_is_written() {
        let desired = r#"{"schema_version":1,"node_id":"dev","tenants":[]}"#;
        let texts = [
            r#"{"request":"hello"}"#.to_string(),
            format!(r#"{{"request":"reconcile","desired":{desired},"dry_run":true}}"#),
            r#"{"request":"node_info"}"#.into(),
            r#"{"request":"node_stats"}"#.into(),
            r#"{"request":"tenant_list"}"#.into(),
            r#"{"request":"instance_list"}"#.into(),
            r#"{"request":"wake","target":"dev/web","ttl_ms":30000}"#.into(),
            r#"{"request":"renew","lease":"l-1","ttl_ms":30000}"#.into(),
            r#"{"request":"release","lease":"l-1"}"#.into(),
            r#"{"request":"sleep","instance":"dev/web/i-01234567"}"#.into(),
            r#"{"request":"subscribe"}"#.into(),
        ];
        for (text, name) in texts.iter().zip(NAMES) {
            let request = Request::parse(text.as_bytes()).unwrap();
            assert_eq!(request.name(), name);
            assert_eq!(Request::parse(&serde_json::to_vec(&request).unwrap()).unwrap(), request);
        }
    }

    #[test]
    fn what_is_wrong_with_a_request_is_said() {
        assert_eq!(code(r#"{"request":"dance"}"#), FaultCode::UnknownRequest);
        for text in [
            "",
            "[]",
            "null",
            "{",
            r#"{"request":1}"#,
            r#"{"request":"wake"}"#,
            r#"{"request":"wake","target":"../x","ttl_ms":30000}"#,
            r#"{"request":"wake","target":"a/b","ttl_ms":0}"#,
            r#"{"request":"wake","target":"a/b","ttl_ms":-1}"#,
            r#"{"request":"wake","target":"a/b","ttl_ms":30000,"twice":true}"#,
            r#"{"request":"release","lease":"A B"}"#,
            r#"{"request":"instance_list","tenants":"a"}"#,
            r#"{"request":"reconcile","desired":{"schema_version":1,"node_id":"a","tenants":[],"x":1}}"#,
        ] {
            assert_eq!(code(text), FaultCode::BadRequest, "{text}");
        }
        let fault = Request::parse(br#"{"request":"dance"}"#).unwrap_err();
        assert!(fault.message.contains("`dance`\nhelp: there are hello,"), "{}", fault.message);
    }

    #[test]
    fn roles_may_ask_what_is_theirs() {
        let desired = DesiredState {
            schema_version: 1,
            node_id: "dev".into(),
            tenants: Vec::new(),
            prune_unknown_tenants: false,
            prune_unknown_pools: false,
        };
        let reconcile = Request::Reconcile { desired: Box::new(desired), dry_run: true };
        let wake = Request::Release { lease: "l-1".parse().unwrap() };
        assert!(reconcile.is_open_to(Role::Client) && !reconcile.is_open_to(Role::Coordinator));
        assert!(wake.is_open_to(Role::Coordinator) && wake.is_open_to(Role::Client));
        assert!(!wake.is_open_to(Role::Node) && !Request::Hello.is_open_to(Role::Node));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes: Vec<u8>) {
            let _ = Request::parse(&bytes);
        }

        #[test]
        fn an_error_is_no_longer_than_a_few_lines(name in "[a-zA-Z/]{1,4000}") {
            let fault = Request::parse(format!(r#"{{"request":"{name}"}}"#).as_bytes());
            if let Err(fault) = fault {
                prop_assert!(fault.message.len() < 600);
            }
            let wake = format!(r#"{{"request":"wake","target":"{name}","ttl_ms":30000}}"#);
            if let Err(fault) = Request::parse(wake.as_bytes()) {
                prop_assert!(fault.message.len() < 600);
            }
        }
    }
}
