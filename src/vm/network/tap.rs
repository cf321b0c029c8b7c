//! A TAP device in a network namespace of the VM's own.
//!
//! The namespace has no name: the shim makes it, lives in it, and starts the hypervisor in it. When
//! both are gone, however they went, the kernel removes the namespace with its TAP and veth.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use nix::fcntl::{Flock, FlockArg};
use nix::sched::{CloneFlags, setns, unshare};

use super::GATEWAY;
use crate::host::child::find_program;
use crate::vm::hypervisor::Tap;
use crate::vm::spec::HypervisorKind;

/// Name of the guest's TAP inside the namespace.
pub const TAP: &str = "tap0";
/// Name of the way out inside the namespace.
const UPLINK: &str = "up0";
/// Address of the host's end of every uplink (shared address space, RFC 6598).
const HOST_END: &str = "100.127.255.254";
/// All uplinks' addresses.
const UPLINKS: &str = "100.64.0.0/10";
/// Begins the name of every uplink's end on the host.
const HOST_LINK: &str = "mvm-";
/// Serialises changes to what all VMs share on the host.
const SHARED_LOCK: &str = "/run/mvm-network.lock";

/// Why the network could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// A program is missing.
    #[error("`{0}` is not installed\nhelp: run `mvm setup`, or use `--network user`")]
    Missing(&'static str),
    /// A step failed.
    #[error(
        "cannot make the VM's network: {step}: {reason}\nhelp: tap networking needs root; `--network user` does not"
    )]
    Step {
        /// What was tried.
        step: String,
        /// What the system said.
        reason: String,
    },
}

fn step(step: &str) -> impl Fn(io::Error) -> TapError {
    move |error| TapError::Step { step: step.into(), reason: error.to_string() }
}

/// The network of one VM. The calling thread is inside its namespace.
#[derive(Debug)]
pub struct TapNetwork {
    /// The TAP device, unless the hypervisor opens it itself.
    tap: Option<OwnedFd>,
    host: OwnedFd,
    egress: bool,
}

impl TapNetwork {
    /// Moves the calling thread into a new namespace and makes the VM's network there.
    ///
    /// Must be called before other threads are started, or they stay outside.
    pub fn enter(vm: &str, egress: bool, hypervisor: HypervisorKind) -> Result<Self, TapError> {
        let host = File::open("/proc/thread-self/ns/net").map_err(step("open the host's namespace"))?.into();
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(io::Error::from)
            .map_err(step("make a network namespace"))?;
        ip(&["link", "set", "lo", "up"])?;
        let tap = open_tap().map_err(step("make a TAP device"))?;
        ip(&["addr", "add", &format!("{GATEWAY}/24"), "dev", TAP])?;
        ip(&["link", "set", TAP, "up"])?;
        let tap = match hypervisor {
            HypervisorKind::Qemu => Some(tap),
            // Nobody else may have it open. It ends with the namespace.
            HypervisorKind::Firecracker => {
                keep(&tap).map_err(step("keep the TAP device"))?;
                None
            }
        };
        let network = Self { tap, host, egress };
        if egress {
            // Half of it would stay on the host.
            network.connect(vm).inspect_err(|_| drop(network.leave(vm)))?;
        }
        Ok(network)
    }

    /// The TAP device, for the hypervisor.
    pub fn device(&self) -> Tap<'_> {
        self.tap.as_ref().map_or(Tap::Named(TAP), |tap| Tap::Open(tap.as_fd()))
    }

    /// Runs `work` in the host's namespace.
    fn on_host<T>(&self, work: impl FnOnce() -> Result<T, TapError>) -> Result<T, TapError> {
        let enter = |namespace: &OwnedFd, name| {
            setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).map_err(io::Error::from).map_err(step(name))
        };
        let own = File::open("/proc/thread-self/ns/net").map_err(step("open the VM's namespace"))?.into();
        enter(&self.host, "enter the host's namespace")?;
        let result = work();
        enter(&own, "return to the VM's namespace")?;
        result
    }

    /// Gives the guest a way out: a veth to the host, and address translation at both ends.
    fn connect(&self, vm: &str) -> Result<(), TapError> {
        let link = host_link(vm);
        let address = uplink_address(vm).to_string();
        let process = std::process::id().to_string();
        // Only the child enters the host's namespace: this process's is where the peer goes.
        let host = self.host.as_raw_fd();
        let mut add =
            ip_command(&["link", "add", &link, "type", "veth", "peer", "name", UPLINK, "netns", &process])?;
        // SAFETY: setns is async-signal-safe, and the descriptor outlives the child's start.
        unsafe {
            add.pre_exec(move || Ok(setns(BorrowedFd::borrow_raw(host), CloneFlags::CLONE_NEWNET)?));
        }
        checked("ip link add", add.output())?;
        self.on_host(|| {
            let _lock = shared_lock()?;
            ip(&["addr", "add", HOST_END, "peer", &address, "dev", &link])?;
            ip(&["link", "set", &link, "up"])?;
            share_the_host()
        })?;
        ip(&["addr", "add", &address, "peer", HOST_END, "dev", UPLINK])?;
        ip(&["link", "set", UPLINK, "up"])?;
        ip(&["route", "add", "default", "via", HOST_END])?;
        forward()?;
        nft(&format!(
            "add table ip mvm
             add chain ip mvm out {{ type nat hook postrouting priority srcnat; }}
             add rule ip mvm out oifname {UPLINK} masquerade"
        ))
    }

    /// Removes what the namespace's end does not take with it. Called when the VM is over.
    pub fn leave(&self, vm: &str) -> Result<(), TapError> {
        if !self.egress {
            return Ok(());
        }
        self.on_host(|| {
            let _lock = shared_lock()?;
            let removed = ip(&["link", "del", &host_link(vm)]);
            remove_shared_when_unused()?;
            removed
        })
    }
}

