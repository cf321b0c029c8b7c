//! What Nix kept of a derivation's log.

use std::ffi::OsString;

use super::error::BuildError;
use super::machines::StoreUri;
use super::nix::Nix;
use crate::event::text::clean;

/// Longest line looked at.
const MAX_RAW: usize = 1024 * 1024;
/// How lines begin with which builders tell Nix itself something, such as the phase they are in.
const FOR_NIX: &[u8] = b"@nix {";

/// Whether a text is the path of a derivation or an output right in the store, so that Nix may be
/// asked about it: a builder can forge names.
pub fn is_store_path(text: &str) -> bool {
    let name = text.strip_prefix("/nix/store/").unwrap_or_default();
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"+-._?=".contains(&b);
    name.len() > 33 && name.as_bytes()[32] == b'-' && name.bytes().all(is_plain)
}

/// Gives `each` the lines of the log of `path`, made harmless; false when Nix has none of it, here or
/// in the `store` that was built in.
pub async fn read(
    path: &str,
    store: Option<&StoreUri>,
    nix: &Nix<'_>,
    mut each: impl FnMut(&str),
) -> Result<bool, BuildError> {
    if !is_store_path(path) {
        return Ok(false);
    }
    // A builder's log is here even if another machine built it; only that of another store is not.
    for store in [None, store].into_iter().take(1 + usize::from(store.is_some())) {
        // Nix would go on to look into the caches, and wait for those it cannot reach.
        let mut args: Vec<OsString> = ["log", "--option", "substituters", ""].map(Into::into).into();
        if let Some(store) = store {
            args.extend(["--store".into(), store.as_str().into()]);
        }
        let mut lines = Lines { partial: Vec::new(), each: &mut each };
        let nix = Nix { inputs: None, ..*nix };
        let ended = nix.listen(&args, &[path.into()], |_| {}, |piece| lines.take(piece)).await?;
        lines.end();
        if ended.success() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Puts pieces together to lines.
struct Lines<'a, F: FnMut(&str)> {
    partial: Vec<u8>,
    each: &'a mut F,
}

impl<F: FnMut(&str)> Lines<'_, F> {
    fn take(&mut self, piece: &[u8]) {
        let mut lines = piece.split(|byte| *byte == b'\n').peekable();
        while let Some(line) = lines.next() {
            let room = MAX_RAW.saturating_sub(self.partial.len());
            self.partial.extend_from_slice(&line[..line.len().min(room)]);
            if lines.peek().is_some() {
                self.line();
            }
        }
    }

    fn line(&mut self) {
        if !self.partial.starts_with(FOR_NIX) {
            (self.each)(&clean(&String::from_utf8_lossy(&self.partial)));
        }
        self.partial.clear();
    }

    /// A last line may lack its end.
    fn end(mut self) {
        if !self.partial.is_empty() {
            self.line();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_the_same_however_it_comes_in_pieces() {
        let log = b"one\n@nix { \"action\": \"setPhase\" }\n\n\x1b[31mtwo\x1b[2J\nlast";
        for size in 1..log.len() {
            let mut seen = Vec::new();
            let mut each = |line: &str| seen.push(line.to_owned());
            let mut lines = Lines { partial: Vec::new(), each: &mut each };
            log.chunks(size).for_each(|piece| lines.take(piece));
            lines.end();
            assert_eq!(seen, ["one", "", "\x1b[31mtwo\x1b[0m", "last"], "{size}");
        }
    }

    #[test]
    fn only_paths_right_in_the_store_are_asked_about() {
        let hash = "0".repeat(32);
        assert!(is_store_path(&format!("/nix/store/{hash}-a+b_1.0.drv")));
        for path in [format!("/nix/store/{hash}-a/../b"), format!("/nix/store/{hash}"), "/etc/passwd".into()]
        {
            assert!(!is_store_path(&path), "{path}");
        }
    }
}
