//! One request: read, checked, passed on, answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use quinn::{RecvStream, SendStream};
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{SemaphorePermit, oneshot};
use tokio::time::timeout;

use super::connection::{Session, TOO_SLOW};
use super::request::Request;
use super::response::{Fault, FaultCode, Response};
use super::wire::{self, WireError};
use super::{Incoming, Peer, subscribe};

/// When to try again what the fleet was too busy to take.
const RETRY: Duration = Duration::from_millis(250);

/// The peer is no longer there to be answered.
pub(super) const GONE: &str = "gone";

/// A request that cannot be read has no kind.
const UNREAD: &str = "unread";

/// Reads a request from a stream and answers it there; with `wait`, only tells the peer to wait.
pub(super) async fn answer(
    session: Arc<Session>,
    (mut send, mut recv): (SendStream, RecvStream),
    wait: Option<Duration>,
) {
    let began = Instant::now();
    let read = match wait {
        None => read(&session, &mut recv).await,
        Some(wait) => Err(over_the_rate(&session, wait)),
    };
    // Whatever else comes is not wanted: dropped, the stream says so to a peer that has not ended it.
    let _ = recv.read(&mut [0]).now_or_never();
    drop(recv);
    let kind = read.as_ref().map_or(UNREAD, |(request, _)| request.name());
    let outcome = match read {
        Ok((Request::Subscribe, _)) => subscribe::serve(&session, &mut send).await,
        Ok((request, held)) => {
            let response = respond(&session, &mut send, request, held).await;
            deliver(&session, &mut send, response).await
        }
        Err(fault) => deliver(&session, &mut send, Some(Response::Error(fault))).await,
    };
    session.shared.metrics.request(kind, outcome, began.elapsed());
}

/// A request that the peer may make, and the room that its bytes take.
async fn read<'s>(
    session: &'s Session,
    recv: &mut RecvStream,
) -> Result<(Request, SemaphorePermit<'s>), Fault> {
    let frame = wire::within(session.shared.limits.read, async {
        let length = wire::read_length(recv).await?;
        let held = room(session, length).await;
        Ok((wire::read_body(recv, length).await?, held))
    });
    let (body, held) = frame.await.map_err(fault)?;
    let request = Request::parse(&body)?;
    allowed(&session.peer, &request)?;
    Ok((request, held))
}

/// Waits until so many bytes more may be in memory.
async fn room(session: &Session, bytes: usize) -> SemaphorePermit<'_> {
    // No frame is longer than what there is in all.
    let bytes = bytes.min(session.shared.limits.bytes) as u32;
    match session.bytes.acquire_many(bytes).await {
        Ok(permit) => permit,
        Err(_) => unreachable!("the semaphore is never closed"),
    }
}

fn fault(error: WireError) -> Fault {
    let code = match error {
        WireError::TooSlow(_) => FaultCode::TooSlow,
        _ => FaultCode::BadFrame,
    };
    Fault::new(code, error.to_string())
}

fn over_the_rate(session: &Session, wait: Duration) -> Fault {
    let limits = &session.shared.limits;
    let message = format!(
        "more requests come on this connection than {} a second and {} at once",
        limits.rate, limits.burst
    );
    Fault::busy(message, wait)
}

fn allowed(peer: &Peer, request: &Request) -> Result<(), Fault> {
    let Peer { name, role, until, .. } = peer;
    let message = match () {
        () if peer.is_over() => {
            format!(
                "the certificate of the {role} `{name}` ended {until}\nhelp: `mvm agent certs rotate` gives new ones"
            )
        }
        () if !request.is_open_to(*role) => format!(
            "the {role} `{name}` may not ask for `{}`\nhelp: use the certificate of a {}",
            request.name(),
            if matches!(request, Request::Reconcile { .. }) { "client" } else { "client or a coordinator" }
        ),
        () => return Ok(()),
    };
    Err(Fault::new(FaultCode::Forbidden, message))
}

