//! Frames: four bytes of length, big-endian, then JSON.
//!
//! What a frame claims is never believed: no more is reserved than has come, and nothing is waited
//! for without an end.

use std::io;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Most bytes of JSON in a frame.
pub const MAX_FRAME: usize = 1 << 20;

/// Bytes of the length.
pub const HEADER: usize = 4;

/// What is read at once, and reserved before it has come.
const CHUNK: usize = 16 << 10;

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Longer than [`MAX_FRAME`].
    #[error("the frame has {0} bytes\nhelp: a frame has at most {MAX_FRAME}")]
    TooLong(u64),
    /// A length of 0.
    #[error("the frame is empty\nhelp: a frame is 4 bytes of length, big-endian, and so many bytes of JSON")]
    Empty,
    /// The stream ended within the frame.
    #[error(
        "the frame was cut short: {got} of {want} bytes came\nhelp: a frame is 4 bytes of length, big-endian, and so many bytes of JSON"
    )]
    CutShort {
        /// Bytes that came.
        got: usize,
        /// Bytes that were to come.
        want: usize,
    },
    /// The stream ended before a frame began.
    #[error("the stream ended where a frame was to begin")]
    Ended,
    /// Not JSON, or not of the shape that was to come.
    #[error("the frame holds something else than was to come: {0}")]
    NotJson(#[from] serde_json::Error),
    /// Not done in time.
    #[error("the frame took longer than {0:?}\nhelp: the other side may hang, or the way to it be broken")]
    TooSlow(Duration),
    /// The stream broke.
    #[error("the stream broke: {0}")]
    Broken(io::Error),
}

/// A value as a frame.
pub fn encode(value: &impl Serialize) -> Result<Vec<u8>, WireError> {
    let mut frame = vec![0; HEADER];
    serde_json::to_writer(&mut frame, value)?;
    let length = frame.len() - HEADER;
    if length > MAX_FRAME {
        return Err(WireError::TooLong(length as u64));
    }
    // Below 2^32, as just seen.
    frame[..HEADER].copy_from_slice(&(length as u32).to_be_bytes());
    Ok(frame)
}

/// Reads the length of a frame.
pub async fn read_length(from: &mut (impl AsyncRead + Unpin)) -> Result<usize, WireError> {
    let mut header = [0; HEADER];
    let mut got = 0;
    while got < HEADER {
        match from.read(&mut header[got..]).await.map_err(WireError::Broken)? {
            0 if got == 0 => return Err(WireError::Ended),
            0 => return Err(WireError::CutShort { got, want: HEADER }),
            read => got += read,
        }
    }
    match u32::from_be_bytes(header) {
        0 => Err(WireError::Empty),
        length if length as usize > MAX_FRAME => Err(WireError::TooLong(length.into())),
        length => Ok(length as usize),
    }
}

/// Reads what follows the length.
pub async fn read_body(from: &mut (impl AsyncRead + Unpin), length: usize) -> Result<Vec<u8>, WireError> {
    let mut body = Vec::with_capacity(length.min(CHUNK));
    let mut from = from.take(length as u64);
    while body.len() < length {
        if body.len() == body.capacity() {
            body.reserve(body.len().min(length - body.len()));
        }
        if from.read_buf(&mut body).await.map_err(WireError::Broken)? == 0 {
            return Err(WireError::CutShort { got: body.len(), want: length });
        }
    }
    Ok(body)
}

/// Reads a whole frame.
pub async fn read(from: &mut (impl AsyncRead + Unpin), patience: Duration) -> Result<Vec<u8>, WireError> {
    within(patience, async {
        let length = read_length(from).await?;
        read_body(from, length).await
    })
    .await
}

/// Waits no longer than `patience`.
pub async fn within<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, WireError>>,
) -> Result<T, WireError> {
    tokio::time::timeout(patience, work).await.unwrap_or(Err(WireError::TooSlow(patience)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SOON: Duration = Duration::from_secs(5);

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
    }

    fn read_bytes(mut bytes: &[u8]) -> Result<Vec<u8>, WireError> {
        run(read(&mut bytes, SOON))
    }

    #[test]
    fn lengths_that_cannot_be_are_refused_before_anything_else_is_read() {
        assert!(matches!(read_bytes(&[0; 8]), Err(WireError::Empty)));
        assert!(matches!(read_bytes(&[0xff; 8]), Err(WireError::TooLong(0xffff_ffff))));
        let over = (MAX_FRAME as u32 + 1).to_be_bytes();
        assert!(matches!(read_bytes(&over), Err(WireError::TooLong(_))));
    }

    #[test]
    fn an_end_before_and_an_end_within_a_frame_are_told_apart() {
        assert!(matches!(read_bytes(&[]), Err(WireError::Ended)));
        assert!(matches!(read_bytes(&[0, 0]), Err(WireError::CutShort { got: 2, want: 4 })));
        assert!(matches!(read_bytes(&[0, 0, 0, 9, b'{']), Err(WireError::CutShort { got: 1, want: 9 })));
    }

    #[test]
    fn half_a_frame_then_silence_is_too_slow() {
        let result = run(async {
            let (mut near, mut far) = tokio::io::duplex(64);
            tokio::io::AsyncWriteExt::write_all(&mut near, &[0, 0, 0, 9, b'{']).await.unwrap();
            read(&mut far, Duration::from_millis(20)).await
        });
        assert!(matches!(result, Err(WireError::TooSlow(_))));
    }

    #[test]
    fn a_claim_of_much_reserves_little() {
        let mut bytes = (MAX_FRAME as u32).to_be_bytes().to_vec();
        bytes.push(b' ');
        let mut rest = bytes.as_slice();
        let length = run(read_length(&mut rest)).unwrap();
        assert!(matches!(run(read_body(&mut rest, length)), Err(WireError::CutShort { got: 1, .. })));
    }

    #[test]
    fn what_is_too_long_is_not_written() {
        assert!(encode(&"x".repeat(MAX_FRAME - 2)).is_ok());
        assert!(matches!(encode(&"x".repeat(MAX_FRAME)), Err(WireError::TooLong(_))));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(text in ".{0,4000}") {
            let frame = encode(&text).unwrap();
            let body = read_bytes(&frame).unwrap();
            prop_assert_eq!(serde_json::from_slice::<String>(&body).unwrap(), text);
        }

        #[test]
        fn no_bytes_make_the_reader_panic_or_give_more_than_came(bytes: Vec<u8>) {
            if let Ok(body) = read_bytes(&bytes) {
                prop_assert!(body.len() + HEADER <= bytes.len());
            }
        }
    }
}
