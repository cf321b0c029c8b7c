//! Lines put together from the pieces that a stream comes in.

/// Longest line kept, in bytes; what is beyond is dropped.
const LONGEST: usize = 1024 * 1024;

/// The line that has begun.
#[derive(Debug, Default)]
pub struct Pieces {
    partial: Vec<u8>,
}

impl Pieces {
    /// Takes a piece; gives `each` line that it ends.
    pub fn take(&mut self, piece: &[u8], mut each: impl FnMut(&[u8])) {
        let mut lines = piece.split(|byte| *byte == b'\n').peekable();
        while let Some(line) = lines.next() {
            let room = LONGEST.saturating_sub(self.partial.len());
            self.partial.extend_from_slice(&line[..line.len().min(room)]);
            if lines.peek().is_some() {
                each(&self.partial);
                self.partial.clear();
            }
        }
    }

    /// The stream is over: a last line may lack its end.
    pub fn end(&mut self, each: impl FnOnce(&[u8])) {
        if !self.partial.is_empty() {
            each(&std::mem::take(&mut self.partial));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_the_same_however_they_come_in_pieces_and_of_bounded_length() {
        let text = b"one\n\ntwo\nlast";
        for size in 1..=text.len() {
            let (mut pieces, mut seen) = (Pieces::default(), Vec::new());
            text.chunks(size).for_each(|piece| pieces.take(piece, |line| seen.push(line.to_vec())));
            pieces.end(|line| seen.push(line.to_vec()));
            assert_eq!(seen, [&b"one"[..], b"", b"two", b"last"], "{size}");
        }
        let (mut pieces, mut length) = (Pieces::default(), 0);
        (0..3).for_each(|_| pieces.take(&vec![b'x'; LONGEST], |_| unreachable!()));
        pieces.end(|line| length = line.len());
        assert_eq!(length, LONGEST);
    }
}
