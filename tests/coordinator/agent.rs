//! An agent that plays a part: a real QUIC server, behind it a fleet of small servers on loopback which
//! are said to sleep or to run.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use mvm::agent::Incoming;
use mvm::agent::limits::Limits;
use mvm::agent::metrics::Metrics;
use mvm::agent::pki::{Authority, Identity};
use mvm::agent::request::{Request, Target};
use mvm::agent::response::{Fault, FaultCode, InstanceSummary, Response, Woken};
use mvm::agent::server::{Backend, Server};
use mvm::fleet::state::InstanceState;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// What it does when it is asked to wake.
#[derive(Debug, Clone)]
pub enum Wakes {
    Work(Duration),
    Fail(&'static str),
    /// Never an answer.
    Hang,
}

/// What it is told.
pub enum Say {
    Wakes(Wakes),
    /// A guest is in another state.
    State(usize, InstanceState),
    /// Leases are no longer known.
    ForgetLeases,
    /// A guest is to be had elsewhere.
    Moved(usize, SocketAddr),
    /// All of it stands still until the other end of this is dropped.
    Freeze(std::sync::mpsc::Receiver<()>),
}

/// What it was asked.
#[derive(Debug, Default)]
pub struct Asked {
    pub wakes: AtomicU64,
    pub renewals: AtomicU64,
    pub releases: AtomicU64,
}

impl Asked {
    pub fn wakes(&self) -> u64 {
        self.wakes.load(Ordering::SeqCst)
    }

    pub fn renewals(&self) -> u64 {
        self.renewals.load(Ordering::SeqCst)
    }

    pub fn releases(&self) -> u64 {
        self.releases.load(Ordering::SeqCst)
    }
}

/// The agent, on a thread of its own; ends when it is dropped.
pub struct Agent {
    pub asked: Arc<Asked>,
    say: mpsc::UnboundedSender<Say>,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Agent {
    /// Serves a fleet of one pool, `dev/web`, of these guests.
    pub fn start(
        address: SocketAddr,
        identity: Identity,
        authority: Authority,
        guests: Vec<(SocketAddr, InstanceState)>,
    ) -> Self {
        let (say, told) = mpsc::unbounded_channel();
        let (stop, asked) = (CancellationToken::new(), Arc::new(Asked::default()));
        let (bound, is_bound) = std::sync::mpsc::channel();
        let (until, counts) = (stop.clone(), Arc::clone(&asked));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let (fleet, requests) = mpsc::channel(64);
                let backend = Backend { fleet, events: broadcast::channel(8).0, metrics: Metrics::default() };
                let server =
                    Server::bind(address, &identity, &authority, backend, Limits::default()).unwrap();
                bound.send(()).unwrap();
                let owner = own(requests, told, guests, counts);
                tokio::select! {
                    () = server.run(until.clone()) => {}
                    () = owner => {}
                }
            });
        });
        is_bound.recv().unwrap();
        Self { asked, say, stop, thread: Some(thread) }
    }

    pub fn say(&self, say: Say) {
        assert!(self.say.send(say).is_ok());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.cancel();
        self.thread.take().unwrap().join().unwrap();
    }
}

struct Guest {
    endpoint: SocketAddr,
    state: InstanceState,
    /// Whether it runs without being woken.
    resident: bool,
}

