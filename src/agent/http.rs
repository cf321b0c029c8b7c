//! Small HTTP/1.1 servers: a request a connection, and everything bounded.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use futures_util::Stream;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use patient::Patient;

mod patient;

/// How long a peer may take for a request's head, and for anything that is written to it.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long connections have to end once the server has.
const LINGER: Duration = Duration::from_millis(500);

/// Most bytes of a request's head.
const HEAD: usize = 16 << 10;

/// What metrics are written in.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// An answer.
pub type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// What is asked. Bodies are not read: nothing that is asked here needs one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The method.
    pub method: Method,
    /// The path.
    pub path: String,
}

/// How much of what a server takes.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections at once; others wait.
    pub connections: usize,
    /// From a connection to its end; without it, it may last as long as the peer takes what comes.
    pub whole: Option<Duration>,
}

/// Where peers come in.
pub trait Door: Send + 'static {
    /// What is spoken over.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next peer.
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Door for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

impl Door for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

/// Answers until `stop`; what is under way then has a moment to end before it is cut off.
pub async fn serve<D, F, T>(door: D, bounds: Bounds, answer: F, stop: CancellationToken)
where
    D: Door,
    F: Fn(Asked) -> T + Clone + Send + 'static,
    T: Future<Output = Answer> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = door.next(), if connections.len() < bounds.connections => match accepted {
                Ok(stream) => {
                    let serving = connection(stream, answer.clone());
                    connections.spawn(async move {
                        match bounds.whole {
                            Some(whole) => drop(tokio::time::timeout(whole, serving).await),
                            None => serving.await,
                        }
                    });
                }
                // Out of descriptors, as a rule: a pause, not a busy loop.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            },
        }
    }
    drop(door);
    let ended = async { while connections.join_next().await.is_some() {} };
    // The set cuts off what is left.
    let _ = tokio::time::timeout(LINGER, ended).await;
}

async fn connection<S, F, T>(stream: S, answer: F)
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Fn(Asked) -> T,
    T: Future<Output = Answer>,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer(Asked { method: request.method().clone(), path: request.uri().path().into() });
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let mut http = http1::Builder::new();
    http.keep_alive(false).max_buf_size(HEAD).timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    // A peer that hangs, goes or talks nonsense has no answer to miss.
    let _ = http.serve_connection(TokioIo::new(Patient::new(stream, PATIENCE)), service).await;
}

/// An answer of this type.
pub fn of_type(status: StatusCode, content: &'static str, text: impl Into<Bytes>) -> Answer {
    with_header(status, (CONTENT_TYPE, content), Full::from(text.into()).boxed_unsync())
}

/// An answer in words.
pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    of_type(status, "text/plain; charset=utf-8", text)
}

/// Metrics.
pub fn metrics(text: String) -> Answer {
    of_type(StatusCode::OK, OPEN_METRICS, text)
}

/// An answer that goes on.
pub fn stream(content: &'static str, parts: impl Stream<Item = Bytes> + Send + 'static) -> Answer {
    use futures_util::StreamExt;
    let frames = parts.map(|part| Ok::<_, Infallible>(Frame::data(part)));
    with_header(StatusCode::OK, (CONTENT_TYPE, content), StreamBody::new(frames).boxed_unsync())
}

/// The answer to another method than these.
pub fn only(methods: &'static str) -> Answer {
    with_header(StatusCode::METHOD_NOT_ALLOWED, (ALLOW, methods), Full::default().boxed_unsync())
}

fn with_header(
    status: StatusCode,
    (name, value): (HeaderName, &'static str),
    body: UnsyncBoxBody<Bytes, Infallible>,
) -> Answer {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(name, HeaderValue::from_static(value));
    response
}
