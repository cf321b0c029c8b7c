//! `/metrics` over HTTP, on loopback only.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::{Method, StatusCode};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::http::{self, Asked, Bounds};

/// Connections at once, and from a connection to its end.
const BOUNDS: Bounds = Bounds { connections: 8, whole: Some(Duration::from_secs(5)) };

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

/// Answers with what `text` gives until `stop`.
pub async fn serve<F, T>(listener: TcpListener, text: F, stop: CancellationToken)
where
    F: Fn() -> T + Clone + Send + 'static,
    T: Future<Output = String> + Send + 'static,
{
    let answer = move |asked: Asked| {
        let text = text.clone();
        async move {
            match (&asked.method, asked.path.as_str()) {
                (&Method::GET, "/metrics") => http::metrics(text().await),
                (_, "/metrics") => http::only("GET"),
                _ => http::text(StatusCode::NOT_FOUND, "there is only /metrics\n"),
            }
        }
    };
    http::serve(listener, BOUNDS, answer, stop).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::metrics::Metrics;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn ask(address: SocketAddr, text: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(Duration::from_secs(10), stream.read_to_string(&mut answer))
            .await
            .unwrap()
            .unwrap();
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
        let server = tokio::spawn(serve(listener, move || std::future::ready(metrics.text()), stop.clone()));
        let page = ask(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(page.starts_with("HTTP/1.1 200") && page.contains("reconcile_rounds_total"), "{page}");
        assert!(ask(address, "POST /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await.contains(" 405 "));
        assert!(ask(address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.contains(" 404 "));
        assert!(ask(address, "\x16\x03\x01 what\r\n\r\n").await.contains(" 400 "));
        stop.cancel();
        server.await.unwrap();
    }
}
