//! The agent's API on two cores: small requests over one connection.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mvm::agent::client::Client;
use mvm::agent::limits::Limits;
use mvm::agent::metrics::Metrics;
use mvm::agent::pki::{self, AUTHORITY, Authority, Identity, PeerName, Role};
use mvm::agent::request::Request;
use mvm::agent::response::Response;
use mvm::agent::server::{Backend, Server};
use mvm::agent::{Incoming, tls, wire};
use quinn::{ClientConfig, Connection, Endpoint, ServerConfig};
use tokio::runtime::Runtime;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::claim::{Claim, Limit, in_turns, percentile, stated};
use crate::place::Place;

/// Requests a round; the claim is that they take no longer than a second.
const REQUESTS: usize = 5000;
const ROUNDS: usize = 11;
/// Requests on their way at once.
const AT_ONCE: usize = 16;

/// How long 5000 requests take.
pub fn measure(place: &Place) -> Result<Claim> {
    let (ours, theirs) = compare(place)?;
    let (ours, theirs) = (ours.rounds, theirs.rounds);
    let (our, their) = (percentile(&ours, 50).as_secs_f64(), percentile(&theirs, 50).as_secs_f64());
    let rate = |seconds: f64| REQUESTS as f64 / seconds;
    Ok(Claim {
        what: "5000 small requests over one connection",
        ours,
        limit: Limit::Absolute(Duration::from_secs(1)),
        stated: vec![
            stated("bare quinn, echo of the same bytes", &theirs),
            format!(
                "{:<34} {:.0} and {:.0} a second, ratio {:.2}",
                "mvm and bare",
                rate(our),
                rate(their),
                our / their
            ),
        ],
    })
}

/// How long one of them takes, while there are 16 at once.
pub fn measure_each(place: &Place) -> Result<Claim> {
    let (ours, theirs) = compare(place)?;
    let p99 = |samples: &[Duration]| percentile(samples, 99).as_secs_f64();
    let ratio = p99(&ours.each) / p99(&theirs.each);
    Ok(Claim {
        what: "one small request, 16 at once",
        limit: Limit::Percentile99(Duration::from_millis(10)),
        stated: vec![
            stated("bare quinn, echo of the same bytes", &theirs.each),
            format!("{:<34} {ratio:.2}", "ratio of 99 of 100"),
        ],
        ours: ours.each,
    })
}

#[derive(Default)]
struct Samples {
    rounds: Vec<Duration>,
    each: Vec<Duration>,
}

/// The agent's server and client, and bare quinn with the same certificates, in turns.
fn compare(place: &Place) -> Result<(Samples, Samples)> {
    let name: PeerName = "dev".parse()?;
    let dir = place.within("pki")?.certify(&[Role::Node, Role::Client], &name)?;
    let agent =
        serve(&dir, |dir, tell, runtime, stop| run_agent(dir, tell, runtime, stop, |_| Response::Released))?;
    let echo = serve(&dir, run_echo)?;
    let runtime = runtime()?;
    let identity = identity(&dir, Role::Client)?;
    let authority = authority(&dir)?;
    let client = runtime.block_on(Client::connect(agent.address, &name, &identity, &authority))?;
    let bare = runtime.block_on(connect(echo.address, &name, &identity, &authority))?;
    let (mut ours, mut theirs) = (Samples::default(), Samples::default());
    let ask = || async {
        let answer = client.ask(release()?).await?;
        ensure!(answer == Response::Released, "another answer came: {answer:?}");
        Ok(())
    };
    let echoed = || async { bounce(&bare, &wire::encode(&release()?)?).await };
    let (our, their) = in_turns(
        ROUNDS,
        || runtime.block_on(round(&ask, &mut ours.each)),
        || runtime.block_on(round(&echoed, &mut theirs.each)),
    )?;
    (ours.rounds, theirs.rounds) = (our, their);
    agent.end()?;
    echo.end()?;
    Ok((ours, theirs))
}

/// Asks 5000 times, 16 at once.
async fn round<F: Future<Output = Result<()>>>(
    ask: &impl Fn() -> F,
    each: &mut Vec<Duration>,
) -> Result<Duration> {
    let began = Instant::now();
    let lane = || async {
        let mut samples = Vec::with_capacity(REQUESTS / AT_ONCE + 1);
        for _ in 0..REQUESTS.div_ceil(AT_ONCE) {
            let since = Instant::now();
            ask().await?;
            samples.push(since.elapsed());
        }
        Ok::<_, anyhow::Error>(samples)
    };
    let lanes = futures_util::future::try_join_all((0..AT_ONCE).map(|_| lane())).await?;
    each.extend(lanes.into_iter().flatten());
    Ok(began.elapsed())
}

