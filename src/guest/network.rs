//! The guest's network, by ioctl: running `ip` would cost an emulated guest tens of milliseconds.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::libc::{self, c_short, ifreq, in_addr, rtentry, sockaddr, sockaddr_in};
use nix::net::if_::if_nameindex;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::frames::Network;
use super::system::{invalid, wait_for};

/// The kernel's name for the only Ethernet device.
const USUAL: &str = "eth0";
/// Time the network device has to appear.
const DEVICE_DEADLINE: Duration = Duration::from_secs(5);

/// Brings up loopback and, where there is a network, the first Ethernet device with it.
pub fn configure(network: Option<&Network>) -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let control = Control { socket };
    control.set_up("lo", true)?;
    let Some(network) = network else {
        return Ok(());
    };
    let (address, prefix) = parse_address(&network.address)?;
    let device = wait_for("network device", DEVICE_DEADLINE, || control.first_ethernet())?;
    if let Some(mac) = &network.mac {
        // A device that is up refuses another MAC.
        control.set_up(&device, false)?;
        control.set_mac(&device, parse_mac(mac)?)?;
    }
    control.set_address(&device, libc::SIOCSIFADDR as libc::c_ulong, address)?;
    control.set_address(&device, libc::SIOCSIFNETMASK as libc::c_ulong, netmask(prefix))?;
    control.set_up(&device, true)?;
    match &network.gateway {
        Some(gateway) => control.default_route(parse_ip(gateway)?),
        None => Ok(()),
    }
}

struct Control {
    socket: OwnedFd,
}

impl Control {
    fn call<T>(&self, request: libc::c_ulong, argument: &mut T) -> io::Result<()> {
        // SAFETY: each caller passes the structure its request reads or writes.
        match unsafe { libc::ioctl(self.socket.as_raw_fd(), request as _, argument as *mut T) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    /// The first device that is Ethernet; one with hardware behind it before any other.
    fn first_ethernet(&self) -> Option<String> {
        // To list all of them takes an emulated guest milliseconds.
        if self.is_ethernet(USUAL) {
            return Some(USUAL.into());
        }
        let names = if_nameindex().ok()?;
        let mut found: Vec<String> = names
            .iter()
            .filter_map(|interface| interface.name().to_str().ok().map(String::from))
            .filter(|name| self.is_ethernet(name))
            .collect();
        found.sort_by_key(|name| !Path::new("/sys/class/net").join(name).join("device").exists());
        found.into_iter().next()
    }

    fn is_ethernet(&self, device: &str) -> bool {
        let Ok(mut request) = ifreq_for(device) else { return false };
        let known = self.call(libc::SIOCGIFHWADDR as libc::c_ulong, &mut request).is_ok();
        // SAFETY: on success the kernel filled in the hardware address.
        known && unsafe { request.ifr_ifru.ifru_hwaddr.sa_family } == libc::ARPHRD_ETHER
    }

    fn set_up(&self, device: &str, up: bool) -> io::Result<()> {
        let mut request = ifreq_for(device)?;
        self.call(libc::SIOCGIFFLAGS as libc::c_ulong, &mut request)?;
        // SAFETY: on success the kernel filled in the flags.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        let bit = libc::IFF_UP as c_short;
        if (flags & bit != 0) == up {
            return Ok(());
        }
        request.ifr_ifru.ifru_flags = if up { flags | bit } else { flags & !bit };
        self.call(libc::SIOCSIFFLAGS as libc::c_ulong, &mut request)
    }

    fn set_mac(&self, device: &str, mac: [u8; 6]) -> io::Result<()> {
        let mut request = ifreq_for(device)?;
        let mut address = sockaddr { sa_family: libc::ARPHRD_ETHER, sa_data: [0; 14] };
        for (slot, byte) in address.sa_data.iter_mut().zip(mac) {
            *slot = byte as libc::c_char;
        }
        request.ifr_ifru.ifru_hwaddr = address;
        self.call(libc::SIOCSIFHWADDR as libc::c_ulong, &mut request)
    }

    fn set_address(&self, device: &str, what: libc::c_ulong, address: Ipv4Addr) -> io::Result<()> {
        let mut request = ifreq_for(device)?;
        request.ifr_ifru.ifru_addr = socket_address(address);
        self.call(what, &mut request)
    }

    fn default_route(&self, gateway: Ipv4Addr) -> io::Result<()> {
        // SAFETY: rtentry is plain data for which zero is valid.
        let mut route: rtentry = unsafe { std::mem::zeroed() };
        route.rt_dst = socket_address(Ipv4Addr::UNSPECIFIED);
        route.rt_genmask = socket_address(Ipv4Addr::UNSPECIFIED);
        route.rt_gateway = socket_address(gateway);
        route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
        match self.call(libc::SIOCADDRT as libc::c_ulong, &mut route) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
            other => other,
        }
    }
}

fn ifreq_for(device: &str) -> io::Result<ifreq> {
    // SAFETY: ifreq is plain data for which zero is valid.
    let mut request: ifreq = unsafe { std::mem::zeroed() };
    if device.len() >= request.ifr_name.len() {
        return Err(invalid(format!("device name {device:?} is too long")));
    }
    for (slot, byte) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *slot = byte as libc::c_char;
    }
    Ok(request)
}

