//! `/metrics` over HTTP, on loopback only.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::metrics::Metrics;

const CONTENT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Connections at once; others wait.
const CONNECTIONS: usize = 8;

/// From a connection to its end.
const PATIENCE: Duration = Duration::from_secs(5);

/// Most bytes of a request's head.
const HEAD: usize = 16 << 10;

/// Why `/metrics` cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ScrapeError {
    /// Not on loopback.
    #[error(
        "metrics are not served on {0}: whoever reaches it could read them\nhelp: give a loopback address such as 127.0.0.1:9433"
    )]
    NotLoopback(SocketAddr),
    /// The address cannot be had.
    #[error(
        "cannot listen on {address} for metrics: {source}\nhelp: give another address; port 0 takes any that is free"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// Listens on a loopback address.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ScrapeError> {
    if !address.ip().is_loopback() {
        return Err(ScrapeError::NotLoopback(address));
    }
    TcpListener::bind(address).await.map_err(|source| ScrapeError::Listen { address, source })
}

/// Answers until `stop`.
pub async fn serve(listener: TcpListener, metrics: Metrics, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => { connections.spawn(connection(stream, metrics.clone())); }
                // Out of descriptors, as a rule: a pause, not a busy loop.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
        }
    }
}

async fn connection(stream: TcpStream, metrics: Metrics) {
    let service = service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(&request, &metrics))));
    let mut http = http1::Builder::new();
    http.keep_alive(false).max_buf_size(HEAD);
    // A peer that hangs, goes or talks nonsense has no answer to miss.
    let _ = tokio::time::timeout(PATIENCE, http.serve_connection(TokioIo::new(stream), service)).await;
}

fn answer(request: &Request<Incoming>, metrics: &Metrics) -> Response<Full<Bytes>> {
    let (status, header, text) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => (StatusCode::OK, (CONTENT_TYPE, CONTENT), metrics.text()),
        (_, "/metrics") => (StatusCode::METHOD_NOT_ALLOWED, (ALLOW, "GET"), String::new()),
        _ => (StatusCode::NOT_FOUND, (CONTENT_TYPE, "text/plain"), "there is only /metrics\n".into()),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header.0, hyper::header::HeaderValue::from_static(header.1));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn ask(address: SocketAddr, text: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(PATIENCE * 2, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    }

    #[tokio::test]
    async fn metrics_are_served_on_loopback_and_nothing_else_is() {
        let elsewhere = bind("0.0.0.0:0".parse().unwrap()).await;
        assert!(matches!(elsewhere, Err(ScrapeError::NotLoopback(_))));
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let metrics = Metrics::default();
        metrics.round(true, Duration::from_millis(1));
        let server = tokio::spawn(serve(listener, metrics, stop.clone()));
        let page = ask(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(page.starts_with("HTTP/1.1 200") && page.contains("reconcile_rounds_total"), "{page}");
        assert!(ask(address, "POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.contains(" 405 "));
        assert!(ask(address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.contains(" 404 "));
        assert!(ask(address, "\x16\x03\x01 what\r\n\r\n").await.contains(" 400 "));
        stop.cancel();
        server.await.unwrap();
    }
}
