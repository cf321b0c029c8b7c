//! Whether tenants' networks are apart from each other, found out by trying.
//!
//! From inside each tenant's namespace a connection to every address of every other tenant is tried. Only
//! silence and the word that there is no way count as apart: whoever refuses has been reached. Before that
//! each tenant's own VMs are tried from their own namespace, so that a dead network does not pass.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use super::commands::{NetworkError, step};
use super::namespace::Namespace;
use super::tenant::LiveNetwork;
use crate::store::vms::VmState;

/// The port that is tried. Every guest has ssh, and a refusal says as much as an answer.
const PORT: u16 = 22;
/// How long a tenant's own VM may take to answer, which may be emulated.
const OWN: Duration = Duration::from_secs(3);
/// How long another tenant's addresses are tried at least, and how many times longer than the slowest own
/// VM took.
const OTHERS: (Duration, u32) = (Duration::from_millis(300), 2);
/// How many connections are tried at once from one namespace, and in how many namespaces.
const AT_ONCE: (usize, usize) = (64, 16);

/// What was found out of all tenants' networks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// Whether all own VMs were reached and no others.
    pub passes: bool,
    /// Each network from inside: the control.
    pub own: Vec<Own>,
    /// Each network from inside each other.
    pub pairs: Vec<Pair>,
}

/// A tenant's VMs, tried from its own namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    /// The tenant's network.
    pub net_id: u16,
    /// Whether all answered; of VMs that do not run no answer is expected.
    pub reached: bool,
    /// What was tried.
    pub tries: Vec<Try>,
    /// Why nothing could be tried.
    pub error: Option<String>,
}

/// A tenant's addresses, tried from another's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// The network from inside which was tried.
    pub from: u16,
    /// The network whose addresses were tried.
    pub to: u16,
    /// Whether none was reached.
    pub isolated: bool,
    /// What was tried.
    pub tries: Vec<Try>,
    /// Why nothing could be tried.
    pub error: Option<String>,
}

/// A connection that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Try {
    /// The VM whose address it is; the gateway's otherwise.
    pub vm: Option<String>,
    /// The address.
    pub address: SocketAddr,
    /// What was seen.
    pub seen: Seen,
    /// After how many milliseconds.
    pub ms: u64,
}

/// What was seen of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// It was accepted.
    Connected,
    /// It was refused, by somebody.
    Refused,
    /// Nobody said anything.
    TimedOut,
    /// There is no way.
    Unreachable,
    /// Something that proves neither.
    Other(String),
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connected => "connected",
            Self::Refused => "refused",
            Self::TimedOut => "silent",
            Self::Unreachable => "no way",
            Self::Other(what) => what,
        })
    }
}

/// An address to be tried.
#[derive(Debug, Clone)]
struct Target {
    vm: Option<String>,
    address: Ipv4Addr,
}

/// Tries all of `networks`, from [`super::tenant::live`]. Blocks for seconds; needs root.
pub fn verify(networks: &[LiveNetwork]) -> Verification {
    let own: Vec<Own> = each(networks, |network| {
        let running = network.members.iter().filter(|member| member.state == VmState::Running);
        let targets = running.map(|member| Target::of(&member.name, member.link.address)).collect();
        let (tries, error) = told(attempt(network, targets, OWN));
        let reached = error.is_none() && tries.iter().all(|one| one.seen.is_reached());
        Own { net_id: network.net_id, reached, tries, error }
    });
    let slowest = own.iter().flat_map(|own| &own.tries).map(|one| one.ms).max().unwrap_or_default();
    let patience = OTHERS.0.max(Duration::from_millis(slowest) * OTHERS.1);
    let from = |from: &LiveNetwork| {
        let others = networks.iter().filter(|to| to.net_id != from.net_id);
        let pair = |to: &LiveNetwork| {
            let (tries, error) = told(attempt(from, Target::all(to), patience));
            let isolated = error.is_none() && tries.iter().all(|one| one.seen.is_apart());
            Pair { from: from.net_id, to: to.net_id, isolated, tries, error }
        };
        others.map(pair).collect::<Vec<_>>()
    };
    let pairs: Vec<Pair> = each(networks, from).into_iter().flatten().collect();
    let passes = own.iter().all(|own| own.reached) && pairs.iter().all(|pair| pair.isolated);
    Verification { passes, own, pairs }
}

