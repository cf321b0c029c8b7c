//! The status API: HTTP on a socket of this user's, for `mvm coordinator`, the console, and curl.
//!
//! `GET /status` says how things stand, `GET /watch` goes on saying it, a line whenever it changed;
//! `GET /metrics` is for Prometheus. `POST /routes/LISTEN/wake` (`sleep`, `drain`, `resume`) and
//! `POST /reload` change things: an answer other than 200 has an `error` for people.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::unfold;
use futures_util::{Stream, StreamExt};
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use serde_json::json;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::control::{Order, RouteOp};
use super::metrics::Metrics;
use super::status::Status;
use crate::agent::http::{self, Answer, Asked, Bounds};

pub mod client;

/// Connections at once. One that is watched lasts as long as its peer wishes.
const BOUNDS: Bounds = Bounds { connections: 32, whole: None };

/// Pause between two looks for whoever watches.
const LOOK: Duration = Duration::from_millis(250);

const JSON: &str = "application/json";
const JSON_LINES: &str = "application/x-ndjson";

/// Why there is no status API.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on the coordinator's socket `{path}`: {source}\nhelp: mend the permissions of its directory, or set XDG_RUNTIME_DIR to one you can write"
)]
pub struct ListenError {
    path: PathBuf,
    source: io::Error,
}

/// Listens on the socket, for this user only. Whoever calls it holds the coordinator's lock: a socket
/// that is there is a dead coordinator's.
pub fn listen(path: &Path) -> Result<UnixListener, ListenError> {
    let fail = |source| ListenError { path: path.into(), source };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(fail)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(fail)?;
    Ok(listener)
}

/// Answers until `stop`; what is asked goes as orders to the coordinator.
pub async fn serve(
    listener: UnixListener,
    orders: mpsc::Sender<Order>,
    metrics: Metrics,
    stop: CancellationToken,
) {
    let ending = stop.clone();
    let answer = move |asked| answer(asked, orders.clone(), metrics.clone(), ending.clone());
    http::serve(listener, BOUNDS, answer, stop).await;
}

/// What gives the metrics' text again and again, as `agent::scrape` wishes; empty once there is no
/// coordinator.
pub fn metrics_text(
    orders: mpsc::Sender<Order>,
    metrics: Metrics,
) -> impl Fn() -> BoxFuture<'static, String> + Clone + Send {
    move || {
        let (orders, metrics) = (orders.clone(), metrics.clone());
        Box::pin(async move {
            let status = ask(&orders, Order::Status).await;
            status.map_or_else(|_| "# EOF\n".into(), |status| metrics.text(&status))
        })
    }
}

/// The coordinator ends, and answers nobody any more.
#[derive(Debug)]
struct Gone;

/// Gives an order and waits for its outcome.
async fn ask<T>(
    orders: &mpsc::Sender<Order>,
    order: impl FnOnce(oneshot::Sender<T>) -> Order,
) -> Result<T, Gone> {
    let (reply, outcome) = oneshot::channel();
    orders.send(order(reply)).await.map_err(|_| Gone)?;
    outcome.await.map_err(|_| Gone)
}

async fn answer(
    asked: Asked,
    orders: mpsc::Sender<Order>,
    metrics: Metrics,
    ending: CancellationToken,
) -> Answer {
    let parts: Vec<&str> = asked.path.trim_start_matches('/').split('/').collect();
    let (methods, read) = match parts.as_slice() {
        ["status" | "watch" | "metrics"] => ("GET", true),
        ["reload"] | ["routes", _, _] => ("POST", false),
        _ => {
            return failed(
                StatusCode::NOT_FOUND,
                "there are GET /status, /watch and /metrics, POST /reload and /routes/LISTEN/OP",
            );
        }
    };
    if asked.method != (if read { Method::GET } else { Method::POST }) {
        return http::only(methods);
    }
    let done = match parts.as_slice() {
        ["watch"] => return http::stream(JSON_LINES, changes(orders, ending)),
        ["status"] => ask(&orders, Order::Status).await.map(|status| json(StatusCode::OK, &status)),
        ["metrics"] => ask(&orders, Order::Status).await.map(|now| http::metrics(metrics.text(&now))),
        ["routes", listen, op] => {
            let listen: Option<SocketAddr> = listen.parse().ok();
            let op = RouteOp::ALL.into_iter().find(|known| known.as_str() == *op);
            let (Some(listen), Some(op)) = (listen, op) else {
                let text = "LISTEN is IP:PORT, and OP is wake, sleep, drain or resume";
                return failed(StatusCode::NOT_FOUND, text);
            };
            ask(&orders, |reply| Order::Route { listen, op, reply }).await.map(outcome)
        }
        _ => ask(&orders, Order::Reload).await.map(outcome),
    };
    done.unwrap_or_else(|Gone| failed(StatusCode::SERVICE_UNAVAILABLE, "the coordinator is ending"))
}

fn outcome(outcome: Result<(), String>) -> Answer {
    match outcome {
        Ok(()) => json(StatusCode::OK, &json!({})),
        Err(error) => failed(StatusCode::CONFLICT, &error),
    }
}

fn failed(status: StatusCode, error: &str) -> Answer {
    json(status, &json!({ "error": error }))
}

fn json(status: StatusCode, value: &impl serde::Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(text) => http::of_type(status, JSON, text),
        Err(error) => http::text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// How things stand, as a line: at once, and whenever they have changed.
fn changes(orders: mpsc::Sender<Order>, ending: CancellationToken) -> impl Stream<Item = Bytes> + Send {
    let lines = unfold((orders, None::<Status>), |(orders, mut last)| async move {
        loop {
            if last.is_some() {
                tokio::time::sleep(LOOK).await;
            }
            let now = ask(&orders, Order::Status).await.ok()?;
            if last.as_ref() != Some(&now) {
                let mut line = serde_json::to_vec(&now).ok()?;
                line.push(b'\n');
                last = Some(now);
                return Some((line.into(), (orders, last)));
            }
        }
    });
    lines.take_until(ending.cancelled_owned())
}

#[cfg(test)]
mod tests;
