//! A running guest: its published ports, its socket, its end.

use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use super::booted::{self, Booted};
use super::endpoint::endpoint;
use super::handover;
use super::prepare::Prepared;
use super::protocol::{self, Ask, STOP_DEADLINE, Said, Saved, Word};
use super::relay;
use super::save::{self, Completing};
use super::{LeashEnd, ShimError, record, remove};
use crate::guest::client::AgentClient;
use crate::guest::frames::Request;
use crate::host::files;
use crate::host::paths::Paths;
use crate::store::vms::VmState;
use crate::store::{Store, StoreError};
use crate::vm::hypervisor::{Hypervisor, how_it_ended};
use crate::vm::lifecycle::SPEC_FILE;
use crate::vm::snapshot;
use crate::vm::spec::{HypervisorKind, PortMap};

/// How long connections to a VM whose place is taken may go on.
const LAST_CLIENTS: Duration = Duration::from_secs(1);
/// How long saving a guest may take.
const SAVE_DEADLINE: Duration = Duration::from_secs(180);
/// How long the end of a VM waits for its ready snapshot.
const COMPLETE_DEADLINE: Duration = Duration::from_secs(30);

/// How a VM ended.
pub struct Ended {
    /// `Stopped` or `Failed`.
    pub state: VmState,
    /// Why it failed.
    pub detail: Option<String>,
}

/// What a connection asks of the loop that owns the VM.
enum Order {
    /// Where does this port of the guest answer?
    Endpoint(u16, oneshot::Sender<Result<SocketAddr, String>>),
    /// Save the guest; it ends then when true.
    Save(bool, oneshot::Sender<Result<Saved, String>>),
    /// Hand over the listeners.
    Listeners(oneshot::Sender<Result<Vec<(PortMap, OwnedFd)>, String>>),
    /// Halt the guest, or have it go on when false.
    Pause(bool, oneshot::Sender<Result<(), String>>),
}

/// What each connection needs.
#[derive(Clone)]
struct Connection {
    orders: mpsc::Sender<Order>,
    /// Ends the guest; no deadline means at once. Apart from the orders, which may have to wait.
    stops: mpsc::UnboundedSender<Option<Duration>>,
    /// None in an image without one, and while the guest is being saved.
    agent: watch::Receiver<Option<AgentClient>>,
}

impl Connection {
    fn agent(&self) -> Option<AgentClient> {
        self.agent.borrow().clone()
    }
}

