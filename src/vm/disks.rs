//! Disks of a VM: a sparse upper disk, and images of volumes.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::spec::VolumeSpec;
use crate::host::child::find_program;

/// Label by which the guest's init finds the upper disk.
pub const UPPER_LABEL: &str = "mvm-upper";

/// Name of the upper disk in a VM's directory.
pub const UPPER_FILE: &str = "upper.ext4";

/// Why a disk could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// `mke2fs` is not there.
    #[error("`mke2fs` is not installed\nhelp: run `mvm setup`, or install the package e2fsprogs")]
    NoMke2fs,
    /// `mke2fs` failed.
    #[error(
        "cannot make the disk `{path}`: {reason}\nhelp: is there space left on its file system? `mvm gc` frees some"
    )]
    Make {
        /// The image.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// A volume's host path cannot be used.
    #[error(
        "cannot use the volume `{path}`: {reason}\nhelp: give a directory, or a file with an ext4 file system"
    )]
    Volume {
        /// The host path.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// A volume's image, ready to be attached.
#[derive(Debug)]
pub struct VolumeDisk {
    /// The image.
    pub path: PathBuf,
    /// UUID of its file system, by which the guest finds it.
    pub uuid: String,
}

/// The upper disk in `dir`: made, unless the VM brought its own.
pub async fn upper(dir: &Path, mib: u64) -> Result<PathBuf, DiskError> {
    let path = dir.join(UPPER_FILE);
    if !path.exists() {
        make_upper(&path, mib).await?;
    }
    Ok(path)
}

/// Makes an empty sparse upper disk.
pub async fn make_upper(path: &Path, mib: u64) -> Result<(), DiskError> {
    make_ext4(path, mib, Some(UPPER_LABEL), None).await
}

/// Gives a VM that is to be started what another one of the same specification wrote: links the
/// images in one VM's directory into another's, so that a start that fails loses nothing.
pub fn inherit(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(to)?;
    let entries = match std::fs::read_dir(from) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if let Some(name) = path.file_name().filter(|_| path.extension().is_some_and(|end| end == "ext4")) {
            std::fs::hard_link(&path, to.join(name))?;
        }
    }
    Ok(())
}

/// Makes or takes the image of a volume; made ones go into `dir`, and are kept if they are there.
pub async fn volume(volume: &VolumeSpec, dir: &Path, index: usize) -> Result<VolumeDisk, DiskError> {
    let fail = |reason: String| DiskError::Volume { path: volume.host.clone(), reason };
    let meta = std::fs::metadata(&volume.host).map_err(|error| fail(error.to_string()))?;
    let path = if meta.is_file() {
        volume.host.clone()
    } else if meta.is_dir() {
        let path = dir.join(format!("volume-{index}.ext4"));
        if !path.exists() {
            fill(volume, &path).await?;
        }
        path
    } else {
        return Err(fail("it is neither a directory nor a file".into()));
    };
    let uuid = ext4_uuid(&path)
        .map_err(|error| fail(error.to_string()))?
        .ok_or_else(|| fail("it holds no ext4 file system".into()))?;
    Ok(VolumeDisk { path, uuid })
}

/// Makes an image with the content of a volume's directory.
async fn fill(volume: &VolumeSpec, path: &Path) -> Result<(), DiskError> {
    let used = used_mib(&volume.host)
        .map_err(|error| DiskError::Volume { path: volume.host.clone(), reason: error.to_string() })?;
    // Room for the file system's own tables and for the guest to write.
    let mib = volume.size_mib.unwrap_or(used * 3 / 2 + 64);
    make_ext4(path, mib, None, Some(&volume.host)).await
}

/// Makes a file with an ext4 file system of so many MiB, sparse; with the content of a directory if wished.
pub async fn make_ext4(
    path: &Path,
    mib: u64,
    label: Option<&str>,
    content: Option<&Path>,
) -> Result<(), DiskError> {
    let fail = |reason: String| DiskError::Make { path: path.into(), reason };
    let program = find_program("mke2fs").ok_or(DiskError::NoMke2fs)?;
    // Under its name there is never half an image: what is there is used as it is.
    let half = path.with_extension("part");
    OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .open(&half)
        .and_then(|file| file.set_len(mib * 1024 * 1024))
        .map_err(|error| fail(error.to_string()))?;
    let mut command = Command::new(program);
    // The disk is new and sparse: nothing on it needs to be zeroed or discarded.
    command.args([
        "-q",
        "-F",
        "-t",
        "ext4",
        "-m",
        "0",
        "-E",
        "lazy_itable_init=1,lazy_journal_init=1,nodiscard",
    ]);
    if let Some(label) = label {
        command.args(["-L", label]);
    }
    if let Some(content) = content {
        let owner = std::fs::metadata(content).map_err(|error| fail(error.to_string()))?;
        command.args(["-E", &format!("root_owner={}:{}", owner.uid(), owner.gid())]);
        command.arg("-d").arg(content);
    }
    let output = command
        .arg(&half)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| fail(error.to_string()))?;
    if output.status.success() {
        return std::fs::rename(&half, path).map_err(|error| fail(error.to_string()));
    }
    // A half-made image is of no use to anybody.
    let _ = std::fs::remove_file(&half);
    Err(fail(String::from_utf8_lossy(&output.stderr).trim().to_string()))
}

/// What a directory's content takes, in MiB, rounded up.
fn used_mib(dir: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    let mut waiting = vec![dir.to_path_buf()];
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            // A block for the content's last part, and an inode.
            bytes += meta.len() + 4096 + 256;
            if meta.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    Ok(bytes.div_ceil(1024 * 1024))
}

/// UUID of the ext4 file system in an image, from its superblock.
fn ext4_uuid(path: &Path) -> io::Result<Option<String>> {
    let mut block = [0; 128];
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(1024))?;
    if file.read_exact(&mut block).is_err() || block[0x38..0x3a] != [0x53, 0xef] {
        return Ok(None);
    }
    let hex = crate::host::files::hex(&block[0x68..0x78]);
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    Ok(Some(parts.join("-")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_disk_that_was_inherited_is_not_made_anew() {
        let world = tempfile::tempdir().unwrap();
        let (old, new) = (world.path().join("old"), world.path().join("new"));
        std::fs::create_dir(&old).unwrap();
        for name in ["upper.ext4", "volume-0.ext4", "volume-1.part", "console.log"] {
            std::fs::write(old.join(name), name).unwrap();
        }
        inherit(&old, &new).unwrap();
        assert_eq!(std::fs::read_dir(&new).unwrap().count(), 2);
        let upper = upper(&new, 16).await.unwrap();
        assert_eq!(std::fs::read(upper).unwrap(), b"upper.ext4");
        // A start that failed takes its directory with it, not the disk.
        std::fs::remove_dir_all(&new).unwrap();
        assert_eq!(std::fs::read(old.join("upper.ext4")).unwrap(), b"upper.ext4");
        inherit(&world.path().join("none"), &new).unwrap();
    }
}
