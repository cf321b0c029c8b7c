//! QEMU's `microvm` machine (`virt` on aarch64, unverified).

mod arguments;
mod migrate;
mod qmp;
pub mod tsc;
pub mod usernet;

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use async_trait::async_trait;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::Signal;
use serde_json::json;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::{
    Hypervisor, HypervisorError, Launch, MEMORY_FILE, MESSAGES_FILE, Machine, Tap, last_words, memory_fits,
    memory_is_whole,
};
use crate::host::sparse;
use arguments::{Inherited, Memory};
use qmp::Qmp;

/// The hypervisor's name in errors.
const NAME: &str = "QEMU";
/// Begins the guest kernel's command line.
pub const COMMAND_LINE: &str = "console=ttyS0 reboot=t panic=-1 quiet";

/// Name of the program for this machine's architecture.
pub const PROGRAM: &str =
    if cfg!(target_arch = "aarch64") { "qemu-system-aarch64" } else { "qemu-system-x86_64" };

/// A running QEMU.
#[derive(Debug)]
pub struct Qemu {
    child: Child,
    qmp: Qmp,
    /// The host's end of the control channel; it outlives those who read from copies of it.
    control: StdUnixStream,
    /// The guest's memory, unless it is a private mapping of a snapshot's.
    memory: Option<File>,
    /// What it writes to its standard error.
    messages: PathBuf,
}

/// Starts QEMU. Its command line goes into the file `qemu.args` of the VM's directory.
pub async fn start(machine: &Machine<'_>, launch: Launch<'_>) -> Result<Qemu, HypervisorError> {
    let failed = |error: io::Error| HypervisorError::Start { name: NAME, reason: error.to_string() };
    let (qmp, qmp_theirs) = StdUnixStream::pair().map_err(failed)?;
    let (control, control_theirs) = StdUnixStream::pair().map_err(failed)?;
    let inherited = Inherited { qmp: qmp_theirs.as_raw_fd(), control: control_theirs.as_raw_fd() };
    let snapshot = match launch {
        Launch::Cold => None,
        Launch::Restore(dir) => Some(dir),
    };
    let saved = snapshot.map(|dir| dir.join(MEMORY_FILE)).filter(|file| file.exists());
    if let Some(file) = &saved {
        memory_is_whole(file, machine.spec.memory_mib)
            .map_err(|reason| HypervisorError::Load { name: NAME, reason })?;
    }
    // Shared, so that it can be saved by copying what is in use of it.
    let memory = match saved {
        Some(_) => None,
        None => Some(memory_file(machine.spec.memory_mib).map_err(failed)?),
    };
    let place = match (&saved, &memory) {
        (Some(file), _) => Memory::Private(file),
        (None, memory) => Memory::Shared(memory.as_ref().map_or(-1, AsRawFd::as_raw_fd)),
    };
    let arguments = arguments::arguments(machine, inherited, place, snapshot.is_some());
    arguments::write(&machine.dir.join("qemu.args"), machine.program, &arguments).map_err(failed)?;
    let messages = machine.dir.join(MESSAGES_FILE);
    let kept: Vec<RawFd> = [inherited.qmp, inherited.control, machine.lock.as_raw_fd()]
        .into_iter()
        .chain(memory.as_ref().map(AsRawFd::as_raw_fd))
        .chain(match machine.tap {
            Some(Tap::Open(tap)) => Some(tap.as_raw_fd()),
            _ => None,
        })
        .collect();
    let mut command = Command::new(machine.program);
    command.args(&arguments).process_group(0).kill_on_drop(true).stdin(Stdio::null()).stdout(Stdio::piped());
    command.stderr(File::create(&messages).map_err(failed)?);
    // SAFETY: prctl and fcntl are async-signal-safe and touch nothing of the parent's.
    unsafe {
        command.pre_exec(move || {
            nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
            for fd in &kept {
                fcntl(BorrowedFd::borrow_raw(*fd), FcntlArg::F_SETFD(FdFlag::empty()))?;
            }
            Ok(())
        });
    }
    let child = command
        .spawn()
        .map_err(|source| HypervisorError::Spawn { program: machine.program.into(), source })?;
    drop((qmp_theirs, control_theirs));
    let qmp = Qmp::start(tokio_stream(qmp).map_err(failed)?).await.map_err(|error| {
        let reason = last_words(&messages).unwrap_or_else(|| error.to_string());
        HypervisorError::Start { name: NAME, reason }
    })?;
    Ok(Qemu { child, qmp, control, memory, messages })
}

/// A file in memory for the guest's; only what the guest touches of it takes any.
fn memory_file(mib: u32) -> io::Result<File> {
    memory_fits(mib)?;
    let file = File::from(memfd_create(c"mvm-guest", MFdFlags::MFD_CLOEXEC)?);
    file.set_len(u64::from(mib) * 1024 * 1024)?;
    Ok(file)
}

#[async_trait]
impl Hypervisor for Qemu {
    fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    async fn control(&mut self) -> Result<UnixStream, HypervisorError> {
        let copy = self.control.try_clone().and_then(tokio_stream);
        copy.map_err(|source| HypervisorError::Lost { name: NAME, source })
    }

    async fn load(&mut self, dir: &Path) -> Result<(), HypervisorError> {
        let mapped = self.memory.is_none();
        migrate::load(&mut self.qmp, dir, mapped).await.map_err(|error| {
            let reason = last_words(&self.messages).unwrap_or_else(|| error.to_string());
            HypervisorError::Load { name: NAME, reason }
        })
    }

    async fn pause(&mut self) -> Result<(), HypervisorError> {
        self.qmp.execute("stop", json!({})).await.map(drop)
    }

    async fn resume(&mut self) -> Result<(), HypervisorError> {
        self.qmp.execute("cont", json!({})).await.map(drop)
    }

    async fn save(&mut self, dir: &Path) -> Result<(), HypervisorError> {
        migrate::save(&mut self.qmp, dir, self.memory.is_some()).await?;
        let Some(memory) = &self.memory else { return Ok(()) };
        let path = dir.join(MEMORY_FILE);
        let file = |source| HypervisorError::File { path: path.clone(), source };
        let (memory, to) = (memory.try_clone().map_err(file)?, path.clone());
        let copied = tokio::task::spawn_blocking(move || sparse::copy(&memory, &to)).await;
        copied.map_err(|error| file(error.into()))?.map_err(file)
    }

    async fn power_button(&mut self) -> Result<(), HypervisorError> {
        self.qmp.execute("system_powerdown", json!({})).await.map(drop)
    }

    async fn forward(&mut self, guest_port: u16) -> Result<SocketAddr, HypervisorError> {
        usernet::forward(&mut self.qmp, guest_port).await
    }
}

fn tokio_stream(stream: StdUnixStream) -> io::Result<UnixStream> {
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}
