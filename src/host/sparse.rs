//! Files with holes, and copies of them in which they stay holes.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::{Whence, lseek};

/// What is looked at as a whole: bytes of a page.
const PAGE: usize = 4096;
/// Bytes read at a time.
const CHUNK: usize = 1024 * 1024;

nix::ioctl_write_int!(
    /// Has a file share all blocks of another's until either is written, where the file system can.
    ficlone, 0x94, 9
);

/// Copies `from` into the new file `to`. Holes take no space, nor do pages of nothing but zeros unless both
/// files share their blocks.
pub fn copy(from: &File, to: &Path) -> io::Result<()> {
    let target = OpenOptions::new().create_new(true).write(true).mode(0o600).open(to)?;
    // SAFETY: both descriptors are open, and no memory is handed over.
    if unsafe { ficlone(target.as_raw_fd(), from.as_raw_fd() as u64) }.is_ok() {
        return Ok(());
    }
    target.set_len(from.metadata()?.len())?;
    read(from, |bytes, at| write_pages(&target, bytes, at))
}

/// Gives back the space of a file's pages of nothing but zeros, where the file system can.
pub fn punch(file: &File) -> io::Result<()> {
    let empty = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let punched = read(file, |bytes, at| {
        for (offset, length) in stretches(bytes, true) {
            fallocate(file, empty, (at + offset as u64) as i64, length as i64)?;
        }
        Ok(())
    });
    match punched {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
        punched => punched,
    }
}

/// Hands all of a file that is not a hole to `take`, piece by piece, with its place.
pub fn read(from: &File, mut take: impl FnMut(&[u8], u64) -> io::Result<()>) -> io::Result<()> {
    let end = from.metadata()?.len();
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while let Some((begin, stop)) = data(from, at, end)? {
        at = begin;
        while at < stop {
            let length = CHUNK.min((stop - at) as usize);
            from.read_exact_at(&mut buffer[..length], at)?;
            take(&buffer[..length], at)?;
            at += length as u64;
        }
    }
    Ok(())
}

/// The next stretch of data at or after `at`.
fn data(file: &File, at: u64, end: u64) -> io::Result<Option<(u64, u64)>> {
    if at >= end {
        return Ok(None);
    }
    match lseek(file, at as i64, Whence::SeekData) {
        // Nothing but a hole is left.
        Err(Errno::ENXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
        Ok(begin) => {
            let stop = lseek(file, begin, Whence::SeekHole)?;
            Ok(Some((begin as u64, (stop as u64).min(end))))
        }
    }
}

/// Writes those pages that hold something, neighbours at once.
pub fn write_pages(target: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    stretches(bytes, false)
        .into_iter()
        .try_for_each(|(offset, length)| target.write_all_at(&bytes[offset..][..length], at + offset as u64))
}

/// Where pages that are empty, or those that are not, lie next to each other: offset and length.
fn stretches(bytes: &[u8], empty: bool) -> Vec<(usize, usize)> {
    let mut found: Vec<(usize, usize)> = Vec::new();
    for (index, page) in bytes.chunks(PAGE).enumerate() {
        if (page == &[0; PAGE][..page.len()]) != empty {
            continue;
        }
        let offset = index * PAGE;
        match found.last_mut() {
            Some((begin, length)) if *begin + *length == offset => *length += page.len(),
            _ => found.push((offset, page.len())),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::MetadataExt;

    fn copied(content: &[u8], hole: u64) -> (Vec<u8>, u64) {
        let dir = tempfile::tempdir().unwrap();
        let from = File::create_new(dir.path().join("from")).unwrap();
        from.write_all_at(content, hole).unwrap();
        let to = dir.path().join("to");
        copy(&File::open(dir.path().join("from")).unwrap(), &to).unwrap();
        let blocks = to.metadata().unwrap().blocks();
        (std::fs::read(to).unwrap(), blocks * 512)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_copy_has_the_same_bytes(
            pages in proptest::collection::vec((any::<bool>(), any::<u8>()), 0..40),
            rest in 0_usize..PAGE,
            hole in 0_u64..100_000,
        ) {
            let mut content: Vec<u8> = Vec::new();
            for (is_zero, byte) in pages {
                content.extend([if is_zero { 0 } else { byte }; PAGE]);
            }
            content.extend(vec![7; rest]);
            let mut whole = vec![0; if content.is_empty() { 0 } else { hole as usize }];
            whole.extend(&content);
            prop_assert!(copied(&content, hole).0 == whole);
        }
    }

    #[test]
    fn a_file_whose_zeros_are_punched_out_reads_the_same_and_takes_less_space() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memory");
        let mut content = vec![0; 3 * CHUNK + 100];
        content[CHUNK + 5] = 1;
        content[3 * CHUNK + 50] = 2;
        std::fs::write(&path, &content).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        punch(&file).unwrap();
        assert!(std::fs::read(&path).unwrap() == content);
        assert!(path.metadata().unwrap().blocks() * 512 <= 64 * 1024);
    }

    #[test]
    fn holes_and_zeros_take_no_space() {
        let mut content = vec![0; 3 * CHUNK];
        content[2 * CHUNK] = 1;
        let (copy, space) = copied(&content, 64 * 1024 * 1024);
        assert_eq!(copy.len(), 64 * 1024 * 1024 + 3 * CHUNK);
        assert!(space <= 64 * 1024, "{space}");
    }
}
