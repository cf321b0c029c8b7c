//! Files a snapshot rests on: whether they are as they were.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::host::{files, sparse};

/// A file as it was when the snapshot was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// The file; a bare name lies in the snapshot's directory.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
    /// Its number on its file system.
    inode: u64,
    /// When it last changed, nanoseconds since the epoch.
    changed_ns: i64,
    /// Its SHA-256: of the whole file, or where that is not known otherwise, of what is not a hole.
    /// None for a user's own image, which may be large.
    sha256: Option<Digested>,
}

/// What a digest is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Digested {
    /// All bytes, lower-case hex.
    Whole(String),
    /// Stretches of data with their places, lower-case hex.
    Sparse(String),
}

impl Stamp {
    /// Stamps `path`, known as `name`, whose digest is known.
    pub fn known(path: &Path, sha256: Option<Digested>) -> io::Result<Self> {
        let meta = std::fs::metadata(path)?;
        Ok(Self {
            path: path.into(),
            size: meta.len(),
            inode: meta.ino(),
            changed_ns: changed(&meta),
            sha256,
        })
    }

    /// Stamps the file `name` in `dir`, reading it once.
    pub fn read(dir: &Path, name: &str) -> io::Result<Self> {
        let path = dir.join(name);
        let sha256 = Digested::Sparse(sparse_digest(&File::open(&path)?)?);
        Ok(Self { path: name.into(), ..Self::known(&path, Some(sha256))? })
    }

    /// The stamp as it is now, or what is no longer as it was, with `dir` the snapshot's directory. A file
    /// that only looks changed is read; one that is as it was costs one look.
    pub fn renewed(&self, dir: &Path) -> Result<Self, String> {
        let path = dir.join(&self.path);
        let at = |error: io::Error| format!("`{}`: {error}", path.display());
        let meta = std::fs::metadata(&path).map_err(at)?;
        if meta.len() != self.size {
            return Err(format!("`{}` has {} bytes and had {}", path.display(), meta.len(), self.size));
        }
        let now = Self { inode: meta.ino(), changed_ns: changed(&meta), ..self.clone() };
        if now == *self {
            return Ok(now);
        }
        let same = match &self.sha256 {
            None => false,
            Some(Digested::Whole(sha256)) => whole_digest(&path).map_err(at)? == *sha256,
            Some(Digested::Sparse(sha256)) => {
                let digest = File::open(&path).and_then(|file| sparse_digest(&file));
                digest.map_err(at)? == *sha256
            }
        };
        if same { Ok(now) } else { Err(format!("`{}` was changed since", path.display())) }
    }
}

fn changed(meta: &std::fs::Metadata) -> i64 {
    meta.ctime() * 1_000_000_000 + meta.ctime_nsec()
}

fn whole_digest(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut sha256 = Sha256::new();
    let mut buffer = vec![0; 1024 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(files::hex(&sha256.finalize())),
            count => sha256.update(&buffer[..count]),
        }
    }
}

/// Holes do not count, and zeros that are written out do: a copy may differ though it reads the same.
fn sparse_digest(file: &File) -> io::Result<String> {
    let mut sha256 = Sha256::new();
    sparse::read(file, |bytes, at| {
        sha256.update(at.to_be_bytes());
        sha256.update(bytes);
        Ok(())
    })?;
    Ok(files::hex(&sha256.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_only_touched_is_as_it_was_and_a_changed_one_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("state");
        std::fs::write(&file, "saved").unwrap();
        let stamp = Stamp::read(dir.path(), "state").unwrap();
        assert_eq!(stamp.renewed(dir.path()).as_ref(), Ok(&stamp));
        std::fs::rename(&file, dir.path().join("away")).unwrap();
        assert!(stamp.renewed(dir.path()).unwrap_err().contains("No such file"));
        std::fs::write(&file, "saved").unwrap();
        let renewed = stamp.renewed(dir.path()).unwrap();
        assert_ne!(renewed, stamp, "another file with the same content");
        assert_eq!(renewed.renewed(dir.path()).as_ref(), Ok(&renewed));
        std::fs::write(&file, "Saved").unwrap();
        assert!(stamp.renewed(dir.path()).unwrap_err().contains("was changed since"));
        std::fs::write(&file, "sav").unwrap();
        assert!(stamp.renewed(dir.path()).unwrap_err().contains("has 3 bytes and had 5"));
    }
}
