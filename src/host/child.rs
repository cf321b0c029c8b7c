//! Child processes: in a group of their own, ended politely, never orphaned.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// How long a child has between SIGINT and SIGKILL.
pub const GRACE: Duration = Duration::from_secs(5);

/// How long the next piece of what an ended child has written may take to arrive.
const LONGEST_SILENCE: Duration = Duration::from_millis(100);

/// Has the kernel send the child SIGHUP should mvm die without a word. It stays in mvm's process
/// group, and so has the terminal.
pub fn leash(command: &mut Command) -> &mut Command {
    // SAFETY: what is called are system calls that touch nothing of the parent's.
    unsafe { command.pre_exec(ends_with_parent(Signal::SIGHUP)) }
}

/// Has the kernel send the process the signal when its parent, this one, is over.
fn ends_with_parent(signal: Signal) -> impl FnMut() -> io::Result<()> {
    let parent = Pid::this();
    move || {
        nix::sys::prctl::set_pdeathsig(signal)?;
        // It may be over already.
        if Pid::parent() == parent { Ok(()) } else { Err(io::Error::from(io::ErrorKind::BrokenPipe)) }
    }
}

/// By how much a child in the background is nicer: a tenth of a contended CPU is left to it, about.
const NICER: std::ffi::c_int = 10;

/// Has the child leave the CPUs to others first.
pub fn yielding(command: &mut Command) -> &mut Command {
    // SAFETY: nice is async-signal-safe and touches nothing of the parent's. That it may not be had is
    // no reason not to start.
    unsafe {
        command.pre_exec(|| {
            nix::libc::nice(NICER);
            Ok(())
        })
    }
}

/// Puts the child in a process group of its own, so that ^C reaches it through mvm only, and
/// has the kernel send it SIGINT should mvm die without a word.
///
/// The kernel watches the thread that spawns: spawn from one that lives as long as the child.
pub fn tame(command: &mut Command) -> &mut Command {
    command.process_group(0);
    // SAFETY: what is called are system calls that touch nothing of the parent's.
    unsafe { command.pre_exec(ends_with_parent(Signal::SIGINT)) }
}

/// Ends the child's process group: SIGINT, then SIGKILL after [`GRACE`].
pub async fn end(child: &mut Child) -> io::Result<ExitStatus> {
    signal(child, Signal::SIGINT);
    if let Ok(status) = tokio::time::timeout(GRACE, child.wait()).await {
        return status;
    }
    signal(child, Signal::SIGKILL);
    child.wait().await
}

/// The next piece of a stream; none ever again once it is over.
pub async fn piece(stream: &mut Option<impl AsyncRead + Unpin>, buffer: &mut [u8]) -> io::Result<usize> {
    let Some(reader) = stream else { return std::future::pending().await };
    let read = reader.read(buffer).await?;
    if read == 0 {
        *stream = None;
    }
    Ok(read)
}

/// What an ended child has left in its pipes: a grandchild may hold them open for ever.
#[derive(Debug, Default)]
pub struct LastWords(Option<Instant>);

impl LastWords {
    /// Waits until no more is to be expected. To be called anew for each piece.
    pub async fn spoken(&mut self) {
        let now = Instant::now();
        let end = *self.0.get_or_insert(now + LONGEST_SILENCE * 20);
        tokio::time::sleep_until(end.min(now + LONGEST_SILENCE)).await;
    }
}

fn signal(child: &Child, signal: Signal) {
    // A child that was waited for has no id any more, so no stranger is ever signalled.
    if let Some(pid) = child.id() {
        // It may just have ended by itself.
        let _ = killpg(Pid::from_raw(pid as i32), signal);
    }
}

/// Has the descriptors above standard error closed when the child's program starts, those that
/// mvm itself inherited included: what lives on must hold no stranger's pipe or lock. To be
/// called between fork and exec.
pub fn keep_only_standard_streams() {
    const FLAGS: std::ffi::c_uint = nix::libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: only marks descriptors; none is closed before the exec. A kernel too old for it
    // leaves them as they are.
    unsafe { nix::libc::syscall(nix::libc::SYS_close_range, 3, std::ffi::c_uint::MAX, FLAGS) };
}

/// Where a program is, looked up on PATH and then in the system's directories.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| nix::unistd::access(file, nix::unistd::AccessFlags::X_OK).is_ok() && file.is_file())
}

/// The running program, which is there even if its file was removed or replaced since.
pub const RUNNING: &str = "/proc/self/exe";

/// The program mvm itself: the running one, unless that is a test of it.
pub fn itself() -> io::Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let of_test = exe.parent().filter(|dir| dir.ends_with("deps")).and_then(|dir| dir.parent());
    Ok(of_test.map(|dir| dir.join("mvm")).filter(|file| file.is_file()).unwrap_or_else(|| RUNNING.into()))
}
