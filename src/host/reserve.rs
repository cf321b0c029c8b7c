//! Disk space that is kept back, so that a full disk can be freed with mvm's own means: SQLite needs some to
//! open a database, be it to remove from it.

use std::fs::OpenOptions;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};

use super::files;

/// How much is kept back, in bytes.
const BYTES: i64 = 1 << 20;
/// A disk with less is full, in bytes.
const NOTHING: u64 = 64 << 10;
/// So much must be free for it to be taken, in bytes.
const PLENTY: u64 = 16 << 20;

fn file(state: &Path) -> PathBuf {
    state.join("reserve")
}

/// Keeps space back where there is plenty; it is no fault where there is not.
pub fn keep(state: &Path) {
    let file = file(state);
    let is_kept = file.metadata().is_ok_and(|kept| kept.blocks() * 512 >= BYTES as u64);
    if is_kept || files::free_space(state).is_ok_and(|free| free < PLENTY) {
        return;
    }
    let made = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&file);
    let kept = made.and_then(|made| Ok(fallocate(made, FallocateFlags::empty(), 0, BYTES)?));
    if kept.is_err() {
        let _ = files::remove_file_if_there(&file);
    }
}

/// Gives the space back, if the disk is full and some was kept.
pub fn give_back(state: &Path) -> bool {
    let is_full = files::free_space(state).is_ok_and(|free| free < NOTHING);
    is_full && std::fs::remove_file(file(state)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_back_takes_space_until_the_disk_is_full() {
        let state = tempfile::tempdir().unwrap();
        keep(state.path());
        keep(state.path());
        assert!(file(state.path()).metadata().unwrap().blocks() * 512 >= BYTES as u64);
        assert!(!give_back(state.path()) && file(state.path()).exists());
    }
}
