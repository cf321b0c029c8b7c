//! QEMU's `microvm` machine (`virt` on aarch64, unverified).

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::Signal;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::qmp::{Qmp, QmpError};
use crate::guest::frames::SERIAL_PORT;
use crate::vm::spec::VmSpec;

/// Name of the program for this machine's architecture.
pub const PROGRAM: &str =
    if cfg!(target_arch = "aarch64") { "qemu-system-aarch64" } else { "qemu-system-x86_64" };

/// User-mode networking. QEMU refuses a DHCP range that begins at one of its own addresses; the
/// guest has [`USER_GUEST`] without asking.
const USER_NET: &str = "172.16.0.0/24,host=172.16.0.1,dns=172.16.0.3,dhcpstart=172.16.0.15";

/// The guest's address in every network mode.
pub const USER_GUEST: &str = "172.16.0.2";

/// A disk given to the machine.
#[derive(Debug, Clone)]
pub struct Disk {
    /// Raw image.
    pub path: PathBuf,
    /// Whether the guest may not write it.
    pub read_only: bool,
}

/// A directory shared by a virtio-fs daemon.
#[derive(Debug, Clone)]
pub struct Share {
    /// The daemon's socket.
    pub socket: PathBuf,
    /// Tag the guest mounts.
    pub tag: String,
}

/// Everything the command line is made from besides the specification.
#[derive(Debug)]
pub struct Machine<'a> {
    /// Where QEMU is.
    pub program: &'a Path,
    /// The specification.
    pub spec: &'a VmSpec,
    /// Kernel.
    pub kernel: &'a Path,
    /// Initial RAM disk.
    pub initrd: Option<&'a Path>,
    /// Whole kernel command line.
    pub command_line: &'a str,
    /// Disks, in order.
    pub disks: &'a [Disk],
    /// Shared directories.
    pub shares: &'a [Share],
    /// MAC address.
    pub mac: &'a str,
    /// The TAP device; user-mode networking without one.
    pub tap: Option<BorrowedFd<'a>>,
    /// Kept open by QEMU as long as it lives.
    pub lock: BorrowedFd<'a>,
}

/// A running QEMU.
#[derive(Debug)]
pub struct Qemu {
    /// The process; its standard output is the guest's console.
    pub child: Child,
    /// Its monitor.
    pub qmp: Qmp,
    /// The host's end of the control channel.
    pub control: UnixStream,
}

/// Why QEMU did not start.
#[derive(Debug, thiserror::Error)]
pub enum QemuError {
    /// The process could not be made.
    #[error("cannot start `{program}`: {source}\nhelp: run `mvm doctor`")]
    Spawn {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It ended, or did not speak.
    #[error(
        "QEMU did not start: {reason}\nhelp: run `mvm doctor`; the whole command line is in the VM's `qemu.args`"
    )]
    Start {
        /// The end of what it wrote, or what went wrong.
        reason: String,
    },
}

