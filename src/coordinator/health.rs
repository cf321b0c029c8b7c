//! Asking an application how it is. A connection alone says nothing: whoever forwards a guest's ports
//! takes connections to ports that nobody listens on.

use std::net::SocketAddr;

use http_body_util::Empty;
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::HOST;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Whether an application answers a GET with anything but an error of its own (5xx). The caller has a
/// deadline.
pub async fn is_well(address: SocketAddr, path: &str) -> bool {
    let Ok(stream) = TcpStream::connect(address).await else { return false };
    let Ok((mut send, connection)) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await else {
        return false;
    };
    let request = Request::get(path).header(HOST, address.to_string()).body(Empty::<Bytes>::new());
    let Ok(request) = request else { return false };
    tokio::select! {
        answer = send.send_request(request) => answer.is_ok_and(|answer| !answer.status().is_server_error()),
        _ = connection => false,
    }
}
