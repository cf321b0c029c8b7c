//! Asking an application how it is. A connection alone says nothing: whoever forwards a guest's ports
//! takes connections to ports that nobody listens on.

use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens, or the connection broke.
    #[error("{0}")]
    Connect(#[from] std::io::Error),
    /// It was closed, or what came is no HTTP.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// The path is none.
    #[error("{0}")]
    Path(#[from] hyper::http::Error),
    /// Nothing came in time.
    #[error("no answer within {0:?}")]
    Late(Duration),
    /// The application is not well.
    #[error("it answers {0}")]
    Unwell(StatusCode),
}

/// Asks for a path; anything but an error of the application's is an answer.
pub async fn get(address: SocketAddr, path: &str, within: Duration) -> Result<StatusCode, AskError> {
    let asked = tokio::time::timeout(within, ask(address, path)).await;
    match asked.unwrap_or(Err(AskError::Late(within)))? {
        status if status.is_server_error() => Err(AskError::Unwell(status)),
        status => Ok(status),
    }
}

async fn ask(address: SocketAddr, path: &str) -> Result<StatusCode, AskError> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path).header(HOST, address.to_string()).body(Empty::<Bytes>::new())?;
    // The connection works only while it is looked after. Its end is told to who waits for the answer.
    let looked_after = async {
        let _ = connection.await;
        std::future::pending::<()>().await
    };
    tokio::select! {
        answer = sender.send_request(request) => Ok(answer?.status()),
        () = looked_after => Err(AskError::Connect(std::io::ErrorKind::ConnectionAborted.into())),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// What is made of this answer.
    async fn told(answer: &'static [u8]) -> Result<StatusCode, AskError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 512]).await;
            stream.write_all(answer).await.unwrap();
        };
        tokio::join!(get(address, "/", Duration::from_secs(5)), serve).0
    }

    #[tokio::test]
    async fn what_is_no_server_error_is_an_answer() {
        assert_eq!(told(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap(), 200);
        assert_eq!(told(b"HTTP/1.0 404 Not Found\r\n\r\n").await.unwrap(), 404);
        let unwell = told(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").await.unwrap_err();
        assert!(matches!(unwell, AskError::Unwell(_)), "{unwell}");
        for nonsense in [&b""[..], b"SSH-2.0-dropbear\r\n"] {
            assert!(told(nonsense).await.is_err());
        }
    }

    #[tokio::test]
    async fn who_is_silent_or_not_there_is_an_error_in_time() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let late = get(address, "/", Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(late, AskError::Late(_)), "{late}");
        drop(listener);
        let closed = get(address, "/", Duration::from_secs(5)).await.unwrap_err();
        assert!(matches!(closed, AskError::Connect(_)), "{closed}");
    }
}
