//! Pipes through which splice(2) moves bytes from socket to socket without copying them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};

use super::descriptors::{Descriptors, Taken};

/// Bytes that a pipe is to hold; where the system does not allow it, it holds less.
const CAPACITY: i32 = 256 << 10;
/// Most pipes that one worker keeps for later.
const KEPT: usize = 64;

/// A pipe, and the bytes in it.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    inside: usize,
    _taken: Taken,
}

impl Pipe {
    fn new(taken: Taken) -> io::Result<Self> {
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        // A smaller one does it too.
        let _ = fcntl(&write, FcntlArg::F_SETPIPE_SZ(CAPACITY));
        Ok(Self { read, write, inside: 0, _taken: taken })
    }

    /// How many bytes are in it.
    pub fn inside(&self) -> usize {
        self.inside
    }

    /// Moves what there is from a socket into it, which must be empty; nought at the end.
    pub fn fill(&mut self, from: &impl AsFd) -> io::Result<usize> {
        let moved = splice(from, None, &self.write, None, CAPACITY as usize, flags())?;
        self.inside += moved;
        Ok(moved)
    }

    /// Moves what is in it into a socket.
    pub fn drain(&mut self, to: &impl AsFd) -> io::Result<usize> {
        let moved = splice(&self.read, None, to, None, self.inside, flags())?;
        self.inside = self.inside.saturating_sub(moved);
        Ok(moved)
    }
}

fn flags() -> SpliceFFlags {
    SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK
}

/// The pipes of one worker that nothing goes through at the moment.
#[derive(Debug)]
pub struct Pipes {
    free: Mutex<Vec<Pipe>>,
    descriptors: Descriptors,
}

impl Pipes {
    /// None yet.
    pub fn new(descriptors: Descriptors) -> Self {
        Self { free: Mutex::default(), descriptors }
    }

    /// A pipe, if there are descriptors for one.
    pub fn take(&self) -> Option<Pipe> {
        let kept = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.or_else(|| Pipe::new(self.descriptors.take(2)?).ok())
    }

    /// Gives the descriptors of one that was kept back.
    pub fn free(&self) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
    }

    /// Keeps an empty pipe for later.
    pub fn put(&self, pipe: Pipe) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if pipe.inside == 0 && free.len() < KEPT {
            free.push(pipe);
        }
    }
}
