//! How a VM is connected.
//!
//! A VM that belongs to no tenant has the same address as all others, in whatever mode, so that a
//! restored one needs no new one. The VMs of a tenant share a network, and each has an address there;
//! but in user mode each is on its own like any other, and reached by its published ports on loopback.

mod commands;
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
use super::spec::{Network, TenantLink, VmSpec};
use crate::host::paths::Paths;
pub use commands::NetworkError;

/// The gateway's address as the guest sees it.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);
/// The guest's address.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 2);
/// Length of the prefix of the guest's network.
const PREFIX: u8 = 24;
/// The name server that user-mode networking answers on.
const USER_DNS: &str = "172.16.0.3";
/// Name of the TAP in a VM's own namespace.
const TAP: &str = "tap0";

/// The network of a VM with a TAP. The thread that made it is inside.
#[derive(Debug)]
pub enum TapPlace {
    /// A namespace of its own.
    Own(tap::TapNetwork),
    /// Its tenant's.
    Tenant(tenant::TenantNetwork),
}

impl TapPlace {
    /// Moves the calling thread into the VM's network; none in user mode.
    ///
    /// Must be called before other threads are started, or they stay outside.
    pub fn enter(paths: &Paths, spec: &VmSpec) -> Result<Option<Self>, NetworkError> {
        Ok(match (spec.network, spec.tenant()) {
            (Network::User, _) => None,
            (Network::Tap, None) => {
                Some(Self::Own(tap::TapNetwork::enter(&spec.id, spec.egress, spec.hypervisor)?))
            }
            (Network::Tap, Some(link)) => {
                Some(Self::Tenant(tenant::TenantNetwork::enter(paths, spec, link)?))
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

/// Where a guest is in its network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// Its own address.
    pub guest: Ipv4Addr,
    /// Length of its network's prefix.
    pub prefix: u8,
    /// The gateway's address.
    pub gateway: Ipv4Addr,
    /// Its MAC address.
    pub mac: String,
}

impl Addresses {
    /// Those of this VM.
    pub fn of(spec: &VmSpec) -> Self {
        match spec.tenant() {
            None => Self { guest: GUEST, prefix: PREFIX, gateway: GATEWAY, mac: mac(&spec.id) },
            Some(TenantLink { subnet, address, .. }) => Self {
                guest: *address,
                prefix: subnet.prefix(),
                gateway: subnet.gateway(),
                // It follows the address, not the id: a guest that goes on from where it was saved keeps
                // what it had, under a new id.
                mac: mac(&hex(*address)),
            },
        }
    }

    /// The guest's address with its prefix length.
    pub fn cidr(&self) -> String {
        format!("{}/{}", self.guest, self.prefix)
    }
}

/// Name of the TAP of this VM in its namespace; none in user mode.
///
/// In a tenant's it follows the address, as a snapshot of older Firecrackers' holds the name, and the VM
/// that goes on from it has the address, but another id.
pub fn tap_name(spec: &VmSpec) -> Option<String> {
    match (spec.network, spec.tenant()) {
        (Network::User, _) => None,
        (Network::Tap, None) => Some(TAP.into()),
        (Network::Tap, Some(link)) => Some(tenant::tap_name(link.address)),
    }
}

/// The address as 8 hexadecimal digits.
fn hex(address: Ipv4Addr) -> String {
    format!("{:08x}", u32::from(address))
}

/// A MAC address from 8 hexadecimal digits, such as those of a VM's id.
fn mac(digits: &str) -> String {
    let digits: String =
        digits.chars().filter(char::is_ascii_hexdigit).chain("00000000".chars()).take(8).collect();
    format!("02:6d:{}:{}:{}:{}", &digits[0..2], &digits[2..4], &digits[4..6], &digits[6..8])
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
    use crate::vm::hypervisor::qemu::usernet::USER_GUEST;

    #[test]
    fn a_mac_is_local_and_follows_the_id() {
        assert_eq!(mac("v-0a1b2c3d"), "02:6d:0a:1b:2c:3d");
        assert_eq!(mac(&hex(Ipv4Addr::new(10, 240, 1, 3))), "02:6d:0a:f0:01:03");
    }

    #[test]
    fn the_guest_has_its_address_in_every_mode() {
        assert_eq!(GUEST.to_string(), USER_GUEST);
    }

    fn spec(network: &str) -> VmSpec {
        serde_json::from_value(serde_json::json!({
            "id": "v-0a1b2c3d", "name": "vm", "build_dir": "/", "cpus": 1, "memory_mib": 256, "disk_mib": 64,
            "kernel_args": [], "ports": [], "volumes": [], "network": network, "egress": true, "kvm": false,
            "role": null, "boot_timeout_secs": 60, "remove": false,
            "tenant": { "net_id": 1, "subnet": "10.240.1.0/24", "address": "10.240.1.3" },
        }))
        .unwrap()
    }

    #[test]
    fn a_tenants_vm_has_its_address_there_and_in_user_mode_that_of_all_others() {
        let (tap, user) = (spec("tap"), spec("user"));
        let addresses = Addresses::of(&tap);
        assert_eq!(
            (addresses.cidr().as_str(), addresses.mac.as_str()),
            ("10.240.1.3/24", "02:6d:0a:f0:01:03")
        );
        assert_eq!(addresses.gateway, Ipv4Addr::new(10, 240, 1, 1));
        assert_eq!(Addresses::of(&user), Addresses::of(&VmSpec { tenant: None, ..tap.clone() }));
        assert_eq!((tap_name(&tap).as_deref(), tap_name(&user)), (Some("tap-0af00103"), None));
        assert_eq!(tap_name(&VmSpec { tenant: None, ..tap }).as_deref(), Some("tap0"));
    }

    #[test]
    fn name_servers_on_loopback_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("resolv.conf");
        std::fs::write(&file, "nameserver 127.0.0.53\nnameserver 192.0.2.1\nsearch x\n").unwrap();
        assert_eq!(servers(&file), ["192.0.2.1"]);
    }
}
