//! Published ports: listeners on the host, and who holds one that is taken.

use std::io;
use std::net::{SocketAddr, TcpListener};

use crate::vm::spec::PortMap;

/// Why a port cannot be published.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Somebody listens there already.
    #[error(
        "port {address} is taken by {holder}\nhelp: publish another one with `-p HOST:GUEST`, or end what holds it"
    )]
    Taken {
        /// The address.
        address: SocketAddr,
        /// Who listens there.
        holder: String,
    },
    /// The system refuses.
    #[error(
        "cannot listen on {address}: {source}\nhelp: ports below 1024 need root; addresses must be this machine's"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// Listens on the host's side of a mapping; port 0 becomes the port the system chose.
pub fn listen(map: &PortMap) -> Result<(PortMap, TcpListener), PortError> {
    let address = map.host;
    let listener = TcpListener::bind(address).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => PortError::Taken { address, holder: holder(address.port()) },
        _ => PortError::Listen { address, source },
    })?;
    let host = listener.local_addr().map_err(|source| PortError::Listen { address, source })?;
    listener.set_nonblocking(true).map_err(|source| PortError::Listen { address, source })?;
    Ok((PortMap { host, ..*map }, listener))
}

/// Who listens on a TCP port, for people.
pub fn holder(port: u16) -> String {
    holder_in(["/proc/net/tcp", "/proc/net/tcp6"], "0A", port)
}

/// Who takes packets on a UDP port, for people.
pub fn udp_holder(port: u16) -> String {
    holder_in(["/proc/net/udp", "/proc/net/udp6"], "07", port)
}

/// Who has a socket in this state on a port.
fn holder_in(tables: [&str; 2], state: &str, port: u16) -> String {
    let sockets: Vec<String> = tables.iter().flat_map(|table| inodes(table, state, port)).collect();
    let mut processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let found = processes.find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let mut files = std::fs::read_dir(process.path().join("fd")).ok()?.flatten();
        let holds = files.any(|file| {
            std::fs::read_link(file.path())
                .is_ok_and(|target| sockets.iter().any(|socket| target.as_os_str() == socket.as_str()))
        });
        holds.then(|| describe(pid))
    });
    found.unwrap_or_else(|| "another process (of another user?)".into())
}

fn describe(pid: u32) -> String {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let program = words.next().unwrap_or_default();
    let program = program.rsplit('/').next().unwrap_or_default();
    // A shim's command line ends with the VM's id and name: `mvm shim ID NAME`.
    match (words.next().as_deref(), words.next(), words.next()) {
        (Some("shim"), Some(id), Some(name)) => format!("the VM `{name}` ({id})"),
        _ => format!("`{program}` (process {pid})"),
    }
}

/// Sockets in a state on a port, as `/proc/PID/fd` shows them.
fn inodes(table: &str, state: &str, port: u16) -> Vec<String> {
    let text = std::fs::read_to_string(table).unwrap_or_default();
    let rows = text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|fields| {
        let local = fields.get(1).and_then(|local| local.rsplit(':').next());
        local.and_then(|hex| u16::from_str_radix(hex, 16).ok()) == Some(port) && fields.get(3) == Some(&state)
    })
    .filter_map(|fields| fields.get(9).map(|inode| format!("socket:[{inode}]")))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_an_error_that_names_its_holder() {
        let (map, _listener) = listen(&"0:80".parse().unwrap()).unwrap();
        assert_ne!(map.host.port(), 0);
        let error = listen(&map).unwrap_err().to_string();
        let me = format!("(process {})", std::process::id());
        assert!(error.contains(&map.host.to_string()) && error.contains(&me), "{error}");
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let holder = udp_holder(socket.local_addr().unwrap().port());
        assert!(holder.contains(&me), "{holder}");
    }
}
