//! Directories that are laid out whole or not at all, with a stamp that says from what.
//!
//! The stamp lies beside the directory, not in it: what is in it becomes part of build hashes,
//! and times of files must not.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::files;

/// The stamp of a laid-out directory; `None` when there is none or its making was interrupted.
pub fn stamp(dir: &Path) -> Option<String> {
    if !dir.is_dir() {
        return None;
    }
    fs::read_to_string(stamp_file(dir)).ok()
}

/// An empty directory beside `dir` in which to lay out its successor.
///
/// What an interrupted setup left there is removed; callers hold setup's lock.
pub fn begin(dir: &Path) -> io::Result<PathBuf> {
    let next = beside(dir, "next");
    files::remove_dir_if_there(&next)?;
    fs::create_dir_all(&next)?;
    Ok(next)
}

/// Puts what was laid out in `next` in the place of `dir`.
pub fn finish(next: &Path, dir: &Path, stamp: &str) -> io::Result<()> {
    // Between here and the end there is no stamp: an interruption means doing it again.
    files::remove_file_if_there(&stamp_file(dir))?;
    replace(next, dir)?;
    files::write_atomic(&stamp_file(dir), stamp.as_bytes(), 0o600)
}

/// Puts `next` in the place of `dir`, which is gone then, without a stamp.
pub fn replace(next: &Path, dir: &Path) -> io::Result<()> {
    if !dir.exists() {
        return fs::rename(next, dir);
    }
    // An exchange, so that who reads `dir` sees the old one or the new one.
    if renameat2(AT_FDCWD, next, AT_FDCWD, dir, RenameFlags::RENAME_EXCHANGE).is_err() {
        // Some file systems cannot exchange.
        files::remove_dir_if_there(dir)?;
        return fs::rename(next, dir);
    }
    files::remove_dir_if_there(next)
}

fn stamp_file(dir: &Path) -> PathBuf {
    beside(dir, "stamp")
}

fn beside(dir: &Path, extension: &str) -> PathBuf {
    let mut path = dir.as_os_str().to_owned();
    path.push(".");
    path.push(extension);
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_layout_has_no_stamp_and_the_next_one_replaces_it() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("tools");
        let next = begin(&dir).unwrap();
        fs::write(next.join("half"), "").unwrap();
        assert_eq!(stamp(&dir), None);

        let next = begin(&dir).unwrap();
        assert!(!next.join("half").exists());
        fs::write(next.join("one"), "").unwrap();
        finish(&next, &dir, "1").unwrap();
        assert_eq!(stamp(&dir).as_deref(), Some("1"));

        let next = begin(&dir).unwrap();
        fs::write(next.join("two"), "").unwrap();
        finish(&next, &dir, "2").unwrap();
        assert_eq!(stamp(&dir).as_deref(), Some("2"));
        assert!(dir.join("two").exists() && !dir.join("one").exists() && !next.exists());
    }
}
