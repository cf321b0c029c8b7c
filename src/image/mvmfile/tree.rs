//! Files on their way into an image: what they are, and the tar archive of them.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ignore::WalkBuilder;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};
use tokio_util::sync::CancellationToken;

use super::MvmfileError;
use crate::host::digest::{Cancellable, Digesting};
use crate::host::files::hex;

/// Names what a directory keeps to itself, as `.gitignore` does for git.
const IGNORE: &str = ".mvmignore";
/// Never of use in a guest.
const NEVER: &str = ".git";

/// Files that go into an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Files(Vec<Entry>);

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    place: PathBuf,
    content: Content,
    mode: u32,
    /// User and group, by their names in the image.
    owner: Option<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    Text(String),
    File(PathBuf),
    Directory,
    Link(PathBuf),
}

impl Files {
    /// Adds a file of this content.
    pub fn text(&mut self, place: &str, mode: u32, text: impl Into<String>) {
        self.push(Path::new(place), Content::Text(text.into()), mode);
    }

    /// Adds a file, or a directory with all that is in it except for the files `but`. Those without a mode are
    /// executable or not, and private or not, as they are here.
    pub fn put(
        &mut self,
        place: &str,
        source: &Path,
        mode: Option<u32>,
        but: &[PathBuf],
    ) -> Result<(), MvmfileError> {
        let place = Path::new(place);
        if !fs::metadata(source).map_err(MvmfileError::file("read", source))?.is_dir() {
            return self.file(place, source, mode);
        }
        let mut walk = WalkBuilder::new(source);
        walk.standard_filters(false).add_custom_ignore_filename(IGNORE).sort_by_file_name(|a, b| a.cmp(b));
        walk.filter_entry(|entry| {
            entry.depth() == 0 || entry.file_name() != NEVER && entry.file_name() != IGNORE
        });
        for entry in walk.build() {
            let entry = entry.map_err(|error| {
                let error = error.into_io_error().unwrap_or_else(|| io::ErrorKind::Other.into());
                MvmfileError::file("read", source)(error)
            })?;
            let path = entry.path();
            let below = path.strip_prefix(source).unwrap_or(path);
            match entry.file_type() {
                Some(kind) if kind.is_dir() || entry.depth() == 0 => {
                    let meta = fs::metadata(path).map_err(MvmfileError::file("read", path))?;
                    let place = if entry.depth() == 0 { place.to_path_buf() } else { place.join(below) };
                    let mode = mode.filter(|_| entry.depth() == 0).unwrap_or_else(|| usual_mode(&meta, true));
                    self.push(&place, Content::Directory, mode);
                }
                Some(kind) if kind.is_symlink() => {
                    let target = fs::read_link(path).map_err(MvmfileError::file("read", path))?;
                    self.push(&place.join(below), Content::Link(target), 0o777);
                }
                _ if but.iter().any(|but| but == path) => {}
                _ => self.file(&place.join(below), path, None)?,
            }
        }
        Ok(())
    }

    fn file(&mut self, place: &Path, path: &Path, mode: Option<u32>) -> Result<(), MvmfileError> {
        let read = MvmfileError::file("read", path);
        // Looked at before it is opened: somebody would have to write into a pipe.
        let meta = match fs::metadata(path) {
            Ok(meta) if meta.is_file() => meta,
            Ok(_) => return Err(MvmfileError::Odd { path: path.into() }),
            Err(error) => return Err(read(error)),
        };
        let runs = meta.permissions().mode() & 0o111 != 0;
        self.push(place, Content::File(path.into()), mode.unwrap_or_else(|| usual_mode(&meta, runs)));
        Ok(())
    }

    fn push(&mut self, place: &Path, content: Content, mode: u32) {
        self.0.push(Entry { place: place.into(), content, mode, owner: None });
    }

