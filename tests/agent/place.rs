//! A cluster of one node, with a server on loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use mvm::agent::client::{Client, ClientError};
use mvm::agent::limits::Limits;
use mvm::agent::metrics::Metrics;
use mvm::agent::pki::{self, AUTHORITY, Authority, Identity, PeerName, Role, Validity};
use mvm::agent::request::Request;
use mvm::agent::response::{Fault, Response};
use mvm::agent::server::{Backend, Server};
use mvm::agent::{Incoming, tls, wire};
use mvm::event::{Event, Kind, SCHEMA_VERSION, TaskId};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, RecvStream, TransportConfig};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Nothing in these tests takes longer, however busy the machine is.
pub const DEADLINE: Duration = Duration::from_secs(60);

pub async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.expect("not done in time")
}

pub fn name(text: &str) -> PeerName {
    text.parse().unwrap()
}

/// An authority and what it issues.
pub struct Cluster {
    dir: TempDir,
}

impl Cluster {
    pub fn found() -> Self {
        let dir = tempfile::tempdir().unwrap();
        pki::init(dir.path()).unwrap();
        Self { dir }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn authority_file(&self) -> PathBuf {
        self.dir().join(AUTHORITY)
    }

    pub fn authority(&self) -> Authority {
        Authority::load(&self.authority_file()).unwrap()
    }

    /// The file of a certificate that is made when it is first asked for.
    pub fn file(&self, role: Role, who: &str) -> PathBuf {
        let path = self.dir().join(pki::file_name(role, &name(who)));
        if !path.exists() {
            pki::issue(self.dir(), role, &name(who), Validity::days(30).unwrap()).unwrap();
        }
        path
    }

    pub fn identity(&self, role: Role, who: &str) -> Identity {
        Identity::load(&self.file(role, who)).unwrap()
    }

    /// The file of a certificate that ended yesterday.
    pub fn expired(&self) -> PathBuf {
        let hours = |hours| Timestamp::now() - jiff::SignedDuration::from_hours(hours);
        let validity = Validity::between(hours(48), hours(24)).unwrap();
        pki::issue(self.dir(), Role::Client, &name("late"), validity).unwrap().path
    }
}

/// A server that runs.
pub struct Place {
    pub cluster: Cluster,
    pub address: SocketAddr,
    pub server: Arc<Server>,
    pub stop: CancellationToken,
    pub run: JoinHandle<()>,
    pub events: broadcast::Sender<Event>,
    pub metrics: Metrics,
}

/// Events that are kept for a subscriber who is behind.
pub const KEPT: usize = 8;

impl Place {
    /// A server whose requests come out of the receiver.
    pub fn open(limits: Limits) -> (Self, mpsc::Receiver<Incoming>) {
        let cluster = Cluster::found();
        let identity = cluster.identity(Role::Node, "dev");
        Self::open_as(cluster, &identity, limits)
    }

    pub fn open_as(
        cluster: Cluster,
        identity: &Identity,
        limits: Limits,
    ) -> (Self, mpsc::Receiver<Incoming>) {
        let (fleet, requests) = mpsc::channel(64);
        let events = broadcast::channel(KEPT).0;
        let metrics = Metrics::default();
        let backend = Backend { fleet, events: events.clone(), metrics: metrics.clone() };
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let server = Server::bind(any, identity, &cluster.authority(), backend, limits).unwrap();
        let (server, stop) = (Arc::new(server), CancellationToken::new());
        let address = server.local_addr().unwrap();
        let (runs, token) = (Arc::clone(&server), stop.clone());
        let run = tokio::spawn(async move { runs.run(token).await });
        (Self { cluster, address, server, stop, run, events, metrics }, requests)
    }

    /// A server whose fleet answers at once.
    pub fn open_answering(limits: Limits) -> Self {
        let (place, requests) = Self::open(limits);
        tokio::spawn(answer_all(requests));
        place
    }

    pub async fn client(&self, role: Role, who: &str) -> Result<Client, ClientError> {
        self.connect(&self.cluster.identity(role, who)).await
    }

