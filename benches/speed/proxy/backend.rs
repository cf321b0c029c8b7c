//! What proxies lead to: a process of its own that answers as cheaply as it can.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context, Result, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::{Domain, Protocol, Socket, Type};

use super::fronts::{end, leashed};
use super::load::drain;

/// The word by which this program is such a process.
pub const WORD: &str = "--backend";
/// Bytes of a request, and of a small answer: what is wanted, and how many bytes.
pub const SMALL: usize = 64;
/// Wants its own bytes back.
pub const ECHO: u8 = b'e';
/// Wants the same, and then the end: who ends first keeps the port busy for a minute, and there are not
/// enough of them for clients that come and go all the time.
pub const ONCE: u8 = b'o';
/// Wants so many bytes.
pub const DOWN: u8 = b'd';
/// Sends so many bytes, and wants a small answer when they are there.
pub const UP: u8 = b'u';

/// Threads that answer, and connections that may wait for them.
const THREADS: usize = 2;
const BACKLOG: i32 = 4096;
/// Bytes that are sent at once.
const BLOCK: usize = 256 << 10;

/// A backend in a process of its own, ended when it is dropped.
pub struct Backend {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Backend {
    /// Starts it.
    pub fn start() -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(WORD).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = leashed(command)?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("it has no output")?).read_line(&mut line)?;
        let address = line.trim().parse().context("the backend did not start")?;
        Ok(Self { child, address })
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Answers until it is ended.
pub fn serve() -> Result<()> {
    let first = listen((Ipv4Addr::LOCALHOST, 0).into())?;
    let address = first.local_addr()?;
    let others = (1..THREADS).map(|_| listen(address)).collect::<Result<Vec<_>>>()?;
    let threads: Vec<_> =
        [first].into_iter().chain(others).map(|socket| thread::spawn(|| answer(socket))).collect();
    println!("{address}");
    for thread in threads {
        thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
    }
    Ok(())
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Connections are blocking, and read only when there is something.
fn answer(listener: TcpListener) -> Result<()> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let watch = |fd: RawFd| EpollEvent::new(EpollFlags::EPOLLIN, fd as u64);
    epoll.add(&listener, watch(listener.as_raw_fd()))?;
    let mut open: HashMap<RawFd, TcpStream> = HashMap::new();
    let mut events = vec![EpollEvent::empty(); 256];
    loop {
        let count = epoll.wait(&mut events, EpollTimeout::NONE)?;
        for event in &events[..count] {
            let fd = event.data() as RawFd;
            if fd == listener.as_raw_fd() {
                // It may be gone again.
                if let Ok((stream, _)) = listener.accept() {
                    epoll.add(&stream, watch(stream.as_raw_fd()))?;
                    open.insert(stream.as_raw_fd(), stream);
                }
                continue;
            }
            let Some(stream) = open.get_mut(&fd) else { continue };
            let mut request = [0; SMALL];
            let goes_on = match stream.read(&mut request) {
                Ok(SMALL) if request[0] == ECHO => stream.write_all(&request).is_ok(),
                Ok(SMALL) if request[0] == ONCE => {
                    // It may be gone.
                    let _ = stream.write_all(&request);
                    false
                }
                Ok(SMALL) => {
                    if let Some(stream) = open.remove(&fd) {
                        epoll.delete(&stream)?;
                        thread::spawn(move || carry(stream, request));
                    }
                    true
                }
                // It has ended, or says what nobody asked for.
                _ => false,
            };
            if !goes_on {
                open.remove(&fd);
            }
        }
    }
}

/// Sends or takes as many bytes as the request says.
fn carry(mut stream: TcpStream, request: [u8; SMALL]) -> Result<()> {
    let mut left = count(&request)?;
    if request[0] == UP {
        drain(&stream, left)?;
        return Ok(stream.write_all(&request)?);
    }
    ensure!(request[0] == DOWN, "an odd request");
    let block = vec![b'x'; BLOCK];
    while left > 0 {
        let length = BLOCK.min(usize::try_from(left)?);
        stream.write_all(&block[..length])?;
        left -= length as u64;
    }
    Ok(())
}

/// A request.
pub fn request(what: u8, count: u64) -> [u8; SMALL] {
    let mut request = [0; SMALL];
    request[0] = what;
    request[1..9].copy_from_slice(&count.to_le_bytes());
    request
}

fn count(request: &[u8; SMALL]) -> Result<u64> {
    Ok(u64::from_le_bytes(request[1..9].try_into()?))
}
