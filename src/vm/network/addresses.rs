//! Addresses and names that follow from what a VM is to be.

use std::net::Ipv4Addr;

use crate::vm::spec::{Network, TenantLink, VmSpec};

/// The gateway's address as the guest sees it.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);
/// The guest's address.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 2);
/// Length of the prefix of the guest's network.
const PREFIX: u8 = 24;
/// Name of the TAP in a VM's own namespace.
pub(super) const TAP: &str = "tap0";
/// Begins the name of every TAP in a tenant's namespace.
pub(super) const TENANT_TAPS: &str = "tap-";

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
        (Network::Tap, Some(link)) => Some(tenant_tap(link.address)),
    }
}

/// The address as 8 hexadecimal digits.
pub(super) fn hex(address: Ipv4Addr) -> String {
    format!("{:08x}", u32::from(address))
}

/// A MAC address from 8 hexadecimal digits, such as those of a VM's id.
pub(super) fn mac(digits: &str) -> String {
    let digits: String =
        digits.chars().filter(char::is_ascii_hexdigit).chain("00000000".chars()).take(8).collect();
    format!("02:6d:{}:{}:{}:{}", &digits[0..2], &digits[2..4], &digits[4..6], &digits[6..8])
}

/// Name of the TAP of the VM with this address in its tenant's network.
pub fn tenant_tap(address: Ipv4Addr) -> String {
    format!("{TENANT_TAPS}{}", hex(address))
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
}
