//! The host's end of the agent's channel: one driver, many sessions at once.
//!
//! The driver reads and never waits for a session's consumer: what a session may have unread is
//! bounded by its window, and a guest that sends more has broken the channel.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc, watch};

use super::frames::{Answer, Exec, Frame, FrameError, FrameKind, Hello, MAX_PAYLOAD, Reply, Request, WINDOW};
use super::session::{RawReceiver, RawSender, Session};

/// Why the agent did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AgentError {
    /// The channel ended.
    #[error("the guest agent's channel closed")]
    Closed,
    /// The channel failed.
    #[error("the guest agent's channel failed: {0}")]
    Io(String),
    /// The guest broke the protocol.
    #[error("the guest agent broke the protocol: {0}")]
    Protocol(String),
    /// The agent started anew, so this session is over.
    #[error("the guest agent started anew")]
    Restarted,
    /// The agent said no.
    #[error("{0}")]
    Refused(String),
    /// What was asked does not fit into a frame.
    #[error("a request of {0} bytes is too large for the guest agent; {MAX_PAYLOAD} are allowed")]
    TooLarge(usize),
    /// A frame that the host's side may not send in this session.
    #[error("not allowed in a session: {0}")]
    Misuse(&'static str),
}

/// A handle on the agent; cheap to clone. The driver ends when all handles and sessions are gone.
#[derive(Debug, Clone)]
pub struct AgentClient {
    pub(super) link: Arc<Link>,
    number: u32,
    frames: mpsc::UnboundedSender<Frame>,
    hello: watch::Receiver<Option<Hello>>,
}

/// What handles and driver share.
#[derive(Debug, Default)]
pub(super) struct Link {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u32,
    sessions: HashMap<u32, Entry>,
    broken: Option<AgentError>,
}

#[derive(Debug)]
struct Entry {
    deliver: mpsc::UnboundedSender<Result<Frame, AgentError>>,
    /// Output the consumer has not given credit for.
    unread: usize,
    /// Input the guest still takes.
    credit: Arc<Semaphore>,
    /// The consumer wants the frames that gave credit, too.
    credits: bool,
}

/// Moves frames; to be polled until it ends, in a task of its own.
struct Driver {
    link: Arc<Link>,
    hello: watch::Sender<Option<Hello>>,
    number: u32,
}

impl AgentClient {
    /// A client over `stream`, and the future that drives it: spawn it. Its result says why the
    /// channel ended; `Ok` means that nobody needed it any more.
    pub fn start<S>(stream: S) -> (Self, impl Future<Output = Result<(), AgentError>> + Send + use<S>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (frames, outgoing) = mpsc::unbounded_channel();
        let (said, hello) = watch::channel(None);
        let link = Arc::new(Link::default());
        let number = rand_core::RngCore::next_u32(&mut rand_core::OsRng);
        // Asked for, as an agent in a restored guest does not know that its host is another.
        let _ = frames.send(Frame::number(0, FrameKind::Hello, number));
        let driver = Driver { link: link.clone(), hello: said, number };
        (Self { link, number, frames, hello }, driver.run(stream, outgoing))
    }

    /// What the agent last said of itself; waits until it says so. The caller sets the deadline.
    pub async fn hello(&self) -> Result<Hello, AgentError> {
        let mut hello = self.hello.clone();
        let said = hello.wait_for(Option::is_some).await.map_err(|_| self.link.why())?;
        said.clone().ok_or(AgentError::Closed)
    }

    /// Ends all sessions, and waits until the agent has nothing more to read or to say: the guest may be
    /// saved then. This client is of no use any more.
    pub async fn retire(&self) -> Result<(), AgentError> {
        let mut hello = self.hello.clone();
        hello.borrow_and_update();
        self.post(Frame::number(0, FrameKind::Hello, self.number))?;
        self.link.break_with(AgentError::Restarted);
        hello.changed().await.map_err(|_| AgentError::Closed)
    }

