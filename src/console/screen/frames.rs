//! Whole frames out of the many small writes of a draw.

use std::io::{self, Write};
use std::sync::Arc;

use super::tty::Tty;

/// Synchronized output: the terminal shows nothing of the frame before [`END`].
pub(super) const BEGIN: &[u8] = b"\x1b[?2026h";
/// The frame is there.
pub(super) const END: &[u8] = b"\x1b[?2026l";

/// Collects a frame and sends it in one write.
pub(super) struct Frames {
    buffer: Vec<u8>,
    tty: Arc<Tty>,
}

impl Frames {
    pub(super) fn new(tty: Arc<Tty>) -> Self {
        Self { buffer: Vec::new(), tty }
    }
}

impl Write for Frames {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes == BEGIN {
            // What a failed draw left behind is no part of this one.
            self.buffer.clear();
        }
        self.buffer.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    /// ratatui and crossterm flush several times a frame: only a whole one is sent, and nothing else.
    fn flush(&mut self) -> io::Result<()> {
        if is_whole(&self.buffer) {
            let sent = self.tty.send(&self.buffer);
            self.buffer.clear();
            return sent;
        }
        Ok(())
    }
}

fn is_whole(buffer: &[u8]) -> bool {
    buffer.starts_with(BEGIN) && buffer.ends_with(END)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_whole_from_its_begin_to_its_end() {
        assert!(!is_whole(b""));
        assert!(!is_whole(b"\x1b[?25h"));
        assert!(!is_whole(&[BEGIN, b"text"].concat()));
        assert!(!is_whole(&[BEGIN, b"text", END, b"\x1b[?25l"].concat()));
        assert!(is_whole(&[BEGIN, b"text", END].concat()));
    }
}
