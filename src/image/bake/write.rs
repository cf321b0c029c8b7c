//! Writing an app.

use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{BakeError, LAUNCHER, Manifest, Part, Settings, Trailer, VERSION, aligned, open};
use crate::artifacts::ImageInfo;
use crate::host::digest::{Cancellable, Digesting};
use crate::host::files::{Lock, hex};

/// How hard zstd tries: more than this costs much time for little.
const LEVEL: i32 = 3;

/// What an app is made of.
#[derive(Debug)]
pub struct Recipe {
    /// Its name.
    pub name: String,
    /// What it is made from.
    pub base: String,
    /// Digest of all that goes into it.
    pub key: String,
    /// How it runs.
    pub settings: Settings,
    /// What the image says of itself.
    pub image: ImageInfo,
    /// The program mvm.
    pub launcher: PathBuf,
    /// The files that are booted: their names and where they are.
    pub files: Vec<(&'static str, PathBuf)>,
}

/// A file that is about to be an app: nobody else writes it meanwhile.
#[derive(Debug)]
pub struct Output {
    path: PathBuf,
    beside: PathBuf,
    lock: Lock,
}

impl Output {
    /// Takes the place of a file, which may be there.
    pub fn take(path: &Path) -> Result<Self, BakeError> {
        let fail = || BakeError::file("write", path);
        // Of a link, what it leads to.
        let real = path.canonicalize();
        let path = real.as_deref().unwrap_or(path);
        let (Some(dir), Some(name), false) = (path.parent(), path.file_name(), path.is_dir()) else {
            return Err(fail()(io::ErrorKind::IsADirectory.into()));
        };
        if !may_go(path).map_err(fail())? {
            return Err(BakeError::InTheWay { path: path.into() });
        }
        let dir = dir.canonicalize().map_err(fail())?;
        // One name, so that the next build writes over what a killed one left.
        let mut part = std::ffi::OsString::from(".");
        part.push(name);
        part.push(".part");
        let beside = dir.join(part);
        // Twice, as somebody may just have put his into its place.
        for _ in 0..2 {
            let Some(lock) = Lock::try_take(&beside).map_err(fail())? else { break };
            let (ours, there) = (lock.file().metadata().map_err(fail())?, beside.symlink_metadata());
            if there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
                return Ok(Self { path: dir.join(name), beside, lock });
            }
        }
        Err(BakeError::Busy { path: path.into() })
    }

    /// The files that are written.
    pub fn files(&self) -> [PathBuf; 2] {
        [self.path.clone(), self.beside.clone()]
    }
}

/// Whether nothing is lost with what is there: an app, whole or not, or nothing at all.
fn may_go(path: &Path) -> io::Result<bool> {
    match path.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
        Ok(meta) if !meta.is_file() => Ok(false),
        Ok(meta) => Ok(meta.len() == 0 || open::begins_as_one(path)?),
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // It is no more once it is the app.
        let ours = self.lock.file().metadata().map(|meta| meta.ino());
        let there = self.beside.symlink_metadata().map(|meta| meta.ino());
        if ours.is_ok_and(|ours| there.is_ok_and(|there| ours == there)) {
            // The next build writes over it.
            let _ = fs::remove_file(&self.beside);
        }
    }
}

/// Writes an app, whole or not at all.
pub async fn bake(recipe: Recipe, output: Output, cancel: &CancellationToken) -> Result<Manifest, BakeError> {
    let (at, cancel) = (output.path.clone(), cancel.clone());
    let written = tokio::task::spawn_blocking(move || {
        let manifest = write(recipe, &output, &cancel)?;
        fs::rename(&output.beside, &output.path).map_err(BakeError::file("write", &output.path))?;
        Ok(manifest)
    });
    written.await.map_err(|error| BakeError::file("write", at)(io::Error::other(error)))?
}

fn write(recipe: Recipe, output: &Output, cancel: &CancellationToken) -> Result<Manifest, BakeError> {
    let failed = || BakeError::file("write", &output.path);
    let file = output.lock.file();
    file.set_len(0).map_err(failed())?;
    let mut app = Writer { file, at: 0, parts: Vec::new() };
    let launcher = open::marked(&recipe.launcher).map_err(BakeError::file("read", &recipe.launcher))?;
    app.launcher(&launcher).map_err(failed())?;
    for (name, source) in &recipe.files {
        let content = File::open(source).map_err(BakeError::file("read", source))?;
        app.part(name, Cancellable { inner: content, cancel }).map_err(failed())?;
    }
    let manifest = Manifest {
        v: VERSION,
        name: recipe.name,
        base: recipe.base,
        key: recipe.key,
        mvm: env!("CARGO_PKG_VERSION").into(),
        arch: std::env::consts::ARCH.into(),
        created: Timestamp::now(),
        settings: recipe.settings,
        image: recipe.image,
        parts: std::mem::take(&mut app.parts),
    };
    app.end(&manifest).map_err(failed())?;
    Ok(manifest)
}

/// An app that is being written.
struct Writer<'a> {
    file: &'a File,
    at: u64,
    parts: Vec<Part>,
}

impl Writer<'_> {
    /// Goes on where the next part may begin; what is left out is a hole, which reads as zeros.
    fn align(&mut self) -> io::Result<u64> {
        self.at = aligned(self.at).ok_or(io::ErrorKind::FileTooLarge)?;
        self.file.seek(SeekFrom::Start(self.at))
    }

    fn launcher(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut writer = Digesting::new(self.file);
        writer.write_all(bytes)?;
        let (length, digest) = (writer.count(), hex(&writer.finish().1));
        self.push(LAUNCHER, length, digest.clone(), length, digest);
        Ok(())
    }

    fn part(&mut self, name: &str, content: impl Read) -> io::Result<()> {
        self.align()?;
        let mut content = Digesting::new(content);
        let mut packed = zstd::Encoder::new(Digesting::new(BufWriter::new(self.file)), LEVEL)?;
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        packed.multithread(u32::try_from(threads.min(8)).unwrap_or(1))?;
        io::copy(&mut content, &mut packed)?;
        let mut writer = packed.finish()?;
        writer.flush()?;
        let (length, digest) = (writer.count(), hex(&writer.finish().1));
        self.push(name, length, digest, content.count(), hex(&content.finish().1));
        Ok(())
    }

    fn push(&mut self, name: &str, length: u64, sha256: String, size: u64, content_sha256: String) {
        self.parts.push(Part { name: name.into(), offset: self.at, length, sha256, size, content_sha256 });
        self.at += length;
    }

    fn end(mut self, manifest: &Manifest) -> io::Result<()> {
        let offset = self.align()?;
        let json = serde_json::to_vec(manifest)?;
        let mut writer = Digesting::new(self.file);
        writer.write_all(&json)?;
        let (length, sha256) = (writer.count(), writer.finish().1);
        self.at += length;
        self.align()?;
        self.file.write_all(&Trailer { offset, length, sha256 }.bytes())?;
        self.file.set_permissions(Permissions::from_mode(0o755))?;
        self.file.sync_all()
    }
}
