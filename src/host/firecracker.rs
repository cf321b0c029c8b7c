//! Firecracker's release: one version, known by its digest.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::child::find_program;
use super::paths::Paths;
use super::program::{self, ProgramError};
use super::{files, kvm};
use crate::event::EventSink;

/// The program's name.
pub const PROGRAM: &str = "firecracker";

/// The oldest version mvm drives.
pub const OLDEST: Version = Version::new(1, 7, 0);

/// Since this version a snapshot can be loaded with a TAP of another name than it was taken with.
pub const LOADS_WITH_ANOTHER_TAP: Version = Version::new(1, 12, 0);

/// The release that is fetched.
pub const VERSION: &str = "v1.17.0";
/// Its architecture and the SHA-256 of its archive, as published beside it.
pub(super) const ARCHIVE: (&str, &str) = if cfg!(target_arch = "aarch64") {
    ("aarch64", "e351ebe4f7a16b5873bbd51005d2e6767103cff4d5ebc829df2d3f95a93e2256")
} else {
    ("x86_64", "06094a1108ae9e82aa4c23a775aa92758f53f1175d422270d9d6162cb9ade558")
};
/// How long the download may take, in seconds.
const SECONDS: &str = "300";

/// Why Firecracker could not be fetched; mvm goes on without it.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("`curl` is not installed")]
    NoCurl,
    #[error("the archive's SHA-256 is {0}, which is not the release's")]
    Digest(String),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Program(#[from] ProgramError),
}

/// Where Firecracker is: on PATH, else where setup put it.
pub fn find(paths: &Paths) -> Option<PathBuf> {
    find_program(PROGRAM).or_else(|| Some(place(paths)).filter(|file| file.is_file()))
}

/// A version of Firecracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u32,
    minor: u32,
    patch: u32,
}

impl Version {
    /// By its numbers.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// From what Firecracker says of itself: `Firecracker v1.16.1`, or only `1.16.1`.
    pub fn parse(text: &str) -> Option<Self> {
        let numbers = text.trim().rsplit(' ').next()?.trim_start_matches('v');
        // A build between releases has a name behind its numbers.
        let mut numbers = numbers.split(['-', '+']).next()?.split('.').map(|number| number.parse().ok());
        let version = Self::new(numbers.next()??, numbers.next()??, numbers.next()??);
        numbers.next().is_none().then_some(version)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

fn place(paths: &Paths) -> PathBuf {
    paths.state().join("bin/firecracker")
}

/// Fetches Firecracker where it would be of use and is not there. Out of reach is no error.
///
/// Returns whether it was fetched.
pub async fn lay_out(
    paths: &Paths,
    sink: &EventSink,
    cancel: &CancellationToken,
) -> Result<bool, ProgramError> {
    if find(paths).is_some() || kvm::usable_now(paths).is_err() {
        return Ok(false);
    }
    sink.phase("firecracker");
    match fetch(paths, sink, cancel).await {
        Ok(()) => Ok(true),
        Err(FetchError::Program(ProgramError::Cancelled)) => Err(ProgramError::Cancelled),
        Err(error) => {
            let reason = error.to_string();
            let reason = reason.lines().next().unwrap_or_default();
            sink.warn(format!("Firecracker {VERSION} is out of reach ({reason}); mvm uses QEMU"));
            Ok(false)
        }
    }
}

async fn fetch(paths: &Paths, sink: &EventSink, cancel: &CancellationToken) -> Result<(), FetchError> {
    let curl = find_program("curl").ok_or(FetchError::NoCurl)?;
    let (arch, digest) = ARCHIVE;
    let url = format!(
        "https://github.com/firecracker-microvm/firecracker/releases/download/{VERSION}/firecracker-{VERSION}-{arch}.tgz"
    );
    let dir = place(paths).with_file_name(".firecracker-next");
    files::remove_dir_if_there(&dir)?;
    std::fs::create_dir_all(&dir)?;
    let archive = dir.join("archive.tgz");
    sink.info(format!("fetching Firecracker {VERSION}"));
    let mut download = Command::new(curl);
    download.args([
        "--fail",
        "--silent",
        "--show-error",
        "--location",
        "--proto",
        "=https",
        "--max-time",
        SECONDS,
    ]);
    let fetched = program::run(download.arg("--output").arg(&archive).arg(url), sink, cancel).await;
    let unpacked = match fetched {
        Ok(_) => {
            unpack(&archive, digest, &format!("release-{VERSION}-{arch}/firecracker-{VERSION}-{arch}")).await
        }
        Err(error) => Err(error.into()),
    };
    let placed = unpacked.and_then(|program| Ok(files::write_atomic(&place(paths), &program, 0o755)?));
    files::remove_dir_if_there(&dir)?;
    placed
}

/// The member of an archive, which must have the digest.
async fn unpack(archive: &Path, digest: &str, member: &str) -> Result<Vec<u8>, FetchError> {
    let found = files::hex(&Sha256::digest(std::fs::read(archive)?));
    if found != digest {
        return Err(FetchError::Digest(found));
    }
    let dir = archive.parent().unwrap_or(archive);
    program::output(Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(dir).arg(member)).await?;
    Ok(std::fs::read(dir.join(member))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_from_what_firecracker_says_and_compares_by_its_numbers() {
        assert_eq!(Version::parse("Firecracker v1.16.1"), Some(Version::new(1, 16, 1)));
        assert_eq!(Version::parse("1.17.0-dev"), Some(Version::new(1, 17, 0)));
        for strange in ["", "Firecracker", "v1.16", "1.16.x", "1.2.3.4", "1.16.1 and more"] {
            assert_eq!(Version::parse(strange), None, "{strange}");
        }
        assert!(Version::new(1, 6, 9) < OLDEST && Version::new(1, 10, 0) > OLDEST);
        assert_eq!(OLDEST.to_string(), "1.7.0");
    }

    #[tokio::test]
    async fn only_an_archive_with_the_right_digest_is_unpacked() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("release")).unwrap();
        std::fs::write(dir.path().join("release/firecracker"), "program").unwrap();
        let archive = dir.path().join("archive.tgz");
        let mut pack = Command::new("tar");
        pack.arg("-czf").arg(&archive).arg("-C").arg(dir.path()).arg("release");
        program::output(&mut pack).await.unwrap();
        let digest = files::hex(&Sha256::digest(std::fs::read(&archive).unwrap()));
        let error = unpack(&archive, &"0".repeat(64), "release/firecracker").await.unwrap_err();
        assert!(matches!(error, FetchError::Digest(found) if found == digest));
        assert_eq!(unpack(&archive, &digest, "release/firecracker").await.unwrap(), b"program");
    }
}
