//! Requests that take their time, each on a thread, so that the agent's loop never waits.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, mpsc};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::frames::Reply;

const STACK: usize = 256 * 1024;

/// Jobs under way.
pub struct Jobs {
    sender: mpsc::Sender<Done>,
    receiver: mpsc::Receiver<Done>,
    wake: Arc<EventFd>,
    running: usize,
}

/// What came of a job.
pub struct Done {
    /// The session that asked.
    pub session: u32,
    /// The host it belonged to; see [`super::agent`].
    pub epoch: u64,
    /// What to say.
    pub reply: Reply,
}

impl Jobs {
    /// No jobs yet.
    pub fn new() -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { sender, receiver, wake: Arc::new(wake), running: 0 })
    }

    /// How many are under way.
    pub fn running(&self) -> usize {
        self.running
    }

    /// Starts one.
    pub fn start(
        &mut self,
        session: u32,
        epoch: u64,
        work: impl FnOnce() -> Reply + Send + 'static,
    ) -> io::Result<()> {
        let (sender, wake) = (self.sender.clone(), self.wake.clone());
        std::thread::Builder::new().stack_size(STACK).spawn(move || {
            let _ = sender.send(Done { session, epoch, reply: work() });
            let _ = wake.write(1);
        })?;
        self.running += 1;
        Ok(())
    }

    /// The next one that is done.
    pub fn take(&mut self) -> Option<Done> {
        let _ = self.wake.read();
        let done = self.receiver.try_recv().ok()?;
        self.running -= 1;
        Some(done)
    }
}

impl AsFd for Jobs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
