//! What Nix kept of a derivation's log.

use std::ffi::OsString;

use super::error::BuildError;
use super::machines::StoreUri;
use super::nix::Nix;
use crate::event::pieces::Pieces;
use crate::event::text::clean;

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
        let mut pieces = Pieces::default();
        let mut line = |line: &[u8]| {
            if !line.starts_with(FOR_NIX) {
                each(&clean(&String::from_utf8_lossy(line)));
            }
        };
        let nix = Nix { inputs: None, ..*nix };
        let ended = nix.listen(&args, &[path.into()], |_| {}, |piece| pieces.take(piece, &mut line)).await?;
        pieces.end(line);
        if ended.success() {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

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