/// The answer; `None` when nobody waits for it any more.
async fn respond(
    session: &Session,
    send: &mut SendStream,
    request: Request,
    held: SemaphorePermit<'_>,
) -> Option<Response> {
    let (shared, peer) = (&session.shared, &session.peer);
    if request == Request::Hello {
        let version = env!("CARGO_PKG_VERSION").into();
        return Some(Response::Hello { node: shared.node.clone(), version, role: peer.role });
    }
    let patience = request.patience();
    let (reply, answer) = oneshot::channel();
    let incoming = Incoming { peer: peer.clone(), request, reply };
    match shared.fleet.send_timeout(incoming, shared.limits.queue).await {
        // The fleet has it: its queue is bounded by itself.
        Ok(()) => drop(held),
        Err(SendTimeoutError::Timeout(_)) => {
            return Some(Response::Error(Fault::busy("the agent has more to do than it can take", RETRY)));
        }
        Err(SendTimeoutError::Closed(_)) => {
            return Some(Response::error(FaultCode::Stopping, "the agent ends"));
        }
    }
    tokio::select! {
        // The peer has stopped the stream, or its connection is over.
        _ = send.stopped() => None,
        answered = timeout(patience, answer) => Some(match answered {
            Ok(Ok(response)) => response,
            Ok(Err(_)) => Response::error(FaultCode::Internal, "the agent gave no answer\nhelp: its log says more"),
            Err(_) => Response::error(FaultCode::Timeout, format!("the agent gave no answer within {patience:?}")),
        }),
    }
}

/// Sends the answer; gives the outcome for the metrics.
async fn deliver(session: &Session, send: &mut SendStream, response: Option<Response>) -> &'static str {
    let Some(response) = response else { return GONE };
    let outcome = match &response {
        Response::Error(fault) => fault.code.as_str(),
        _ => "ok",
    };
    let frame = wire::encode(&response).or_else(|error| {
        let help = "help: ask for less at once, e.g. for one tenant";
        let first = error.to_string().lines().next().unwrap_or_default().to_string();
        wire::encode(&Response::error(
            FaultCode::TooLarge,
            format!("the answer cannot be sent: {first}\n{help}"),
        ))
    });
    let Ok(frame) = frame else { return GONE };
    match timeout(session.shared.limits.write, last(session, send, &frame)).await {
        Ok(true) => outcome,
        Ok(false) => GONE,
        Err(_) => {
            // It may have been reset already.
            let _ = send.reset(TOO_SLOW);
            FaultCode::TooSlow.as_str()
        }
    }
}

/// Sends the last frame of a stream; whether the peer took it.
pub(super) async fn last(session: &Session, send: &mut SendStream, frame: &[u8]) -> bool {
    let _held = room(session, frame.len()).await;
    // Until it is acknowledged it is not sure to go: a connection that is closed drops it.
    send.write_all(frame).await.is_ok() && send.finish().is_ok() && matches!(send.stopped().await, Ok(None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::pki::Role;
    use jiff::{SignedDuration, Timestamp};

    fn peer(role: Role, ends_in: SignedDuration) -> Peer {
        let until = Timestamp::now() + ends_in;
        Peer { address: ([127, 0, 0, 1], 1).into(), name: "x".parse().unwrap(), role, until }
    }

    #[test]
    fn a_certificate_that_ends_while_its_connection_goes_on_allows_nothing_any_more() {
        let hour = SignedDuration::from_hours(1);
        assert!(allowed(&peer(Role::Client, hour), &Request::NodeInfo).is_ok());
        let fault = allowed(&peer(Role::Client, -hour), &Request::NodeInfo).unwrap_err();
        assert_eq!(fault.code, FaultCode::Forbidden);
        assert!(fault.message.contains("the certificate of the client `x` ended "), "{}", fault.message);
    }

    #[test]
    fn what_a_role_may_not_ask_is_said_with_who_may() {
        let hour = SignedDuration::from_hours(1);
        let fault = allowed(&peer(Role::Node, hour), &Request::NodeInfo).unwrap_err();
        assert_eq!(
            fault.message,
            "the node `x` may not ask for `node_info`\nhelp: use the certificate of a client or a coordinator"
        );
    }
}
