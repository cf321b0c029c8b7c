//! How a VM is connected.
//!
//! A VM that belongs to no tenant has the same address as all others, in whatever mode, so that a
//! restored one needs no new one. The VMs of a tenant share a network, and each has an address there;
//! but in user mode each is on its own like any other, and reached by its published ports on loopback.

mod addresses;
mod commands;
mod connecting;
mod device;
mod namespace;
pub mod ports;
pub mod subnet;
pub mod tap;
pub mod tenant;
pub mod uplink;
pub mod verify;

use std::net::Ipv4Addr;
use std::path::Path;

use super::hypervisor::Tap;
use super::spec::{Network, VmSpec};
use crate::host::paths::Paths;
pub use addresses::{Addresses, GATEWAY, GUEST, tap_name};
pub use commands::NetworkError;
pub use connecting::Connecting;

/// The name server that user-mode networking answers on.
const USER_DNS: &str = "172.16.0.3";

/// The network of a VM with a TAP. The thread that made it is inside.
#[derive(Debug)]
pub enum TapPlace {
    /// A namespace of its own.
    Own(tap::TapNetwork),
    /// Its tenant's.
    Tenant(tenant::TenantNetwork),
}

impl TapPlace {
    /// Moves the calling thread into the VM's network, which has its TAP then, and begins to connect it
    /// there; none in user mode.
    ///
    /// Must be called before other threads are started, or they stay outside.
    pub fn enter(paths: &Paths, spec: &VmSpec) -> Result<(Option<Self>, Connecting), NetworkError> {
        Ok(match (spec.network, spec.tenant()) {
            (Network::User, _) => (None, Connecting::default()),
            (Network::Tap, None) => {
                let (network, connecting) = tap::TapNetwork::enter(&spec.id, spec.egress, spec.hypervisor)?;
                (Some(Self::Own(network)), connecting)
            }
            (Network::Tap, Some(link)) => {
                let (network, connecting) = tenant::TenantNetwork::enter(paths, spec, link)?;
                (Some(Self::Tenant(network)), connecting)
            }
        })
    }

    /// The TAP device, for the hypervisor.
    pub fn device(&self) -> Tap<'_> {
        match self {
            Self::Own(network) => network.device(),
            Self::Tenant(network) => network.device(),
        }
    }

    /// Removes what would stay. Called when the VM is over.
    pub fn leave(&self) -> Result<(), NetworkError> {
        match self {
            Self::Own(network) => network.leave(),
            Self::Tenant(network) => network.leave(),
        }
    }
}

/// Name servers for the guest.
pub fn dns(network: Network) -> Vec<String> {
    match network {
        Network::User => vec![USER_DNS.into()],
        Network::Tap => {
            // A stub resolver on the host's loopback is out of the guest's reach; systemd
            // keeps the real servers in a file of its own.
            let files = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
            files
                .into_iter()
                .map(|file| servers(Path::new(file)))
                .find(|found| !found.is_empty())
                .unwrap_or_default()
        }
    }
}

fn servers(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse::<Ipv4Addr>().ok())
        .filter(|address| !address.is_loopback())
        .map(|address| address.to_string())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_on_loopback_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("resolv.conf");
        std::fs::write(&file, "nameserver 127.0.0.53\nnameserver 192.0.2.1\nsearch x\n").unwrap();
        assert_eq!(servers(&file), ["192.0.2.1"]);
    }
}
