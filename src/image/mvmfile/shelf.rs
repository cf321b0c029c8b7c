//! The directory of layers: how they are put there, held while somebody uses them, and removed.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use rand_core::RngCore;
use tokio_util::sync::CancellationToken;

use super::MvmfileError;
use crate::host::files::Lock;
use crate::image::collect;

/// Held by who uses layers, with others, and by who removes some, alone.
pub(super) const LOCK: &str = "lock";
/// How the names of directories begin that are of no use any more, or not yet.
const UNUSED: [&str; 2] = [".new-", ".old-"];

/// Puts a directory where nothing is; false where something is.
pub(super) fn put_new(beside: &Path, target: &Path) -> io::Result<bool> {
    match renameat2(AT_FDCWD, beside, AT_FDCWD, target, RenameFlags::RENAME_NOREPLACE) {
        Err(Errno::EEXIST) => Ok(false),
        // Some file systems cannot.
        Err(Errno::EINVAL) if target.exists() => Ok(false),
        Err(Errno::EINVAL) => fs::rename(beside, target).map(|()| true),
        put => Ok(put.map(|()| true)?),
    }
}

/// Puts a directory in the place of another, if there is one; that is removed once nobody can be using it.
pub(super) fn put(beside: &Path, target: &Path) -> io::Result<()> {
    if !target.exists() {
        match fs::rename(beside, target) {
            // Another build was quicker.
            Err(error) if target.exists() && error.kind() != io::ErrorKind::NotFound => {}
            renamed => return renamed,
        }
    }
    if renameat2(AT_FDCWD, beside, AT_FDCWD, target, RenameFlags::RENAME_EXCHANGE).is_ok() {
        return set_aside(beside);
    }
    // Some file systems cannot exchange.
    set_aside(target)?;
    fs::rename(beside, target)
}

/// Takes a directory out of use. Somebody may be at work in it.
pub(super) fn set_aside(dir: &Path) -> io::Result<()> {
    let aside = format!("{}{:08x}", UNUSED[1], rand_core::OsRng.next_u32());
    match fs::rename(dir, dir.with_file_name(aside)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        renamed => renamed,
    }
}

/// Lets layers be used as long as the lock is held. What is of no use any more is removed, if nobody is at work.
pub(super) async fn hold(dir: &Path, cancel: &CancellationToken) -> Result<Lock, MvmfileError> {
    let fail = |error| MvmfileError::file("lock", dir)(error);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(fail)?;
    let file = dir.join(LOCK);
    if let Some(alone) = Lock::try_take(&file).map_err(fail)? {
        let dir = dir.to_path_buf();
        // There may be whole systems to remove.
        let shared = tokio::task::spawn_blocking(move || {
            sweep(&dir);
            alone.share()
        });
        return shared.await.map_err(io::Error::other).and_then(|shared| shared).map_err(fail);
    }
    let shared = Lock::share_at_last(&file, cancel).await.map_err(fail)?;
    let lock = shared.ok_or(MvmfileError::Cancelled)?;
    // Of builds that were killed, at least.
    collect::sweep(dir);
    Ok(lock)
}

/// Removes what was begun, or taken out of use. Only while nobody else is at work.
fn sweep(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if UNUSED.iter().any(|begin| name.as_encoded_bytes().starts_with(begin.as_bytes())) {
            // The next one tries again.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Removes layers; none, and false, while a build is at work.
pub fn remove(dir: &Path, layers: &[PathBuf]) -> io::Result<bool> {
    let Some(_alone) = Lock::try_take(&dir.join(LOCK))? else { return Ok(false) };
    // Half of one must not be found under its name.
    layers.iter().try_for_each(|layer| set_aside(layer))?;
    sweep(dir);
    Ok(true)
}

/// Layers, and what failed steps left, with the time since they were last of use.
pub fn unused(dir: &Path) -> Vec<(PathBuf, Duration)> {
    let rest = |entry: fs::DirEntry| {
        let visible = !entry.file_name().as_encoded_bytes().starts_with(b".");
        let meta = entry.metadata().ok().filter(|meta| meta.is_dir() && visible)?;
        // A clock that went backwards makes it fresh.
        Some((entry.path(), meta.modified().ok()?.elapsed().unwrap_or_default()))
    };
    fs::read_dir(dir).into_iter().flatten().flatten().filter_map(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(path: &Path, mark: &str) -> PathBuf {
        fs::create_dir_all(path).unwrap();
        fs::write(path.join("mark"), mark).unwrap();
        path.to_path_buf()
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn what_is_replaced_or_removed_is_there_until_nobody_can_be_using_it() {
        let base = tempfile::tempdir().unwrap();
        let shelf = base.path().join("layers");
        let held = hold(&shelf, &CancellationToken::new()).await.unwrap();
        let layer = shelf.join("1-packages");
        put(&dir(&shelf.join(".new-a"), "old"), &layer).unwrap();
        put(&dir(&shelf.join(".new-b"), "new"), &layer).unwrap();
        assert_eq!(fs::read_to_string(layer.join("mark")).unwrap(), "new");
        let there = names(&shelf);
        assert!(there.len() == 3 && there[0].starts_with(".old-"), "{there:?}");
        assert!(!remove(&shelf, std::slice::from_ref(&layer)).unwrap());
        assert!(layer.exists());
        drop(held);
        assert!(remove(&shelf, &[layer]).unwrap());
        assert_eq!(names(&shelf), ["lock"]);
    }

    #[tokio::test]
    async fn who_comes_while_layers_are_removed_waits() {
        let base = tempfile::tempdir().unwrap();
        let alone = Lock::try_take(&base.path().join(LOCK)).unwrap().unwrap();
        let cancel = CancellationToken::new();
        let waiting = hold(base.path(), &cancel);
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(alone);
        waiting.await.unwrap();
    }

    #[test]
    fn what_a_build_has_in_hand_is_not_unused() {
        let base = tempfile::tempdir().unwrap();
        for name in [".new-a", "1-packages", "2-files.failed"] {
            dir(&base.path().join(name), "");
        }
        fs::write(base.path().join(LOCK), "").unwrap();
        let mut unused: Vec<PathBuf> = unused(base.path()).into_iter().map(|(path, _)| path).collect();
        unused.sort();
        assert_eq!(unused, ["1-packages", "2-files.failed"].map(|name| base.path().join(name)));
    }
}
