//! Reading an app: nothing of it is believed before its digest fits.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use memchr::memmem;
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::{BakeError, LAUNCHER, LONGEST, Manifest, PAGE, Part, TRAILER, Trailer, VERSION, aligned};
use crate::artifacts::{Artifacts, FileEntry, Manifest as BuildManifest};
use crate::event::fault::shown;
use crate::host::child::RUNNING;
use crate::host::digest::{Cancellable, Digesting};
use crate::host::files::hex;
use crate::host::sparse::write_pages;
use crate::image::attribute::system;
use crate::image::collect::{self, Beside, FILES};

/// Bytes read at once.
const PIECE: usize = 1 << 20;

/// How a program begins.
const ELF: &[u8] = b"\x7fELF";
/// No launcher is larger, in bytes.
const LARGEST_LAUNCHER: u64 = 256 << 20;

/// Most memory an image may need, in MiB: 1 TiB.
const MOST_MEMORY_MIB: u32 = 1 << 20;

/// What a program knows of itself. A launcher's has its last byte changed: so one whose end is missing does
/// not take itself for mvm.
#[used]
static MARK: [u8; 32] = *b"mvm's launcher mark: an app has\0";
/// The last byte of a launcher's mark.
const MARKED: u8 = 1;

fn mark() -> [u8; 32] {
    // SAFETY: it is there, and nothing writes it. Volatile, as it is changed in the file after compilation.
    unsafe { std::ptr::read_volatile(&MARK) }
}

/// The program mvm, marked as a launcher.
pub(super) fn marked(program: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = std::fs::read(program)?;
    let place =
        only_place(&bytes, &mark()[..31]).ok_or_else(|| io::Error::other("it is not the program mvm"))?;
    bytes[place + 31] = MARKED;
    Ok(bytes)
}

/// Whether a file begins with a launcher, as an app does that was cut short.
pub(super) fn begins_as_one(path: &Path) -> io::Result<bool> {
    let (mut file, mut bytes) = (File::open(path)?.take(LARGEST_LAUNCHER), Vec::new());
    file.by_ref().take(ELF.len() as u64).read_to_end(&mut bytes)?;
    if bytes != ELF {
        return Ok(false);
    }
    file.read_to_end(&mut bytes)?;
    let mut launcher = mark();
    launcher[31] = MARKED;
    Ok(memmem::find(&bytes, &launcher).is_some())
}

/// Where `needle` is in `bytes`, if it is there just once.
fn only_place(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    let mut places = memmem::find_iter(bytes, needle);
    let place = places.next()?;
    places.next().is_none().then_some(place)
}

/// An app whose manifest fits.
#[derive(Debug)]
pub struct App {
    /// Where it is.
    pub path: PathBuf,
    /// What it says of itself.
    pub manifest: Manifest,
    file: File,
}

/// The app that the running program is the launcher of; none of mvm itself.
pub fn own() -> Option<Result<App, BakeError>> {
    if mark()[31] != MARKED {
        return None;
    }
    let path = std::env::current_exe().unwrap_or_else(|_| RUNNING.into());
    Some(App::read(Path::new(RUNNING), path))
}

impl App {
    /// Opens a file and checks its manifest.
    pub fn open(path: &Path) -> Result<Self, BakeError> {
        let path = std::path::absolute(path).map_err(BakeError::file("find", path))?;
        Self::read(&path, path.clone())
    }

