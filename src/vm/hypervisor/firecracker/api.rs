//! Firecracker's API: HTTP over a socket in the VM's directory, a connection for each request.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use super::NAME;
use crate::vm::hypervisor::HypervisorError;

/// The socket's name in the VM's directory.
pub const SOCKET: &str = "api.sock";
/// How long Firecracker has to answer what takes it no time.
pub const DEADLINE: Duration = Duration::from_secs(5);
/// The most it may answer, in bytes.
const LONGEST: usize = 64 * 1024;

/// The directory of a VM, kept open: sockets in it are reached by paths that are short wherever it
/// lies.
#[derive(Debug)]
pub struct Place(File);

impl Place {
    /// Opens a VM's directory.
    pub fn open(dir: &Path) -> io::Result<Self> {
        File::open(dir).map(Self)
    }

    /// Connects to the socket `name`.
    pub async fn connect(&self, name: &str) -> io::Result<UnixStream> {
        UnixStream::connect(PathBuf::from(format!("/proc/self/fd/{}/{name}", self.0.as_raw_fd()))).await
    }
}

/// Asks one thing and returns the answer, null when there is none.
pub async fn ask(
    place: &Place,
    method: Method,
    path: &str,
    body: Option<&Value>,
    deadline: Duration,
) -> Result<Value, HypervisorError> {
    let what = format!("{method} {path}");
    let asked = tokio::time::timeout(deadline, exchange(place, method, path, body)).await;
    let Ok(answered) = asked else { return Err(HypervisorError::Silent { name: NAME, what }) };
    let (status, bytes) = answered.map_err(|source| HypervisorError::Lost { name: NAME, source })?;
    let answer: Option<Value> = serde_json::from_slice(&bytes).ok();
    if status.is_success() {
        return Ok(answer.unwrap_or_default());
    }
    let fault = answer.as_ref().and_then(|answer| answer["fault_message"].as_str());
    let reason = match fault {
        Some(fault) => fault.trim().into(),
        // Not all of its errors are JSON.
        None => format!("{status}: {}", String::from_utf8_lossy(&bytes).trim()),
    };
    Err(HypervisorError::Refused { name: NAME, what, reason })
}

async fn exchange(
    place: &Place,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> io::Result<(StatusCode, Bytes)> {
    let body = body.map(Value::to_string).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("Host", "localhost")
        .header("Content-Type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(io::Error::other)?;
    let stream = place.connect(SOCKET).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // It ends with the sender; what goes wrong on it shows in the answer.
    tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(io::Error::other)?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), LONGEST).collect().await.map_err(io::Error::other)?;
    Ok((status, body.to_bytes()))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    use super::*;

    /// What is made of an answer that somebody else gives in Firecracker's place.
    async fn told(answer: &[u8]) -> Result<Value, HypervisorError> {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(SOCKET)).unwrap();
        let answer = answer.to_vec();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let count = stream.read(&mut request).await.unwrap();
            // A client that has read enough hangs up.
            let _ = stream.write_all(&answer).await;
            String::from_utf8_lossy(&request[..count]).into_owned()
        });
        let place = Place::open(dir.path()).unwrap();
        let body = serde_json::json!({ "state": "Paused" });
        let told = ask(&place, Method::PATCH, "/vm", Some(&body), DEADLINE).await;
        let request = server.await.unwrap();
        assert!(request.starts_with("PATCH /vm HTTP/1.1\r\n"), "{request}");
        assert!(request.ends_with("\r\n\r\n{\"state\":\"Paused\"}"), "{request}");
        told
    }

    #[tokio::test]
    async fn a_status_of_success_is_success_with_or_without_words() {
        assert_eq!(told(b"HTTP/1.1 204 \r\n\r\n").await.unwrap(), Value::Null);
        let answer = told(b"HTTP/1.1 200 \r\nContent-Length: 7\r\n\r\n{\"a\":1}").await.unwrap();
        assert_eq!(answer["a"], 1);
    }

    #[tokio::test]
    async fn a_refusal_carries_the_fault_message_and_one_without_its_text() {
        let error = told(b"HTTP/1.1 400 \r\nContent-Length: 24\r\n\r\n{\"fault_message\":\"No. \"}").await;
        let text = error.unwrap_err().to_string();
        assert!(text.starts_with("Firecracker refused `PATCH /vm`: No.\nhelp: "), "{text}");
        let error = told(b"HTTP/1.1 400 \r\nContent-Length: 9\r\n\r\n{\"fault_m").await;
        let text = error.unwrap_err().to_string();
        assert!(text.contains("400 Bad Request: {\"fault_m"), "{text}");
    }

    #[tokio::test]
    async fn what_is_no_answer_or_too_long_a_one_is_an_error() {
        let endless =
            [b"HTTP/1.1 200 \r\nContent-Length: 1000000\r\n\r\n".to_vec(), vec![b' '; 1_000_000]].concat();
        for answer in [
            &b""[..],
            b"HTTP/1.1 20",
            b"what?\r\n\r\n",
            b"HTTP/1.1 200 \r\nContent-Length: 9\r\n\r\n{",
            &endless,
        ] {
            let error = told(answer).await.unwrap_err();
            assert!(matches!(error, HypervisorError::Lost { .. }), "{error}");
        }
    }

    #[tokio::test]
    async fn nothing_is_waited_for_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::open(dir.path()).unwrap();
        let soon = Duration::from_millis(50);
        let ask = || ask(&place, Method::GET, "/version", None, soon);
        assert!(matches!(ask().await, Err(HypervisorError::Lost { .. })), "nobody is there");
        let _silent = UnixListener::bind(dir.path().join(SOCKET)).unwrap();
        assert!(matches!(ask().await, Err(HypervisorError::Silent { .. })));
    }

    #[tokio::test]
    async fn a_socket_below_a_long_path_is_reached() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("d".repeat(100)).join("e".repeat(100));
        std::fs::create_dir_all(&long).unwrap();
        let place = Place::open(&long).unwrap();
        let short = dir.path().join("short");
        let listener = UnixListener::bind(&short).unwrap();
        std::fs::rename(short, long.join("v.sock")).unwrap();
        place.connect("v.sock").await.unwrap();
        drop(listener);
    }
}
