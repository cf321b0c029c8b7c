//! The default kernel: Debian's cloud kernel as the ELF image every hypervisor takes, and the
//! modules guests need.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::layout;
use super::paths::Paths;
use super::program::{self, ProgramError};
use crate::event::EventSink;

/// The modules guests may load, as assets/guest/init names them.
pub const MODULES: [&str; 14] = [
    "virtio_ring",
    "virtio",
    "virtio_mmio",
    "virtio_blk",
    "failover",
    "net_failover",
    "virtio_net",
    "virtio_console",
    "overlay",
    "fuse",
    "virtiofs",
    "vsock",
    "vmw_vsock_virtio_transport_common",
    "vmw_vsock_virtio_transport",
];

/// Debian's package that depends on the newest cloud kernel.
const META_PACKAGE: &str =
    if cfg!(target_arch = "aarch64") { "linux-image-cloud-arm64" } else { "linux-image-cloud-amd64" };

/// Changes when the layout does, so that older ones are redone.
const LAYOUT: &str = "1";

/// The most an unpacked kernel may take: no such image is near it.
const MAX_KERNEL: usize = 512 << 20;
/// Uncompressed size of a block in the kernel's LZ4 format, at most.
const LZ4_BLOCK: usize = 8 << 20;

/// Why there is no kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// apt knows no kernel package.
    #[error(
        "apt knows no package `{META_PACKAGE}`\nhelp: run `apt-get update`, or put a kernel in `{0}` yourself: vmlinux, modules/*.ko, version"
    )]
    NoPackage(PathBuf),
    /// The package holds no kernel.
    #[error("the package {0} holds no /boot/vmlinuz-*\nhelp: run `mvm setup --recreate` to fetch it again")]
    NoImage(String),
    /// A module is not in the package.
    #[error("kernel {version} has no module `{module}`\nhelp: please report it with the kernel's version")]
    NoModule {
        /// The kernel's version.
        version: String,
        /// The module.
        module: &'static str,
    },
    /// The image cannot be unpacked.
    #[error(
        "cannot take the ELF image out of {file}: {why}\nhelp: run `mvm setup --recreate` to fetch it again"
    )]
    Image {
        /// The file.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// A program failed.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// A file could not be read or written.
    #[error(
        "cannot lay out the kernel in `{path}`: {source}\nhelp: free some space or mend its permissions, then run `mvm setup` again"
    )]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Lays out the kernel unless it is there; true when it did.
pub async fn lay_out(
    paths: &Paths,
    recreate: bool,
    sink: &EventSink,
    cancel: &CancellationToken,
) -> Result<bool, KernelError> {
    let dir = paths.kernel();
    if !recreate && layout::stamp(&dir).is_some_and(|stamp| stamp.starts_with(&format!("{LAYOUT} "))) {
        return Ok(false);
    }
    sink.phase("kernel");
    let io = |source| KernelError::Io { path: dir.clone(), source };
    let package = newest_package(&dir).await?;
    // A place of its own for the download: it must not become part of the layout.
    let unpacked = layout::begin(&paths.state().join("kernel-package")).map_err(io)?;
    let mut download = Command::new("apt-get");
    if ::nix::unistd::geteuid().is_root() {
        // The state is private: apt's own user could not write there.
        download.args(["-o", "APT::Sandbox::User=root"]);
    }
    program::run(download.arg("download").arg(&package).current_dir(&unpacked), sink, cancel).await?;
    let archive = find(&unpacked, |name| name.ends_with(".deb")).map_err(io)?;
    let archive = archive.ok_or_else(|| KernelError::NoImage(package.clone()))?;
    sink.info(format!("unpacking {package}"));
    let mut unpack = Command::new("dpkg");
    unpack.arg("--extract").arg(&archive).arg(&unpacked);
    program::run(&mut unpack, sink, cancel).await?;

    let image = find(&unpacked.join("boot"), |name| name.starts_with("vmlinuz-")).map_err(io)?;
    let image = image.ok_or_else(|| KernelError::NoImage(package.clone()))?;
    let version = image.file_name().unwrap_or_default().to_string_lossy()["vmlinuz-".len()..].to_string();
    let next = layout::begin(&dir).map_err(io)?;
    let bytes = fs::read(&image).map_err(io)?;
    let elf =
        bootable(&bytes).map_err(|why| KernelError::Image { file: format!("vmlinuz-{version}"), why })?;
    fs::write(next.join("vmlinux"), elf).map_err(io)?;
    fs::create_dir(next.join("modules")).map_err(io)?;
    let tree = ["lib/modules", "usr/lib/modules"].map(|dir| unpacked.join(dir).join(&version));
    for module in MODULES {
        let missing = || KernelError::NoModule { version: version.clone(), module };
        let found = tree.iter().find_map(|dir| find_module(dir, module)).ok_or_else(missing)?;
        let target = next.join("modules").join(format!("{module}.ko"));
        if found.extension().is_some_and(|extension| extension == "xz") {
            program::output(Command::new("xz").arg("--decompress").arg(&found)).await?;
        }
        fs::copy(found.with_extension("").with_extension("ko"), target).map_err(io)?;
    }
    fs::write(next.join("version"), format!("{version}\n")).map_err(io)?;
    layout::finish(&next, &dir, &format!("{LAYOUT} {package}\n")).map_err(io)?;
    fs::remove_dir_all(&unpacked).map_err(io)?;
    sink.info(format!("kernel {version} is laid out"));
    Ok(true)
}

