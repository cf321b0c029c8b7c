//! Nix's output → a build's directory: checked, described, and kept from Nix's collector.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::error::BuildError;
use crate::artifacts::{Artifacts, FileEntry, ImageInfo, Manifest};
use crate::event::text::strip;
use crate::host::files::{hex, write_atomic};
use crate::host::identity::ProcessId;

/// The files of an image and whether it must have them.
pub(super) const FILES: [(&str, bool); 3] = [("vmlinux", true), ("rootfs.ext4", true), ("initrd", false)];
/// The link in a build's directory that keeps Nix from collecting it.
pub const ROOT: &str = "root";
/// Largest file of an image, in bytes.
pub(super) const LARGEST: u64 = 64 << 30;
/// Digits of an id: as many as a hash in Nix's store has.
const DIGITS: usize = 32;
/// Longest `mvm.json`.
pub(super) const MAX_INFO: u64 = 64 * 1024;
pub(super) const IMAGE_HELP: &str =
    "an image's output holds vmlinux, rootfs.ext4 and, where the kernel needs one, initrd (see lib.mkGuest)";

/// The id of a build that has none by its Nix store path: a digest of what it is.
pub(super) fn id_of(files: &[FileEntry], image: &ImageInfo) -> String {
    let mut digest = Sha256::new();
    for file in files {
        digest.update(format!("{} {}\n", file.name, file.sha256));
    }
    digest.update(serde_json::to_vec(image).unwrap_or_default());
    hex(&digest.finalize())[..DIGITS].to_string()
}

