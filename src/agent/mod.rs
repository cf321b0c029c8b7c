//! The fleet behind QUIC and mutual TLS: what peers may ask of a node, and who they are.
//!
//! The server knows nothing of the fleet. Each request of a peer whose role allows it goes as an
//! [`Incoming`] over a bounded channel to the one loop that owns the fleet, which answers it.

mod answer;
pub mod client;
mod client_error;
mod connection;
pub mod http;
pub mod limits;
pub mod metrics;
pub mod owner;
pub mod pki;
pub mod request;
pub mod response;
pub mod scrape;
pub mod server;
mod subscribe;
pub mod tls;
pub mod wire;

use std::net::SocketAddr;

use jiff::Timestamp;
use tokio::sync::oneshot;

use pki::{PeerName, Role};
use request::Request;
use response::Response;

/// Who asks, by the certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Where it is.
    pub address: SocketAddr,
    /// Its name.
    pub name: PeerName,
    /// What it may do.
    pub role: Role,
    /// When its certificate ends.
    pub until: Timestamp,
}

/// A request for the owner of the fleet.
///
/// Whoever asked may have gone: `reply.is_closed()` says so.
#[derive(Debug)]
pub struct Incoming {
    /// Who asks.
    pub peer: Peer,
    /// What for.
    pub request: Request,
    /// Takes the answer; dropped without one, the peer is told that something went wrong.
    pub reply: oneshot::Sender<Response>,
}
