//! The programs that run a microVM, behind one contract.

pub mod firecracker;
pub mod qemu;

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use async_trait::async_trait;
use tokio::net::UnixStream;
use tokio::process::Child;

use super::spec::{HypervisorKind, VmSpec};

/// In a snapshot's directory: the state of devices and CPUs, and of the memory where
/// [`MEMORY_FILE`] is not there.
pub const STATE_FILE: &str = "state";
/// In a snapshot's directory: the guest's memory, to be mapped privately by any number of VMs.
pub const MEMORY_FILE: &str = "memory";
/// In a VM's directory: what the hypervisor says of itself.
pub const MESSAGES_FILE: &str = "hypervisor.log";

/// A machine that is running, or paused.
///
/// It dies with the calling thread's process, and its standard output is the guest's console.
#[async_trait]
pub trait Hypervisor: Send + std::fmt::Debug {
    /// Its process.
    fn child(&mut self) -> &mut Child;

    /// A connection to the guest agent, to be asked for again after [`Hypervisor::save`]; waits until
    /// the guest takes it. The caller sets the deadline. One at a time is of use.
    async fn control(&mut self) -> Result<UnixStream, HypervisorError>;

    /// Loads what [`Hypervisor::save`] wrote into `dir`, once, after a start with [`Launch::Restore`] of the
    /// same directory. The machine is paused then. One that cannot be loaded is of no use any more.
    async fn load(&mut self, dir: &Path) -> Result<(), HypervisorError>;

    /// Halts the CPUs.
    async fn pause(&mut self) -> Result<(), HypervisorError>;

    /// Has the CPUs go on after [`Hypervisor::pause`] or [`Hypervisor::load`].
    async fn resume(&mut self) -> Result<(), HypervisorError>;

    /// Writes the paused machine's memory and devices into `dir`, which holds nothing of the kind.
    /// Disks are the caller's to copy. On disk it is only once the caller has synced it.
    async fn save(&mut self, dir: &Path) -> Result<(), HypervisorError>;

    /// Presses the power button: a guest that listens to it shuts down.
    async fn power_button(&mut self) -> Result<(), HypervisorError>;

    /// Where, on the host's loopback, a port of the guest answers in user-mode networking.
    async fn forward(&mut self, guest_port: u16) -> Result<SocketAddr, HypervisorError>;
}

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

/// A TAP device, as the hypervisor takes it.
#[derive(Debug, Clone, Copy)]
pub enum Tap<'a> {
    /// Open: QEMU's way.
    Open(BorrowedFd<'a>),
    /// By its name in the calling thread's network namespace, and open nowhere: Firecracker's way.
    Named(&'a str),
}

/// Everything a machine is made from.
#[derive(Debug)]
pub struct Machine<'a> {
    /// The hypervisor's program.
    pub program: &'a Path,
    /// The VM's directory, for what the hypervisor needs to put somewhere.
    pub dir: &'a Path,
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
    /// The TAP device; without one user-mode networking, where the hypervisor has it.
    pub tap: Option<Tap<'a>>,
    /// Kept open by the hypervisor as long as it lives.
    pub lock: BorrowedFd<'a>,
}

/// How a machine begins.
#[derive(Debug, Clone, Copy)]
pub enum Launch<'a> {
    /// Switched on.
    Cold,
    /// To be loaded with what was saved in this directory. Everything a machine is made from must be as
    /// it was then, but for paths and the kernel's command line, which was read long ago.
    Restore(&'a Path),
}

/// Why a hypervisor does not do as told.
#[derive(Debug, thiserror::Error)]
pub enum HypervisorError {
    /// The process could not be made.
    #[error("cannot start `{program}`: {source}\nhelp: run `mvm doctor`")]
    Spawn {
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It ended, or did not speak.
    #[error("{name} did not start: {reason}\nhelp: run `mvm doctor`")]
    Start {
        /// The hypervisor.
        name: &'static str,
        /// The end of what it wrote, or what went wrong.
        reason: String,
    },
    /// What was saved cannot be loaded.
    #[error(
        "{name} does not take the snapshot: {reason}\nhelp: `mvm run` boots a new VM; the snapshot is kept"
    )]
    Load {
        /// The hypervisor.
        name: &'static str,
        /// The end of what it wrote, or what went wrong.
        reason: String,
    },
    /// It said no.
    #[error("{name} refused `{what}`: {reason}\nhelp: `mvm logs` shows the guest's console")]
    Refused {
        /// The hypervisor.
        name: &'static str,
        /// What it was told.
        what: String,
        /// Its words.
        reason: String,
    },
    /// It does not answer.
    #[error("{name} did not answer `{what}` in time\nhelp: is the machine overloaded, or out of memory?")]
    Silent {
        /// The hypervisor.
        name: &'static str,
        /// What it was told.
        what: String,
    },
    /// The connection to it broke, mostly because it ended.
    #[error("{name} cannot be reached: {source}\nhelp: `mvm logs` shows the guest's console")]
    Lost {
        /// The hypervisor.
        name: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A file of a snapshot.
    #[error("cannot write the snapshot's `{path}`: {source}\nhelp: is the disk full? `mvm gc` frees space")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// How a hypervisor ended, in words.
pub fn how_it_ended(kind: HypervisorKind, status: ExitStatus) -> String {
    match kind {
        HypervisorKind::Qemu => status.to_string(),
        HypervisorKind::Firecracker => firecracker::exit::words(status),
    }
}

/// Refuses a guest with more memory than this machine: the kernel would promise any amount, and end
/// the VM once it is used.
fn memory_fits(mib: u32) -> io::Result<()> {
    let total = nix::sys::sysinfo::sysinfo()?.ram_total() / (1024 * 1024);
    if u64::from(mib) > total {
        return Err(io::Error::other(format!("{mib} MiB of memory are more than this machine's {total}")));
    }
    Ok(())
}

/// Refuses a saved memory that is not all there: a hypervisor may take what is missing for zeros.
fn memory_is_whole(file: &Path, mib: u32) -> Result<(), String> {
    let expected = u64::from(mib) * 1024 * 1024;
    match std::fs::metadata(file).map(|meta| meta.len()) {
        Ok(length) if length == expected => Ok(()),
        Ok(length) => Err(format!("its memory has {length} bytes of {expected}")),
        Err(error) => Err(format!("`{}`: {error}", file.display())),
    }
}

/// The end of what a hypervisor wrote to its log.
pub fn last_words(messages: &Path) -> Option<String> {
    let text = String::from_utf8_lossy(&std::fs::read(messages).ok()?).into_owned();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(5)..];
    (!last.is_empty()).then(|| last.join("\n"))
}