/// The version of the kernel that is laid out.
pub fn version(paths: &Paths) -> Option<String> {
    layout::stamp(&paths.kernel())?;
    Some(fs::read_to_string(paths.kernel().join("version")).ok()?.trim().to_string())
}

async fn newest_package(dir: &Path) -> Result<String, KernelError> {
    let none = || KernelError::NoPackage(dir.to_path_buf());
    let depends = program::output(Command::new("apt-cache").args(["depends", META_PACKAGE])).await;
    let depends = depends.map_err(|_| none())?;
    let names = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    names.map(str::to_string).find(|name| name.starts_with("linux-image-")).ok_or_else(none)
}

fn find(dir: &Path, wanted: impl Fn(&str) -> bool) -> io::Result<Option<PathBuf>> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if wanted(&entry.file_name().to_string_lossy()) {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

fn find_module(dir: &Path, module: &str) -> Option<PathBuf> {
    let names = [format!("{module}.ko"), format!("{module}.ko.xz")];
    let walk = ignore::WalkBuilder::new(dir).standard_filters(false).build();
    walk.flatten()
        .map(ignore::DirEntry::into_path)
        .find(|path| path.file_name().is_some_and(|name| names.iter().any(|wanted| name == wanted.as_str())))
}

/// The image hypervisors boot: the ELF inside an x86 bzImage, or an ELF or arm64 `Image` as it is.
pub fn bootable(image: &[u8]) -> Result<Vec<u8>, String> {
    if image.starts_with(b"\x7fELF") || image.get(56..60) == Some(b"ARM\x64") {
        return Ok(image.to_vec());
    }
    let elf = unpack(payload(image).ok_or("it is no bzImage of boot protocol 2.08 or newer")?)?;
    if elf.starts_with(b"\x7fELF") { Ok(elf) } else { Err("what is inside is no ELF image".into()) }
}

/// The compressed kernel inside a bzImage, as its setup header tells (Documentation/x86/boot.rst).
fn payload(image: &[u8]) -> Option<&[u8]> {
    let number = |at: usize| Some(u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?) as usize);
    if image.get(0x202..0x206)? != b"HdrS" || number(0x206)? & 0xffff < 0x208 {
        return None;
    }
    let sectors = match image[0x1f1] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (sectors + 1) * 512 + number(0x248)?;
    image.get(start..start.checked_add(number(0x24c)?)?)
}

fn unpack(payload: &[u8]) -> Result<Vec<u8>, String> {
    let name = match payload {
        [0x02, 0x21, 0x4c, 0x18, blocks @ ..] => return unpack_lz4(blocks),
        [0x1f, 0x8b, ..] => "gzip",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        [0xfd, b'7', b'z', b'X', b'Z', ..] => "xz",
        _ => "an unknown method",
    };
    Err(format!("it is compressed with {name}, of which mvm knows only lz4"))
}

/// LZ4's legacy format: blocks, each after its length. The last four bytes are the length of all.
fn unpack_lz4(mut blocks: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut block = vec![0; LZ4_BLOCK];
    while blocks.len() > 4 {
        let (length, rest) = blocks.split_at(4);
        let length = u32::from_le_bytes(length.try_into().unwrap_or_default()) as usize;
        let packed = rest.get(..length).filter(|packed| !packed.is_empty());
        let packed = packed.ok_or("its LZ4 stream is cut short")?;
        let size = lz4_flex::block::decompress_into(packed, &mut block).map_err(|error| error.to_string())?;
        out.extend_from_slice(&block[..size]);
        if out.len() > MAX_KERNEL {
            return Err("it unpacks to more than a kernel can be".into());
        }
        blocks = &rest[length..];
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bzimage(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
        image[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        image.extend([0; 16]);
        image.extend(payload);
        image.extend([0xff; 32]);
        image
    }

    fn lz4(parts: &[&[u8]]) -> Vec<u8> {
        let mut out = vec![0x02, 0x21, 0x4c, 0x18];
        for part in parts {
            let packed = lz4_flex::block::compress(part);
            out.extend((packed.len() as u32).to_le_bytes());
            out.extend(packed);
        }
        out.extend([0; 4]);
        out
    }

    #[test]
    fn the_elf_comes_out_of_a_bzimage_block_by_block() {
        let image = bzimage(&lz4(&[b"\x7fELF first ", b"second"]));
        assert_eq!(bootable(&image).unwrap(), b"\x7fELF first second");
    }

    #[test]
    fn images_that_are_not_what_they_seem_are_refused() {
        assert!(bootable(b"MZ").unwrap_err().contains("no bzImage"));
        assert!(bootable(&bzimage(&lz4(&[b"text"]))).unwrap_err().contains("no ELF"));
        assert!(bootable(&bzimage(b"\x28\xb5\x2f\xfd....")).unwrap_err().contains("zstd"));
        let mut short = bzimage(&lz4(&[b"\x7fELF"]));
        short[1024 + 16 + 4] = 0xee;
        assert!(bootable(&short).unwrap_err().contains("cut short"));
        let mut beyond = bzimage(&lz4(&[b"\x7fELF"]));
        beyond[0x24c..0x250].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(bootable(&beyond).is_err());
    }
}
