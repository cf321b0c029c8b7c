//! How a VM is connected.
//!
//! The guest has the same address in every VM and mode, so a restored one needs no new one.

pub mod ports;
pub mod tap;

use std::path::Path;

use super::hypervisor::qemu::usernet::USER_GUEST;

/// The gateway's address as the guest sees it.
pub const GATEWAY: &str = "172.16.0.1";
/// The guest's address.
pub const GUEST: &str = USER_GUEST;
/// The guest's address with its prefix length.
pub const GUEST_CIDR: &str = "172.16.0.2/24";
/// The name server that user-mode networking answers on.
const USER_DNS: &str = "172.16.0.3";

/// A MAC address of the VM's own, from the digits of its id.
pub fn mac(id: &str) -> String {
    let digits: String =
        id.chars().filter(char::is_ascii_hexdigit).chain("00000000".chars()).take(8).collect();
    format!("02:6d:{}:{}:{}:{}", &digits[0..2], &digits[2..4], &digits[4..6], &digits[6..8])
}

/// Name servers for the guest.
pub fn dns(network: super::spec::Network) -> Vec<String> {
    match network {
        super::spec::Network::User => vec![USER_DNS.into()],
        super::spec::Network::Tap => {
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
        .filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse::<std::net::Ipv4Addr>().ok())
        .filter(|address| !address.is_loopback())
        .map(|address| address.to_string())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_is_local_and_follows_the_id() {
        assert_eq!(mac("v-0a1b2c3d"), "02:6d:0a:1b:2c:3d");
    }

    #[test]
    fn name_servers_on_loopback_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("resolv.conf");
        std::fs::write(&file, "nameserver 127.0.0.53\nnameserver 192.0.2.1\nsearch x\n").unwrap();
        assert_eq!(servers(&file), ["192.0.2.1"]);
    }
}
