//! Connections from the host to a port of the guest, through Firecracker's vsock device.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::api::Place;

/// The socket's name in the VM's directory.
pub const SOCKET: &str = "v.sock";
/// The longest greeting there is: `OK`, a space, the host's port, a line's end.
const LONGEST: usize = 16;

/// Connects to a port of the guest. Fails at once where nobody listens, and waits without end where
/// the guest has no driver.
pub async fn connect(place: &Place, port: u32) -> io::Result<UnixStream> {
    let mut stream = place.connect(SOCKET).await?;
    stream.write_all(format!("CONNECT {port}\n").as_bytes()).await?;
    let mut greeting = Vec::with_capacity(LONGEST);
    // Byte by byte: what follows the line is the guest's.
    while greeting.last() != Some(&b'\n') {
        if greeting.len() == LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        greeting.push(stream.read_u8().await?);
    }
    match greeting.starts_with(b"OK ") {
        true => Ok(stream),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    /// Connects with `answer` given in Firecracker's place, and reads what is left of it.
    async fn answered(answer: &'static [u8]) -> io::Result<Vec<u8>> {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join(SOCKET)).unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 13];
            stream.read_exact(&mut request).await.unwrap();
            assert_eq!(&request, b"CONNECT 1024\n");
            stream.write_all(answer).await.unwrap();
        });
        let stream = connect(&Place::open(dir.path()).unwrap(), 1024).await;
        server.await.unwrap();
        let mut rest = Vec::new();
        stream?.read_to_end(&mut rest).await?;
        Ok(rest)
    }

    #[tokio::test]
    async fn what_follows_the_greeting_is_the_guests() {
        assert_eq!(answered(b"OK 1073741824\nhello").await.unwrap(), b"hello");
    }

    #[tokio::test]
    async fn a_port_nobody_listens_on_and_a_strange_greeting_are_errors() {
        assert_eq!(answered(b"").await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        for strange in [&b"NO 1\n"[..], b"OK 10737418240000000\n", b"OK 1"] {
            answered(strange).await.unwrap_err();
        }
    }
}
