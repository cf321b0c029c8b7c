//! The way out of a network namespace: a veth to the host, and address translation at both ends.

use std::fs::File;
use std::net::Ipv4Addr;

use nix::fcntl::{Flock, FlockArg};

use super::commands::{NetworkError, Rules, interfaces, ip, step};
use super::namespace::Namespace;

/// Name of the way out inside a namespace.
pub const UPLINK: &str = "up0";
/// Networks of tenants.
pub const TENANTS: &str = "10.240.0.0/12";
/// The network that every VM which belongs to no tenant has in its own namespace.
const VM: &str = "172.16.0.0/24";
/// Address of the host's end of every uplink (shared address space, RFC 6598).
const HOST_END: &str = "100.127.255.254";
/// All uplinks' addresses.
const UPLINKS: &str = "100.64.0.0/10";
/// Begins the name of every uplink's end on the host.
const HOST_LINK: &str = "mvm-";
/// Serialises changes to what all uplinks share on the host.
const SHARED_LOCK: &str = "/run/mvm-network.lock";

/// Gives the calling thread's namespace a way out to `host`, and `also` these commands to the `ip` that is
/// run there. The link is called after the VM whose shim this is, so that one which is about to go with
/// its namespace is not in the way.
pub fn connect(host: &Namespace, vm: &str, also: Vec<String>) -> Result<(), NetworkError> {
    let link = host_link(vm);
    let address = uplink_address(vm).to_string();
    // This process's namespace is where the peer goes: that of its first thread, which is inside as well.
    let process = std::process::id().to_string();
    // Rules need no link to be there: they are made meanwhile.
    let rules = Rules::give(&format!(
        "add table ip mvm
         add chain ip mvm out {{ type nat hook postrouting priority srcnat; }}
         add rule ip mvm out oifname {UPLINK} masquerade"
    ))?;
    let on_host = || {
        let _lock = shared_lock()?;
        let rules = share_the_host()?;
        let linked = ip(&[
            format!("link add {link} type veth peer name {UPLINK} netns {process}"),
            format!("addr add {HOST_END} peer {address} dev {link}"),
            format!("link set {link} up"),
        ]);
        rules.are_given().and(linked)
    };
    let on_host = host.inside(on_host, step("enter the host's namespace"));
    let inside = [
        format!("addr add {address} peer {HOST_END} dev {UPLINK}"),
        format!("link set {UPLINK} up"),
        format!("route add default via {HOST_END}"),
    ];
    let inside: Vec<String> = inside.into_iter().chain(also).collect();
    let linked = on_host.and_then(|()| ip(&inside)).and_then(|()| forward());
    rules.are_given().and(linked)
}

/// What has a namespace refuse what only other namespaces have. The host drops it all the same; this way
/// it is known at once, and does not leave the namespace.
pub fn refuse_other_namespaces() -> [String; 3] {
    [TENANTS, VM, UPLINKS].map(|network| format!("route add unreachable {network}"))
}

/// Takes the way out from the calling thread's namespace, and from the host what no uplink uses any more.
pub fn disconnect(host: &Namespace) -> Result<(), NetworkError> {
    // Both ends go at once.
    let removed = ip(&[format!("link del {UPLINK}")]);
    host.inside(sweep, step("enter the host's namespace"))?;
    removed
}

/// Removes what the uplinks of VMs that were killed shared on the host, when there is none any more.
pub fn sweep() -> Result<(), NetworkError> {
    let _lock = shared_lock()?;
    if interfaces()?.iter().any(|name| name.starts_with(HOST_LINK)) {
        return Ok(());
    }
    // Made first, so that deleting it cannot fail for its absence.
    Rules::give("add table ip mvm\ndelete table ip mvm")?.are_given()
}

fn shared_lock() -> Result<Flock<File>, NetworkError> {
    let file = File::create(SHARED_LOCK).map_err(step(SHARED_LOCK))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| step(SHARED_LOCK)(errno.into()))
}

fn host_link(vm: &str) -> String {
    format!("{HOST_LINK}{}", vm.trim_start_matches("v-"))
}

/// The uplink's address: 22 bits of the VM's id below 100.64.0.0/10, clear of [`HOST_END`].
fn uplink_address(vm: &str) -> Ipv4Addr {
    let id = u32::from_str_radix(vm.trim_start_matches("v-"), 16).unwrap_or(1);
    let host = (id % 0x3f_0000).max(1);
    Ipv4Addr::from(u32::from(Ipv4Addr::new(100, 64, 0, 0)) | host)
}

/// Lets the host pass on what comes from uplinks, but not to another one, nor to itself, nor to addresses
/// that only namespaces have: the host's routes would lead them to strangers.
fn share_the_host() -> Result<Rules, NetworkError> {
    forward()?;
    Rules::give(&format!(
        "add table ip mvm
         add chain ip mvm out {{ type nat hook postrouting priority srcnat; }}
         add chain ip mvm between {{ type filter hook forward priority filter; }}
         add chain ip mvm host {{ type filter hook input priority filter; }}
         flush table ip mvm
         add rule ip mvm out ip saddr {UPLINKS} ip daddr != {UPLINKS} masquerade
         add rule ip mvm between iifname {HOST_LINK}* oifname {HOST_LINK}* drop
         add rule ip mvm between iifname {HOST_LINK}* ip daddr {{ {TENANTS}, {VM}, {UPLINKS} }} drop
         add rule ip mvm host iifname {HOST_LINK}* ct state != {{ established, related }} drop"
    ))
}

fn forward() -> Result<(), NetworkError> {
    const SWITCH: &str = "/proc/sys/net/ipv4/ip_forward";
    let on = std::fs::read(SWITCH).is_ok_and(|value| value.starts_with(b"1"));
    if on { Ok(()) } else { std::fs::write(SWITCH, "1").map_err(step(SWITCH)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uplink_addresses_stay_in_shared_space_and_clear_of_the_hosts_end() {
        for id in ["v-00000000", "v-ffffffff", "v-003efffe", "v-12345678"] {
            let address = uplink_address(id);
            assert_eq!((address.octets()[0], address.octets()[1] & 0xc0), (100, 64), "{id}");
            assert_ne!(address.to_string(), HOST_END);
        }
    }

    #[test]
    fn an_uplinks_name_fits_the_kernels_fifteen_bytes() {
        assert_eq!(host_link("v-0123abcd"), "mvm-0123abcd");
    }
}
