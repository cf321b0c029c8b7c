//! Writing an app.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use memchr::memmem;
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

/// Writes an app as `output`, whole or not at all.
pub async fn bake(recipe: Recipe, output: &Path, cancel: &CancellationToken) -> Result<Manifest, BakeError> {
    let (output, cancel) = (output.to_path_buf(), cancel.clone());
    let at = output.clone();
    let written = tokio::task::spawn_blocking(move || write(recipe, &output, &cancel));
    written.await.map_err(|error| BakeError::file("write", at)(io::Error::other(error)))?
}

fn write(recipe: Recipe, output: &Path, cancel: &CancellationToken) -> Result<Manifest, BakeError> {
    // One name, so that the next build writes over what a killed one left.
    let mut name = std::ffi::OsString::from(".");
    name.push(output.file_name().unwrap_or_default());
    name.push(".part");
    let beside = output.with_file_name(name);
    let lock = Lock::try_take(&beside).map_err(BakeError::file("write", &beside))?;
    let _lock = lock.ok_or_else(|| BakeError::Busy { path: output.into() })?;
    let written = write_beside(recipe, &beside, cancel).and_then(|manifest| {
        fs::rename(&beside, output).map_err(BakeError::file("write", output))?;
        Ok(manifest)
    });
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&beside);
    }
    written
}

fn write_beside(recipe: Recipe, path: &Path, cancel: &CancellationToken) -> Result<Manifest, BakeError> {
    let failed = || BakeError::file("write", path);
    let file = OpenOptions::new().write(true).open(path).map_err(failed())?;
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
struct Writer {
    file: File,
    at: u64,
    parts: Vec<Part>,
}

impl Writer {
    /// Goes on where the next part may begin; what is left out is a hole, which reads as zeros.
    fn align(&mut self) -> io::Result<u64> {
        self.at = aligned(self.at).ok_or(io::ErrorKind::FileTooLarge)?;
        self.file.seek(SeekFrom::Start(self.at))
    }

    fn launcher(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut writer = Digesting::new(&self.file);
        writer.write_all(bytes)?;
        let (length, digest) = (writer.count(), hex(&writer.finish().1));
        self.push(LAUNCHER, length, digest.clone(), length, digest);
        Ok(())
    }

    fn part(&mut self, name: &str, content: impl Read) -> io::Result<()> {
        self.align()?;
        let mut content = Digesting::new(content);
        let mut packed = zstd::Encoder::new(Digesting::new(BufWriter::new(&self.file)), LEVEL)?;
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
        let mut writer = Digesting::new(&self.file);
        writer.write_all(&json)?;
        let (length, sha256) = (writer.count(), writer.finish().1);
        self.at += length;
        self.align()?;
        self.file.write_all(&Trailer { offset, length, sha256 }.bytes())?;
        self.file.set_permissions(Permissions::from_mode(0o755))?;
        self.file.sync_all()
    }
}

/// Where `needle` is in `bytes`, if it is there just once.
pub(super) fn only_place(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    let mut places = memmem::find_iter(bytes, needle);
    let place = places.next()?;
    places.next().is_none().then_some(place)
}
