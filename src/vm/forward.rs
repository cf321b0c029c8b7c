//! A local port that leads to a port of a guest, through its shim.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::network::ports::{self, PortError};
use super::shim::client::{self, ClientError};
use super::spec::PortMap;

/// A local port that is listened on.
#[derive(Debug)]
pub struct Forward {
    /// From where to where; the port is the one really listened on.
    pub map: PortMap,
    listener: TcpListener,
    socket: PathBuf,
}

impl Forward {
    /// Listens for a guest whose shim has this socket. A port that is taken is an error that says
    /// by whom.
    pub fn listen(map: &PortMap, shim_socket: &Path) -> Result<Self, PortError> {
        let (map, listener) = ports::listen(map)?;
        let listener = TcpListener::from_std(listener)
            .map_err(|source| PortError::Listen { address: map.host, source })?;
        Ok(Self { map, listener, socket: shim_socket.into() })
    }

    /// Carries connections until it is dropped, and they with it. What fails of one is told to
    /// `failed`; the others go on.
    pub async fn serve(self, mut failed: impl FnMut(ClientError)) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((mut client, _)) => {
                        let (socket, port) = (self.socket.clone(), self.map.guest);
                        connections.spawn(async move {
                            let mut guest = client::dial(&socket, port).await?;
                            // An error ends the connection, which is all there is to say about it.
                            let _ = copy_bidirectional(&mut client, &mut guest).await;
                            Ok::<_, ClientError>(())
                        });
                    }
                    // Out of descriptors: those of ended connections come back.
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                },
                Some(ended) = connections.join_next() => {
                    if let Ok(Err(error)) = ended {
                        failed(error);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpStream;

    #[tokio::test]
    async fn a_guest_that_is_not_there_closes_the_connection_and_is_told_of() {
        let map = "0:80".parse().unwrap();
        let forward = Forward::listen(&map, Path::new("/no/such/socket")).unwrap();
        let address = forward.map.host;
        assert!(Forward::listen(&forward.map, Path::new("/")).unwrap_err().to_string().contains("is taken"));
        let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let serve = tokio::spawn(forward.serve(move |error| drop(told.send(error.to_string()))));
        let mut client = TcpStream::connect(address).await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        assert!(heard.recv().await.unwrap().contains("cannot reach"));
        serve.abort();
        assert!(serve.await.unwrap_err().is_cancelled());
        assert!(TcpStream::connect(address).await.is_err());
    }
}