/// Hash part of a store path.
pub fn store_hash(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()?.get(..32).filter(|hash| hash.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// The artifacts in `dir`, if all of it is as its manifest says.
pub fn sound(dir: &Path) -> Option<Artifacts> {
    let artifacts = whole(dir)?;
    let manifest = &artifacts.manifest;
    // Copies need no root.
    let is_copy = |file: &FileEntry| dir.join(&file.name).symlink_metadata().is_ok_and(|meta| meta.is_file());
    let rooted = fs::read_link(dir.join(ROOT)).is_ok_and(|target| target == manifest.store_path)
        || manifest.files.iter().all(is_copy);
    rooted.then_some(artifacts)
}

/// The same, whether or not Nix's collector knows of it yet.
fn whole(dir: &Path) -> Option<Artifacts> {
    let artifacts = Artifacts::open(dir).ok()?;
    let manifest = &artifacts.manifest;
    let whole = manifest.files.iter().all(|file| {
        fs::metadata(dir.join(&file.name))
            .is_ok_and(|metadata| metadata.is_file() && metadata.len() == file.size)
    });
    let named = dir.file_name().and_then(|name| name.to_str()) == Some(manifest.build.as_str());
    (whole && named && manifest.files.len() >= 2).then_some(artifacts)
}

/// Checks that `out` is an image; gives its files and what it says of itself.
pub fn check(out: &Path) -> Result<(Vec<(String, PathBuf)>, ImageInfo), BuildError> {
    let wrong = |what: String| BuildError::Output { what, help: IMAGE_HELP };
    let mut files = Vec::new();
    for (name, required) in FILES {
        match file_of(out, name)? {
            Some(file) => files.push((name.to_owned(), file)),
            None if !required => {}
            None => {
                return Err(wrong(format!(
                    "the output {} has no {name}; it holds: {}",
                    out.display(),
                    holds(out)
                )));
            }
        }
    }
    let kernel = &files[0].1;
    if !is_kernel(kernel).map_err(BuildError::file("read", kernel))? {
        return Err(wrong(format!(
            "{}/vmlinux is no kernel: neither ELF, bzImage nor arm64 Image",
            out.display()
        )));
    }
    Ok((files, image_info(out)?))
}

/// Where a file of an output really is, if it is there.
fn file_of(out: &Path, name: &str) -> Result<Option<PathBuf>, BuildError> {
    let real = fs::canonicalize(out).map_err(BuildError::file("read", out))?;
    let store = real.parent().unwrap_or(&real);
    let Ok(file) = fs::canonicalize(out.join(name)) else { return Ok(None) };
    // A builder could make it a link to anything, a disk of this machine for one.
    if !file.starts_with(store) || !file.is_file() {
        let (out, file) = (out.display(), strip(&file.to_string_lossy()));
        let what = format!("{out}/{name} is no file in the Nix store but {file}");
        return Err(BuildError::Output { what, help: IMAGE_HELP });
    }
    Ok(Some(file))
}

pub(super) fn image_info(out: &Path) -> Result<ImageInfo, BuildError> {
    let Some(path) = file_of(out, "mvm.json")? else { return Ok(ImageInfo::default()) };
    let file = fs::File::open(&path).map_err(BuildError::file("read", &path))?;
    let mut text = Vec::new();
    file.take(MAX_INFO).read_to_end(&mut text).map_err(BuildError::file("read", &path))?;
    serde_json::from_slice(&text).map_err(|error| BuildError::Output {
        what: format!("{}: {error}", path.display()),
        help: IMAGE_HELP,
    })
}

fn holds(out: &Path) -> String {
    if out.is_file() {
        return "a single file".into();
    }
    let mut names: Vec<String> = fs::read_dir(out)
        .into_iter()
        .flatten()
        .flatten()
        .take(20)
        .map(|entry| {
            let slash = if entry.path().is_dir() { "/" } else { "" };
            format!("{}{slash}", strip(&entry.file_name().to_string_lossy()))
        })
        .collect();
    names.sort();
    if names.is_empty() { "nothing".into() } else { names.join(", ") }
}

pub(super) fn is_kernel(path: &Path) -> io::Result<bool> {
    let mut head = Vec::new();
    fs::File::open(path)?.take(0x206).read_to_end(&mut head)?;
    let at = |offset: usize, magic: &[u8]| head.get(offset..offset + magic.len()) == Some(magic);
    Ok(at(0, b"\x7fELF") || at(0x202, b"HdrS") || at(0x38, b"ARM\x64"))
}

/// Makes the directory of a build whole: beside, then renamed into place. `manifest.files` is
/// filled in here. The caller still has to root it.
pub async fn lay_out(
    builds: &Path,
    mut manifest: Manifest,
    files: Vec<(String, PathBuf)>,
    cancel: &CancellationToken,
) -> Result<PathBuf, BuildError> {
    for (name, path) in &files {
        manifest.files.push(describe(name, path, cancel).await?);
    }
    let beside = Beside::new(builds).map_err(BuildError::file("make", builds))?;
    for (name, path) in &files {
        let link = beside.0.join(name);
        std::os::unix::fs::symlink(path, &link).map_err(BuildError::file("make", link))?;
    }
    publish(beside, &manifest, builds)
}

/// Completes a build's directory with its manifest, and puts it in its place.
pub(super) fn publish(beside: Beside, manifest: &Manifest, builds: &Path) -> Result<PathBuf, BuildError> {
    let target = builds.join(&manifest.build);
    let path = beside.0.join("manifest.json");
    let json = serde_json::to_vec_pretty(manifest)
        .map_err(|error| BuildError::file("write", &path)(error.into()))?;
    write_atomic(&path, &json, 0o600).map_err(BuildError::file("write", &path))?;
    // Somebody may lay out the same build at the same time; whoever comes last is as right.
    for _ in 0..10 {
        match fs::rename(&beside.0, &target) {
            Ok(()) => return Ok(target),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
                ) =>
            {
                // Its maker may be about to root it.
                if whole(&target).is_some() {
                    return Ok(target);
                }
                let old = Beside::new(builds).map_err(BuildError::file("make", builds))?;
                match fs::rename(&target, old.0.join("old")) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(BuildError::file("replace", target)(error));
                    }
                    _ => {}
                }
            }
            Err(error) => return Err(BuildError::file("make", target)(error)),
        }
    }
    Err(BuildError::file("make", target)(io::ErrorKind::ResourceBusy.into()))
}

