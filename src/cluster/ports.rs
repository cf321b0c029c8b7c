//! Whether the addresses that the cluster is to listen on can be had; who has them otherwise.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use super::error::ClusterError;
use super::plan::config_file;
use crate::coordinator::config::Config;
use crate::host::paths::Paths;
use crate::vm::network::ports;

/// Where clients of this machine reach somebody who listens at `listen`.
pub fn reached_at(listen: SocketAddr) -> SocketAddr {
    let ip: IpAddr = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// That of the agent.
pub fn agent(address: SocketAddr, paths: &Paths) -> Result<(), ClusterError> {
    let bound = UdpSocket::bind(address).map(drop);
    had("the agent".into(), address, bound, ports::udp_holder, paths)
}

/// Those of the coordinator.
pub fn coordinator(config: &Config, paths: &Paths) -> Result<(), ClusterError> {
    let metrics = config.coordinator.metrics.map(|address| ("the coordinator's metrics".into(), address));
    let routes = config.routes.iter().map(|route| (format!("the route to {}", route.target()), route.listen));
    for (what, address) in metrics.into_iter().chain(routes) {
        had(what, address, TcpListener::bind(address).map(drop), ports::holder, paths)?;
    }
    Ok(())
}

fn had(
    what: String,
    address: SocketAddr,
    bound: io::Result<()>,
    holder: fn(u16) -> String,
    paths: &Paths,
) -> Result<(), ClusterError> {
    let file = config_file(paths);
    bound.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => {
            ClusterError::Taken { what, address, holder: holder(address.port()), file }
        }
        _ => ClusterError::Listen { what, address, source, file },
    })
}
