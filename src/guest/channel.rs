//! The agent's line to the host: frames in and out of one descriptor, never blocking.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, VsockAddr, accept4, bind, listen, socket,
};

use super::frames::{Frame, FrameError, SERIAL_PORT, VSOCK_PORT};
use super::system::wait_for;

/// Output that may wait for the host before the agent reads no more requests.
const OUTPUT_LIMIT: usize = 256 * 1024;
/// Bytes of input taken at a time.
const READ_SIZE: usize = 32 * 1024;
/// Time the channel's device has to appear after boot.
const DEVICE_DEADLINE: Duration = Duration::from_secs(10);

/// Where the host is to be met.
#[derive(Debug)]
pub enum Line {
    /// A serial port: the host comes and goes on one descriptor.
    Serial(File),
    /// A connected stream: its end is the agent's end.
    Stream(OwnedFd),
    /// A listening socket: one host at a time.
    Listener(OwnedFd),
}

/// Why no more frames come.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The host went away.
    #[error("the host hung up")]
    HungUp,
    /// The host sent what is no frame.
    #[error("malformed frame: {0}")]
    Malformed(#[from] FrameError),
}

/// Frames over one descriptor.
#[derive(Debug)]
pub struct Channel {
    file: File,
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
}

/// Tells when the host is back at a serial port: level-triggered poll reports HUP all the while.
#[derive(Debug)]
pub struct Absence {
    edge: Epoll,
}

impl Line {
    /// The guest's own: the virtio-serial port, else a vsock listener, whichever appears first.
    pub fn find() -> io::Result<Self> {
        wait_for("control channel", DEVICE_DEADLINE, || match serial_port(Path::new("/")) {
            Some(path) => Self::open(&path).ok(),
            None if has_vsock() => Self::listen_vsock().ok(),
            None => None,
        })
    }

    /// A serial port by its path.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
        Ok(Self::Serial(file))
    }

    fn listen_vsock() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Vsock, SockType::Stream, flags, None)?;
        bind(socket.as_raw_fd(), &VsockAddr::new(libc::VMADDR_CID_ANY, VSOCK_PORT))?;
        listen(&socket, Backlog::new(8)?)?;
        Ok(Self::Listener(socket))
    }
}

/// The next connection of a listener.
pub fn accept(listener: &OwnedFd) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    let fd = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC)?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The device of the port named `mvm.control`.
fn serial_port(root: &Path) -> Option<PathBuf> {
    std::fs::read_dir(root.join("sys/class/virtio-ports")).ok()?.flatten().find_map(|entry| {
        let name = std::fs::read_to_string(entry.path().join("name")).ok()?;
        (name.trim_end() == SERIAL_PORT).then(|| root.join("dev").join(entry.file_name()))
    })
}

/// Whether a vsock device is there: it has given the guest a context id of its own.
fn has_vsock() -> bool {
    const GET_LOCAL_CID: libc::c_ulong = 0x7b9;
    let Ok(device) = File::open("/dev/vsock") else { return false };
    let mut cid: libc::c_uint = 0;
    // SAFETY: the request writes one unsigned int.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), GET_LOCAL_CID as _, &mut cid) };
    result == 0 && cid > libc::VMADDR_CID_HOST && cid != libc::VMADDR_CID_ANY
}

impl Channel {
    /// A channel over a serial port or a connected stream.
    pub fn new(file: impl Into<OwnedFd>) -> io::Result<Self> {
        let file = File::from(file.into());
        set_nonblocking(&file)?;
        Ok(Self { file, input: Vec::new(), output: Vec::new(), sent: 0 })
    }

    /// Whether more output may be made.
    pub fn has_room(&self) -> bool {
        self.output.len() - self.sent < OUTPUT_LIMIT
    }

