//! The host's tools that images are made of and with, copied with the libraries they need.
//!
//! They enter builds as an input, so they are part of the hash and a sandboxed Nix has them too:
//! `build/` makes images, `guest/` goes into each, `dev/` goes into those of profile `dev`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::child::find_program;
use super::layout;
use super::paths::Paths;
use super::program::{self, ProgramError};
use crate::event::EventSink;

/// Changes when the layout does, so that older ones are redone.
const LAYOUT: &str = "1";

/// Programs of each part of the layout.
const BUILD: [&str; 4] = ["busybox", "mke2fs", "debugfs", "cpio"];
const GUEST: [&str; 1] = ["dropbear"];
/// Taken where they are: none of them is needed.
const DEV: [&str; 4] = ["e2fsck", "resize2fs", "strace", "rsync"];
/// Lets `scp` and `sftp` into guests, where the host has it.
const SFTP_SERVER: [&str; 2] = ["/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server"];

/// Why the tools could not be laid out.
#[derive(Debug, thiserror::Error)]
pub enum ToolsError {
    /// A program is not installed.
    #[error("`{0}` is not installed\nhelp: run `mvm setup`; `mvm doctor` tells what else is missing")]
    Missing(&'static str),
    /// The guest's agent is not there.
    #[error(
        "`mvm-guest`, which runs inside guests, is not beside `{0}`\nhelp: install both binaries of the package into one directory: `cargo install` and `cargo build` do"
    )]
    NoGuest(PathBuf),
    /// busybox needs libraries.
    #[error(
        "`{0}` needs shared libraries, which a guest's first program cannot have\nhelp: install the package busybox-static in its place"
    )]
    NotStatic(PathBuf),
    /// A library is not there.
    #[error(
        "`{program}` needs `{library}`, which is not installed\nhelp: reinstall the package that `{program}` is from"
    )]
    NoLibrary {
        /// The program.
        program: PathBuf,
        /// The library.
        library: String,
    },
    /// A program failed.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// A file could not be read or written.
    #[error(
        "cannot copy `{path}`: {source}\nhelp: free some space or mend its permissions, then run `mvm setup` again"
    )]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A program and the part of the layout it goes to.
pub(super) type Wanted = (&'static str, PathBuf);

/// Lays out the tools unless they are there as they are on the host; true when it did.
pub async fn lay_out(paths: &Paths, recreate: bool, sink: &EventSink) -> Result<bool, ToolsError> {
    let dir = paths.host_tools();
    let programs = wanted()?;
    if !recreate && layout::stamp(&dir).is_some_and(|stamp| is_fresh(&stamp, &programs)) {
        return Ok(false);
    }
    sink.phase("host-tools");
    let next = layout::begin(&dir).map_err(at(&dir))?;
    let mut stamp = header(&programs);
    let mut libraries = BTreeMap::new();
    for (part, file) in &programs {
        copy_into(&next.join(part).join("bin"), file).await?;
        for library in libraries_of(file).await? {
            copy_into(&next.join(part).join("lib"), &library).await?;
            libraries.insert(fingerprint(&library), ());
        }
    }
    for library in libraries.into_keys() {
        stamp.push_str(&library);
    }
    layout::finish(&next, &dir, &stamp).map_err(at(&dir))?;
    sink.info("host tools are laid out");
    Ok(true)
}

/// The guest's agent, where it lies beside the running program.
pub fn guest_agent() -> Result<PathBuf, ToolsError> {
    let exe = std::env::current_exe().map_err(at(Path::new("/proc/self/exe")))?;
    // A test's own program lies one directory deeper than what it tests.
    exe.ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join("mvm-guest"))
        .find(|file| file.is_file())
        .ok_or(ToolsError::NoGuest(exe))
}

/// Whether a program runs without a loader.
pub fn is_static(program: &Path) -> bool {
    matches!(loader(program), Ok(None))
}

fn wanted() -> Result<Vec<Wanted>, ToolsError> {
    let mut wanted = Vec::new();
    let parts = [("build", BUILD.as_slice()), ("guest", GUEST.as_slice())];
    for (part, programs) in parts {
        for &name in programs {
            wanted.push((part, find_program(name).ok_or(ToolsError::Missing(name))?));
        }
    }
    let busybox = &wanted[0].1;
    if !is_static(busybox) {
        return Err(ToolsError::NotStatic(busybox.clone()));
    }
    wanted.push(("guest", guest_agent()?));
    let sftp = SFTP_SERVER.iter().map(PathBuf::from).find(|file| file.exists());
    wanted.extend(sftp.map(|file| ("guest", file)));
    wanted.extend(DEV.iter().filter_map(|name| Some(("dev", find_program(name)?))));
    Ok(wanted)
}

/// The stamp's first lines: what was asked for. The libraries follow.
pub(super) fn header(programs: &[Wanted]) -> String {
    let mut text = format!("{LAYOUT}\n");
    for (part, file) in programs {
        text.push_str(part);
        text.push(' ');
        text.push_str(&fingerprint(file));
    }
    text
}

