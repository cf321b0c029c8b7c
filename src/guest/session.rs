//! One session of an [`AgentClient`]: a command with its input and output, or bare frames.

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};

use super::client::{AgentClient, AgentError};
use super::frames::{Frame, FrameKind, MAX_PAYLOAD, Reply, TermSize, WINDOW};

/// Credit is given back in portions of this size, to spare frames.
const CREDIT_PORTION: usize = WINDOW / 8;

/// What comes out of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Bytes of standard output, or of the terminal.
    Stdout(Vec<u8>),
    /// Bytes of standard error.
    Stderr(Vec<u8>),
    /// The command ended, with this code (128 + signal when it was killed); the last event.
    Exit(u32),
}

/// A command in the guest; killed when dropped before its end.
#[derive(Debug)]
pub struct Session {
    input: SessionInput,
    receiver: RawReceiver,
    consumed: usize,
}

/// The input side of a command; cheap to clone, so that input and output can run side by side.
#[derive(Debug, Clone)]
pub struct SessionInput {
    sender: RawSender,
}

/// Sends frames of a session.
#[derive(Debug, Clone)]
pub struct RawSender {
    client: AgentClient,
    id: u32,
    credit: Arc<Semaphore>,
}

/// Receives frames of a session; closes it when dropped before its end.
#[derive(Debug)]
pub struct RawReceiver {
    client: AgentClient,
    id: u32,
    incoming: mpsc::UnboundedReceiver<Result<Frame, AgentError>>,
}

impl Session {
    pub(super) fn new(sender: RawSender, receiver: RawReceiver) -> Self {
        Self { input: SessionInput { sender }, receiver, consumed: 0 }
    }

    /// The next event. May be dropped and called again without losing one.
    pub async fn next(&mut self) -> Result<Event, AgentError> {
        let frame = self.receiver.recv().await?;
        match frame.kind {
            FrameKind::Stdout | FrameKind::Stderr => self.consume(frame.payload.len())?,
            FrameKind::Exit | FrameKind::Reply => {}
            _ => return Err(AgentError::Protocol("an unexpected frame in a command's session".into())),
        }
        match frame.kind {
            FrameKind::Stdout => Ok(Event::Stdout(frame.payload)),
            FrameKind::Stderr => Ok(Event::Stderr(frame.payload)),
            FrameKind::Exit => Ok(Event::Exit(frame.as_number().unwrap_or_default())),
            _ => Err(match serde_json::from_slice(&frame.payload) {
                Ok(Reply::Error(why)) => AgentError::Refused(why),
                _ => AgentError::Protocol("a command was answered with a reply".into()),
            }),
        }
    }

    fn consume(&mut self, count: usize) -> Result<(), AgentError> {
        self.consumed += count;
        if self.consumed < CREDIT_PORTION {
            return Ok(());
        }
        let count = std::mem::take(&mut self.consumed) as u32;
        // A channel that died since is told of by the next event, after what came before.
        let credit = Frame::number(self.receiver.id, FrameKind::Credit, count);
        match self.input.sender.send(credit) {
            Err(AgentError::Misuse(what)) => Err(AgentError::Misuse(what)),
            _ => Ok(()),
        }
    }

    /// The input side, for another task.
    pub fn input(&self) -> SessionInput {
        self.input.clone()
    }

    /// Writes to standard input; see [`SessionInput::write`].
    pub async fn write_stdin(&self, bytes: &[u8]) -> Result<(), AgentError> {
        self.input.write(bytes).await
    }

    /// Ends standard input.
    pub fn close_stdin(&self) -> Result<(), AgentError> {
        self.input.close()
    }

    /// Gives the terminal another size.
    pub fn resize(&self, size: TermSize) -> Result<(), AgentError> {
        self.input.resize(size)
    }

    /// Sends a signal to the command's process group.
    pub fn signal(&self, number: u32) -> Result<(), AgentError> {
        self.input.signal(number)
    }
}

