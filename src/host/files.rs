//! Files that matter: written whole or not at all; locks.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::unistd::{AccessFlags, access};
use tokio_util::sync::CancellationToken;

/// How often is looked whether a lock was let go.
const LOCK_POLL: Duration = Duration::from_millis(50);

/// Lower-case hexadecimal digits of `bytes`.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut out, byte| {
        // Writing into a String cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Whether this user may write in `path`.
pub fn is_writable(path: &Path) -> bool {
    access(path, AccessFlags::W_OK).is_ok()
}

/// Writes `content` beside `path`, syncs it and renames it into place, with mode `mode`.
///
/// A crash at any moment leaves the old file or the new one.
pub fn write_atomic(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let beside = dir.join(format!(".{}.{}", name.to_string_lossy(), std::process::id()));
    let written = (|| {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(&beside)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    })();
    if written.is_err() {
        // The first error is the one to report.
        let _ = std::fs::remove_file(&beside);
        return written;
    }
    File::open(dir)?.sync_all()
}

/// What a directory holds on disk, in bytes; holes do not count.
pub fn disk_usage(dir: &Path) -> u64 {
    let mut total = 0;
    let mut waiting = vec![dir.to_path_buf()];
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => waiting.push(entry.path()),
                Ok(meta) => total += meta.blocks() * 512,
                Err(_) => {}
            }
        }
    }
    total
}

/// Bytes that are free for this user where `path` lies.
pub fn free_space(path: &Path) -> io::Result<u64> {
    let stat = nix::sys::statvfs::statvfs(path)?;
    Ok(stat.blocks_available() * stat.fragment_size())
}

/// Removes a file; one that is not there is as good.
pub fn remove_file_if_there(path: &Path) -> io::Result<()> {
    absent_is_fine(std::fs::remove_file(path))
}

/// Removes a directory and all in it; one that is not there is as good.
pub fn remove_dir_if_there(path: &Path) -> io::Result<()> {
    absent_is_fine(std::fs::remove_dir_all(path))
}

fn absent_is_fine(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What a file looks like from outside: another once it was written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp([i64; 6]);

impl Stamp {
    /// None where there is no such file.
    pub fn of(file: &Path) -> Option<Self> {
        std::fs::metadata(file).ok().map(|meta| Self::from(&meta))
    }
}

impl From<&std::fs::Metadata> for Stamp {
    fn from(meta: &std::fs::Metadata) -> Self {
        let times = [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()];
        Self([meta.ino() as i64, meta.size() as i64, times[0], times[1], times[2], times[3]])
    }
}

/// An exclusive lock on a file, held until every copy of its descriptor is closed.
///
/// It belongs to the open file, so that a child which inherits the descriptor holds it too, and
/// can be looked at without being taken.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Takes the lock, or returns `None` when somebody holds it.
    pub fn try_take(path: &Path) -> io::Result<Option<Self>> {
        Self::of(Self::open(path)?, libc::F_WRLCK)
    }

    /// Takes the lock as one of several, or returns `None` when somebody holds it alone.
    pub fn try_share(path: &Path) -> io::Result<Option<Self>> {
        Self::of(Self::open(path)?, libc::F_RDLCK)
    }

    /// Takes the lock as one of several as soon as nobody holds it alone; none once it is cancelled.
    pub async fn share_at_last(path: &Path, cancel: &CancellationToken) -> io::Result<Option<Self>> {
        loop {
            if let Some(lock) = Self::try_share(path)? {
                return Ok(Some(lock));
            }
            // The system tells nobody that a lock was let go, but for who waits in it.
            tokio::select! {
                () = tokio::time::sleep(LOCK_POLL) => {}
                () = cancel.cancelled() => return Ok(None),
            }
        }
    }

    /// Lets others share it from here on.
    pub fn share(self) -> io::Result<Self> {
        fcntl(&self.0, FcntlArg::F_OFD_SETLK(&whole_file(libc::F_RDLCK)))?;
        Ok(self)
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.0
    }

    fn open(path: &Path) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true).mode(0o600);
        // Whoever may write in its directory could have put a link there.
        options.custom_flags(libc::O_NOFOLLOW).open(path)
    }

    fn of(file: File, kind: libc::c_int) -> io::Result<Option<Self>> {
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole_file(kind))) {
            Ok(_) => Ok(Some(Self(file))),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether somebody holds the lock; false when there is no such file.
pub fn is_locked(path: &Path) -> io::Result<bool> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        file => is_locked_elsewhere(&file?),
    }
}

/// Whether somebody holds the lock on an open file by another descriptor than this one.
pub fn is_locked_elsewhere(file: &File) -> io::Result<bool> {
    let mut lock = whole_file(libc::F_WRLCK);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}

fn whole_file(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_seen_by_others_until_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert!(!is_locked(&path).unwrap());
        let lock = Lock::try_take(&path).unwrap();
        assert!(lock.is_some());
        assert!(is_locked(&path).unwrap());
        drop(lock);
        assert!(!is_locked(&path).unwrap());
    }

    #[test]
    fn a_shared_lock_keeps_out_who_wants_it_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let alone = Lock::try_take(&path).unwrap().unwrap();
        assert!(Lock::try_share(&path).unwrap().is_none());
        let first = alone.share().unwrap();
        let second = Lock::try_share(&path).unwrap();
        assert!(second.is_some() && Lock::try_take(&path).unwrap().is_none());
        drop((first, second));
        assert!(Lock::try_take(&path).unwrap().is_some());
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        write_atomic(&path, b"old", 0o600).unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        assert!(write_atomic(&dir.path().join("sub"), b"new", 0o600).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
