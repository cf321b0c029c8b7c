//! QEMU's user-mode networking.

use std::net::SocketAddr;

use super::qmp::Qmp;
use super::{HypervisorError, NAME};

/// User-mode networking. QEMU refuses a DHCP range that begins at one of its own addresses; the
/// guest has [`USER_GUEST`] without asking.
pub const USER_NET: &str = "172.16.0.0/24,host=172.16.0.1,dns=172.16.0.3,dhcpstart=172.16.0.15";

/// The guest's address in every network mode.
pub const USER_GUEST: &str = "172.16.0.2";

/// Has a loopback port of QEMU's choice forwarded to `guest_port`.
pub async fn forward(qmp: &mut Qmp, guest_port: u16) -> Result<SocketAddr, HypervisorError> {
    if let Some(address) = forwarded(qmp, guest_port).await? {
        return Ok(address);
    }
    let said = qmp.human(&format!("hostfwd_add n0 tcp:127.0.0.1:0-{USER_GUEST}:{guest_port}")).await?;
    let reason = said.trim().into();
    let refused = HypervisorError::Refused { name: NAME, what: "hostfwd_add".into(), reason };
    forwarded(qmp, guest_port).await?.ok_or(refused)
}

async fn forwarded(qmp: &mut Qmp, guest_port: u16) -> Result<Option<SocketAddr>, HypervisorError> {
    let port = host_port(&qmp.human("info usernet").await?, guest_port);
    Ok(port.map(|port| SocketAddr::from(([127, 0, 0, 1], port))))
}

/// Finds the host port in QEMU's table: protocol, descriptor, source address and port,
/// destination address and port.
fn host_port(table: &str, guest_port: u16) -> Option<u16> {
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields.as_slice() {
            ["TCP[HOST_FORWARD]", _, _, host, _, guest, ..] if guest.parse() == Ok(guest_port) => {
                host.parse().ok()
            }
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forwarded_port_is_read_from_the_table() {
        let table = "Hub 0 (n0):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n  TCP[HOST_FORWARD]  12       127.0.0.1 40613      172.16.0.2    22     0     0\r\n";
        assert_eq!(host_port(table, 22), Some(40613));
        assert_eq!(host_port(table, 80), None);
    }
}
