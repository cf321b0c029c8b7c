//! Network namespaces, which belong to threads.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

use nix::sched::{CloneFlags, setns, unshare};

use crate::host::identity::ProcessId;

/// A network namespace, kept in being by this handle.
#[derive(Debug)]
pub struct Namespace(File);

impl Namespace {
    /// The calling thread's.
    pub fn current() -> io::Result<Self> {
        File::open("/proc/thread-self/ns/net").map(Self)
    }

    /// That of a process, as its first thread has it.
    pub fn of(process: &ProcessId) -> io::Result<Self> {
        let opened = File::open(format!("/proc/{}/ns/net", process.pid))?;
        // Whoever has the number after this had it when the file was opened.
        if process.is_alive() { Ok(Self(opened)) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// Makes a new one, and moves the calling thread into it.
    pub fn make() -> io::Result<Self> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        Self::current()
    }

    /// Moves the calling thread into it.
    pub fn enter(&self) -> io::Result<()> {
        Ok(setns(&self.0, CloneFlags::CLONE_NEWNET)?)
    }

    /// Does `work` inside, in a thread of its own: the caller's stays where it is, also in the eyes of those
    /// who look for its namespace.
    pub fn inside<T: Send, E: Send>(
        &self,
        work: impl FnOnce() -> Result<T, E> + Send,
        failed: impl FnOnce(io::Error) -> E,
    ) -> Result<T, E> {
        let done = std::thread::scope(|scope| {
            let inside = || {
                self.enter()?;
                Ok(work())
            };
            let thread = std::thread::Builder::new().name("inside".into()).spawn_scoped(scope, inside)?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        done.unwrap_or_else(|error| Err(failed(error)))
    }

    /// Whether both are one namespace.
    pub fn is(&self, other: &Self) -> io::Result<bool> {
        let (one, other) = (self.0.metadata()?, other.0.metadata()?);
        Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
    }
}
