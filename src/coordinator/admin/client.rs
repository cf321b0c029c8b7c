//! Asking a coordinator over its socket.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;
use tokio_util::task::AbortOnDropHandle;

use crate::coordinator::control::RouteOp;
use crate::coordinator::status::Status;

/// How long a coordinator has to answer what takes it no time.
const DEADLINE: Duration = Duration::from_secs(5);
/// The most it may say at once, in bytes.
const LONGEST: usize = 16 << 20;

/// Why a coordinator did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no coordinator runs on this state: nobody listens on `{0}`\nhelp: `mvm dev cluster up` starts one, or `mvm coordinator serve --config FILE`"
    )]
    Absent(PathBuf),
    /// It cannot be reached, or went in the midst of it.
    #[error(
        "the coordinator was lost: {0}\nhelp: see whether it still runs, by `mvm coordinator routes`; its log says why it ended"
    )]
    Lost(io::Error),
    /// It does not answer.
    #[error(
        "the coordinator does not answer within {} s\nhelp: see whether its process is halted; else end it, and start it again",
        DEADLINE.as_secs()
    )]
    Silent,
    /// It is not to be understood.
    #[error(
        "the coordinator's answer is not understood: {0}\nhelp: it may be of another version: end it, and start it with this mvm"
    )]
    Garbled(String),
    /// It will not, in its own words.
    #[error("{0}")]
    Refused(String),
}

/// How things stand.
pub async fn status(socket: &Path) -> Result<Status, ClientError> {
    soon(async { parse(&ask(socket, Method::GET, "/status").await?) }).await
}

/// Does something with a route. To wake may take as long as the coordinator's configuration allows, and
/// to put to sleep as long as it takes to save a guest.
pub async fn route(socket: &Path, listen: SocketAddr, op: RouteOp) -> Result<(), ClientError> {
    let path = format!("/routes/{listen}/{}", op.as_str());
    let asking = ask(socket, Method::POST, &path);
    match op {
        RouteOp::Wake | RouteOp::Sleep => asking.await,
        RouteOp::Drain | RouteOp::Resume => soon(asking).await,
    }
    .map(drop)
}

/// Has the configuration read again.
pub async fn reload(socket: &Path) -> Result<(), ClientError> {
    soon(ask(socket, Method::POST, "/reload")).await.map(drop)
}

/// Begins to watch how things stand.
pub async fn watch(socket: &Path) -> Result<Watch, ClientError> {
    soon(async {
        let connection = Connection::ask(socket, Method::GET, "/watch").await?;
        match connection.answer.status() {
            StatusCode::OK => Ok(Watch { connection, rest: Vec::new(), searched: 0 }),
            _ => Err(connection.refusal().await),
        }
    })
    .await
}

/// A coordinator that is watched.
#[derive(Debug)]
pub struct Watch {
    connection: Connection,
    /// What has come of lines that are not taken yet.
    rest: Vec<u8>,
    /// How much of it is known to have no end of a line.
    searched: usize,
}

impl Watch {
    /// How things stand now, and then whenever they have changed; absent once the coordinator has
    /// ended. What has come already is kept when this is dropped halfway.
    pub async fn next(&mut self) -> Result<Option<Status>, ClientError> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.rest[self.searched..]) {
                let line: Vec<u8> = self.rest.drain(..=self.searched + end).collect();
                self.searched = 0;
                return parse(&line).map(Some);
            }
            self.searched = self.rest.len();
            match self.connection.answer.frame().await {
                None => return Ok(None),
                Some(frame) => {
                    let frame = frame.map_err(|error| ClientError::Lost(io::Error::other(error)))?;
                    self.rest.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
                }
            }
            if self.rest.len() > LONGEST {
                return Err(ClientError::Garbled(format!("a line is over {LONGEST} bytes long")));
            }
        }
    }
}

async fn soon<T>(asking: impl Future<Output = Result<T, ClientError>>) -> Result<T, ClientError> {
    tokio::time::timeout(DEADLINE, asking).await.unwrap_or(Err(ClientError::Silent))
}

async fn ask(socket: &Path, method: Method, path: &str) -> Result<Bytes, ClientError> {
    let connection = Connection::ask(socket, method, path).await?;
    match connection.answer.status() {
        StatusCode::OK => connection.body().await,
        _ => Err(connection.refusal().await),
    }
}

fn parse<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, ClientError> {
    serde_json::from_slice(text).map_err(|error| ClientError::Garbled(error.to_string()))
}

/// A connection on which something was answered.
#[derive(Debug)]
struct Connection {
    answer: Response<Incoming>,
    _driver: AbortOnDropHandle<hyper::Result<()>>,
}

impl Connection {
    async fn ask(socket: &Path, method: Method, path: &str) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(socket).await.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::Absent(socket.into()),
            _ => ClientError::Lost(error),
        })?;
        let lost = |error| ClientError::Lost(io::Error::other(error));
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        // What goes wrong on it shows in the answer.
        let driver = AbortOnDropHandle::new(tokio::spawn(connection));
        let request = Request::builder().method(method).uri(path).header("Host", "coordinator");
        let request = request.body(Empty::<Bytes>::new());
        let request = request.map_err(|error| ClientError::Lost(io::Error::other(error)))?;
        let answer = sender.send_request(request).await.map_err(lost)?;
        Ok(Self { answer, _driver: driver })
    }

    async fn body(self) -> Result<Bytes, ClientError> {
        let body = Limited::new(self.answer.into_body(), LONGEST).collect().await;
        body.map(|body| body.to_bytes()).map_err(|error| ClientError::Lost(io::Error::other(error)))
    }

    /// What an answer other than 200 says.
    async fn refusal(self) -> ClientError {
        #[derive(Deserialize)]
        struct Refusal {
            error: String,
        }
        let status = self.answer.status();
        match self.body().await {
            Ok(body) => match parse::<Refusal>(&body) {
                Ok(refusal) => ClientError::Refused(refusal.error),
                Err(_) => ClientError::Garbled(status.to_string()),
            },
            Err(error) => error,
        }
    }
}
