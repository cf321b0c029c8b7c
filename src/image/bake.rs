//! One executable file that is a whole VM: mvm as the launcher, and behind it the files that are booted.
//!
//! ```text
//! offset 0     the launcher, an ELF program: mvm itself
//! page-aligned vmlinux, compressed with zstd
//! page-aligned initrd, likewise, where there is one
//! page-aligned rootfs.ext4, likewise
//! page-aligned the manifest: JSON, a `Manifest`
//! page-aligned 64 bytes, the end of the file: `MVMAPP\0\1`, the manifest's offset and length (little-endian
//!              u64 each), its SHA-256, and `MVMAPP\0\1` once more
//! ```
//!
//! The manifest has offset, length and SHA-256 of each part, the launcher included; what lies between is zeros.

pub mod open;
mod write;

use std::io;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::artifacts::ImageInfo;
use crate::host::digest::Cancelled;
use crate::host::files::hex;

pub use open::{App, own};
pub use write::{Output, Recipe, bake};

/// Version of the manifest; it only grows.
const VERSION: u32 = 1;
/// What begins and ends the trailer.
const MAGIC: [u8; 8] = *b"MVMAPP\0\x01";
/// Length of the trailer, in bytes.
const TRAILER: u64 = 64;
/// What parts begin at a multiple of.
const PAGE: u64 = 4096;
/// Longest manifest, in bytes.
const LONGEST: u64 = 1 << 20;
/// The part that is the program.
const LAUNCHER: &str = "launcher";

/// What an app says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this, 1.
    pub v: u32,
    /// Its name.
    pub name: String,
    /// What it was made from, e.g. `debian:bookworm`.
    pub base: String,
    /// Digest of all that went into it.
    pub key: String,
    /// Version of the mvm that is its launcher.
    pub mvm: String,
    /// Architecture of launcher and guest, e.g. `x86_64`.
    pub arch: String,
    /// When it was made.
    pub created: Timestamp,
    /// How it runs unless told otherwise.
    pub settings: Settings,
    /// What the image says of itself.
    pub image: ImageInfo,
    /// The launcher and the files that are booted, in their order.
    pub parts: Vec<Part>,
}

/// How an app runs, in the words of `mvm.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Number of CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<String>,
    /// Memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// Size of the upper disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<String>,
    /// Published ports.
    #[serde(default)]
    pub ports: Vec<String>,
}

/// One part of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// `launcher`, or the name of a file that is booted.
    pub name: String,
    /// Where it begins, a multiple of 4096.
    pub offset: u64,
    /// Its length as it lies there, in bytes.
    pub length: u64,
    /// SHA-256 of it as it lies there.
    pub sha256: String,
    /// Its size once unpacked, in bytes.
    pub size: u64,
    /// SHA-256 once unpacked.
    pub content_sha256: String,
}

/// Why there is no app.
#[derive(Debug, thiserror::Error)]
pub enum BakeError {
    /// The user ended it.
    #[error("cancelled")]
    Cancelled,
    /// It has no trailer.
    #[error("`{}` is no app of mvm's: {}\nhelp: was it copied whole? `mvm build DIR` makes one from an Mvmfile.toml, `mvm run --flake DIR` boots a flake", path.display(), if path.is_dir() { "it is a directory" } else { "it does not end as one does" })]
    NoApp {
        /// The file.
        path: PathBuf,
    },
    /// It is not as it was made.
    #[error("`{}` is damaged: {what}\nhelp: it was cut short or changed since it was made, and is not run; copy or build it again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
    /// It is for others.
    #[error("`{}` {what}\nhelp: {help}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: String,
        /// What to do.
        help: &'static str,
    },
    /// Something else is there.
    #[error("`{}` is there, and is no app\nhelp: give another file with `--output`, or remove that one", path.display())]
    InTheWay {
        /// The file.
        path: PathBuf,
    },
    /// Another build writes it.
    #[error("another build is writing `{}`\nhelp: wait for it, or give another file with `--output`", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be written or read.
    #[error("cannot {action} `{}`: {source}\nhelp: {}", path.display(), file_help(action))]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn file_help(action: &str) -> &'static str {
    match action {
        "read" => "give the file that `mvm build` has written",
        _ => "is it the right place, is there space left on it, and may you write there?",
    }
}

impl BakeError {
    fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| match Cancelled::caused(&source) {
            true => Self::Cancelled,
            false => Self::File { action, path, source },
        }
    }
}

/// The end of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Trailer {
    offset: u64,
    length: u64,
    sha256: [u8; 32],
}

impl Trailer {
    fn bytes(&self) -> [u8; TRAILER as usize] {
        let mut bytes = [0; TRAILER as usize];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&self.offset.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.length.to_le_bytes());
        bytes[24..56].copy_from_slice(&self.sha256);
        bytes[56..].copy_from_slice(&MAGIC);
        bytes
    }

    /// None where it is no trailer.
    fn parse(bytes: &[u8; TRAILER as usize]) -> Option<Self> {
        let number = |at: usize| Some(u64::from_le_bytes(bytes[at..at + 8].try_into().ok()?));
        let marked = bytes[..8] == MAGIC && bytes[56..] == MAGIC;
        let sha256 = bytes[24..56].try_into().ok()?;
        marked.then_some(Self { offset: number(8)?, length: number(16)?, sha256 })
    }

    fn digest(&self) -> String {
        hex(&self.sha256)
    }
}

/// The next place where a part may begin.
fn aligned(offset: u64) -> Option<u64> {
    offset.checked_next_multiple_of(PAGE)
}

#[cfg(test)]
mod tests;
