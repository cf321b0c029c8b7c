//! IPv4 networks.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An IPv4 network with room for a gateway and at least one guest: `10.240.1.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    base: Ipv4Addr,
    prefix: u8,
}

/// What is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no IPv4 network\nhelp: write its first address and a prefix length from 1 to 30, e.g. `10.240.1.0/24`"
)]
pub struct NoSubnet(String);

impl Subnet {
    /// The network that begins at `base`.
    pub fn new(base: Ipv4Addr, prefix: u8) -> Result<Self, NoSubnet> {
        let subnet = Self { base, prefix };
        match (1..=30).contains(&prefix) && u32::from(base) & !subnet.mask() == 0 {
            true => Ok(subnet),
            false => Err(NoSubnet(subnet.to_string())),
        }
    }

    /// Its first address, which nobody has.
    pub fn base(self) -> Ipv4Addr {
        self.base
    }

    /// Length of its prefix.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Its netmask.
    pub fn netmask(self) -> Ipv4Addr {
        Ipv4Addr::from(self.mask())
    }

    /// The first address somebody has: the gateway's.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base) + 1)
    }

    /// Whether all of `other` lies within.
    pub fn contains(self, other: Self) -> bool {
        self.prefix <= other.prefix && u32::from(other.base) & self.mask() == u32::from(self.base)
    }

    /// Whether a guest may have `address`: not the network's, the gateway's or the broadcast address.
    pub fn is_for_guests(self, address: Ipv4Addr) -> bool {
        let host = u32::from(address) & !self.mask();
        u32::from(address) & self.mask() == u32::from(self.base) && host > 1 && host < !self.mask()
    }

    fn mask(self) -> u32 {
        u32::MAX << (32 - self.prefix)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl FromStr for Subnet {
    type Err = NoSubnet;

    fn from_str(text: &str) -> Result<Self, NoSubnet> {
        let parts =
            text.split_once('/').and_then(|(base, prefix)| Some((base.parse().ok()?, prefix.parse().ok()?)));
        parts.and_then(|(base, prefix)| Self::new(base, prefix).ok()).ok_or_else(|| NoSubnet(text.into()))
    }
}

impl TryFrom<String> for Subnet {
    type Error = NoSubnet;

    fn try_from(text: String) -> Result<Self, NoSubnet> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_has_a_gateway_and_addresses_for_guests() {
        let net = subnet("10.240.1.0/29");
        assert_eq!(net.gateway(), Ipv4Addr::new(10, 240, 1, 1));
        assert_eq!(net.netmask(), Ipv4Addr::new(255, 255, 255, 248));
        let guests = (0..=9).filter(|last| net.is_for_guests(Ipv4Addr::new(10, 240, 1, *last)));
        assert_eq!(guests.collect::<Vec<_>>(), [2, 3, 4, 5, 6]);
        assert_eq!(net.to_string(), "10.240.1.0/29");
    }

    #[test]
    fn a_network_contains_what_begins_with_its_prefix() {
        let all = subnet("10.240.0.0/12");
        assert!(all.contains(subnet("10.255.255.0/24")) && all.contains(all));
        assert!(!all.contains(subnet("10.0.0.0/8")) && !all.contains(subnet("10.239.0.0/16")));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "10.240.1.0", "10.240.1.0/", "10.240.1.1/24", "10.0.0.0/0", "10.0.0.0/31", "x/24"] {
            assert!(text.parse::<Subnet>().is_err(), "{text}");
        }
    }
}