    /// What to poll for: input while there is room for what it brings about, and unsent output.
    pub fn interest(&self) -> PollFlags {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::POLLIN, self.has_room());
        flags.set(PollFlags::POLLOUT, self.sent < self.output.len());
        flags
    }

    /// Reads once and adds the frames that became whole to `frames`.
    pub fn receive(&mut self, frames: &mut Vec<Frame>) -> Result<(), ChannelError> {
        let mut buffer = [0; READ_SIZE];
        match self.file.read(&mut buffer) {
            Ok(0) => return Err(ChannelError::HungUp),
            Ok(count) => self.input.extend(&buffer[..count]),
            Err(error) if is_transient(&error) => return Ok(()),
            Err(_) => return Err(ChannelError::HungUp),
        }
        while let Some(frame) = Frame::decode(&mut self.input)? {
            frames.push(frame);
        }
        Ok(())
    }

    /// Queues a frame.
    pub fn send(&mut self, frame: &Frame) {
        if self.sent > 0 && self.sent == self.output.len() {
            self.output.clear();
            self.sent = 0;
        } else if self.sent > OUTPUT_LIMIT {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
        self.output.extend(frame.encode());
    }

    /// Writes what the host takes now.
    pub fn flush(&mut self) -> Result<(), ChannelError> {
        while self.sent < self.output.len() {
            match self.file.write(&self.output[self.sent..]) {
                Ok(0) => break,
                Ok(count) => self.sent += count,
                Err(error) if is_transient(&error) => break,
                Err(_) => return Err(ChannelError::HungUp),
            }
        }
        Ok(())
    }

    /// Writes everything, or gives up after `limit` of no progress.
    pub fn flush_within(&mut self, limit: Duration) {
        let timeout = PollTimeout::try_from(limit).unwrap_or(PollTimeout::ZERO);
        while self.flush().is_ok() && self.sent < self.output.len() {
            let ready = poll(&mut [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)], timeout);
            if !matches!(ready, Ok(1..)) {
                return;
            }
        }
    }

    /// Throws away what waits in either direction.
    pub fn discard(&mut self) {
        self.input.clear();
        self.output.clear();
        self.sent = 0;
    }

    /// Throws away what came in and what of it is still to be read.
    pub fn discard_input(&mut self) {
        self.input.clear();
        let mut buffer = [0; READ_SIZE];
        // Bounded, or a host that never stops writing would hold the agent here.
        for _ in 0..64 {
            if !matches!(self.file.read(&mut buffer), Ok(1..)) {
                return;
            }
        }
    }

    /// Whether the other side is gone, without reading.
    pub fn is_hung_up(&self) -> bool {
        let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::empty())];
        let polled = poll(&mut fds, PollTimeout::ZERO);
        polled.is_ok() && fds[0].revents().is_some_and(|flags| flags.contains(PollFlags::POLLHUP))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Absence {
    /// Watches a channel whose host is gone.
    pub fn new(channel: &Channel) -> io::Result<Self> {
        let edge = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
        edge.add(channel, EpollEvent::new(flags, 0))?;
        Ok(Self { edge })
    }

    /// Whether the host is back. Each call uses up the news that made the descriptor readable.
    pub fn is_over(&self, channel: &Channel) -> bool {
        let mut events = [EpollEvent::empty()];
        let _ = self.edge.wait(&mut events, EpollTimeout::ZERO);
        !channel.is_hung_up()
    }
}

impl AsFd for Absence {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.edge.0.as_fd()
    }
}

/// Makes reads and writes of `fd` return at once.
pub fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    let flags = OFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GETFL)?);
    fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

/// Whether an error only means: not now.
pub fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_port_is_found_by_its_name() {
        let root = tempfile::tempdir().unwrap();
        for (port, name) in [("vport0p1", "other"), ("vport1p1", "mvm.control\n")] {
            let dir = root.path().join("sys/class/virtio-ports").join(port);
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(dir.join("name"), name).unwrap();
        }
        assert_eq!(serial_port(root.path()), Some(root.path().join("dev/vport1p1")));
    }

    #[test]
    fn a_host_that_is_away_is_noticed_and_its_return_too() {
        // A pseudo-terminal's master hangs up and comes back as a virtio-serial port does.
        let pty = crate::guest::pty::Pty::open(Default::default()).unwrap();
        let path = std::fs::read_link(format!("/proc/self/fd/{}", pty.terminal.as_raw_fd())).unwrap();
        let mut channel = Channel::new(pty.master).unwrap();
        assert!(!channel.is_hung_up());
        drop(pty.terminal);
        assert!(channel.is_hung_up());
        assert!(matches!(channel.receive(&mut vec![]), Err(ChannelError::HungUp)));
        let absence = Absence::new(&channel).unwrap();
        assert!(!absence.is_over(&channel));
        let waiting =
            |limit: u8| poll(&mut [PollFd::new(absence.as_fd(), PollFlags::POLLIN)], limit).unwrap();
        assert_eq!(waiting(0), 0, "absence must not be readable all the while");
        let mut back = OpenOptions::new().read(true).write(true).open(path).unwrap();
        back.write_all(b"\n").unwrap();
        assert_eq!(waiting(200), 1);
        assert!(absence.is_over(&channel));
    }
}
