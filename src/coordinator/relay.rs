//! Bytes between a client and a guest, both ways, until both have ended.
//!
//! A connection owns no buffer. What is read goes into its worker's one buffer and out again at once;
//! only what the other side does not take yet is kept, and nothing more is read meanwhile. Once a
//! direction has moved enough, a pipe and splice(2) do the same without copying.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::sys::socket::{Shutdown, shutdown};
use std::os::fd::AsRawFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::pipe::{Pipe, Pipes};

/// Bytes of a worker's buffer.
pub const BUFFER: usize = 64 << 10;
/// From so many bytes on a direction is worth a pipe.
const BULK: u64 = 256 << 10;
/// Moves of one direction before the other, and other connections, have their turn.
const TURN: usize = 16;

/// What the connections of one worker share.
#[derive(Debug)]
pub struct Tools {
    /// Nobody waits for it: no task of the worker holds it while another runs.
    buffer: Mutex<Box<[u8]>>,
    /// Pipes to be had.
    pub pipes: Pipes,
}

impl Tools {
    /// With a buffer, and no pipes yet.
    pub fn new(pipes: Pipes) -> Self {
        Self { buffer: Mutex::new(vec![0; BUFFER].into_boxed_slice()), pipes }
    }
}

/// How a connection ended.
#[derive(Debug)]
pub enum End {
    /// Both sides have ended it; one of them may be told only by the closing of it.
    Closed,
    /// The guest has answered, ended, and not taken all that the client said.
    Deaf,
    /// One side broke it off, and so the other is told.
    Broken(io::Error),
    /// No byte has come for too long.
    Silent,
}

/// Carries bytes until both sides have ended, and counts them. `answered` is called when the first come
/// from the guest.
pub async fn relay(
    client: &mut TcpStream,
    guest: &mut TcpStream,
    (rx, tx): (&AtomicU64, &AtomicU64),
    silence: Option<Duration>,
    tools: &Tools,
    answered: impl FnOnce(),
) -> End {
    let (mut up, mut down) = (Flow::default(), Flow::default());
    // A day is more than any limit.
    let limit = silence.unwrap_or(Duration::from_secs(86_400));
    let mut alarm = pin!(tokio::time::sleep(limit));
    let mut heard = 0;
    let (mut broken, mut answered) = (None, Some(answered));
    poll_fn(|cx| {
        let upward = match up.poll(cx, (client, guest), rx, down.is_over(), tools) {
            Poll::Ready(Err(Fault::Read(error))) => return Poll::Ready(End::Broken(error)),
            // The guest takes no more, but may have said something before.
            Poll::Ready(Err(Fault::Write(error))) => {
                broken = Some(error);
                up.state = State::Ended;
                Poll::Ready(())
            }
            other => other.map(drop),
        };
        let downward = match down.poll(cx, (guest, client), tx, up.is_over(), tools) {
            Poll::Ready(Err(Fault::Read(error) | Fault::Write(error))) => {
                return Poll::Ready(End::Broken(error));
            }
            other => other.map(drop),
        };
        if down.moved > 0
            && let Some(answered) = answered.take()
        {
            answered();
        }
        if upward.is_ready() && downward.is_ready() {
            return Poll::Ready(match broken.take() {
                None => End::Closed,
                Some(_) if down.moved > 0 => End::Deaf,
                Some(error) => End::Broken(error),
            });
        }
        while alarm.as_mut().poll(cx).is_ready() {
            let moved = up.moved + down.moved;
            if silence.is_some() && moved == heard {
                return Poll::Ready(End::Silent);
            }
            heard = moved;
            alarm.as_mut().reset(tokio::time::Instant::now() + limit);
        }
        Poll::Pending
    })
    .await
}

/// Which side of a direction failed.
enum Fault {
    Read(io::Error),
    Write(io::Error),
}

/// One direction.
#[derive(Debug, Default)]
struct Flow {
    state: State,
    moved: u64,
}

#[derive(Debug, Default)]
enum State {
    /// Nothing is in hand.
    #[default]
    Empty,
    /// These bytes are, from this one on.
    Held(Box<[u8]>, usize),
    /// What is in the pipe is.
    Piped(Pipe),
    /// Its end has been passed on.
    Ended,
}

impl Flow {
    fn is_over(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Moves what can be moved. The `last` direction to end has both sides closed next.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        (from, to): (&mut TcpStream, &mut TcpStream),
        count: &AtomicU64,
        last: bool,
        tools: &Tools,
    ) -> Poll<Result<(), Fault>> {
        for _ in 0..TURN {
            let moved = match &mut self.state {
                State::Ended => return Poll::Ready(Ok(())),
                State::Held(bytes, at) => {
                    *at += ready!(Pin::new(&mut *to).poll_write(cx, &bytes[*at..])).map_err(Fault::Write)?;
                    if *at == bytes.len() {
                        self.state = State::Empty;
                    }
                    continue;
                }
                State::Piped(pipe) if pipe.inside() > 0 => {
                    ready!(to.poll_write_ready(cx)).map_err(Fault::Write)?;
                    match to.try_io(Interest::WRITABLE, || pipe.drain(&*to)) {
                        Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                            return Poll::Ready(Err(Fault::Write(error)));
                        }
                        _ => continue,
                    }
                }
                State::Piped(pipe) => {
                    if from.poll_read_ready(cx).map_err(Fault::Read)?.is_pending() {
                        // Others may need it more.
                        if let State::Piped(pipe) = std::mem::take(&mut self.state) {
                            tools.pipes.put(pipe);
                        }
                        return Poll::Pending;
                    }
                    match from.try_io(Interest::READABLE, || pipe.fill(&*from)) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                        moved => moved.map_err(Fault::Read)?,
                    }
                }
                State::Empty => {
                    let mut buffer = tools.buffer.lock().unwrap_or_else(PoisonError::into_inner);
                    let (moved, left) = ready!(pass(cx, from, to, &mut buffer))?;
                    if moved == BUFFER && left.is_none() && self.moved > BULK {
                        self.state = tools.pipes.take().map_or(State::Empty, State::Piped);
                    }
                    if let Some(left) = left {
                        self.state = State::Held(left, 0);
                    }
                    moved
                }
            };
            self.moved += moved as u64;
            count.fetch_add(moved as u64, Ordering::Relaxed);
            if moved == 0 {
                self.state = State::Ended;
                if !last {
                    // It may be gone already, which the other direction finds out.
                    let _ = shutdown(to.as_raw_fd(), Shutdown::Write);
                }
                return Poll::Ready(Ok(()));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// How much came, and what of it was not taken.
type Passed = (usize, Option<Box<[u8]>>);

/// Reads once and writes it at once.
fn pass(
    cx: &mut Context<'_>,
    from: &mut TcpStream,
    to: &mut TcpStream,
    buffer: &mut [u8],
) -> Poll<Result<Passed, Fault>> {
    let mut read = ReadBuf::new(buffer);
    ready!(Pin::new(from).poll_read(cx, &mut read)).map_err(Fault::Read)?;
    let bytes = read.filled();
    if bytes.is_empty() {
        return Poll::Ready(Ok((0, None)));
    }
    let taken = match Pin::new(to).poll_write(cx, bytes) {
        Poll::Ready(taken) => taken.map_err(Fault::Write)?,
        Poll::Pending => 0,
    };
    let left = (taken < bytes.len()).then(|| bytes[taken..].into());
    Poll::Ready(Ok((bytes.len(), left)))
}

#[cfg(test)]
mod tests;