impl Seen {
    /// Whether somebody was there.
    pub fn is_reached(&self) -> bool {
        matches!(self, Self::Connected | Self::Refused)
    }

    /// Whether nobody was there.
    pub fn is_apart(&self) -> bool {
        matches!(self, Self::TimedOut | Self::Unreachable)
    }
}

impl Target {
    fn of(vm: &str, address: Ipv4Addr) -> Self {
        Self { vm: Some(vm.into()), address }
    }

    /// The gateway and all VMs of a network.
    fn all(network: &LiveNetwork) -> Vec<Self> {
        let vms = network.members.iter().map(|member| Self::of(&member.name, member.link.address));
        let gateway = network.members.first().map(|member| member.link.subnet.gateway());
        gateway.map(|address| Self { vm: None, address }).into_iter().chain(vms).collect()
    }
}

/// What `work` says of each network, a few of them at once.
fn each<T: Send>(networks: &[LiveNetwork], work: impl Fn(&LiveNetwork) -> T + Sync) -> Vec<T> {
    let wave = |networks: &[LiveNetwork]| {
        std::thread::scope(|scope| {
            let threads: Vec<_> = networks.iter().map(|network| scope.spawn(|| work(network))).collect();
            let joined = threads.into_iter().map(|thread| thread.join());
            joined.map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        })
    };
    networks.chunks(AT_ONCE.1).flat_map::<Vec<T>, _>(wave).collect()
}

/// Tries connections from inside a network.
fn attempt(from: &LiveNetwork, targets: Vec<Target>, patience: Duration) -> Result<Vec<Try>, NetworkError> {
    let gone =
        || step("enter the tenant's namespace")(io::Error::other("none of its VMs is in one any more"));
    let namespace: Namespace = from.namespace().ok_or_else(gone)?;
    let all = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let tries = stream::iter(targets).map(|target| connect(target, patience)).buffered(AT_ONCE.0);
        Ok(runtime.map_err(step("make a runtime"))?.block_on(tries.collect()))
    };
    namespace.inside(all, step("enter the tenant's namespace"))
}

async fn connect(Target { vm, address }: Target, patience: Duration) -> Try {
    let address = SocketAddr::from((address, PORT));
    let begun = Instant::now();
    let seen = match tokio::time::timeout(patience, TcpStream::connect(address)).await {
        Err(_) => Seen::TimedOut,
        Ok(Ok(stream)) => {
            // Closed in order it would keep the namespace until its peer, which may be killed, has answered.
            drop(stream.set_zero_linger());
            Seen::Connected
        }
        Ok(Err(error)) => seen(&error),
    };
    Try { vm, address, seen, ms: begun.elapsed().as_millis() as u64 }
}

fn seen(error: &io::Error) -> Seen {
    match error.kind() {
        // A reset is somebody's, too.
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Seen::Refused,
        io::ErrorKind::TimedOut => Seen::TimedOut,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Seen::Unreachable,
        _ => Seen::Other(error.to_string()),
    }
}

fn told(tried: Result<Vec<Try>, NetworkError>) -> (Vec<Try>, Option<String>) {
    match tried {
        Ok(tries) => (tries, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_silence_and_no_way_count_as_apart() {
        let of = |kind: io::ErrorKind| seen(&kind.into());
        for kind in
            [io::ErrorKind::TimedOut, io::ErrorKind::HostUnreachable, io::ErrorKind::NetworkUnreachable]
        {
            assert!(of(kind).is_apart() && !of(kind).is_reached(), "{kind}");
        }
        assert!(of(io::ErrorKind::ConnectionRefused).is_reached());
        let other = of(io::ErrorKind::PermissionDenied);
        assert!(!other.is_apart() && !other.is_reached());
    }

    #[test]
    fn nothing_to_try_passes() {
        assert!(verify(&[]).passes);
    }
}
