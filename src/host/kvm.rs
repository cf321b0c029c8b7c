//! Whether hardware virtualisation is there to be used.

use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Whether KVM can be used, or why not.
///
/// Opening `/dev/kvm` proves nothing: some machines emulate it in software, a hundred times
/// slower. The CPU must have the extension too.
pub fn usable() -> Result<(), String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if !has_extension(&info) {
        return Err("the CPU offers no hardware virtualisation (no vmx or svm in /proc/cpuinfo)".into());
    }
    let device = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    let device = device.map_err(|error| format!("/dev/kvm cannot be opened: {error}"))?;
    // SAFETY: KVM_CREATE_VM takes a machine type, 0 by default, and returns a descriptor.
    let vm = unsafe { create_vm(device.as_raw_fd(), 0) };
    let vm = vm.map_err(|error| format!("/dev/kvm does not make a VM: {error}"))?;
    // SAFETY: the descriptor is new and owned here alone.
    drop(unsafe { OwnedFd::from_raw_fd(vm) });
    Ok(())
}

nix::ioctl_write_int_bad!(
    /// `KVM_CREATE_VM` of `linux/kvm.h`.
    create_vm,
    nix::request_code_none!(0xae, 0x01)
);

fn has_extension(cpuinfo: &str) -> bool {
    // On aarch64 no flag tells: there the device alone decides.
    cfg!(target_arch = "aarch64")
        || cpuinfo
            .lines()
            .filter(|line| line.starts_with("flags"))
            .any(|line| line.split_ascii_whitespace().any(|flag| flag == "vmx" || flag == "svm"))
}

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_flag_counts() {
        assert!(has_extension("processor\t: 0\nflags\t\t: fpu vmx sse\n"));
        assert!(has_extension("flags\t\t: fpu svm"));
        assert!(!has_extension("flags\t\t: fpu svm_lock vmxoff\nvmx flags\t: vnmi"));
    }
}
