//! What a build yields and a VM boots: the only type `image` and `vm` share.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Version of the agreement between host and image (device layout, labels, agent frames).
pub const GUEST_CONTRACT: u32 = 2;

/// The files of one build, as they lie in `dev/builds/<id>/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifacts {
    /// The directory.
    pub dir: PathBuf,
    /// Kernel: an ELF image (QEMU also takes a bzImage).
    pub kernel: PathBuf,
    /// Initial RAM disk, where the kernel needs one.
    pub initrd: Option<PathBuf>,
    /// Read-only ext4 root file system, shared by all VMs of the build.
    pub rootfs: PathBuf,
    /// What is known about the build.
    pub manifest: Manifest,
}

/// `manifest.json` of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The build's id: the hash part of its Nix store path.
    pub build: String,
    /// The flake reference as the user gave it, made absolute.
    pub flake: String,
    /// The attribute that was built, e.g. `packages.x86_64-linux.minimal`.
    pub attribute: String,
    /// Profile asked for.
    pub profile: Option<String>,
    /// Role asked for.
    pub role: Option<String>,
    /// Nix system, e.g. `x86_64-linux`.
    pub system: String,
    /// What `nix --version` says.
    pub nix_version: String,
    /// The Nix store path the files lie in.
    pub store_path: PathBuf,
    /// Each file with its size and digest.
    pub files: Vec<FileEntry>,
    /// What the image says of itself.
    pub image: ImageInfo,
    /// When the manifest was written.
    pub created: Timestamp,
}

/// One file of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// File name, e.g. `rootfs.ext4`.
    pub name: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256, lower-case hex.
    pub sha256: String,
}

/// `mvm.json` in a build's output: what the image says of itself. All of it may be absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageInfo {
    /// The guest contract the image's agent speaks; 0 for an image without the agent.
    #[serde(default)]
    pub contract: u32,
    /// TCP ports the image's services listen on once it is ready, e.g. `[22, 8080]`.
    #[serde(default)]
    pub ports: Vec<u16>,
    /// Least memory in MiB the image boots with.
    #[serde(default)]
    pub min_mem_mib: Option<u32>,
    /// The modules of `mvm-profiles.toml` it was made of.
    #[serde(default)]
    pub modules: Vec<String>,
}

impl Artifacts {
    /// Whether the image has the guest agent.
    pub fn has_agent(&self) -> bool {
        self.manifest.image.contract != 0
    }

    /// The artifacts of a build directory with a manifest.
    pub fn open(dir: &Path) -> std::io::Result<Self> {
        let manifest = std::fs::read(dir.join("manifest.json"))?;
        let manifest = serde_json::from_slice(&manifest)?;
        let initrd = dir.join("initrd");
        Ok(Self {
            kernel: dir.join("vmlinux"),
            initrd: initrd.exists().then_some(initrd),
            rootfs: dir.join("rootfs.ext4"),
            dir: dir.to_path_buf(),
            manifest,
        })
    }
}