/// Serves the VM until it is over.
pub async fn serve(
    paths: &Paths,
    prepared: &Prepared,
    mut booted: Booted,
    leash: &mut LeashEnd,
) -> Result<Ended, ShimError> {
    let (orders, mut incoming) = mpsc::channel(64);
    let (stops, mut stopping) = mpsc::unbounded_channel();
    let (agent, current) = watch::channel(booted.client());
    let connection = Connection { orders, stops, agent: current };
    let socket = listen(paths, &prepared.spec.id)?;
    tokio::spawn(accept_clients(socket, connection.clone()));
    let (mut published, clients, mut handed) = (JoinSet::new(), TaskTracker::new(), false);
    for (map, listener) in &prepared.listeners {
        let listener = listener.try_clone().and_then(TcpListener::from_std);
        let listener = listener.map_err(|source| ShimError::File { path: map.to_string().into(), source })?;
        published.spawn(accept_published(listener, map.guest, connection.clone(), clients.clone()));
    }
    let spec = serde_json::to_string(&prepared.spec).map_err(StoreError::from)?;
    Store::open(&paths.database())?.store.set_vm_spec(&prepared.spec.id, &spec)?;
    record(paths, &prepared.spec.id, VmState::Running, None);
    let (ports, restored, why) = (prepared.spec.ports.clone(), booted.restored, booted.why.take());
    leash.say(&Word::Ready { ports, restored, why }).await;
    // For the day the database is lost: its ports are known now, and where it went on from is behind it.
    let path = prepared.dir.join(SPEC_FILE);
    tokio::task::spawn_blocking(move || files::write_atomic(&path, spec.as_bytes(), 0o600));

    let fail = |source| ShimError::File { path: "signals".into(), source };
    let mut terminate = signal(SignalKind::terminate()).map_err(fail)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(fail)?;
    let mut leashed = true;
    let mut paused = false;
    let stop = loop {
        tokio::select! {
            status = booted.hypervisor.child().wait() => {
                settle(booted.completing.take()).await;
                return Ok(by_itself(prepared.spec.hypervisor, status));
            }
            order = incoming.recv() => match order {
                Some(Order::Endpoint(port, reply)) => {
                    let _ = reply.send(endpoint(&prepared.spec, &mut *booted.hypervisor, port).await);
                }
                Some(Order::Listeners(reply)) => {
                    handed = true;
                    let _ = reply.send(dup(&prepared.listeners).map_err(|error| error.to_string()));
                }
                Some(Order::Pause(wish, reply)) => {
                    let done = pause(paths, prepared, &mut booted, &mut paused, wish).await;
                    agent.send_replace(booted.client().filter(|_| !paused));
                    // Who asked may be gone.
                    let _ = reply.send(done);
                }
                Some(Order::Save(stop, reply)) => {
                    agent.send_replace(None);
                    let mut later = None;
                    let saved = tokio::select! {
                        saved = save(paths, prepared, &mut booted, &mut paused, stop) => saved,
                        () = killed(&mut stopping, &mut later) => break None,
                        _ = async { tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} } } => {
                            // It is given up wherever it was.
                            paused = true;
                            break Some(STOP_DEADLINE);
                        }
                    };
                    agent.send_replace(booted.client());
                    let over = stop && saved.is_ok();
                    // Who asked may be gone.
                    let _ = reply.send(saved);
                    if over {
                        break None;
                    }
                    if later.is_some() {
                        break later;
                    }
                }
                None => break Some(STOP_DEADLINE),
            },
            Some(deadline) = stopping.recv() => break deadline,
            detached = leash.detached(), if leashed => match detached {
                true => {
                    leashed = false;
                    if prepared.spec.instance.is_some() {
                        // From here on a snapshot says that the instance was put to sleep.
                        snapshot::forget_inherited(&paths.vm_snapshot(&prepared.spec.id), &prepared.spec.id);
                    }
                }
                false => break Some(STOP_DEADLINE),
            },
            _ = terminate.recv() => break Some(STOP_DEADLINE),
            _ = interrupt.recv() => break Some(STOP_DEADLINE),
        }
    };
    if handed && stop.is_some() {
        // Who comes now, comes to the VM that takes this one's place; who is here may be about to go.
        published.shutdown().await;
        clients.close();
        let gone = async { tokio::time::timeout(LAST_CLIENTS, clients.wait()).await };
        tokio::pin!(gone);
        loop {
            tokio::select! {
                _ = &mut gone => break,
                // Some were accepted and have not got through to the guest yet.
                order = incoming.recv() => if let Some(Order::Endpoint(port, reply)) = order {
                    let _ = reply.send(endpoint(&prepared.spec, &mut *booted.hypervisor, port).await);
                }
            }
        }
    }
    if let Some(deadline) = stop.filter(|_| paused) {
        // A halted guest hears nothing. If it cannot go on it is ended at the deadline.
        let _ = tokio::time::timeout(deadline / 2, booted.go_on(prepared)).await;
    }
    let (client, mut later) = (booted.client(), None);
    let patient = tokio::select! {
        () = end(&mut *booted.hypervisor, client.as_ref(), stop) => true,
        // Somebody has no patience for a deadline that another gave.
        () = killed(&mut stopping, &mut later) => false,
    };
    if !patient {
        // It may just have ended by itself.
        let _ = booted.hypervisor.child().kill().await;
    }
    settle(booted.completing.take()).await;
    Ok(stopped())
}

