//! Clients: threads that wait, which is the cheapest of all ways for a few dozen of them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use nix::sys::socket::{MsgFlags, recv};

use super::backend::{DOWN, ECHO, ONCE, SMALL, UP, request};

/// Nothing takes longer.
const DEADLINE: Duration = Duration::from_secs(60);
/// Bytes that are sent, or thrown away, at once.
const BLOCK: usize = 256 << 10;
const MOST: usize = 1 << 20;

/// How long it takes to get so many bytes over each of so many connections.
pub fn download(address: SocketAddr, connections: usize, bytes: u64) -> Result<Duration> {
    together(connections, || {
        let mut stream = dial(address)?;
        stream.write_all(&request(DOWN, bytes))?;
        drain(&stream, bytes)
    })
}

/// How long it takes to bring so many bytes over each of so many connections.
pub fn upload(address: SocketAddr, connections: usize, bytes: u64) -> Result<Duration> {
    together(connections, || {
        let mut stream = dial(address)?;
        stream.write_all(&request(UP, bytes))?;
        let block = vec![b'x'; BLOCK];
        let mut left = bytes;
        while left > 0 {
            let length = BLOCK.min(usize::try_from(left)?);
            stream.write_all(&block[..length])?;
            left -= length as u64;
        }
        Ok(stream.read_exact(&mut [0; SMALL])?)
    })
}

/// How long it takes until each of so many clients has connected, asked and been left so often.
pub fn calls(address: SocketAddr, clients: usize, each: usize) -> Result<Duration> {
    together(clients, || (0..each).try_for_each(|_| call(address)))
}

/// How long each of the requests took that so many clients sent over a connection each.
pub fn asks(address: SocketAddr, clients: usize, each: usize) -> Result<Vec<Duration>> {
    let lane = || {
        let mut stream = dial(address)?;
        ask(&mut stream)?;
        let mut samples = Vec::with_capacity(each);
        for _ in 0..each {
            let since = Instant::now();
            ask(&mut stream)?;
            samples.push(since.elapsed());
        }
        anyhow::Ok(samples)
    };
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..clients).map(|_| scope.spawn(lane)).collect();
        let mut all = Vec::with_capacity(clients * each);
        for lane in lanes {
            all.extend(lane.join().map_err(|_| anyhow::anyhow!("a client panicked"))??);
        }
        Ok(all)
    })
}

/// So many connections over each of which something was asked.
pub fn crowd(address: SocketAddr, count: usize) -> Result<Vec<TcpStream>> {
    let comer = |_| {
        let mut stream = dial(address)?;
        ask(&mut stream)?;
        Ok(stream)
    };
    (0..count).map(comer).collect()
}

/// Waits until something small is answered there.
pub fn reach(address: SocketAddr) -> Result<()> {
    let since = Instant::now();
    while since.elapsed() < DEADLINE {
        if dial(address).and_then(|mut stream| ask(&mut stream)).is_ok() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
    bail!("nothing answers at {address}")
}

/// Throws so many bytes away as they come, which needs no copy of them.
pub fn drain(stream: &TcpStream, mut bytes: u64) -> Result<()> {
    let mut block = vec![0; MOST];
    while bytes > 0 {
        let most = MOST.min(usize::try_from(bytes)?);
        let count = recv(stream.as_raw_fd(), &mut block[..most], MsgFlags::MSG_TRUNC)?;
        ensure!(count > 0, "{bytes} bytes are missing");
        bytes -= count as u64;
    }
    Ok(())
}

fn dial(address: SocketAddr) -> Result<TcpStream> {
    Ok(TcpStream::connect(address)?)
}

fn call(address: SocketAddr) -> Result<()> {
    let mut stream = dial(address)?;
    stream.write_all(&request(ONCE, 0))?;
    stream.read_exact(&mut [0; SMALL])?;
    ensure!(stream.read(&mut [0])? == 0, "the end does not come");
    Ok(())
}

fn ask(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(&request(ECHO, 0))?;
    Ok(stream.read_exact(&mut [0; SMALL])?)
}

fn together(clients: usize, work: impl Fn() -> Result<()> + Sync) -> Result<Duration> {
    let since = Instant::now();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..clients).map(|_| scope.spawn(&work)).collect();
        clients
            .into_iter()
            .try_for_each(|client| client.join().map_err(|_| anyhow::anyhow!("a client panicked"))?)
    })?;
    Ok(since.elapsed())
}
