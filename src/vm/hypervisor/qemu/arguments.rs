//! QEMU's command line.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

use super::usernet::USER_NET;
use crate::guest::frames::SERIAL_PORT;
use crate::vm::hypervisor::{Machine, Tap};

/// What QEMU inherits besides standard streams.
#[derive(Debug, Clone, Copy)]
pub struct Inherited {
    /// Its end of the monitor's connection.
    pub qmp: RawFd,
    /// Its end of the control channel.
    pub control: RawFd,
}

/// Where the guest's memory lies.
#[derive(Debug, Clone, Copy)]
pub enum Memory<'a> {
    /// In this file in memory, which QEMU inherits.
    Shared(RawFd),
    /// In a snapshot's file, copied page by page as the guest writes.
    Private(&'a Path),
}

/// Arguments for QEMU to run `machine`, or to have it loaded when `incoming`.
pub fn arguments(
    machine: &Machine<'_>,
    inherited: Inherited,
    memory: Memory<'_>,
    incoming: bool,
) -> Vec<OsString> {
    let spec = machine.spec;
    let aarch64 = cfg!(target_arch = "aarch64");
    let model = match aarch64 {
        true => "virt,memory-backend=mem",
        false => "microvm,acpi=on,rtc=on,isa-serial=on,pic=on,pit=on,memory-backend=mem",
    };
    // Under emulation `max` is ten times slower than the plain model.
    let (accelerator, cpu) = match (spec.kvm, aarch64) {
        (true, _) => ("kvm", "host"),
        (false, true) => ("tcg,thread=multi", "cortex-a57"),
        (false, false) => ("tcg,thread=multi", "qemu64"),
    };
    let mut args = Arguments::default();
    args.add("-M", model).add("-accel", accelerator).add("-cpu", cpu);
    args.add("-m", format!("{}M", spec.memory_mib)).add("-smp", spec.cpus.to_string());
    args.add("-object", backend(memory, spec.memory_mib));
    args.flag("-nodefaults").flag("-no-user-config").add("-display", "none").flag("-no-reboot");
    // It has all its descriptors: it needs neither programs nor other users' rights.
    args.add("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    args.add("-kernel", machine.kernel);
    if let Some(initrd) = machine.initrd {
        args.add("-initrd", initrd);
    }
    args.add("-append", machine.command_line).add("-serial", "stdio");
    for (index, disk) in machine.disks.iter().enumerate() {
        let read_only = if disk.read_only { "on" } else { "off" };
        let drive = format!("id=d{index},format=raw,if=none,read-only={read_only},cache=unsafe,file=");
        args.add("-drive", with_path(drive, &disk.path));
        args.add("-device", format!("virtio-blk-device,drive=d{index}"));
    }
    if !machine.shares.is_empty() {
        args.add("-global", "virtio-mmio.force-legacy=false");
    }
    for (index, share) in machine.shares.iter().enumerate() {
        args.add("-chardev", with_path(format!("socket,id=s{index},path="), &share.socket));
        args.add("-device", format!("vhost-user-fs-device,chardev=s{index},tag={}", share.tag));
    }
    let netdev = match machine.tap {
        Some(Tap::Open(tap)) => format!("tap,id=n0,fd={}", tap.as_raw_fd()),
        Some(Tap::Named(name)) => format!("tap,id=n0,ifname={name},script=no,downscript=no"),
        None => {
            let restrict = if spec.egress { "off" } else { "on" };
            format!("user,id=n0,net={USER_NET},restrict={restrict}")
        }
    };
    args.add("-netdev", netdev).add("-device", format!("virtio-net-device,netdev=n0,mac={}", machine.mac));
    args.add("-device", "virtio-serial-device");
    args.add("-chardev", format!("socket,id=control,fd={}", inherited.control));
    args.add("-device", format!("virtserialport,chardev=control,name={SERIAL_PORT}"));
    args.add("-chardev", format!("socket,id=qmp,fd={}", inherited.qmp))
        .add("-mon", "chardev=qmp,mode=control");
    if incoming {
        args.add("-incoming", "defer");
    }
    args.0
}

fn backend(memory: Memory<'_>, mib: u32) -> OsString {
    let begin = format!("memory-backend-file,id=mem,size={mib}M,");
    match memory {
        Memory::Shared(descriptor) => format!("{begin}share=on,mem-path=/proc/self/fd/{descriptor}").into(),
        Memory::Private(file) => with_path(begin + "share=off,mem-path=", file),
    }
}

/// Writes the program and its arguments into `path`, one a line, for those who want to try by hand.
pub fn write(path: &Path, program: &Path, arguments: &[OsString]) -> io::Result<()> {
    let lines: Vec<_> = std::iter::once(program.to_string_lossy())
        .chain(arguments.iter().map(|argument| argument.to_string_lossy()))
        .collect();
    std::fs::write(path, lines.join("\n") + "\n")
}

#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn flag(&mut self, flag: &str) -> &mut Self {
        self.0.push(flag.into());
        self
    }

    fn add(&mut self, flag: &str, value: impl Into<OsString>) -> &mut Self {
        self.0.extend([flag.into(), value.into()]);
        self
    }
}

/// An option that ends with a path. In QEMU's options a comma is written twice.
fn with_path(option: String, path: &Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let bytes = path.as_os_str().as_bytes();
    let doubled = bytes.iter().flat_map(|b| std::iter::repeat_n(*b, if *b == b',' { 2 } else { 1 }));
    let mut option = OsString::from(option);
    option.push(OsString::from_vec(doubled.collect()));
    option
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_in_a_path_is_doubled() {
        assert_eq!(with_path("file=".into(), Path::new("/a,b")), "file=/a,,b");
    }
}