fn socket_address(address: Ipv4Addr) -> sockaddr {
    let address = sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: in_addr { s_addr: u32::from(address).to_be() },
        sin_zero: [0; 8],
    };
    // SAFETY: both are 16 bytes of plain data.
    unsafe { std::mem::transmute(address) }
}

fn parse_address(text: &str) -> io::Result<(Ipv4Addr, u32)> {
    let (address, prefix) =
        text.split_once('/').ok_or_else(|| invalid(format!("address {text:?} has no /prefix")))?;
    match prefix.parse() {
        Ok(prefix) if prefix <= 32 => Ok((parse_ip(address)?, prefix)),
        _ => Err(invalid(format!("prefix of {text:?} is not 0 to 32"))),
    }
}

fn parse_ip(text: &str) -> io::Result<Ipv4Addr> {
    text.parse().map_err(|_| invalid(format!("{text:?} is no IPv4 address")))
}

fn parse_mac(text: &str) -> io::Result<[u8; 6]> {
    let byte = |part: &str| if part.len() == 2 { u8::from_str_radix(part, 16).ok() } else { None };
    let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| invalid(format!("{text:?} is no MAC address")))
}

fn netmask(prefix: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::MAX.checked_shl(32 - prefix).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sched::{CloneFlags, unshare};
    use std::fs::{File, OpenOptions};

    #[test]
    fn addresses_are_parsed_strictly() {
        assert_eq!(parse_address("172.16.0.2/24").unwrap(), ("172.16.0.2".parse().unwrap(), 24));
        assert_eq!(netmask(24), Ipv4Addr::new(255, 255, 255, 0));
        assert_eq!(netmask(0), Ipv4Addr::UNSPECIFIED);
        assert!(parse_address("172.16.0.2").is_err());
        assert!(parse_address("172.16.0.2/33").is_err());
        assert_eq!(parse_mac("02:00:00:00:00:fF").unwrap(), [2, 0, 0, 0, 0, 255]);
        assert!(parse_mac("02:00:00:00:00").is_err());
        assert!(parse_mac("+2:00:00:00:00:00:00").is_err());
    }

    /// A TAP device in the calling thread's namespace, gone when the file closes.
    fn tap(name: &str) -> io::Result<File> {
        let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
        let mut request = ifreq_for(name)?;
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as c_short;
        // SAFETY: TUNSETIFF reads and writes one ifreq.
        match unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &mut request) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(file),
        }
    }

    #[test]
    fn a_device_gets_mac_address_and_default_route() {
        // A thread of its own, as the namespace is the thread's for good.
        let thread = std::thread::spawn(|| {
            let made = unshare(CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
            let _tap = match made.and_then(|()| tap("eth0")) {
                Ok(tap) => tap,
                Err(error) => {
                    eprintln!("SKIPPED: no network namespace of our own: {error}");
                    return;
                }
            };
            let network = Network {
                address: "172.16.0.2/24".into(),
                gateway: Some("172.16.0.1".into()),
                mac: Some("02:00:00:00:12:34".into()),
                dns: vec![],
            };
            configure(Some(&network)).unwrap();
            // Restored guests are personalised on top of what the sealed one may have had.
            configure(Some(&network)).unwrap();
            let routes = std::fs::read_to_string("/proc/thread-self/net/route").unwrap();
            assert!(routes.contains("eth0\t00000000\t010010AC"), "{routes}");
            assert!(routes.contains("eth0\t000010AC\t00000000"), "{routes}");
            let local = std::fs::read_to_string("/proc/thread-self/net/fib_trie").unwrap();
            assert!(local.contains("172.16.0.2") && local.contains("127.0.0.1"), "{local}");
            let addresses = nix::ifaddrs::getifaddrs().unwrap();
            let mac = addresses
                .filter(|one| one.interface_name == "eth0")
                .find_map(|one| one.address?.as_link_addr()?.addr());
            assert_eq!(mac, Some([2, 0, 0, 0, 0x12, 0x34]));
        });
        thread.join().unwrap();
    }
}