impl SessionInput {
    /// Writes to standard input, waiting while the guest takes no more. Input that the command did
    /// not live to read is an error ([`AgentError::Closed`]) only when it is still waiting then.
    pub async fn write(&self, bytes: &[u8]) -> Result<(), AgentError> {
        for chunk in bytes.chunks(MAX_PAYLOAD) {
            let permits = self.sender.credit.acquire_many(chunk.len() as u32).await;
            permits.map_err(|_| self.sender.client.link.why())?.forget();
            self.sender.post(FrameKind::Stdin, chunk.to_vec())?;
        }
        Ok(())
    }

    /// Ends standard input.
    pub fn close(&self) -> Result<(), AgentError> {
        self.sender.post(FrameKind::Stdin, Vec::new())
    }

    /// Gives the terminal another size.
    pub fn resize(&self, size: TermSize) -> Result<(), AgentError> {
        let payload = serde_json::to_vec(&size).map_err(|error| AgentError::Io(error.to_string()))?;
        self.sender.post(FrameKind::Resize, payload)
    }

    /// Sends a signal to the command's process group.
    pub fn signal(&self, number: u32) -> Result<(), AgentError> {
        self.sender.post(FrameKind::Signal, number.to_be_bytes().to_vec())
    }
}

impl RawSender {
    pub(super) fn new(client: AgentClient, id: u32, credit: Arc<Semaphore>) -> Self {
        Self { client, id, credit }
    }

    /// Passes a frame on; its session number is replaced. Refuses what would break the channel for
    /// others: kinds that are not a host's, input beyond the window, credit for what never came.
    pub fn send(&self, frame: Frame) -> Result<(), AgentError> {
        let Frame { kind, payload, .. } = &frame;
        match kind {
            FrameKind::Stdin if payload.len() > MAX_PAYLOAD => {
                return Err(AgentError::TooLarge(payload.len()));
            }
            FrameKind::Stdin => match self.credit.try_acquire_many(payload.len() as u32) {
                Ok(permits) => permits.forget(),
                // The session is over; so is this frame.
                Err(tokio::sync::TryAcquireError::Closed) => return Ok(()),
                Err(_) => return Err(AgentError::Misuse("input beyond the window")),
            },
            FrameKind::Credit => {
                let count = frame.as_number().ok_or(AgentError::Misuse("credit without a number"))?;
                if !self.client.link.consumed(self.id, count as usize) {
                    return Err(AgentError::Misuse("credit for what was not received"));
                }
            }
            FrameKind::Signal if payload.len() == 4 => {}
            FrameKind::Resize if serde_json::from_slice::<TermSize>(payload).is_ok() => {}
            FrameKind::Close => {}
            _ => return Err(AgentError::Misuse("a frame that is not a session's")),
        }
        self.post(frame.kind, frame.payload)
    }

    fn post(&self, kind: FrameKind, payload: Vec<u8>) -> Result<(), AgentError> {
        self.client.post(Frame { session: self.id, kind, payload })
    }
}

impl RawReceiver {
    pub(super) fn new(
        client: AgentClient,
        id: u32,
        incoming: mpsc::UnboundedReceiver<Result<Frame, AgentError>>,
    ) -> Self {
        Self { client, id, incoming }
    }

    /// The next frame. The last one is a [`FrameKind::Reply`] or a [`FrameKind::Exit`]; after it,
    /// and when the channel died, there is an error. May be dropped and called again.
    pub async fn recv(&mut self) -> Result<Frame, AgentError> {
        self.incoming.recv().await.unwrap_or_else(|| Err(self.client.link.why()))
    }
}

impl Drop for RawReceiver {
    fn drop(&mut self) {
        if self.client.link.leave(self.id) {
            let _ = self.client.post(Frame::new(self.id, FrameKind::Close, []));
        }
    }
}
