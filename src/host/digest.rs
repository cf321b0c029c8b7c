//! SHA-256 of what goes by.

use std::io::{self, Read, Write};

use sha2::{Digest, Sha256};

/// Hands on what is read or written, and digests it.
#[derive(Debug)]
pub struct Digesting<T> {
    inner: T,
    digest: Sha256,
    count: u64,
}

impl<T> Digesting<T> {
    /// Nothing has gone by yet.
    pub fn new(inner: T) -> Self {
        Self { inner, digest: Sha256::new(), count: 0 }
    }

    /// How many bytes went by.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// What was read or written to, and the digest of what went by.
    pub fn finish(self) -> (T, [u8; 32]) {
        (self.inner, self.digest.finalize().into())
    }

    fn take(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.count += bytes.len() as u64;
    }
}

impl<R: Read> Read for Digesting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.take(&buffer[..read]);
        Ok(read)
    }
}

impl<W: Write> Write for Digesting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.take(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Ends in an error once somebody wants no more of it: for long work on a thread of its own.
#[derive(Debug)]
pub struct Cancellable<'a, R> {
    /// What is read.
    pub inner: R,
    /// Who says so.
    pub cancel: &'a tokio_util::sync::CancellationToken,
}

impl<R: Read> Read for Cancellable<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other(Cancelled));
        }
        self.inner.read(buffer)
    }
}

/// The error of [`Cancellable`].
#[derive(Debug, thiserror::Error)]
#[error("cancelled")]
pub struct Cancelled;

impl Cancelled {
    /// Whether it is the cause of an error.
    pub fn caused(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Self>())
    }
}
