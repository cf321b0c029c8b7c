//! Listeners of a route: one a worker on the same address, between which the kernel deals connections out.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use crate::vm::network::ports::holder;

/// Connections that may wait to be accepted, a listener.
const BACKLOG: i32 = 4096;
/// A peer that is gone without a word is noticed within so long, three unanswered questions later.
const KEEPALIVE: Duration = Duration::from_secs(30);
const QUESTIONS: Duration = Duration::from_secs(10);

/// Why a route does not listen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListenError {
    /// Somebody listens there already.
    #[error(
        "port {address} is taken by {holder}\nhelp: give the route another `listen`, or end what holds it"
    )]
    Taken {
        /// The address.
        address: SocketAddr,
        /// Who listens there.
        holder: String,
    },
    /// The system refuses.
    #[error(
        "cannot listen on {address}: {why}\nhelp: ports below 1024 need root; addresses must be this machine's"
    )]
    Refused {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        why: String,
    },
}

/// Listens on an address, `count` times; where we do so already, `again`.
pub fn listen(address: SocketAddr, count: usize, again: bool) -> Result<Vec<TcpListener>, ListenError> {
    let refused = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => ListenError::Taken { address, holder: holder(address.port()) },
        _ => ListenError::Refused { address, why: error.to_string() },
    };
    // Shared listeners would share with a stranger who shares too: whoever is there shows first.
    if !again {
        drop(bind(address, false).map_err(refused)?);
    }
    let shared = || bind(address, true).and_then(|socket| socket.listen(BACKLOG).map(|()| socket.into()));
    (0..count).map(|_| shared().map_err(refused)).collect()
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    // Connections have these from their listener.
    socket.set_tcp_nodelay(true)?;
    let questions = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(QUESTIONS).with_retries(3);
    socket.set_tcp_keepalive(&questions)?;
    socket.bind(&address.into())?;
    if !shared {
        socket.listen(1)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_listened_on_by_all_workers_and_by_nobody_else() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let listeners = listen(free, 2, false).unwrap();
        assert!(listeners.iter().all(|listener| listener.local_addr().unwrap() == free));
        let error = listen(free, 1, false).unwrap_err().to_string();
        assert!(error.contains(&format!("(process {})", std::process::id())), "{error}");
        assert_eq!(listen(free, 1, true).unwrap().len(), 1);
        drop(listeners);
        assert_eq!(listen(free, 1, false).unwrap().len(), 1);
    }
}