/// Saves the VM; a ready snapshot that is being completed comes first. Unless it is saved and to `stop`,
/// the guest goes on, whatever went wrong.
async fn save(
    paths: &Paths,
    prepared: &Prepared,
    booted: &mut Booted,
    paused: &mut bool,
    stop: bool,
) -> Result<Saved, String> {
    // Its agent is to fall silent, and the disks to be at peace.
    pause(paths, prepared, booted, paused, false).await?;
    settle(booted.completing.take()).await;
    let written = match tokio::time::timeout(SAVE_DEADLINE, save::vm(paths, prepared, booted, stop)).await {
        Ok(written) => written.map_err(|error| error.to_string()),
        Err(_) => Err(format!("the guest could not be saved within {} s", SAVE_DEADLINE.as_secs())),
    };
    let ends = stop && written.is_ok();
    // It does not wait for the disk.
    let mut went_on = if ends { Ok(()) } else { booted.go_on(prepared).await };
    let saved = match written {
        Ok(written) => written.complete().await.map_err(|error| error.to_string()),
        Err(error) => Err(error),
    };
    if ends && saved.is_err() {
        went_on = booted.go_on(prepared).await;
    }
    match (saved, went_on) {
        (saved, Ok(())) => saved,
        (Ok(_), Err(error)) => Err(format!("it is saved, but does not go on: {error}")),
        (Err(first), Err(error)) => {
            eprintln!("mvm shim: {error}");
            Err(first)
        }
    }
}

/// Halts the guest or has it go on, unless it does so already.
async fn pause(
    paths: &Paths,
    prepared: &Prepared,
    booted: &mut Booted,
    paused: &mut bool,
    wish: bool,
) -> Result<(), String> {
    if *paused == wish {
        return Ok(());
    }
    let done = match wish {
        true => booted.hypervisor.pause().await,
        false => booted.hypervisor.resume().await,
    };
    done.map_err(|error| error.to_string())?;
    if let Some(agent) = booted.client().filter(|_| !wish) {
        let woken = tokio::time::timeout(booted::WAKE_DEADLINE, agent.request(booted::wake())).await;
        let woken = woken.map_err(|_| "its agent does not answer".to_string());
        if let Err(error) = woken.and_then(|woken| woken.map_err(|error| error.to_string())) {
            // With the clock of the past it is not to go on.
            booted.hypervisor.pause().await.map_err(|error| error.to_string())?;
            return Err(error);
        }
    }
    *paused = wish;
    record(paths, &prepared.spec.id, if wish { VmState::Paused } else { VmState::Running }, None);
    Ok(())
}

/// Waits until a ready snapshot is on the disk for good; what went wrong is for the log.
async fn settle(completing: Option<Completing>) {
    let Some(completing) = completing else { return };
    match tokio::time::timeout(COMPLETE_DEADLINE, completing).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => eprintln!("mvm shim: {error}"),
        Ok(Err(error)) => eprintln!("mvm shim: {error}"),
        Err(_) => eprintln!("mvm shim: the ready snapshot did not get to the disk in time"),
    }
}

/// Waits for the order to end the guest at once; one that gives it time is for `later`.
async fn killed(stops: &mut mpsc::UnboundedReceiver<Option<Duration>>, later: &mut Option<Duration>) {
    loop {
        match stops.recv().await {
            Some(None) => return,
            Some(deadline) => *later = deadline,
            None => return std::future::pending().await,
        }
    }
}

fn stopped() -> Ended {
    Ended { state: VmState::Stopped, detail: None }
}

fn by_itself(kind: HypervisorKind, status: std::io::Result<ExitStatus>) -> Ended {
    match status {
        Ok(status) if status.success() => stopped(),
        Ok(status) => {
            let how = how_it_ended(kind, status);
            Ended { state: VmState::Failed, detail: Some(format!("the hypervisor ended ({how})")) }
        }
        Err(error) => Ended { state: VmState::Failed, detail: Some(error.to_string()) },
    }
}

/// Ends the guest: by its agent, else by the power button, and by force at the deadline.
async fn end(hypervisor: &mut dyn Hypervisor, agent: Option<&AgentClient>, deadline: Option<Duration>) {
    if let Some(deadline) = deadline {
        let polite = async {
            let asked = match agent {
                Some(agent) => agent.request(Request::Poweroff).await.is_ok(),
                None => false,
            };
            if !asked {
                // A guest that is gone already shows in the wait below.
                let _ = hypervisor.power_button().await;
            }
            hypervisor.child().wait().await
        };
        if tokio::time::timeout(deadline, polite).await.is_ok() {
            return;
        }
    }
    // It may just have ended by itself.
    let _ = hypervisor.child().kill().await;
}

