//! A text file that another process appends to, read line by line as it grows.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use memchr::memchr;

/// Longest line; what is beyond is left out, in bytes.
const LONGEST: usize = 1024 * 1024;
/// Bytes read at once.
const PIECE: usize = 16 * 1024;

/// The reading end. It goes on with the same file when that is renamed or removed.
#[derive(Debug)]
pub struct Growing {
    file: File,
    inode: (u64, u64),
    partial: Vec<u8>,
}

impl Growing {
    /// Opens a file at its beginning; `None` when there is none.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let meta = file.metadata()?;
        Ok(Some(Self { file, inode: (meta.dev(), meta.ino()), partial: Vec::new() }))
    }

    /// Whether both read the same file, whatever its name.
    pub fn is_same(&self, other: &Self) -> bool {
        self.inode == other.inode
    }

    /// The file itself.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives `each` the lines that were added since the last time, without their ends. A last line
    /// that is not whole yet waits for its end.
    pub fn read(&mut self, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        let mut piece = [0; PIECE];
        loop {
            let count = match self.file.read(&mut piece) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let mut bytes = &piece[..count];
            while let Some(end) = memchr(b'\n', bytes) {
                if self.partial.is_empty() {
                    each(&bytes[..end]);
                } else {
                    self.keep(&bytes[..end]);
                    each(&self.partial);
                    self.partial.clear();
                }
                bytes = &bytes[end + 1..];
            }
            self.keep(bytes);
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = LONGEST.saturating_sub(self.partial.len());
        self.partial.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_line_is_given_once_and_only_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        assert!(Growing::open(&path).unwrap().is_none());
        let mut writer = File::create(&path).unwrap();
        let mut reader = Growing::open(&path).unwrap().expect("a file");
        let mut read = || {
            let mut lines = Vec::new();
            reader.read(|line| lines.push(String::from_utf8_lossy(line).into_owned())).unwrap();
            lines
        };
        assert!(read().is_empty());
        writer.write_all(b"one\n\ntw").unwrap();
        assert_eq!(read(), ["one", ""]);
        std::fs::remove_file(&path).unwrap();
        writer.write_all(b"o\nthree\n").unwrap();
        assert_eq!(read(), ["two", "three"]);
        writer.write_all(&vec![b'x'; 3 * LONGEST]).unwrap();
        assert!(read().is_empty());
        writer.write_all(b"y\nfour\n").unwrap();
        let lines = read();
        assert_eq!((lines[0].len(), lines[1].as_str()), (LONGEST, "four"));
    }
}
