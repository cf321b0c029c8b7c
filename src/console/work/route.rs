//! Jobs on routes, which their coordinator does.

use std::net::SocketAddr;

use super::Bench;
use crate::coordinator::admin::client::{self, ClientError};
use crate::coordinator::control::RouteOp;
use crate::event::Level;
use crate::run::task::Failure;

/// Gives an order and tells what came of it.
pub async fn order(bench: &Bench, listen: SocketAddr, op: RouteOp) -> Result<(), Failure> {
    let socket = bench.paths.coordinator_socket();
    if op == RouteOp::Wake {
        bench.say(Level::Info, format!("waking an instance for {listen}"));
    }
    let done = tokio::select! {
        done = client::route(&socket, listen, op) => done,
        // The coordinator goes on with it alone.
        () = bench.cancel.cancelled() => return Ok(()),
    };
    match done {
        Ok(()) => bench.say(Level::Info, format!("{listen}: {}", op.done())),
        Err(error @ ClientError::Refused(_)) => bench.say(Level::Warning, format!("{listen}: {error}")),
        Err(error) => bench.say(Level::Warning, error.to_string()),
    }
    Ok(())
}
