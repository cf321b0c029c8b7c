//! Directories shared with a guest by virtio-fs: one daemon each.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use tokio::process::{Child, Command};

use super::hypervisor::Share;
use super::spec::{HypervisorKind, VmSpec, VolumeSpec};
use crate::host::child::find_program;
use crate::host::files;

/// A daemon that shares one directory. It ends with the VM and with this process.
#[derive(Debug)]
pub struct ShareDaemon {
    share: Share,
    _child: Child,
}

/// The daemon for a volume; none where an ext4 image has to serve: the user asked for a size, the
/// volume is a file, the user is not root, or there is no daemon.
pub fn program_for(volume: &VolumeSpec) -> Option<PathBuf> {
    // The daemon takes options separated by commas.
    let fits =
        volume.size_mib.is_none() && volume.host.is_dir() && !volume.host.to_string_lossy().contains(',');
    if !fits || !nix::unistd::geteuid().is_root() {
        return None;
    }
    program()
}

/// Whether any directory is shared with the VM.
pub fn is_used(spec: &VmSpec) -> bool {
    spec.hypervisor == HypervisorKind::Qemu && spec.volumes.iter().any(|volume| program_for(volume).is_some())
}

/// Where the daemon is installed; distributions keep it off PATH.
pub fn program() -> Option<PathBuf> {
    let places = ["/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd", "/usr/lib/virtiofsd"];
    find_program("virtiofsd").or_else(|| places.into_iter().map(PathBuf::from).find(|place| place.is_file()))
}

impl ShareDaemon {
    /// Starts a daemon that shares a volume's directory and listens on `socket`.
    pub fn start(program: &Path, volume: &VolumeSpec, socket: PathBuf, index: usize) -> io::Result<Self> {
        let directory = &volume.host;
        files::remove_file_if_there(&socket)?;
        let listener = UnixListener::bind(&socket)?;
        let descriptor = listener.as_raw_fd();
        let mut source = std::ffi::OsString::from("source=");
        source.push(directory);
        let mut command = Command::new(program);
        command.arg(format!("--fd={descriptor}")).arg("-o").arg(source).args(["-o", "sandbox=chroot"]);
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        let frozen = volume.read_only.then(|| CString::new(directory.as_os_str().as_bytes())).transpose()?;
        // SAFETY: prctl, fcntl, unshare and mount are async-signal-safe; the descriptor is open until after
        // the spawn.
        unsafe {
            command.pre_exec(move || {
                nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
                if let Some(directory) = &frozen {
                    freeze(directory)?;
                }
                fcntl(BorrowedFd::borrow_raw(descriptor), FcntlArg::F_SETFD(FdFlag::empty()))?;
                Ok(())
            });
        }
        let child = command.spawn()?;
        Ok(Self { share: Share { socket, tag: format!("mvm{index}") }, _child: child })
    }

    /// What the hypervisor and the guest are told.
    pub fn share(&self) -> Share {
        self.share.clone()
    }
}

/// Has this process see a directory read-only, with all that is mounted in it: a guest is not to be trusted
/// to mount it so.
fn freeze(directory: &CStr) -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none = None::<&CStr>;
    mount(none, c"/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    mount(Some(directory), directory, none, MsFlags::MS_BIND, none)?;
    let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(none, directory, none, read_only, none)
}

impl Drop for ShareDaemon {
    fn drop(&mut self) {
        // Absent when it was never connected to.
        let _ = std::fs::remove_file(&self.share.socket);
    }
}
