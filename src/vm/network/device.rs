//! A TAP device of a VM.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use crate::vm::hypervisor::Tap;
use crate::vm::spec::HypervisorKind;

/// A TAP device in the calling thread's namespace.
#[derive(Debug)]
pub struct Device {
    name: String,
    /// Unless the hypervisor opens it itself.
    open: Option<OwnedFd>,
}

impl Device {
    /// Makes it. It ends with the VM's process for QEMU, and with the namespace for Firecracker.
    pub fn make(name: &str, hypervisor: HypervisorKind) -> io::Result<Self> {
        let tap = open(name)?;
        let open = match hypervisor {
            HypervisorKind::Qemu => Some(tap),
            // Nobody else may have it open.
            HypervisorKind::Firecracker => {
                keep(&tap)?;
                None
            }
        };
        Ok(Self { name: name.into(), open })
    }

    /// For the hypervisor.
    pub fn for_hypervisor(&self) -> Tap<'_> {
        self.open.as_ref().map_or(Tap::Named(&self.name), |tap| Tap::Open(tap.as_fd()))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

fn open(name: &str) -> io::Result<OwnedFd> {
    nix::ioctl_write_int!(set_interface, b'T', 202);
    let device = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    // `struct ifreq`: the name, then the flags IFF_TAP | IFF_NO_PI, then padding.
    let mut request = [0_u8; 40];
    // With a NUL behind it.
    request[..15].get_mut(..name.len()).ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(name.as_bytes());
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
