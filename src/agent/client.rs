//! A client of an agent: one connection, many requests at once.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use quinn::{
    ClientConfig, Connection, Endpoint, IdleTimeout, RecvStream, SendStream, TransportConfig, VarInt,
};
use tokio::time::timeout;

pub use super::client_error::ClientError;
use super::client_error::{Broken, explain};
use super::pki::{Authority, Identity, PeerName};
use super::request::{InstanceFilter, Request};
use super::response::{InstanceSummary, Notice, Response};
use super::tls;
use super::wire::{self, WireError};

/// From the first packet to the agent's word that it takes us.
const CONNECT: Duration = Duration::from_secs(5);

/// An agent that is not heard of for so long is gone, asked or not.
const SILENCE: Duration = Duration::from_secs(10);

/// So often each side makes itself heard.
const KEEP_ALIVE: Duration = Duration::from_secs(3);

/// What an answer may take on top of what the agent gives itself.
const ON_TOP: Duration = Duration::from_secs(10);

/// How long the last packets have on their way out.
const FAREWELL: Duration = Duration::from_secs(1);

/// Most pages of a list.
const PAGES: usize = 1000;

/// A connection to an agent; copies use the same.
#[derive(Debug, Clone)]
pub struct Client {
    connection: Connection,
    endpoint: Endpoint,
    address: SocketAddr,
}

impl Client {
    /// Connects to the agent of the node `node`, and has it say that it takes us.
    pub async fn connect(
        address: SocketAddr,
        node: &PeerName,
        identity: &Identity,
        authority: &Authority,
    ) -> Result<Self, ClientError> {
        let ours = identity.certificate();
        if !ours.validity.holds(Timestamp::now()) {
            let (name, role, validity) = (ours.name.clone(), ours.role, ours.validity);
            return Err(ClientError::OursOver { name, role, validity });
        }
        let mut endpoint = Endpoint::client(local(address)).map_err(ClientError::Socket)?;
        endpoint.set_default_client_config(config(identity, authority)?);
        let connecting = endpoint
            .connect(address, &node.host())
            .map_err(|error| ClientError::Address { address, why: error.to_string() })?;
        let greeted = timeout(CONNECT, async {
            let connection = connecting.await.map_err(|error| explain(error, address))?;
            let client = Self { connection, endpoint, address };
            // Only an answer shows that the agent took our certificate: TLS 1.3 is done here before
            // it is there.
            client.ask(Request::Hello).await?;
            Ok(client)
        });
        greeted.await.unwrap_or(Err(ClientError::Unreachable { address, after: CONNECT }))
    }

    /// Asks, and waits for the answer; that the agent refuses is [`ClientError::Refused`].
    pub async fn ask(&self, request: Request) -> Result<Response, ClientError> {
        let patience = request.patience() + ON_TOP;
        let answered = timeout(patience, async {
            let mut recv = self.send(&request).await?;
            answer(&mut recv).await
        });
        match answered.await {
            Ok(answered) => answered.map_err(|error| self.explain(error)),
            Err(_) => {
                Err(ClientError::TooSlow { address: self.address, request: request.name(), after: patience })
            }
        }
    }

    /// All instances that `filter` takes, page by page.
    pub async fn instances(&self, mut filter: InstanceFilter) -> Result<Vec<InstanceSummary>, ClientError> {
        let mut all = Vec::new();
        for _ in 0..PAGES {
            match self.ask(Request::InstanceList(filter.clone())).await? {
                Response::Instances { instances, more } => {
                    all.extend(instances);
                    filter.after = all.last().map(|last| last.path.clone());
                    if !more {
                        break;
                    }
                }
                other => return Err(ClientError::Odd { address: self.address, answer: other.name() }),
            }
        }
        Ok(all)
    }