fn listen(paths: &Paths, id: &str) -> Result<UnixListener, ShimError> {
    let path = paths.shim_socket(id);
    let fail = |source| ShimError::File { path: path.clone(), source };
    // Ours is the lock, so a socket that is there is a dead shim's.
    remove(&path);
    let listener = UnixListener::bind(&path).map_err(fail)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(fail)?;
    Ok(listener)
}

async fn accept_clients(listener: UnixListener, connection: Connection) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(answer(stream, connection.clone()))),
            // Out of descriptors: those of ended connections come back.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

fn dup(listeners: &[(PortMap, StdTcpListener)]) -> std::io::Result<Vec<(PortMap, OwnedFd)>> {
    listeners.iter().map(|(map, listener)| Ok((*map, listener.try_clone()?.into()))).collect()
}

async fn accept_published(listener: TcpListener, port: u16, connection: Connection, clients: TaskTracker) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = connection.clone();
                clients.spawn(async move {
                    // A refused connection shows at the client as closed.
                    if let Ok(guest) = dial(&connection, port).await {
                        splice(stream, guest).await;
                    }
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Carries bytes both ways until both sides have ended.
async fn splice(mut client: impl AsyncRead + AsyncWrite + Unpin, mut guest: TcpStream) {
    let _ = guest.set_nodelay(true);
    // An error ends the connection, which is all there is to say about it.
    let _ = copy_bidirectional(&mut client, &mut guest).await;
}

async fn dial(connection: &Connection, port: u16) -> Result<TcpStream, String> {
    let address = order(connection, |reply| Order::Endpoint(port, reply)).await?;
    TcpStream::connect(address).await.map_err(|error| format!("port {port} of the guest: {error}"))
}

/// Gives the loop that owns the VM an order and waits for its answer.
async fn order<T>(
    connection: &Connection,
    order: impl FnOnce(oneshot::Sender<Result<T, String>>) -> Order,
) -> Result<T, String> {
    let (reply, answer) = oneshot::channel();
    let gone = || "the VM is over".to_string();
    connection.orders.send(order(reply)).await.map_err(|_| gone())?;
    answer.await.map_err(|_| gone())?
}

async fn answer(stream: UnixStream, connection: Connection) {
    let mut stream = BufReader::new(stream);
    let Ok(Some(ask)) = protocol::read::<Ask>(&mut stream).await else {
        return;
    };
    let said = match ask {
        Ask::Dial { port } => match dial(&connection, port).await {
            Ok(guest) => {
                if protocol::write(&mut stream, &Said::Done).await.is_ok() {
                    splice(stream, guest).await;
                }
                return;
            }
            Err(message) => Said::Error { message },
        },
        Ask::Listeners => match order(&connection, Order::Listeners).await {
            Ok(listeners) => {
                // Who asked may be gone.
                let _ = handover::give(stream.get_ref(), listeners).await;
                return;
            }
            Err(message) => Said::Error { message },
        },
        Ask::Pause | Ask::Resume => {
            let wish = ask == Ask::Pause;
            match order(&connection, |reply| Order::Pause(wish, reply)).await {
                Ok(()) => Said::Done,
                Err(message) => Said::Error { message },
            }
        }
        Ask::Save { stop } => match order(&connection, |reply| Order::Save(stop, reply)).await {
            Ok(saved) => Said::Saved(saved),
            Err(message) => Said::Error { message },
        },
        Ask::Agent => match connection.agent() {
            Some(agent) => {
                if protocol::write(&mut stream, &Said::Done).await.is_ok() {
                    relay::relay(stream, agent).await;
                }
                return;
            }
            None => Said::Error {
                message: "its agent is not to be had: the image has none, or the guest is halted".into(),
            },
        },
        Ask::Stop { .. } | Ask::Kill => {
            let deadline = match ask {
                Ask::Stop { deadline_ms } => Some(Duration::from_millis(deadline_ms)),
                _ => None,
            };
            // A second stop waits for the same end: that of this process, which closes the connection.
            let _ = connection.stops.send(deadline);
            return std::future::pending().await;
        }
    };
    // The client may be gone.
    let _ = protocol::write(&mut stream, &said).await;
}
