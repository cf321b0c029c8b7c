//! The clipboard, by OSC 52.

use std::io;

use crossterm::clipboard::CopyToClipboard;

/// Most bytes copied at once: base64 makes 100 kB of them, and terminals take no more.
pub const MOST_COPIED: usize = 75_000;

/// Why text is not in the clipboard.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Terminals would drop it, or a part of it.
    #[error(
        "{bytes} bytes are too many for the terminal's clipboard, which takes {MOST_COPIED}\nhelp: select less, or export it to a file"
    )]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// The terminal does not take anything.
    #[error("cannot write to the terminal: {0}")]
    Write(io::Error),
}

pub(super) fn sequence(text: &str) -> Result<Vec<u8>, CopyError> {
    if text.len() > MOST_COPIED {
        return Err(CopyError::TooLarge { bytes: text.len() });
    }
    Ok(super::sequence(CopyToClipboard::to_clipboard_from(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_copied_as_base64() {
        let bytes = sequence("copy\x1b\x07me").unwrap();
        assert_eq!(bytes, b"\x1b]52;c;Y29weRsHbWU=\x1b\\");
    }

    #[test]
    fn too_much_text_is_refused_and_not_cut() {
        assert!(sequence(&"x".repeat(MOST_COPIED)).unwrap().len() <= 100_010);
        let error = sequence(&"x".repeat(MOST_COPIED + 1)).unwrap_err();
        assert!(error.to_string().starts_with("75001 bytes are too many"), "{error}");
    }
}
