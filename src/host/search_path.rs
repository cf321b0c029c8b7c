//! PATH as a shell beside mvm has it.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::paths::Paths;
use super::{firecracker, nix};

/// What `path` says, and behind it where Nix, Firecracker and mvm itself are.
pub fn extended(path: &OsStr, paths: &Paths) -> OsString {
    let programs = [nix::find(), firecracker::find(paths), std::env::current_exe().ok()];
    let more = programs.into_iter().flatten().filter_map(|file| Some(file.parent()?.to_path_buf()));
    with(path, more)
}

fn with(path: &OsStr, more: impl IntoIterator<Item = PathBuf>) -> OsString {
    let mut dirs: Vec<PathBuf> = std::env::split_paths(path).collect();
    for dir in more {
        if !dirs.contains(&dir) && !has_colon(&dir) {
            dirs.push(dir);
        }
    }
    std::env::join_paths(dirs).unwrap_or_else(|_| path.to_os_string())
}

/// Such a directory cannot be on PATH.
fn has_colon(dir: &Path) -> bool {
    dir.as_os_str().as_encoded_bytes().contains(&b':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_comes_last_and_once() {
        let more = ["/nix/bin", "/bin", "/o:dd", "/nix/bin"].map(PathBuf::from);
        assert_eq!(with(OsStr::new("/bin:/usr/bin"), more), "/bin:/usr/bin:/nix/bin");
    }
}