pub(super) fn is_fresh(stamp: &str, programs: &[Wanted]) -> bool {
    let Some(libraries) = stamp.strip_prefix(&header(programs)) else {
        return false;
    };
    // A line's first field is the path, between tabs.
    libraries.lines().all(|line| {
        let path = line.split('\t').next().unwrap_or_default();
        fingerprint(Path::new(path)).trim_end() == line
    })
}

/// A line that changes when the file does.
pub fn fingerprint(file: &Path) -> String {
    match fs::metadata(file) {
        Ok(meta) => {
            format!("{}\t{}\t{}.{}\n", file.display(), meta.len(), meta.mtime(), meta.mtime_nsec())
        }
        Err(_) => format!("{}\tgone\n", file.display()),
    }
}

pub(super) async fn copy_into(dir: &Path, file: &Path) -> Result<(), ToolsError> {
    let target = dir.join(file.file_name().unwrap_or_default());
    if target.exists() {
        return Ok(());
    }
    fs::create_dir_all(dir).map_err(at(dir))?;
    fs::copy(file, &target).map_err(at(file))?;
    // A debug build of the agent is mostly symbols; without them images stay small, and a
    // rebuild that changed nothing else leaves their hash alone.
    if target.ends_with("mvm-guest") && find_program("strip").is_some() {
        program::output(Command::new("strip").arg(&target)).await?;
    }
    Ok(())
}

/// The loader and the shared libraries of a program, as the loader itself finds them.
pub(super) async fn libraries_of(program: &Path) -> Result<Vec<PathBuf>, ToolsError> {
    match loader(program).map_err(at(program))? {
        Some(loader) => libraries_by(loader, program).await,
        None => Ok(Vec::new()),
    }
}

/// A loader and the shared libraries it finds for a program, or for a library.
pub(super) async fn libraries_by(loader: PathBuf, program: &Path) -> Result<Vec<PathBuf>, ToolsError> {
    let listing = program::output(Command::new(&loader).arg("--list").arg(program)).await?;
    let mut libraries = vec![loader.clone()];
    for line in listing.lines() {
        // `libc.so.6 => /lib/…/libc.so.6 (0x…)`; the kernel's own and the loader have no arrow.
        let Some((name, found)) = line.trim().split_once(" => ") else { continue };
        let found = found.split(" (").next().unwrap_or_default();
        if !found.starts_with('/') {
            let (program, library) = (program.to_path_buf(), name.to_string());
            return Err(ToolsError::NoLibrary { program, library });
        }
        // The loader may be listed by another of its paths: one of it is enough.
        if Path::new(found).file_name() != loader.file_name() {
            libraries.push(found.into());
        }
    }
    Ok(libraries)
}

/// The loader an ELF program names (`PT_INTERP`), if any.
pub(super) fn loader(program: &Path) -> io::Result<Option<PathBuf>> {
    const PT_INTERP: u32 = 3;
    let mut file = File::open(program)?;
    let mut header = [0; 64];
    file.read_exact(&mut header)?;
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no 64-bit ELF program"));
    }
    let half = |at: usize| u64::from(u16::from_le_bytes([header[at], header[at + 1]]));
    let table = u64::from_le_bytes(header[32..40].try_into().unwrap_or_default());
    for index in 0..half(56) {
        file.seek(SeekFrom::Start(table.saturating_add(index * half(54))))?;
        let mut entry = [0; 56];
        file.read_exact(&mut entry)?;
        if entry[..4] == PT_INTERP.to_le_bytes() {
            let offset = u64::from_le_bytes(entry[8..16].try_into().unwrap_or_default());
            let size = u64::from_le_bytes(entry[32..40].try_into().unwrap_or_default());
            file.seek(SeekFrom::Start(offset))?;
            let mut path = Vec::new();
            file.take(size.min(4096)).read_to_end(&mut path)?;
            path.retain(|byte| *byte != 0);
            return Ok(Some(PathBuf::from(OsStr::from_bytes(&path))));
        }
    }
    Ok(None)
}

pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> ToolsError {
    let path = path.to_path_buf();
    move |source| ToolsError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_is_listed_with_its_loader_and_libc() {
        let me = std::env::current_exe().unwrap();
        let names: Vec<String> = libraries_of(&me)
            .await
            .unwrap()
            .iter()
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        assert!(names[0].starts_with("ld-"), "{names:?}");
        assert!(names.iter().any(|name| name.starts_with("libc.so")), "{names:?}");
    }

    #[test]
    fn a_stamp_is_stale_once_a_program_or_a_library_changes() {
        let dir = tempfile::tempdir().unwrap();
        let (program, library) = (dir.path().join("program"), dir.path().join("library"));
        fs::write(&program, "1").unwrap();
        fs::write(&library, "1").unwrap();
        let wanted = || vec![("build", program.clone())];
        let stamp = header(&wanted()) + &fingerprint(&library);
        assert!(is_fresh(&stamp, &wanted()));
        fs::write(&library, "22").unwrap();
        assert!(!is_fresh(&stamp, &wanted()));
        fs::write(&library, "1").unwrap();
        fs::write(&program, "22").unwrap();
        assert!(!is_fresh(&stamp, &wanted()));
    }
}
