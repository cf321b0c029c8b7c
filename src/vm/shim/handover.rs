//! Listeners that a shim hands to the one whose VM takes its VM's place: no client is refused meanwhile.

use std::io::{self, IoSlice, IoSliceMut, Write};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::time::Duration;

use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::protocol::{Ask, Said};
use crate::vm::spec::PortMap;

/// The most that go with one message (`SCM_MAX_FD`).
const MOST: usize = 253;
/// How long the other shim may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer, in bytes.
const LONGEST: usize = 64 * 1024;

/// Hands listeners over, as the answer to [`Ask::Listeners`].
pub async fn give(stream: &UnixStream, mut listeners: Vec<(PortMap, OwnedFd)>) -> io::Result<()> {
    listeners.truncate(MOST);
    let ports = listeners.iter().map(|(map, _)| *map).collect();
    let mut line = serde_json::to_vec(&Said::Listeners { ports })?;
    line.push(b'\n');
    let fds: Vec<RawFd> = listeners.iter().map(|(_, listener)| listener.as_raw_fd()).collect();
    stream
        .async_io(Interest::WRITABLE, || {
            let (message, rights) = ([IoSlice::new(&line)], [ControlMessage::ScmRights(&fds)]);
            let sent = sendmsg::<()>(stream.as_raw_fd(), &message, &rights, MsgFlags::MSG_NOSIGNAL, None)?;
            // So small a message goes at once, or the other side cannot read it.
            if sent == line.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
        })
        .await
}

/// Asks the shim behind `socket` for its listeners.
pub fn take(socket: &Path) -> io::Result<Vec<(PortMap, TcpListener)>> {
    let mut stream = StdUnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut ask = serde_json::to_vec(&Ask::Listeners)?;
    ask.push(b'\n');
    stream.write_all(&ask)?;
    let mut line = vec![0; LONGEST];
    let (mut length, mut fds) = (0, Vec::new());
    while !line[..length].ends_with(b"\n") {
        let mut space = cmsg_space!([RawFd; MOST]);
        let mut room = [IoSliceMut::new(&mut line[length..])];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(stream.as_raw_fd(), &mut room, Some(&mut space), flags)?;
        if message.flags.contains(MsgFlags::MSG_CTRUNC) {
            return Err(io::Error::other("this process may have no more open files"));
        }
        for rights in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(rights) = rights {
                // SAFETY: the kernel made these descriptors for this process just now.
                fds.extend(rights.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        match message.bytes {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => length += read,
        }
    }
    match serde_json::from_slice(&line[..length])? {
        Said::Listeners { ports } => {
            Ok(ports.into_iter().zip(fds.into_iter().map(TcpListener::from)).collect())
        }
        Said::Error { message } => Err(io::Error::other(message)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpStream;

    use tokio::io::{AsyncBufReadExt, BufReader};

    use super::*;
    use crate::vm::network::ports;

    #[tokio::test]
    async fn a_listener_that_was_handed_over_has_who_connected_before() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let (map, listener) = ports::listen(&"0:80".parse().unwrap()).unwrap();
        let waiting = TcpStream::connect(map.host).unwrap();
        let server = tokio::net::UnixListener::bind(&socket).unwrap();
        let taking = tokio::task::spawn_blocking(move || take(&socket));
        let mut stream = BufReader::new(server.accept().await.unwrap().0);
        let mut ask = String::new();
        stream.read_line(&mut ask).await.unwrap();
        assert_eq!(serde_json::from_str::<Ask>(&ask).unwrap(), Ask::Listeners);
        give(stream.get_ref(), vec![(map, listener.into())]).await.unwrap();
        let (taken, listener) = taking.await.unwrap().unwrap().remove(0);
        assert_eq!(taken, map);
        let (mut accepted, _) = listener.accept().unwrap();
        drop(listener);
        (&waiting).write_all(b"x").unwrap();
        let mut byte = [0];
        accepted.set_nonblocking(false).unwrap();
        accepted.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }
}