async fn own(
    mut requests: mpsc::Receiver<Incoming>,
    mut told: mpsc::UnboundedReceiver<Say>,
    guests: Vec<(SocketAddr, InstanceState)>,
    asked: Arc<Asked>,
) {
    let guest = |(endpoint, state)| Guest { endpoint, state, resident: state == InstanceState::Running };
    let mut guests: Vec<Guest> = guests.into_iter().map(guest).collect();
    let (mut wakes, mut epoch) = (Wakes::Work(Duration::ZERO), 0u64);
    let (done, mut woken) = mpsc::unbounded_channel();
    let mut hung = Vec::new();
    loop {
        tokio::select! {
            said = told.recv() => match said {
                Some(Say::Wakes(now)) => wakes = now,
                Some(Say::State(index, state)) => guests[index].state = state,
                Some(Say::ForgetLeases) => epoch += 1,
                Some(Say::Moved(index, endpoint)) => guests[index].endpoint = endpoint,
                Some(Say::Freeze(until)) => drop(until.recv()),
                None => return,
            },
            Some((index, reply)) = woken.recv() => answer_wake(index, reply, &mut guests, epoch),
            incoming = requests.recv() => {
                let Some(Incoming { request, reply, .. }) = incoming else { return };
                let answer = match request {
                    Request::Wake { target, .. } => {
                        asked.wakes.fetch_add(1, Ordering::SeqCst);
                        let index = match target {
                            Target::Pool(_) => (0..guests.len()).min_by_key(|index| match guests[*index].state {
                                InstanceState::Running => 0,
                                InstanceState::Sleeping => 1,
                                _ => 2,
                            }),
                            Target::Instance(path) => (0..guests.len()).find(|index| name(*index) == path.to_string()),
                        };
                        let Some(index) = index else {
                            let _ = reply.send(Response::error(FaultCode::Conflict, "the pool has no instance"));
                            continue;
                        };
                        match &wakes {
                            Wakes::Hang => hung.push(reply),
                            Wakes::Fail(why) => drop(reply.send(Response::error(FaultCode::Internal, *why))),
                            Wakes::Work(_) if guests[index].state == InstanceState::Running => {
                                answer_wake(index, reply, &mut guests, epoch);
                            }
                            Wakes::Work(after) => {
                                let (after, done) = (*after, done.clone());
                                tokio::spawn(async move {
                                    // How long a guest takes to wake: what is tested is who waits for it.
                                    tokio::time::sleep(after).await;
                                    let _ = done.send((index, reply));
                                });
                            }
                        }
                        continue;
                    }
                    Request::Renew { lease, .. } => {
                        asked.renewals.fetch_add(1, Ordering::SeqCst);
                        match lease.as_str().ends_with(&format!("-{epoch}")) {
                            true => Response::Renewed,
                            false => Response::Error(Fault::new(FaultCode::NotFound, "no such lease")),
                        }
                    }
                    Request::Release { .. } => {
                        asked.releases.fetch_add(1, Ordering::SeqCst);
                        Response::Released
                    }
                    Request::Sleep { instance } => {
                        let index = (0..guests.len()).find(|index| name(*index) == instance.to_string());
                        guests[index.unwrap()].state = InstanceState::Sleeping;
                        Response::Slept
                    }
                    Request::InstanceList(filter) => Response::instances(summaries(&guests), &filter),
                    other => Response::error(FaultCode::Internal, format!("no part for {}", other.name())),
                };
                let _ = reply.send(answer);
            }
        }
    }
}

fn answer_wake(index: usize, reply: oneshot::Sender<Response>, guests: &mut [Guest], epoch: u64) {
    guests[index].state = InstanceState::Running;
    let woken = Woken {
        lease: format!("l{index}-{epoch}").parse().unwrap(),
        instance: name(index).parse().unwrap(),
        endpoint: guests[index].endpoint,
        steps: vec![("restore".into(), 7)],
    };
    let _ = reply.send(Response::Woken(woken));
}

fn name(index: usize) -> String {
    format!("dev/web/i-{index:08x}")
}

fn summaries(guests: &[Guest]) -> Vec<InstanceSummary> {
    let summary = |(index, guest): (usize, &Guest)| InstanceSummary {
        path: name(index).parse().unwrap(),
        state: guest.state,
        since: Timestamp::now(),
        endpoint: Some(guest.endpoint),
        revision: None,
        leased: false,
        at_home: guest.resident || guest.state != InstanceState::Running,
    };
    guests.iter().enumerate().map(summary).collect()
}

/// What a guest's server does with a connection.
#[derive(Debug, Clone, Copy)]
pub enum Manner {
    /// Answers each line with its own letter and the line.
    Echo(char),
    /// Reads a line, and breaks the connection off.
    Reset,
    /// Answers every HTTP request with an error.
    Unwell,
}

/// Guests' servers, on a thread of their own, until the last is dropped.
pub struct Guests {
    pub endpoints: Vec<SocketAddr>,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Guests {
    pub fn start(manners: &[Manner]) -> Self {
        let (bound, endpoints) = std::sync::mpsc::channel();
        let stop = CancellationToken::new();
        let (until, manners) = (stop.clone(), manners.to_vec());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                for manner in manners {
                    let socket = tokio::net::TcpSocket::new_v4().unwrap();
                    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
                    let listener = socket.listen(4096).unwrap();
                    bound.send(listener.local_addr().unwrap()).unwrap();
                    tokio::spawn(serve(listener, manner));
                }
                drop(bound);
                until.cancelled().await;
            });
        });
        Self { endpoints: endpoints.iter().collect(), stop, thread: Some(thread) }
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        self.stop.cancel();
        self.thread.take().unwrap().join().unwrap();
    }
}

async fn serve(listener: TcpListener, manner: Manner) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(answer(stream, manner));
    }
}

async fn answer(mut stream: TcpStream, manner: Manner) {
    let mut line = vec![0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut line).await {
        match manner {
            Manner::Reset => {
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                return;
            }
            Manner::Unwell => {
                let answer = "HTTP/1.1 500 no\r\ncontent-length: 0\r\n\r\n";
                let _ = stream.write_all(answer.as_bytes()).await;
            }
            Manner::Echo(letter) => {
                let mut answer = vec![letter as u8];
                answer.extend(&line[..length]);
                if stream.write_all(&answer).await.is_err() {
                    return;
                }
            }
        }
    }
}