impl Machine<'_> {
    /// Arguments for QEMU; `qmp` and `control` are descriptors it inherits.
    pub fn arguments(&self, qmp: RawFd, control: RawFd) -> Vec<OsString> {
        let spec = self.spec;
        let aarch64 = cfg!(target_arch = "aarch64");
        let shared = if self.shares.is_empty() { "" } else { ",memory-backend=mem" };
        let machine = match aarch64 {
            true => format!("virt{shared}"),
            false => format!("microvm,acpi=on,rtc=on,isa-serial=on,pic=on,pit=on{shared}"),
        };
        // Under emulation `max` is ten times slower than the plain model.
        let (accelerator, cpu) = match (spec.kvm, aarch64) {
            (true, _) => ("kvm", "host"),
            (false, true) => ("tcg,thread=multi", "cortex-a57"),
            (false, false) => ("tcg,thread=multi", "qemu64"),
        };
        let mut args = Arguments::default();
        args.add("-M", machine).add("-accel", accelerator).add("-cpu", cpu);
        args.add("-m", format!("{}M", spec.memory_mib)).add("-smp", spec.cpus.to_string());
        args.flag("-nodefaults").flag("-no-user-config").add("-display", "none").flag("-no-reboot");
        // It has all its descriptors: it needs neither programs nor other users' rights.
        args.add("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
        args.add("-kernel", self.kernel);
        if let Some(initrd) = self.initrd {
            args.add("-initrd", initrd);
        }
        args.add("-append", self.command_line).add("-serial", "stdio");
        for (index, disk) in self.disks.iter().enumerate() {
            let read_only = if disk.read_only { "on" } else { "off" };
            let mut drive = OsString::from(format!(
                "id=d{index},format=raw,if=none,read-only={read_only},cache=unsafe,file="
            ));
            drive.push(escape(&disk.path));
            args.add("-drive", drive);
            args.add("-device", format!("virtio-blk-device,drive=d{index}"));
        }
        if !self.shares.is_empty() {
            args.add("-object", format!("memory-backend-memfd,id=mem,size={}M,share=on", spec.memory_mib));
            args.add("-global", "virtio-mmio.force-legacy=false");
        }
        for (index, share) in self.shares.iter().enumerate() {
            let mut chardev = OsString::from(format!("socket,id=s{index},path="));
            chardev.push(escape(&share.socket));
            args.add("-chardev", chardev);
            args.add("-device", format!("vhost-user-fs-device,chardev=s{index},tag={}", share.tag));
        }
        let netdev = match self.tap {
            Some(tap) => format!("tap,id=n0,fd={}", tap.as_raw_fd()),
            None => {
                let restrict = if spec.egress { "off" } else { "on" };
                format!("user,id=n0,net={USER_NET},restrict={restrict}")
            }
        };
        args.add("-netdev", netdev).add("-device", format!("virtio-net-device,netdev=n0,mac={}", self.mac));
        args.add("-device", "virtio-serial-device");
        args.add("-chardev", format!("socket,id=control,fd={control}"));
        args.add("-device", format!("virtserialport,chardev=control,name={SERIAL_PORT}"));
        args.add("-chardev", format!("socket,id=qmp,fd={qmp}")).add("-mon", "chardev=qmp,mode=control");
        args.0
    }

    /// Starts QEMU, which dies with the calling thread's process. Its arguments are written to
    /// `arguments_file`, one a line, for those who want to try by hand; its messages go to `messages`.
    pub async fn start(&self, arguments_file: &Path, messages: &Path) -> Result<Qemu, QemuError> {
        let start = |error: io::Error| QemuError::Start { reason: error.to_string() };
        let (qmp, qmp_theirs) = StdUnixStream::pair().map_err(start)?;
        let (control, control_theirs) = StdUnixStream::pair().map_err(start)?;
        let arguments = self.arguments(qmp_theirs.as_raw_fd(), control_theirs.as_raw_fd());
        write_arguments(arguments_file, self.program, &arguments).map_err(start)?;
        let inherited: Vec<RawFd> =
            [qmp_theirs.as_raw_fd(), control_theirs.as_raw_fd(), self.lock.as_raw_fd()]
                .into_iter()
                .chain(self.tap.map(|tap| tap.as_raw_fd()))
                .collect();
        let mut command = Command::new(self.program);
        command.args(&arguments).process_group(0).stdin(Stdio::null()).stdout(Stdio::piped());
        command.stderr(std::fs::File::create(messages).map_err(start)?);
        // SAFETY: prctl and fcntl are async-signal-safe and touch nothing of the parent's.
        unsafe {
            command.pre_exec(move || {
                nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
                for fd in &inherited {
                    fcntl(BorrowedFd::borrow_raw(*fd), FcntlArg::F_SETFD(FdFlag::empty()))?;
                }
                Ok(())
            });
        }
        let child =
            command.spawn().map_err(|source| QemuError::Spawn { program: self.program.into(), source })?;
        drop((qmp_theirs, control_theirs));
        let qmp = Qmp::start(tokio_stream(qmp).map_err(start)?).await.map_err(|error| QemuError::Start {
            reason: last_words(messages).unwrap_or_else(|| error.to_string()),
        })?;
        Ok(Qemu { child, qmp, control: tokio_stream(control).map_err(start)? })
    }
}

impl Qemu {
    /// Has user-mode networking forward a loopback port of QEMU's choice to `guest_port`.
    pub async fn forward(qmp: &mut Qmp, guest_port: u16) -> Result<u16, QmpError> {
        if let Some(port) = Self::forwarded(qmp, guest_port).await? {
            return Ok(port);
        }
        let said = qmp.human(&format!("hostfwd_add n0 tcp:127.0.0.1:0-{USER_GUEST}:{guest_port}")).await?;
        Self::forwarded(qmp, guest_port)
            .await?
            .ok_or_else(|| QmpError::Refused { command: "hostfwd_add".into(), reason: said.trim().into() })
    }

    async fn forwarded(qmp: &mut Qmp, guest_port: u16) -> Result<Option<u16>, QmpError> {
        Ok(host_port(&qmp.human("info usernet").await?, guest_port))
    }
}

/// Finds the host port in QEMU's table: protocol, descriptor, source address and port,
/// destination address and port.
fn host_port(table: &str, guest_port: u16) -> Option<u16> {
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields.as_slice() {
            ["TCP[HOST_FORWARD]", _, _, host, _, guest, ..] if guest.parse() == Ok(guest_port) => {
                host.parse().ok()
            }
            _ => None,
        }
    })
}

/// The end of what QEMU wrote to its standard error.
pub fn last_words(messages: &Path) -> Option<String> {
    let text = String::from_utf8_lossy(&std::fs::read(messages).ok()?).into_owned();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(5)..];
    (!last.is_empty()).then(|| last.join("\n"))
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

/// In QEMU's options a comma is written twice.
fn escape(path: &Path) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let bytes = path.as_os_str().as_bytes();
    let doubled = bytes.iter().flat_map(|b| std::iter::repeat_n(*b, if *b == b',' { 2 } else { 1 }));
    OsString::from_vec(doubled.collect())
}

fn write_arguments(path: &Path, program: &Path, arguments: &[OsString]) -> io::Result<()> {
    let lines: Vec<_> = std::iter::once(program.to_string_lossy())
        .chain(arguments.iter().map(|argument| argument.to_string_lossy()))
        .collect();
    std::fs::write(path, lines.join("\n") + "\n")
}

fn tokio_stream(stream: StdUnixStream) -> io::Result<UnixStream> {
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forwarded_port_is_read_from_the_table() {
        let table = "Hub 0 (n0):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n  TCP[HOST_FORWARD]  12       127.0.0.1 40613      172.16.0.2    22     0     0\r\n";
        assert_eq!(host_port(table, 22), Some(40613));
        assert_eq!(host_port(table, 80), None);
    }

    #[test]
    fn a_comma_in_a_path_is_doubled() {
        assert_eq!(escape(Path::new("/a,b")), "/a,,b");
    }
}