    /// Has all that is added from the `from`th on be somebody's, by the names in the image.
    pub fn own(&mut self, from: usize, user: &str, group: &str) {
        for entry in &mut self.0[from..] {
            entry.owner = Some((user.into(), group.into()));
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The digest of what they are and hold, but not of their times.
    pub fn digest(&self, cancel: &CancellationToken) -> Result<String, MvmfileError> {
        self.pack(io::sink(), cancel)
    }

    /// Writes a tar archive, which must have this digest.
    pub fn write(&self, to: &Path, digest: &str, cancel: &CancellationToken) -> Result<(), MvmfileError> {
        let file = File::create(to).map_err(MvmfileError::file("write", to))?;
        match self.pack(io::BufWriter::new(file), cancel)? {
            found if found == digest => Ok(()),
            _ => Err(MvmfileError::Changed),
        }
    }

    fn pack(&self, to: impl Write, cancel: &CancellationToken) -> Result<String, MvmfileError> {
        let mut tar = Builder::new(to);
        let mut digest = Sha256::new();
        let now = jiff::Timestamp::now().as_second().unsigned_abs();
        let write = |error| MvmfileError::file("write", "the archive of files")(error);
        for Entry { place, content, mode, owner } in &self.0 {
            let mut header = Header::new_gnu();
            header.set_mode(*mode);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(now);
            if let Some((user, group)) = owner {
                header.set_username(user).and_then(|()| header.set_groupname(group)).map_err(write)?;
            }
            let mut of = |kind: &str, content: &[u8]| {
                let owner = owner.as_ref().map_or(String::new(), |(user, group)| format!("{user}:{group}"));
                let head = format!("{kind} {mode:o} {owner} {}", content.len());
                for part in [head.as_bytes(), place.as_os_str().as_bytes(), content] {
                    digest.update((part.len() as u64).to_le_bytes());
                    digest.update(part);
                }
            };
            match content {
                Content::Text(text) => {
                    of("file", &Sha256::digest(text));
                    header.set_entry_type(EntryType::Regular);
                    header.set_size(text.len() as u64);
                    tar.append_data(&mut header, place, text.as_bytes()).map_err(write)?;
                }
                Content::Directory => {
                    of("directory", b"");
                    header.set_entry_type(EntryType::Directory);
                    header.set_size(0);
                    tar.append_data(&mut header, place, io::empty()).map_err(write)?;
                }
                Content::Link(target) => {
                    of("link", target.as_os_str().as_bytes());
                    header.set_entry_type(EntryType::Symlink);
                    header.set_size(0);
                    tar.append_link(&mut header, place, target).map_err(write)?;
                }
                Content::File(path) => {
                    let read = || MvmfileError::file("read", path);
                    let file = File::open(path).map_err(read())?;
                    let meta = file.metadata().map_err(read())?;
                    header.set_entry_type(EntryType::Regular);
                    header.set_size(meta.len());
                    header.set_mtime(meta.mtime().unsigned_abs());
                    let bytes = Cancellable { inner: file.take(meta.len()), cancel };
                    let mut bytes = Digesting::new(bytes);
                    tar.append_data(&mut header, place, &mut bytes).map_err(read())?;
                    if bytes.count() != meta.len() {
                        return Err(MvmfileError::Changed);
                    }
                    of("file", &bytes.finish().1);
                }
            }
        }
        tar.into_inner().and_then(|mut to| to.flush()).map_err(write)?;
        Ok(hex(&digest.finalize()))
    }
}

/// What others may do with a file in the image: what they may do here, whatever umask it was made under.
fn usual_mode(meta: &fs::Metadata, runs: bool) -> u32 {
    let is_private = meta.permissions().mode() & 0o077 == 0;
    match (runs, is_private) {
        (false, false) => 0o644,
        (false, true) => 0o600,
        (true, false) => 0o755,
        (true, true) => 0o700,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct App(tempfile::TempDir);

    impl App {
        fn new() -> Self {
            let base = tempfile::tempdir().unwrap();
            fs::create_dir(base.path().join("app")).unwrap();
            Self(base)
        }

        fn write(&self, name: &str, text: &str) -> PathBuf {
            let path = self.dir().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path
        }

        fn dir(&self) -> PathBuf {
            self.0.path().join("app")
        }

        fn files(&self, but: &[PathBuf]) -> Result<Files, MvmfileError> {
            let mut files = Files::default();
            files.put("srv/app", &self.dir(), None, but)?;
            Ok(files)
        }

        fn digest(&self) -> String {
            self.files(&[]).unwrap().digest(&CancellationToken::new()).unwrap()
        }
    }

    #[test]
    fn an_archive_holds_a_directory_without_what_it_keeps_to_itself() {
        let app = App::new();
        for name in [".git/x", "cache/x", "bin/x", "bin/app.elf"] {
            app.write(name, "");
        }
        let output = app.write("app.elf", "");
        app.write(".mvmignore", "cache\n");
        fs::set_permissions(app.dir().join("bin/x"), fs::Permissions::from_mode(0o700)).unwrap();
        symlink("bin/x", app.dir().join("link")).unwrap();
        let mut files = app.files(&[output]).unwrap();
        files.own(0, "web", "www-data");
        let tar = app.0.path().join("tar");
        let cancel = CancellationToken::new();
        files.write(&tar, &files.digest(&cancel).unwrap(), &cancel).unwrap();
        let mut archive = tar::Archive::new(File::open(tar).unwrap());
        let names = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let header = entry.header();
            let user = header.username().unwrap().unwrap();
            format!("{user} {:o} {}", header.mode().unwrap(), entry.path().unwrap().display())
        });
        assert_eq!(
            names.collect::<Vec<_>>(),
            [
                "web 755 srv/app",
                "web 755 srv/app/bin",
                "web 644 srv/app/bin/app.elf",
                "web 700 srv/app/bin/x",
                "web 777 srv/app/link"
            ]
        );
    }

    #[test]
    fn the_same_files_give_the_same_digest_whenever_they_were_written_and_others_another() {
        let app = App::new();
        let path = app.write("a", "1");
        let first = app.digest();
        File::open(&path).unwrap().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(app.digest(), first);
        app.write("a", "2");
        let second = app.digest();
        assert_ne!(second, first);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        assert_ne!(app.digest(), second);
    }

    #[test]
    fn an_archive_of_files_that_have_changed_since_is_none() {
        let app = App::new();
        app.write("a", "1");
        let (files, cancel) = (app.files(&[]).unwrap(), CancellationToken::new());
        let digest = files.digest(&cancel).unwrap();
        app.write("a", "2");
        let written = files.write(&app.0.path().join("tar"), &digest, &cancel);
        assert!(matches!(written, Err(MvmfileError::Changed)));
    }

    #[test]
    fn what_is_no_file_is_refused_by_name_and_not_waited_for() {
        let app = App::new();
        let pipe = app.dir().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = app.files(&[]).unwrap_err().to_string();
        assert!(error.contains("app/pipe"), "{error}");
    }

    #[test]
    fn a_digest_that_nobody_wants_any_more_ends() {
        let app = App::new();
        app.write("a", "1");
        let cancel = CancellationToken::new();
        cancel.cancel();
        assert!(app.files(&[]).unwrap().digest(&cancel).unwrap_err().is_cancelled());
    }
}
