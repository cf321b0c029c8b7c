//! Files on their way into an image: a tar archive that is the same whenever they are.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ignore::WalkBuilder;
use tar::{Builder, EntryType, Header};

use super::MvmfileError;
use crate::host::digest::Digesting;
use crate::host::files::hex;

/// Names what a directory keeps to itself, as `.gitignore` does for git.
const IGNORE: &str = ".mvmignore";
/// Never of use in a guest.
const NEVER: &str = ".git";

/// An archive that is being written, and its digest.
pub(super) struct Archive {
    tar: Builder<Digesting<BufWriter<File>>>,
    path: PathBuf,
}

impl Archive {
    pub fn create(path: PathBuf) -> Result<Self, MvmfileError> {
        let file = File::create(&path).map_err(MvmfileError::file("write", &path))?;
        Ok(Self { tar: Builder::new(Digesting::new(BufWriter::new(file))), path })
    }

    /// Adds a file of this content.
    pub fn text(&mut self, place: &str, mode: u32, content: &str) -> Result<(), MvmfileError> {
        let mut header = header(EntryType::Regular, mode, content.len() as u64);
        let added = self.tar.append_data(&mut header, place, content.as_bytes());
        added.map_err(MvmfileError::file("write", &self.path))
    }

    /// Adds a file, or a directory with all that is in it, except for what is called `but`. Files without a
    /// mode are executable or not, as they are here.
    pub fn put(
        &mut self,
        place: &str,
        source: &Path,
        mode: Option<u32>,
        but: Option<&str>,
    ) -> Result<(), MvmfileError> {
        let meta = fs::metadata(source).map_err(MvmfileError::file("read", source))?;
        if !meta.is_dir() {
            return self.file(place, source, mode);
        }
        let mut walk = WalkBuilder::new(source);
        walk.standard_filters(false).add_custom_ignore_filename(IGNORE).sort_by_file_name(|a, b| a.cmp(b));
        let unwanted = move |name: &std::ffi::OsStr| name == NEVER || name == IGNORE;
        let but = but.map(std::ffi::OsString::from);
        walk.filter_entry(move |entry| {
            entry.depth() == 0 || !unwanted(entry.file_name()) && but.as_deref() != Some(entry.file_name())
        });
        for entry in walk.build() {
            let entry = entry.map_err(|error| {
                MvmfileError::file("read", source)(
                    error.into_io_error().unwrap_or_else(|| io::ErrorKind::Other.into()),
                )
            })?;
            let path = entry.path();
            let inside = path.strip_prefix(source).unwrap_or(path);
            let place = if entry.depth() == 0 { PathBuf::from(place) } else { Path::new(place).join(inside) };
            let place = place.to_string_lossy();
            let kind = entry.file_type();
            match kind {
                Some(kind) if entry.depth() == 0 || kind.is_dir() => {
                    self.directory(&place, mode.filter(|_| entry.depth() == 0))?
                }
                Some(kind) if kind.is_symlink() => self.link(&place, path)?,
                _ => self.file(&place, path, None)?,
            }
        }
        Ok(())
    }

    fn directory(&mut self, place: &str, mode: Option<u32>) -> Result<(), MvmfileError> {
        let mut header = header(EntryType::Directory, mode.unwrap_or(0o755), 0);
        let added = self.tar.append_data(&mut header, place, io::empty());
        added.map_err(MvmfileError::file("write", &self.path))
    }

    fn link(&mut self, place: &str, path: &Path) -> Result<(), MvmfileError> {
        let target = fs::read_link(path).map_err(MvmfileError::file("read", path))?;
        let mut header = header(EntryType::Symlink, 0o777, 0);
        let added = self.tar.append_link(&mut header, place, target);
        added.map_err(MvmfileError::file("write", &self.path))
    }

    fn file(&mut self, place: &str, path: &Path, mode: Option<u32>) -> Result<(), MvmfileError> {
        let read = MvmfileError::file("read", path);
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
        let (meta, file) = match opened {
            Ok((meta, file)) if meta.is_file() => (meta, file),
            Ok(_) => return Err(read(io::Error::other("it is neither a file, a directory nor a link"))),
            Err(error) => return Err(read(error)),
        };
        let usual = if meta.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
        let mut header = header(EntryType::Regular, mode.unwrap_or(usual), meta.len());
        let mut content = file.take(meta.len());
        self.tar
            .append_data(&mut header, place, &mut content)
            .map_err(MvmfileError::file("write", &self.path))?;
        match content.limit() {
            0 => Ok(()),
            _ => Err(read(io::Error::other("it was written to meanwhile"))),
        }
    }

    /// Completes it; gives its digest.
    pub fn finish(self) -> Result<String, MvmfileError> {
        let Self { tar, path } = self;
        let finished = tar.into_inner().and_then(|mut writer| {
            writer.flush()?;
            Ok(hex(&writer.finish().1))
        });
        finished.map_err(MvmfileError::file("write", path))
    }
}

/// Owned by root, and of no time of its own.
fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(1);
    header.set_uid(0);
    header.set_gid(0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn names(path: &Path) -> Vec<String> {
        let mut archive = tar::Archive::new(File::open(path).unwrap());
        let entries = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let mode = entry.header().mode().unwrap();
            format!("{:o} {}", mode, entry.path().unwrap().display())
        });
        entries.collect()
    }

    fn packed(dir: &Path, to: &Path) -> String {
        let mut archive = Archive::create(to.into()).unwrap();
        archive.put("srv/app", dir, None, Some("app.elf")).unwrap();
        archive.finish().unwrap()
    }

    #[test]
    fn an_archive_holds_a_directory_without_what_it_keeps_to_itself() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("app");
        for name in [".git", "bin", "cache"] {
            fs::create_dir_all(dir.join(name)).unwrap();
            fs::write(dir.join(name).join("x"), "").unwrap();
        }
        fs::write(dir.join("app.elf"), "").unwrap();
        fs::write(dir.join(".mvmignore"), "cache\n").unwrap();
        fs::set_permissions(dir.join("bin/x"), fs::Permissions::from_mode(0o700)).unwrap();
        symlink("bin/x", dir.join("link")).unwrap();
        let tar = base.path().join("tar");
        packed(&dir, &tar);
        assert_eq!(names(&tar), ["755 srv/app", "755 srv/app/bin", "755 srv/app/bin/x", "777 srv/app/link"]);
    }

    #[test]
    fn the_same_files_give_the_same_digest_and_others_another() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("app");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("a"), "1").unwrap();
        let tar = base.path().join("tar");
        let first = packed(&dir, &tar);
        fs::remove_file(dir.join("a")).unwrap();
        fs::write(dir.join("a"), "1").unwrap();
        assert_eq!(packed(&dir, &tar), first);
        fs::write(dir.join("a"), "2").unwrap();
        assert_ne!(packed(&dir, &tar), first);
    }

    #[test]
    fn what_is_no_file_is_refused_by_name() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("app");
        fs::create_dir(&dir).unwrap();
        let socket = dir.join("socket");
        let _listening = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let mut archive = Archive::create(base.path().join("tar")).unwrap();
        let error = archive.put("srv", &dir, None, None).unwrap_err().to_string();
        assert!(error.contains("app/socket"), "{error}");
    }
}
