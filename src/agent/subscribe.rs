//! One subscription: what happens, as it happens, to whoever keeps up.

use quinn::SendStream;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;

use super::answer::{GONE, last};
use super::connection::{Session, TOO_SLOW};
use super::response::{Fault, FaultCode, Notice, Response};
use super::wire;

/// Tells a subscriber of events until it goes, hangs, or the agent ends; gives the outcome.
pub(super) async fn serve(session: &Session, send: &mut SendStream) -> &'static str {
    let limits = session.shared.limits;
    let Ok(_one) = session.subscriptions.try_acquire() else {
        let message = format!("this connection has {} subscriptions already", limits.subscriptions);
        let fault = Response::Error(Fault::busy(message, limits.idle));
        if let Ok(frame) = wire::encode(&fault) {
            // It is told, or it is gone.
            let _ = timeout(limits.write, last(session, send, &frame)).await;
        }
        return FaultCode::Busy.as_str();
    };
    let mut events = session.shared.events.subscribe();
    let mut frame = wire::encode(&Response::Subscribed);
    let stopped = send.stopped();
    tokio::pin!(stopped);
    loop {
        // An event that does not fit a frame is one that is lost.
        let bytes = frame.or_else(|_| wire::encode(&Notice::Lost { events: 1 })).unwrap_or_default();
        match timeout(limits.write, send.write_all(&bytes)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return GONE,
            Err(_) => {
                // It may have been reset already.
                let _ = send.reset(TOO_SLOW);
                return FaultCode::TooSlow.as_str();
            }
        }
        let notice = tokio::select! {
            () = session.stopping.cancelled() => break,
            _ = &mut stopped => return GONE,
            event = events.recv() => match event {
                Ok(event) => Notice::Event { event: Box::new(event) },
                Err(RecvError::Lagged(events)) => {
                    session.shared.metrics.lost(events);
                    Notice::Lost { events }
                }
                Err(RecvError::Closed) => break,
            },
        };
        frame = wire::encode(&notice);
    }
    // What was written arrives, or the peer is gone.
    let _ = timeout(limits.write, last(session, send, &[])).await;
    "ok"
}
