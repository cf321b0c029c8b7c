//! A worker: a thread that accepts connections and carries them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::descriptors::Descriptors;
use super::desk::Refusal;
use super::member::Place;
use super::pipe::Pipes;
use super::relay::{End, Tools, relay};
use super::route::{Ask, Listening, Open, Route, View};

/// How long a guest has to take a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a client has to take an answer whose guest has gone.
const FAREWELL: Duration = Duration::from_secs(2);
/// How often a connection is tried with an instance that was thought to be awake.
const TRIES: usize = 3;
/// Pause when there are no descriptors, and between two words about it.
const PAUSE: Duration = Duration::from_millis(50);
const WORDS: Duration = Duration::from_secs(10);

/// A listener for a worker.
#[derive(Debug)]
pub struct Job {
    /// Its part of the route's listeners.
    pub socket: std::net::TcpListener,
    /// The route.
    pub route: Arc<Route>,
    /// Ends the listening; what has come goes on.
    pub stop: CancellationToken,
    /// That it listens.
    pub listening: Listening,
}

/// A worker, until it is dropped or cut.
#[derive(Debug)]
pub struct Worker {
    jobs: mpsc::UnboundedSender<Job>,
    cut: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread.
    pub fn start(index: usize, descriptors: Descriptors) -> io::Result<Self> {
        let (jobs, todo) = mpsc::unbounded_channel();
        let cut = CancellationToken::new();
        let until = cut.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
            let tools = Arc::new(Tools::new(Pipes::new(descriptors.clone())));
            // A `LocalSet` would write to the runtime's own descriptor at each of its turns.
            runtime.block_on(work(todo, until, descriptors, tools));
        })?;
        Ok(Self { jobs, cut, thread: Some(thread) })
    }

    /// Has it listen.
    pub fn listen(&self, job: Job) {
        // It ends only with this.
        let _ = self.jobs.send(job);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.cut.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic has been told already.
            let _ = thread.join();
        }
    }
}

async fn work(
    mut jobs: mpsc::UnboundedReceiver<Job>,
    cut: CancellationToken,
    descriptors: Descriptors,
    tools: Arc<Tools>,
) {
    // The runtime writes to a descriptor of its own for a timer that is due before all others; with
    // this one, those of connections never are.
    let mut clock = tokio::time::interval(CONNECT);
    loop {
        tokio::select! {
            () = cut.cancelled() => return,
            _ = clock.tick() => {}
            job = jobs.recv() => {
                let Some(job) = job else { return };
                let Job { socket, route, stop, listening } = job;
                match TcpListener::from_std(socket) {
                    Ok(listener) => {
                        let (descriptors, tools) = (descriptors.clone(), Arc::clone(&tools));
                        let what = (route, stop, listening);
                        tokio::task::spawn(accept(listener, what, descriptors, tools));
                    }
                    Err(error) => tracing::error!(route = %route.listen, %error, "cannot listen"),
                }
            }
        }
    }
}