fn release() -> Result<Request> {
    Ok(Request::Release { lease: "l-0123456789abcdef".parse()? })
}

/// A server on a thread of its own.
pub struct Served {
    /// Where it listens.
    pub address: SocketAddr,
    stop: CancellationToken,
    thread: JoinHandle<Result<()>>,
}

impl Served {
    /// Ends it, and says how it went.
    pub fn end(self) -> Result<()> {
        self.stop.cancel();
        self.thread.join().map_err(|_| anyhow::anyhow!("the server panicked"))?
    }
}

/// Serves on a thread of its own, with the certificates in `dir`.
pub fn serve<F>(dir: &Path, run: F) -> Result<Served>
where
    F: FnOnce(&Path, oneshot::Sender<SocketAddr>, &Runtime, CancellationToken) -> Result<()>,
    F: Send + 'static,
{
    let (tell, told) = oneshot::channel();
    let (dir, stop) = (dir.to_path_buf(), CancellationToken::new());
    let token = stop.clone();
    let thread = std::thread::spawn(move || run(&dir, tell, &runtime()?, token));
    Ok(Served { address: told.blocking_recv().context("the server did not start")?, stop, thread })
}

/// As mvm's own.
fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// An agent's server, with something else behind it than a fleet.
pub fn run_agent(
    dir: &Path,
    tell: oneshot::Sender<SocketAddr>,
    runtime: &Runtime,
    stop: CancellationToken,
    answer: impl Fn(Request) -> Response + Send + 'static,
) -> Result<()> {
    // What is measured is the API, not the pace it is held to.
    let limits = Limits { rate: u32::MAX, ..Limits::default() };
    let (fleet, mut requests) = mpsc::channel(64);
    let backend = Backend { fleet, events: broadcast::channel(1).0, metrics: Metrics::default() };
    runtime.block_on(async {
        let server = Server::bind(any(), &identity(dir, Role::Node)?, &authority(dir)?, backend, limits)?;
        let _ = tell.send(server.local_addr()?);
        tokio::spawn(async move {
            while let Some(Incoming { request, reply, .. }) = requests.recv().await {
                let _ = reply.send(answer(request));
            }
        });
        server.run(stop).await;
        Ok(())
    })
}

fn run_echo(
    dir: &Path,
    tell: oneshot::Sender<SocketAddr>,
    runtime: &Runtime,
    stop: CancellationToken,
) -> Result<()> {
    runtime.block_on(async {
        let crypto = tls::server(&identity(dir, Role::Node)?, &authority(dir)?)?;
        let endpoint = Endpoint::server(ServerConfig::with_crypto(Arc::new(crypto)), any())?;
        let _ = tell.send(endpoint.local_addr()?);
        let serve = async {
            let connection = endpoint.accept().await.context("no peer")?.await?;
            let mut streams = JoinSet::new();
            while let Ok((mut send, mut recv)) = connection.accept_bi().await {
                streams.spawn(async move {
                    let bytes = recv.read_to_end(1 << 20).await?;
                    send.write_all(&bytes).await?;
                    Ok::<_, anyhow::Error>(send.finish()?)
                });
                while streams.try_join_next().is_some() {}
            }
            Ok(())
        };
        stop.run_until_cancelled(serve).await.unwrap_or(Ok(()))
    })
}

async fn connect(
    address: SocketAddr,
    name: &PeerName,
    identity: &Identity,
    authority: &Authority,
) -> Result<Connection> {
    let mut endpoint = Endpoint::client(any())?;
    endpoint.set_default_client_config(ClientConfig::new(Arc::new(tls::client(identity, authority)?)));
    Ok(endpoint.connect(address, &name.host())?.await?)
}

async fn bounce(connection: &Connection, frame: &[u8]) -> Result<()> {
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(frame).await?;
    send.finish()?;
    ensure!(recv.read_to_end(1 << 20).await? == frame, "other bytes came back");
    Ok(())
}

fn identity(dir: &Path, role: Role) -> Result<Identity> {
    Ok(Identity::load(&dir.join(pki::file_name(role, &"dev".parse()?)))?)
}

fn authority(dir: &Path) -> Result<Authority> {
    Ok(Authority::load(&dir.join(AUTHORITY))?)
}

fn any() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}