    pub async fn connect(&self, identity: &Identity) -> Result<Client, ClientError> {
        connect(self.address, "dev", identity, &self.cluster).await
    }

    pub async fn operator(&self) -> Client {
        self.client(Role::Client, "operator").await.unwrap()
    }

    /// A connection by hand.
    pub async fn raw(&self, raw: Raw) -> Result<Connection, ConnectionError> {
        let config = raw.config(&self.cluster.authority_file());
        let mut endpoint = Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        endpoint.set_default_client_config(config);
        soon(endpoint.connect(self.address, &name("dev").host()).unwrap()).await
    }

    /// A connection by hand, of an operator.
    pub async fn raw_operator(&self) -> Connection {
        let identity = Some(self.cluster.file(Role::Client, "operator"));
        self.raw(Raw { identity, ..Raw::default() }).await.unwrap()
    }

    pub fn tell(&self, phase: &str) {
        let kind = Kind::Phase { name: phase.into() };
        let event = Event { v: SCHEMA_VERSION, time: Timestamp::now(), task: TaskId::machine(), kind };
        // Nobody may listen.
        let _ = self.events.send(event);
    }
}

/// Connects to the agent of a node, of which `cluster` is to be the cluster.
pub async fn connect(
    address: SocketAddr,
    node: &str,
    identity: &Identity,
    cluster: &Cluster,
) -> Result<Client, ClientError> {
    soon(Client::connect(address, &name(node), identity, &cluster.authority())).await
}

/// How to connect by hand.
pub struct Raw {
    pub identity: Option<PathBuf>,
    pub alpn: Vec<Vec<u8>>,
    /// What the other side may send ahead on one stream.
    pub window: u32,
}

impl Default for Raw {
    fn default() -> Self {
        Self { identity: None, alpn: vec![tls::ALPN.into()], window: 1 << 20 }
    }
}

impl Raw {
    fn config(self, authority: &Path) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match self.identity {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let chain = vec![CertificateDer::from_pem_file(&path).unwrap()];
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&path).unwrap()).unwrap()
            }
        };
        config.alpn_protocols = self.alpn;
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).unwrap()));
        let mut transport = TransportConfig::default();
        transport.stream_receive_window(self.window.into());
        config.transport_config(Arc::new(transport));
        config
    }
}

/// A fleet that answers at once.
pub async fn answer_all(mut requests: mpsc::Receiver<Incoming>) {
    while let Some(Incoming { request, reply, .. }) = requests.recv().await {
        // Whoever asked may have gone.
        let _ = reply.send(answer(&request));
    }
}

pub fn answer(request: &Request) -> Response {
    match request {
        Request::Release { .. } => Response::Released,
        Request::TenantList => Response::Tenants { tenants: Vec::new() },
        // As much as a frame holds, or nearly.
        Request::NodeStats => Response::Reconciled { plan: "x".repeat(1_000_000).into() },
        Request::NodeInfo => Response::Reconciled { plan: "x".repeat(1 << 20).into() },
        _ => Response::Renewed,
    }
}

/// A small request.
pub fn release() -> Request {
    Request::Release { lease: "l-1".parse().unwrap() }
}

/// Sends bytes on a stream of their own, with or without an end, and reads what comes back.
pub async fn exchange(connection: &Connection, bytes: &[u8], end: bool) -> Response {
    let (mut send, mut recv) = soon(connection.open_bi()).await.unwrap();
    // An agent that has heard enough stops the stream.
    let _ = send.write_all(bytes).await;
    if end {
        let _ = send.finish();
    }
    soon(read(&mut recv)).await
}

pub async fn read(recv: &mut RecvStream) -> Response {
    let body = wire::read(recv, DEADLINE).await.unwrap();
    serde_json::from_slice(&body).unwrap()
}

pub fn fault(response: Response) -> Fault {
    match response {
        Response::Error(fault) => fault,
        other => panic!("{other:?} is no error"),
    }
}

pub fn refused(result: Result<Response, ClientError>) -> Fault {
    match result {
        Err(ClientError::Refused(fault)) => fault,
        other => panic!("{other:?} is no refusal"),
    }
}