pub(super) async fn describe(
    name: &str,
    path: &Path,
    cancel: &CancellationToken,
) -> Result<FileEntry, BuildError> {
    let (name, file, cancel) = (name.to_owned(), path.to_path_buf(), cancel.clone());
    let hashed = tokio::task::spawn_blocking(move || -> io::Result<Option<FileEntry>> {
        let mut reader = fs::File::open(&file)?;
        let mut digest = Sha256::new();
        let mut buffer = vec![0; 256 * 1024];
        let mut size = 0;
        loop {
            match reader.read(&mut buffer)? {
                0 => break,
                read => {
                    digest.update(&buffer[..read]);
                    size += read as u64;
                }
            }
            if cancel.is_cancelled() {
                return Ok(None);
            }
        }
        Ok(Some(FileEntry { name, size, sha256: hex(&digest.finalize()) }))
    });
    let hashed = hashed.await.map_err(io::Error::other).and_then(|hashed| hashed);
    hashed.map_err(BuildError::file("read", path))?.ok_or(BuildError::Cancelled)
}

/// A name in `builds` by which [`sweep`] knows what is left by this process once that is over.
pub(super) fn beside(builds: &Path) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let me = ProcessId::of(std::process::id()).map(|me| me.start).unwrap_or_default();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    builds.join(format!(".new-{}-{me}-{count}", std::process::id()))
}

/// A directory that is gone again unless it was renamed.
pub(super) struct Beside(pub(super) PathBuf);

impl Beside {
    pub(super) fn new(builds: &Path) -> io::Result<Self> {
        let path = beside(builds);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // What cannot be removed now is swept by the next build.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes what builds that were killed have left in `builds`.
pub fn sweep(builds: &Path) {
    for entry in fs::read_dir(builds).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(".new-")).and_then(|rest| {
            let mut numbers = rest.split('-');
            Some((numbers.next()?.parse::<u32>().ok()?, numbers.next()?.parse::<u64>().ok()?))
        });
        if let Some((pid, start)) = owner
            && ProcessId::of(pid).is_none_or(|process| process.start != start)
        {
            // Another build may sweep at the same time.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_that_is_no_image_is_named_with_what_it_holds() {
        let out = tempfile::tempdir().unwrap();
        let out = out.path().canonicalize().unwrap();
        fs::create_dir(out.join("bin")).unwrap();
        fs::write(out.join("vmlinux"), "\x7fELF").unwrap();
        let error = check(&out).unwrap_err().to_string();
        assert!(error.contains("has no rootfs.ext4; it holds: bin/, vmlinux"), "{error}");
        std::os::unix::fs::symlink("/dev/null", out.join("rootfs.ext4")).unwrap();
        let error = check(&out).unwrap_err().to_string();
        assert!(error.contains("no file in the Nix store"), "{error}");
        std::os::unix::fs::symlink("/dev/zero", out.join("mvm.json")).unwrap();
        let error = image_info(&out).unwrap_err().to_string();
        assert!(error.contains("mvm.json is no file in the Nix store but /dev/zero"), "{error}");
    }

    #[test]
    fn elf_bzimage_and_arm64_image_are_kernels_and_text_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let is = |content: &[u8]| {
            fs::write(dir.path().join("k"), content).unwrap();
            is_kernel(&dir.path().join("k")).unwrap()
        };
        let with = |offset: usize, magic: &[u8]| [vec![0; offset], magic.to_vec()].concat();
        assert!(is(b"\x7fELFxx") && is(&with(0x202, b"HdrS")) && is(&with(0x38, b"ARM\x64")));
        assert!(!is(b"#!/bin/sh") && !is(b""));
    }

    #[test]
    fn leftovers_of_a_killed_build_are_swept_and_those_of_a_living_one_are_not() {
        let builds = tempfile::tempdir().unwrap();
        fs::create_dir(builds.path().join(".new-999999999-1-0")).unwrap();
        let mine = Beside::new(builds.path()).unwrap();
        sweep(builds.path());
        assert!(mine.0.exists());
        assert_eq!(fs::read_dir(builds.path()).unwrap().count(), 1);
    }
}