/// Removes what VMs that were killed shared on the host, when no VM uses it any more.
pub fn sweep() -> Result<(), TapError> {
    let _lock = shared_lock()?;
    remove_shared_when_unused()
}

fn shared_lock() -> Result<Flock<File>, TapError> {
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

/// Lets the host pass on what comes from uplinks, but not from one VM to another, nor to itself.
fn share_the_host() -> Result<(), TapError> {
    forward()?;
    nft(&format!(
        "add table ip mvm
         add chain ip mvm out {{ type nat hook postrouting priority srcnat; }}
         add chain ip mvm between {{ type filter hook forward priority filter; }}
         add chain ip mvm host {{ type filter hook input priority filter; }}
         flush table ip mvm
         add rule ip mvm out ip saddr {UPLINKS} ip daddr != {UPLINKS} masquerade
         add rule ip mvm between iifname {HOST_LINK}* oifname {HOST_LINK}* drop
         add rule ip mvm host iifname {HOST_LINK}* ct state != {{ established, related }} drop"
    ))
}

fn remove_shared_when_unused() -> Result<(), TapError> {
    let links = nix::ifaddrs::getifaddrs().map_err(io::Error::from).map_err(step("list the interfaces"))?;
    if links.into_iter().any(|link| link.interface_name.starts_with(HOST_LINK)) {
        return Ok(());
    }
    // Made first, so that deleting it cannot fail for its absence.
    nft("add table ip mvm\ndelete table ip mvm")
}

fn forward() -> Result<(), TapError> {
    const SWITCH: &str = "/proc/sys/net/ipv4/ip_forward";
    let on = std::fs::read(SWITCH).is_ok_and(|value| value.starts_with(b"1"));
    if on { Ok(()) } else { std::fs::write(SWITCH, "1").map_err(step(SWITCH)) }
}

fn open_tap() -> io::Result<OwnedFd> {
    nix::ioctl_write_int!(set_interface, b'T', 202);
    let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    // `struct ifreq`: the name, then the flags IFF_TAP | IFF_NO_PI, then padding.
    let mut request = [0_u8; 40];
    request[..TAP.len()].copy_from_slice(TAP.as_bytes());
    request[16..18].copy_from_slice(&(0x0002_u16 | 0x1000).to_ne_bytes());
    // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, which `request` is large enough for.
    unsafe { set_interface(device.as_raw_fd(), request.as_mut_ptr() as u64)? };
    Ok(device.into())
}

/// Has a TAP device stay when it is closed.
fn keep(tap: &OwnedFd) -> io::Result<()> {
    nix::ioctl_write_int!(set_persistent, b'T', 203);
    // SAFETY: TUNSETPERSIST takes a number, of which only whether it is zero counts.
    unsafe { set_persistent(tap.as_raw_fd(), 1)? };
    Ok(())
}

fn ip(arguments: &[&str]) -> Result<(), TapError> {
    checked(&format!("ip {}", arguments.join(" ")), ip_command(arguments)?.output())
}

fn ip_command(arguments: &[&str]) -> Result<Command, TapError> {
    let mut command = Command::new(find_program("ip").ok_or(TapError::Missing("ip"))?);
    command.args(arguments);
    Ok(command)
}

fn nft(rules: &str) -> Result<(), TapError> {
    let program = find_program("nft").ok_or(TapError::Missing("nft"))?;
    checked("nft", Command::new(program).arg(rules).output())
}

fn checked(named: &str, output: io::Result<Output>) -> Result<(), TapError> {
    let output = output.map_err(step(named))?;
    if output.status.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&output.stderr).trim().to_string();
    Err(TapError::Step { step: named.into(), reason })
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