    /// Asks and waits for the answer. The caller sets the deadline; dropping the future gives up.
    pub async fn request(&self, request: Request) -> Result<Answer, AgentError> {
        let (_sender, mut receiver) = self.open(&request, false)?;
        let frame = receiver.recv().await?;
        match (frame.kind, serde_json::from_slice(&frame.payload)) {
            (FrameKind::Reply, Ok(Reply::Ok(answer))) => Ok(answer),
            (FrameKind::Reply, Ok(Reply::Error(why))) => Err(AgentError::Refused(why)),
            _ => Err(AgentError::Protocol("the answer is no reply".into())),
        }
    }

    /// Runs a command. It is killed when the session is dropped before its end.
    pub fn exec(&self, exec: Exec) -> Result<Session, AgentError> {
        let (sender, receiver) = self.open(&Request::Exec(exec), false)?;
        Ok(Session::new(sender, receiver))
    }

    /// Opens a session whose frames somebody else makes and reads, such as a process at the other
    /// end of a socket. Session numbers of its frames do not matter; credits are that party's to
    /// give. The session is closed when the receiver is dropped before its end.
    pub fn open_raw(&self, first: &Request) -> Result<(RawSender, RawReceiver), AgentError> {
        self.open(first, true)
    }

    fn open(&self, first: &Request, credits: bool) -> Result<(RawSender, RawReceiver), AgentError> {
        let payload = serde_json::to_vec(first).map_err(|error| AgentError::Io(error.to_string()))?;
        if payload.len() > MAX_PAYLOAD {
            return Err(AgentError::TooLarge(payload.len()));
        }
        let (deliver, incoming) = mpsc::unbounded_channel();
        let credit = Arc::new(Semaphore::new(WINDOW));
        let id = self.link.enter(Entry { deliver, unread: 0, credit: credit.clone(), credits })?;
        self.post(Frame::new(id, FrameKind::Request, payload))?;
        let receiver = RawReceiver::new(self.clone(), id, incoming);
        Ok((RawSender::new(self.clone(), id, credit), receiver))
    }

    /// Hands a frame to the driver.
    pub(super) fn post(&self, frame: Frame) -> Result<(), AgentError> {
        if let Some(error) = &self.link.lock().broken {
            return Err(error.clone());
        }
        self.frames.send(frame).map_err(|_| self.link.why())
    }
}

impl Link {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the channel is not there.
    pub(super) fn why(&self) -> AgentError {
        self.lock().broken.clone().unwrap_or(AgentError::Closed)
    }

    fn enter(&self, entry: Entry) -> Result<u32, AgentError> {
        let mut state = self.lock();
        if let Some(error) = &state.broken {
            return Err(error.clone());
        }
        loop {
            state.next = state.next.wrapping_add(1).max(1);
            let id = state.next;
            if let std::collections::hash_map::Entry::Vacant(vacant) = state.sessions.entry(id) {
                vacant.insert(entry);
                return Ok(id);
            }
        }
    }

    /// Forgets a session; true when it had not ended.
    pub(super) fn leave(&self, id: u32) -> bool {
        self.lock().sessions.remove(&id).is_some()
    }

    /// Notes that `count` bytes of output were consumed; false when there were not that many.
    pub(super) fn consumed(&self, id: u32, count: usize) -> bool {
        match self.lock().sessions.get_mut(&id) {
            Some(entry) if count > entry.unread => false,
            Some(entry) => {
                entry.unread -= count;
                true
            }
            // It ended meanwhile.
            None => true,
        }
    }

    /// Ends all sessions with `error`.
    fn end_sessions(&self, error: &AgentError) {
        for (_, entry) in std::mem::take(&mut self.lock().sessions) {
            entry.credit.close();
            let _ = entry.deliver.send(Err(error.clone()));
        }
    }

    fn break_with(&self, error: AgentError) {
        self.lock().broken.get_or_insert(error.clone());
        self.end_sessions(&error);
    }
}

impl Driver {
    async fn run<S: AsyncRead + AsyncWrite>(
        self,
        stream: S,
        outgoing: mpsc::UnboundedReceiver<Frame>,
    ) -> Result<(), AgentError> {
        let (reader, writer) = tokio::io::split(stream);
        let result = tokio::select! {
            result = self.read(reader) => result,
            result = write(writer, outgoing) => result,
        };
        self.link.break_with(result.clone().err().unwrap_or(AgentError::Closed));
        result
    }