    /// What happens on the node, from now on.
    pub async fn subscribe(&self) -> Result<Events, ClientError> {
        let request = Request::Subscribe;
        let patience = request.patience();
        let begun = timeout(patience, async {
            let mut recv = self.send(&request).await?;
            match answer(&mut recv).await? {
                Response::Subscribed => Ok(recv),
                other => Err(Broken::Odd(other.name())),
            }
        });
        match begun.await {
            Ok(Ok(recv)) => Ok(Events { recv, client: self.clone() }),
            Ok(Err(error)) => Err(self.explain(error)),
            Err(_) => {
                Err(ClientError::TooSlow { address: self.address, request: request.name(), after: patience })
            }
        }
    }

    /// Where the agent is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the connection is over, and says why.
    pub async fn closed(&self) -> ClientError {
        explain(self.connection.closed().await, self.address)
    }

    /// Ends the connection, for all copies, and has the agent know.
    pub async fn close(self) {
        self.connection.close(VarInt::from_u32(0), b"");
        let _ = timeout(FAREWELL, self.endpoint.wait_idle()).await;
    }

    async fn send(&self, request: &Request) -> Result<RecvStream, Broken> {
        let frame = wire::encode(request)?;
        let (send, recv) = self.connection.open_bi().await?;
        write(send, &frame).await;
        Ok(recv)
    }

    fn explain(&self, error: Broken) -> ClientError {
        // A stream breaks with its connection, which knows why.
        match (self.connection.close_reason(), error) {
            (_, Broken::Refused(fault)) => ClientError::Refused(fault),
            (_, Broken::Odd(answer)) => ClientError::Odd { address: self.address, answer },
            (Some(reason), _) | (None, Broken::Connection(reason)) => explain(reason, self.address),
            (None, Broken::Wire(source)) => ClientError::Wire { address: self.address, source },
        }
    }
}

/// What happens on a node.
#[derive(Debug)]
pub struct Events {
    recv: RecvStream,
    client: Client,
}

impl Events {
    /// The next; `None` when the agent ends.
    pub async fn next(&mut self) -> Option<Result<Notice, ClientError>> {
        match self.read().await {
            Ok(notice) => Some(Ok(notice)),
            Err(Broken::Wire(WireError::Ended)) => None,
            Err(error) => Some(Err(self.client.explain(error))),
        }
    }

    async fn read(&mut self) -> Result<Notice, Broken> {
        // Nothing may happen for long: only what has begun must end in time.
        let length = wire::read_length(&mut self.recv).await?;
        let body = wire::within(ON_TOP, wire::read_body(&mut self.recv, length)).await?;
        Ok(serde_json::from_slice(&body).map_err(WireError::NotJson)?)
    }
}

async fn answer(recv: &mut RecvStream) -> Result<Response, Broken> {
    let length = wire::read_length(recv).await?;
    let body = wire::read_body(recv, length).await?;
    match serde_json::from_slice(&body).map_err(WireError::NotJson)? {
        Response::Error(fault) => Err(Broken::Refused(fault)),
        response => Ok(response),
    }
}

/// Writes a request. An agent that has heard enough stops the stream, and its answer says why.
async fn write(mut send: SendStream, frame: &[u8]) {
    if send.write_all(frame).await.is_ok() {
        let _ = send.finish();
    }
}

/// Any port, on loopback for what is on loopback.
fn local(remote: SocketAddr) -> SocketAddr {
    let ip = match (remote, remote.ip().is_loopback()) {
        (SocketAddr::V4(_), true) => Ipv4Addr::LOCALHOST.into(),
        (SocketAddr::V4(_), false) => Ipv4Addr::UNSPECIFIED.into(),
        (SocketAddr::V6(_), true) => Ipv6Addr::LOCALHOST.into(),
        (SocketAddr::V6(_), false) => Ipv6Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(ip, 0)
}

fn config(identity: &Identity, authority: &Authority) -> Result<ClientConfig, ClientError> {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        // It is well below what can be counted.
        .max_idle_timeout(IdleTimeout::try_from(SILENCE).ok())
        .keep_alive_interval(Some(KEEP_ALIVE));
    let mut config = ClientConfig::new(Arc::new(tls::client(identity, authority)?));
    config.transport_config(Arc::new(transport));
    Ok(config)
}
