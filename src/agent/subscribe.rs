//! One subscription: what happens, as it happens, to whoever keeps up.

use futures_util::FutureExt;
use quinn::SendStream;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;

use super::answer::{GONE, last};
use super::connection::{Session, TOO_SLOW};
use super::response::{Fault, FaultCode, Notice, Response};
use super::wire::{self, WireError};
use crate::event::Event;

/// Tells a subscriber of events until it goes, hangs, or the agent ends; gives the outcome.
pub(super) async fn serve(session: &Session, send: &mut SendStream) -> &'static str {
    let limits = session.shared.limits;
    let Ok(_one) = session.subscriptions.try_acquire() else {
        let message = format!("this connection has {} subscriptions already", limits.subscriptions);
        let fault = Response::Error(Fault::busy(message, limits.idle));
        end(session, send, &wire::encode(&fault).unwrap_or_default()).await;
        return FaultCode::Busy.as_str();
    };
    match tell_all(session, send).await {
        Ok(()) => {
            end(session, send, &[]).await;
            "ok"
        }
        Err(outcome) => outcome,
    }
}

async fn tell_all(session: &Session, send: &mut SendStream) -> Result<(), &'static str> {
    let mut events = session.shared.events.subscribe();
    tell(session, send, wire::encode(&Response::Subscribed)).await?;
    let stopped = send.stopped();
    tokio::pin!(stopped);
    loop {
        tokio::select! {
            () = session.stopping.cancelled() => break,
            _ = &mut stopped => return Err(GONE),
            event = events.recv() => match notice(session, event) {
                Some(notice) => tell(session, send, wire::encode(&notice)).await?,
                None => return Ok(()),
            },
        }
    }
    // What had happened when the agent was to end is still told.
    for _ in 0..events.len() {
        let Some(notice) = events.recv().now_or_never().and_then(|event| notice(session, event)) else {
            break;
        };
        tell(session, send, wire::encode(&notice)).await?;
    }
    Ok(())
}

fn notice(session: &Session, event: Result<Event, RecvError>) -> Option<Notice> {
    match event {
        Ok(event) => Some(Notice::Event { event: Box::new(event) }),
        Err(RecvError::Lagged(events)) => {
            session.shared.metrics.lost(events);
            Some(Notice::Lost { events })
        }
        Err(RecvError::Closed) => None,
    }
}

async fn tell(
    session: &Session,
    send: &mut SendStream,
    frame: Result<Vec<u8>, WireError>,
) -> Result<(), &'static str> {
    // An event that does not fit a frame is one that is lost.
    let frame = frame.or_else(|_| wire::encode(&Notice::Lost { events: 1 })).unwrap_or_default();
    match timeout(session.shared.limits.write, send.write_all(&frame)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(GONE),
        Err(_) => {
            // It may have been reset already.
            let _ = send.reset(TOO_SLOW);
            Err(FaultCode::TooSlow.as_str())
        }
    }
}

/// Ends the stream: what was written arrives, or the peer is gone.
async fn end(session: &Session, send: &mut SendStream, frame: &[u8]) {
    let _ = timeout(session.shared.limits.write, last(session, send, frame)).await;
}