    fn read(file: &Path, path: PathBuf) -> Result<Self, BakeError> {
        // Looked at before it is opened: a pipe would have to be written to.
        if !file.metadata().map_err(BakeError::file("read", &path))?.is_file() {
            return Err(BakeError::NoApp { path });
        }
        let file = File::open(file).map_err(BakeError::file("read", &path))?;
        let io = || BakeError::file("read", &path);
        let damaged = |what: &str| BakeError::Damaged { path: path.clone(), what: what.into() };
        let length = file.metadata().map_err(io())?.len();
        let no_app = || BakeError::NoApp { path: path.clone() };
        let mut trailer = [0; TRAILER as usize];
        let end = length.checked_sub(TRAILER).ok_or_else(no_app)?;
        file.read_exact_at(&mut trailer, end).map_err(io())?;
        let trailer = Trailer::parse(&trailer).ok_or_else(no_app)?;
        let fits = trailer.length <= LONGEST
            && trailer.offset.checked_add(trailer.length).and_then(aligned) == Some(end);
        if !fits {
            return Err(damaged("its trailer does not fit its length"));
        }
        let mut gap = vec![0; (end - trailer.offset - trailer.length) as usize];
        file.read_exact_at(&mut gap, trailer.offset + trailer.length).map_err(io())?;
        if gap.iter().any(|byte| *byte != 0) {
            return Err(damaged("something lies between its manifest and its trailer"));
        }
        let mut json = vec![0; trailer.length as usize];
        file.read_exact_at(&mut json, trailer.offset).map_err(io())?;
        if hex(&Sha256::digest(&json)) != trailer.digest() {
            return Err(damaged("the digest of its manifest does not fit"));
        }
        let foreign = |what: String, help| BakeError::Foreign { path: path.clone(), what, help };
        let version =
            serde_json::from_slice::<serde_json::Value>(&json).ok().and_then(|json| json["v"].as_u64());
        if version.is_some_and(|version| version > u64::from(VERSION)) {
            return Err(foreign(
                "was made by a newer mvm".into(),
                "install that version of mvm, or run the file itself",
            ));
        }
        let manifest: Manifest =
            serde_json::from_slice(&json).map_err(|error| damaged(&format!("its manifest: {error}")))?;
        if manifest.arch != std::env::consts::ARCH {
            let what =
                format!("is for {}, and this machine is {}", shown(&manifest.arch), std::env::consts::ARCH);
            return Err(foreign(what, "run it on such a machine, or build it here"));
        }
        let app = Self { file, manifest, path: path.clone() };
        app.check_places(trailer.offset).map_err(|what| damaged(&what))?;
        Ok(app)
    }

    /// Whether the parts lie one behind the other, and are those that there can be.
    fn check_places(&self, end: u64) -> Result<(), String> {
        let parts = &self.manifest.parts;
        let mut at = 0;
        for (index, part) in parts.iter().enumerate() {
            let known = if index == 0 {
                part.name == LAUNCHER
            } else {
                FILES.iter().any(|(name, _)| *name == part.name)
            };
            let twice = parts[..index].iter().any(|earlier| earlier.name == part.name);
            let next = part.offset.checked_add(part.length);
            match next {
                Some(next)
                    if known
                        && !twice
                        && part.offset == at
                        && next <= end
                        && part.size <= collect::LARGEST =>
                {
                    at = aligned(next).unwrap_or(u64::MAX);
                }
                _ => {
                    return Err(format!("its part `{}` is out of place", shown(&part.name)));
                }
            }
        }
        let missing = FILES.iter().find(|(name, must)| *must && parts.iter().all(|part| part.name != *name));
        match missing {
            _ if self.manifest.image.min_mem_mib.is_some_and(|mib| mib > MOST_MEMORY_MIB) => {
                Err("it asks for more memory than a machine can have".into())
            }
            Some((name, _)) => Err(format!("it has no {name}")),
            None if at != end => Err("something lies between its parts and its manifest".into()),
            None => Ok(()),
        }
    }

    /// Checks the digest of every part, and that nothing is between them.
    pub async fn verify(&self, cancel: &CancellationToken) -> Result<(), BakeError> {
        let mut parts = Vec::new();
        for part in &self.manifest.parts {
            let (file, cancel) =
                (self.file.try_clone().map_err(BakeError::file("read", &self.path))?, cancel.clone());
            let (name, wanted) = (part.name.clone(), part.sha256.clone());
            let place = part.place();
            // On threads of their own, as there is nothing else to do meanwhile.
            parts.push(tokio::task::spawn_blocking(move || {
                let mut bytes = Digesting::new(Cancellable { inner: place.of(&file), cancel: &cancel });
                io::copy(&mut bytes, &mut io::sink())?;
                let mut gap = Vec::new();
                place.gap().of(&file).read_to_end(&mut gap)?;
                Ok((name, hex(&bytes.finish().1) == wanted && gap.iter().all(|byte| *byte == 0)))
            }));
        }
        for part in parts {
            let checked = part.await.map_err(io::Error::other).and_then(|checked| checked);
            let (name, fits) = checked.map_err(BakeError::file("read", &self.path))?;
            if !fits {
                let what = format!("the digest of its part `{name}` does not fit");
                return Err(BakeError::Damaged { path: self.path.clone(), what });
            }
        }
        Ok(())
    }