    async fn read(&self, mut reader: impl AsyncRead + Unpin) -> Result<(), AgentError> {
        let mut buffer = Vec::new();
        loop {
            let frame = match next_frame(&mut reader, &mut buffer).await {
                Ok(frame) => frame.ok_or(AgentError::Closed)?,
                Err(ReadError::Frame(error)) => return Err(AgentError::Protocol(error.to_string())),
                Err(ReadError::Io(error)) => return Err(AgentError::Io(error.to_string())),
            };
            self.take(frame)?;
        }
    }

    fn take(&self, frame: Frame) -> Result<(), AgentError> {
        let broken = |what: &str| Err(AgentError::Protocol(what.into()));
        if frame.kind == FrameKind::Hello {
            return match serde_json::from_slice(&frame.payload) {
                Ok(hello) if frame.session == 0 => {
                    self.greet(hello);
                    Ok(())
                }
                _ => broken("its hello is not understood"),
            };
        }
        let mut state = self.link.lock();
        let Some(entry) = state.sessions.get_mut(&frame.session) else {
            return Ok(());
        };
        match frame.kind {
            FrameKind::Stdout | FrameKind::Stderr => {
                entry.unread += frame.payload.len();
                if frame.payload.is_empty() || entry.unread > WINDOW {
                    return broken("output outside of the window");
                }
            }
            FrameKind::Credit => {
                let count = frame.as_number().unwrap_or(0) as usize;
                if count == 0 || entry.credit.available_permits() + count > WINDOW {
                    return broken("credit for what was not sent");
                }
                entry.credit.add_permits(count);
                if !entry.credits {
                    return Ok(());
                }
            }
            FrameKind::Reply | FrameKind::Exit => {
                if frame.kind == FrameKind::Exit && frame.as_number().is_none() {
                    return broken("an exit without a code");
                }
                if let Some(entry) = state.sessions.remove(&frame.session) {
                    entry.credit.close();
                    let _ = entry.deliver.send(Ok(frame));
                }
                return Ok(());
            }
            _ => return broken("a frame only hosts send"),
        }
        // A consumer that went away forgets the session itself.
        let _ = entry.deliver.send(Ok(frame));
        Ok(())
    }

    fn greet(&self, hello: Hello) {
        match hello.answers {
            Some(number) if number != self.number => return,
            Some(_) => {}
            // A first one that nobody asked for only says that the agent came up after us.
            None if self.hello.borrow().is_none() => {}
            None => self.link.end_sessions(&AgentError::Restarted),
        }
        self.hello.send_replace(Some(hello));
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // The task may be aborted; nobody is to wait for it then.
        self.link.break_with(AgentError::Closed);
    }
}

async fn write(
    mut writer: impl AsyncWrite + Unpin,
    mut outgoing: mpsc::UnboundedReceiver<Frame>,
) -> Result<(), AgentError> {
    let failed = |error: io::Error| AgentError::Io(error.to_string());
    while let Some(frame) = outgoing.recv().await {
        writer.write_all(&frame.encode()).await.map_err(failed)?;
        if outgoing.is_empty() {
            writer.flush().await.map_err(failed)?;
        }
    }
    Ok(())
}

/// Why no frame was read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The stream failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What came is no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// The next frame of a stream, or `None` at its end; `buffer` keeps what came of the one after it.
/// May be dropped and called again without losing bytes.
pub async fn next_frame(
    reader: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> Result<Option<Frame>, ReadError> {
    loop {
        if let Some(frame) = Frame::decode(buffer)? {
            return Ok(Some(frame));
        }
        // Decode refuses a longer frame, so this bounds the buffer too.
        buffer.reserve(32 * 1024);
        if reader.read_buf(buffer).await? == 0 {
            return if buffer.is_empty() {
                Ok(None)
            } else {
                Err(io::Error::from(io::ErrorKind::UnexpectedEof).into())
            };
        }
    }
}
