//! The server: who is let in, and an end in good order.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::{
    ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, IdleTimeout, ServerConfig, TokioRuntime,
    TransportConfig, VarInt,
};
use rand_core::{OsRng, RngCore};
use ring::hmac;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Incoming;
use super::connection::{self, Shared};
use super::limits::Limits;
use super::metrics::Metrics;
use super::pki::{Authority, Identity};
use super::tls::{self, TlsError};
use super::wire::{HEADER, MAX_FRAME};
use crate::event::Event;

/// First packets that wait to be looked at, and their bytes.
const WAITING: usize = 256;
const WAITING_BYTES: u64 = 1 << 20;

/// How long the last packets have on their way out.
const FAREWELL: Duration = Duration::from_secs(1);

/// Why an agent cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be had.
    #[error(
        "cannot listen on {address}: {source}\nhelp: another agent may run there; `--listen` takes another address"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The certificates are not as they should be.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// What is behind the server: the owner of the fleet, and what it counts.
#[derive(Debug)]
pub struct Backend {
    /// Takes requests; bounded.
    pub fleet: mpsc::Sender<Incoming>,
    /// What subscribers are told. What is sent while nobody listens is gone.
    pub events: broadcast::Sender<Event>,
    /// What is counted.
    pub metrics: Metrics,
}

/// An agent's QUIC endpoint.
#[derive(Debug)]
pub struct Server {
    endpoint: Endpoint,
    authority: Authority,
    shared: Arc<Shared>,
}

impl Server {
    /// Listens on `address`, as the node that `identity` says, for peers of `authority`.
    pub fn bind(
        address: SocketAddr,
        identity: &Identity,
        authority: &Authority,
        backend: Backend,
        limits: Limits,
    ) -> Result<Self, ServeError> {
        let config = config(identity, authority, &limits)?;
        let listening = UdpSocket::bind(address).and_then(|socket| {
            Endpoint::new(endpoint(identity), Some(config), socket, Arc::new(TokioRuntime))
        });
        let endpoint = listening.map_err(|source| ServeError::Listen { address, source })?;
        let Backend { fleet, events, metrics } = backend;
        let node = identity.certificate().name.clone();
        let shared = Arc::new(Shared { node, limits, fleet, events, metrics });
        Ok(Self { endpoint, authority: authority.clone(), shared })
    }

    /// Where it listens.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Shows this certificate from now on, to new peers.
    pub fn use_identity(&self, identity: &Identity) -> Result<(), ServeError> {
        let config = config(identity, &self.authority, &self.shared.limits)?;
        self.endpoint.set_server_config(Some(config));
        Ok(())
    }

    /// Serves until `stop`; then lets nobody in, answers what was asked, and returns.
    pub async fn run(&self, stop: CancellationToken) {
        let mut connections = JoinSet::new();
        let mut addresses = HashMap::new();
        let metrics = &self.shared.metrics;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(ended) = connections.join_next_with_id() => {
                    let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                    addresses.remove(&id);
                }
                incoming = self.endpoint.accept() => {
                    let Some(incoming) = incoming else { break };
                    let address = incoming.remote_address().ip();
                    if !self.has_room(address, &addresses) {
                        metrics.refused("too_many");
                        incoming.refuse();
                    } else if addresses.len() * 2 > self.shared.limits.connections && incoming.may_retry() {
                        // It is getting full: whoever comes shows first that it is where it says.
                        // A retry that is not sent is one that the peer asks for again.
                        let _ = incoming.retry();
                    } else {
                        let served = connection::serve(incoming, Arc::clone(&self.shared), stop.clone());
                        addresses.insert(connections.spawn(served).id(), address);
                    }
                }
            }
            metrics.connections(addresses.len());
        }
        self.endpoint.set_server_config(None);
        // Each of them has a deadline.
        while connections.join_next().await.is_some() {}
        metrics.connections(0);
        let _ = tokio::time::timeout(FAREWELL, self.endpoint.wait_idle()).await;
    }

    fn has_room(&self, address: IpAddr, open: &HashMap<tokio::task::Id, IpAddr>) -> bool {
        let limits = &self.shared.limits;
        open.len() < limits.connections
            && open.values().filter(|other| **other == address).count() < limits.connections_per_address
    }
}

/// Connections have any ids: those of a process that was killed are as good as its successor's, so that
/// it answers them.
struct AnyId;

impl ConnectionIdGenerator for AnyId {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&OsRng.next_u64().to_le_bytes())
    }

    fn cid_len(&self) -> usize {
        size_of::<u64>()
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Peers of an agent that was killed hear from the next one, at their first word, that it knows nothing
/// of their connections: what shows that is derived from the node's key.
fn endpoint(identity: &Identity) -> EndpointConfig {
    let secret = identity.secret("mvm stateless reset");
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &secret)));
    config.cid_generator(|| Box::new(AnyId));
    config
}

fn config(identity: &Identity, authority: &Authority, limits: &Limits) -> Result<ServerConfig, TlsError> {
    let mut transport = TransportConfig::default();
    let window = VarInt::from_u32(u32::try_from(limits.bytes).unwrap_or(u32::MAX));
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(limits.streams))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32((HEADER + MAX_FRAME) as u32).min(window))
        .receive_window(window)
        .send_window(limits.bytes as u64)
        // More than a year of silence is not meant.
        .max_idle_timeout(IdleTimeout::try_from(limits.idle).ok());
    let mut config = ServerConfig::with_crypto(Arc::new(tls::server(identity, authority)?));
    config
        .transport_config(Arc::new(transport))
        .migration(false)
        .max_incoming(WAITING)
        .incoming_buffer_size(WAITING_BYTES / 16)
        .incoming_buffer_size_total(WAITING_BYTES);
    Ok(config)
}
