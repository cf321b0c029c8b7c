//! One peer's connection: who it is, and a task for each of its requests.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use quinn::{Connection, VarInt};
use rustls::pki_types::CertificateDer;
use tokio::sync::{Semaphore, broadcast, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::limits::{Bucket, Limits};
use super::metrics::Metrics;
use super::pki::{Certificate, PeerName, PkiError};
use super::{Incoming, Peer, answer};
use crate::event::Event;

/// Closes a connection: the agent ends.
pub(super) const STOPPING: VarInt = VarInt::from_u32(1);
/// Closes a connection: the certificate says nothing an agent understands.
pub(super) const ODD_CERTIFICATE: VarInt = VarInt::from_u32(2);
/// Resets a stream: the peer does not read.
pub(super) const TOO_SLOW: VarInt = VarInt::from_u32(3);

/// What all connections of a server have; nothing of it changes.
#[derive(Debug)]
pub(super) struct Shared {
    pub node: PeerName,
    pub limits: Limits,
    pub fleet: mpsc::Sender<Incoming>,
    pub events: broadcast::Sender<Event>,
    pub metrics: Metrics,
}

/// What all requests of a connection have.
#[derive(Debug)]
pub(super) struct Session {
    pub shared: Arc<Shared>,
    pub peer: Peer,
    /// Bytes of frames that may be in memory.
    pub bytes: Semaphore,
    pub subscriptions: Semaphore,
    pub stopping: CancellationToken,
}

/// Serves a peer until it goes, or until `stopping`.
pub(super) async fn serve(incoming: quinn::Incoming, shared: Arc<Shared>, stopping: CancellationToken) {
    let limits = shared.limits;
    let Some(connection) = handshake(incoming, &shared).await else { return };
    let peer = match peer(&connection) {
        Ok(peer) => peer,
        Err(error) => {
            shared.metrics.refused("certificate");
            return connection.close(ODD_CERTIFICATE, error.to_string().as_bytes());
        }
    };
    let mut bucket = Bucket::new(limits.rate, limits.burst, Instant::now());
    let session = Arc::new(Session {
        shared,
        peer,
        bytes: Semaphore::new(limits.bytes),
        subscriptions: Semaphore::new(limits.subscriptions),
        stopping,
    });
    let mut requests = JoinSet::new();
    loop {
        tokio::select! {
            () = session.stopping.cancelled() => break,
            Some(_) = requests.join_next() => {}
            stream = connection.accept_bi() => {
                // The connection is over, and with it all that was asked on it.
                let Ok(stream) = stream else { return };
                let wait = bucket.take(Instant::now()).err();
                requests.spawn(answer::answer(Arc::clone(&session), stream, wait));
            }
        }
    }
    let answered = async { while requests.join_next().await.is_some() {} };
    // What is not answered by then is cut off.
    let _ = tokio::time::timeout(limits.drain, answered).await;
    connection.close(STOPPING, b"the agent ends");
}

async fn handshake(incoming: quinn::Incoming, shared: &Shared) -> Option<Connection> {
    // What fails here is the peer's doing, and told to it by TLS.
    let reason = match incoming.accept() {
        Err(_) => "handshake",
        Ok(connecting) => match tokio::time::timeout(shared.limits.handshake, connecting).await {
            Ok(Ok(connection)) => return Some(connection),
            Ok(Err(_)) => "handshake",
            Err(_) => "handshake_too_slow",
        },
    };
    shared.metrics.refused(reason);
    None
}

/// Who the peer is, by the certificate that TLS has checked.
fn peer(connection: &Connection) -> Result<Peer, PkiError> {
    let chain = connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer>>().ok());
    let first = chain.as_ref().and_then(|chain| chain.first());
    let Certificate { name, role, validity } =
        Certificate::read(first.ok_or_else(|| PkiError::Odd("there is none".into()))?)?;
    Ok(Peer { address: connection.remote_address(), name, role, until: validity.until })
}

impl Peer {
    /// Whether the certificate is over: connections may last longer.
    pub(super) fn is_over(&self) -> bool {
        self.until < Timestamp::now()
    }
}
