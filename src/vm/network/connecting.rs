//! A network that is being made while the hypervisor starts.

use std::thread::JoinHandle;

use super::commands::{NetworkError, step};

/// The way from a VM's TAP to the world, made by a thread of its own. Dropped, it is waited for: what is
/// half made cannot be removed.
#[derive(Debug, Default)]
pub struct Connecting(Option<JoinHandle<Result<(), NetworkError>>>);

impl Connecting {
    /// Begins, in the calling thread's namespace.
    pub(super) fn begin(
        work: impl FnOnce() -> Result<(), NetworkError> + Send + 'static,
    ) -> Result<Self, NetworkError> {
        let thread = std::thread::Builder::new().name("network".into()).spawn(work);
        Ok(Self(Some(thread.map_err(step("start a thread"))?)))
    }

    /// Waits until it is made.
    pub fn made(mut self) -> Result<(), NetworkError> {
        self.wait()
    }

    fn wait(&mut self) -> Result<(), NetworkError> {
        let made = self.0.take().map(JoinHandle::join);
        made.map_or(Ok(()), |made| made.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        // Whoever drops it has something worse to tell.
        drop(self.0.take().map(JoinHandle::join));
    }
}