async fn accept(
    listener: TcpListener,
    (route, stop, listening): (Arc<Route>, CancellationToken, Listening),
    descriptors: Descriptors,
    tools: Arc<Tools>,
) {
    let mut told: Option<Instant> = None;
    let stopped = stop.cancelled();
    tokio::pin!(stopped);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stopped => break,
        };
        match accepted {
            Ok((client, _)) => admit(client, &route, &descriptors, &tools),
            Err(error) => {
                if told.is_none_or(|told| told.elapsed() >= WORDS) {
                    tracing::error!(route = %route.listen, %error, "cannot accept a connection");
                    told = Some(Instant::now());
                }
                if error.kind() != io::ErrorKind::ConnectionAborted {
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
    // Those who have come already are let in, whether the runtime has heard of them or not.
    if let Ok(listener) = listener.into_std() {
        while let Ok((client, _)) = listener.accept() {
            let client = client.set_nonblocking(true).and_then(|()| TcpStream::from_std(client));
            if let Ok(client) = client {
                admit(client, &route, &descriptors, &tools);
            }
        }
    }
    drop(listening);
}

/// Lets a connection in, or closes it.
fn admit(client: TcpStream, route: &Arc<Route>, descriptors: &Descriptors, tools: &Arc<Tools>) {
    route.counts.accepted.fetch_add(1, Ordering::Relaxed);
    let view = Arc::clone(&route.view.borrow());
    let refused = |why: &'static str| {
        route.counts.refused.fetch_add(1, Ordering::Relaxed);
        // With that many on their way the log has enough to say.
        let _ = route.asks.try_send(Ask::Refused { why: why.into(), waited: Duration::ZERO });
    };
    if view.draining {
        return refused("the route takes nothing new");
    }
    let Some(open) = Open::one_more(route, &view.tenant) else {
        return refused("the tenant has as many connections as it may");
    };
    let spare = || {
        tools.pipes.free();
        descriptors.take(2)
    };
    let Some(descriptors) = descriptors.take(2).or_else(spare) else {
        return refused("this process has as many files open as it may; see `ulimit -n`");
    };
    let (route, tools) = (Arc::clone(route), Arc::clone(tools));
    tokio::task::spawn(async move {
        carry(client, &route, view, &tools).await;
        drop((open, descriptors));
    });
}

/// Finds an instance for a connection, and carries it to its end.
async fn carry(mut client: TcpStream, route: &Arc<Route>, view: Arc<View>, tools: &Tools) {
    let silence = view.silence;
    let reached = reach(&client, route, view).await;
    let Ok((mut guest, place)) = reached else {
        route.counts.refused.fetch_add(1, Ordering::Relaxed);
        return;
    };
    let counts = (&route.counts.rx, &route.counts.tx);
    let end = relay(&mut client, &mut guest, counts, silence, tools, || place.answered()).await;
    match end {
        End::Closed => {}
        End::Deaf => farewell(&mut client).await,
        End::Broken(_) | End::Silent => {
            let why = match end {
                End::Broken(error) => error.to_string(),
                _ => "silent for too long".into(),
            };
            tracing::debug!(route = %route.listen, instance = %place.member().instance, why, "cut short");
            // What was cut short does not look like something whole.
            for stream in [&client, &guest] {
                let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
            }
        }
    }
    drop((client, guest));
    drop(place);
}

/// Has a client that still talks hear an answer to its end: closed at once, the connection would be reset,
/// and what is on its way lost.
async fn farewell(client: &mut TcpStream) {
    // It may be gone.
    let _ = client.shutdown().await;
    let mut unheard = vec![0; 4096];
    let hears = async { while matches!(client.read(&mut unheard).await, Ok(1..)) {} };
    let _ = timeout(FAREWELL, hears).await;
}

/// Why a connection is not carried.
#[derive(Debug)]
enum Unreached {
    /// The client has gone.
    Gone,
    /// There is no instance.
    Refused(#[expect(dead_code, reason = "the keeper has logged it")] Refusal),
    /// The keeper has.
    Over,
    /// Instances were there, but took no connection.
    Dead,
}

async fn reach(
    client: &TcpStream,
    route: &Arc<Route>,
    view: Arc<View>,
) -> Result<(TcpStream, Place), Unreached> {
    let mut awake = route.place(&view);
    drop(view);
    let since = Instant::now();
    for _ in 0..TRIES {
        let place = match awake.take() {
            Some(place) => place,
            None => wait(client, route, since).await?,
        };
        let member = place.member();
        let late = |_| Err(io::ErrorKind::TimedOut.into());
        let error = match timeout(CONNECT, TcpStream::connect(member.endpoint)).await.unwrap_or_else(late) {
            Ok(guest) => {
                // Small answers are not to wait for more.
                let _ = guest.set_nodelay(true);
                return Ok((guest, place));
            }
            Err(error) => error,
        };
        // Anything else is a fault of this side, or of an instance that has too much to do.
        if error.kind() != io::ErrorKind::ConnectionRefused {
            let why = format!("cannot connect to {}: {error}", member.endpoint);
            let _ = route.asks.try_send(Ask::Refused { why, waited: since.elapsed() });
            return Err(Unreached::Dead);
        }
        let why = error.to_string();
        let dead = Ask::Dead { member: Arc::clone(member), why };
        drop(place);
        if route.asks.send(dead).await.is_err() {
            return Err(Unreached::Over);
        }
    }
    Err(Unreached::Dead)
}

/// Waits for a place, as long as the client does.
async fn wait(client: &TcpStream, route: &Arc<Route>, since: Instant) -> Result<Place, Unreached> {
    let _counted = Counted::new(route);
    let (reply, answer) = oneshot::channel();
    route.asks.send(Ask::Place { since, reply }).await.map_err(|_| Unreached::Over)?;
    tokio::select! {
        answer = answer => match answer {
            Ok(answer) => answer.map_err(Unreached::Refused),
            Err(_) => Err(Unreached::Over),
        },
        // One that has only ended its sending still wants an answer.
        _ = client.ready(Interest::ERROR) => Err(Unreached::Gone),
    }
}

/// Counts one who waits.
struct Counted<'a>(&'a Route);

impl<'a> Counted<'a> {
    fn new(route: &'a Route) -> Self {
        route.counts.waiting.fetch_add(1, Ordering::AcqRel);
        Self(route)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.counts.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}