    /// The id of the build that it unpacks to.
    pub fn build(&self) -> String {
        collect::id_of(&self.files(), &self.manifest.image)
    }

    /// What it unpacks to.
    fn files(&self) -> Vec<FileEntry> {
        let entry = |part: &Part| FileEntry {
            name: part.name.clone(),
            size: part.size,
            sha256: part.content_sha256.clone(),
        };
        self.manifest.parts.iter().filter(|part| part.name != LAUNCHER).map(entry).collect()
    }

    /// Unpacks what is booted into a build's directory, unless it is there; true when it was. Its parts must
    /// have been verified.
    pub async fn unpack(
        &self,
        builds: &Path,
        cancel: &CancellationToken,
    ) -> Result<(Artifacts, bool), BakeError> {
        let build = self.build();
        let target = builds.join(&build);
        if let Some(artifacts) = collect::sound(&target) {
            return Ok((artifacts, true));
        }
        collect::sweep(builds);
        let beside = Beside::new(builds).map_err(BakeError::file("make", builds))?;
        for part in self.manifest.parts.iter().filter(|part| part.name != LAUNCHER) {
            self.unpack_part(part, beside.0.join(&part.name), cancel).await?;
        }
        let manifest = BuildManifest {
            build,
            flake: self.path.display().to_string(),
            attribute: shown(&self.manifest.base),
            profile: None,
            role: None,
            system: system(),
            nix_version: String::new(),
            store_path: self.path.clone(),
            files: self.files(),
            image: self.manifest.image.clone(),
            created: self.manifest.created,
        };
        let published = collect::publish(beside, &manifest, builds);
        published.map_err(|error| BakeError::file("make", &target)(io::Error::other(error.to_string())))?;
        Ok((Artifacts::open(&target).map_err(BakeError::file("read", target))?, false))
    }

    async fn unpack_part(
        &self,
        part: &Part,
        to: PathBuf,
        cancel: &CancellationToken,
    ) -> Result<(), BakeError> {
        let file = self.file.try_clone().map_err(BakeError::file("read", &self.path))?;
        let (place, size, cancel) = (part.place(), part.size, cancel.clone());
        let (wanted, target) = (part.content_sha256.clone(), to.clone());
        let unpacked = tokio::task::spawn_blocking(move || -> io::Result<bool> {
            let packed = zstd::Decoder::new(Cancellable { inner: place.of(&file), cancel: &cancel })?;
            // No more than it says, whatever is in there.
            let mut content = Digesting::new(packed.take(size + 1));
            let target = File::create_new(target)?;
            target.set_len(size)?;
            let mut piece = vec![0; PIECE];
            loop {
                let at = content.count();
                let read = fill(&mut content, &mut piece)?;
                if read == 0 {
                    break;
                }
                write_pages(&target, &piece[..read], at)?;
            }
            // Later starts look at its size only.
            target.sync_all()?;
            Ok(content.count() == size && hex(&content.finish().1) == wanted)
        });
        let unpacked = unpacked.await.map_err(io::Error::other).and_then(|unpacked| unpacked);
        match unpacked.map_err(BakeError::file("write", &to))? {
            true => Ok(()),
            false => {
                let what = format!("its part `{}` does not unpack to what it should", part.name);
                Err(BakeError::Damaged { path: self.path.clone(), what })
            }
        }
    }
}

/// Reads until the piece is full or nothing is left.
fn fill(from: &mut impl Read, piece: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < piece.len() {
        match from.read(&mut piece[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

impl Part {
    fn place(&self) -> Place {
        Place { at: self.offset, end: self.offset + self.length }
    }
}

/// A stretch of the file.
#[derive(Debug, Clone, Copy)]
struct Place {
    at: u64,
    end: u64,
}

impl Place {
    /// What lies between it and the next part.
    fn gap(self) -> Self {
        Self { at: self.end, end: self.end.next_multiple_of(PAGE) }
    }

    fn of(self, file: &File) -> Stretch<'_> {
        Stretch { file, place: self }
    }
}

/// A stretch of the file, being read.
struct Stretch<'a> {
    file: &'a File,
    place: Place,
}

impl Read for Stretch<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.place.end - self.place.at).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..left], self.place.at)?;
        self.place.at += read as u64;
        Ok(read)
    }
}
