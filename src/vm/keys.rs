//! ssh keys: one for the user, one for each VM.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ssh_key::{Algorithm, LineEnding, PrivateKey};

use crate::host::files;

/// The private half of the user's key, below the state root.
pub const USER_KEY: &str = "ssh/id_ed25519";

/// A guest's host key in the forms its servers want.
#[derive(Debug)]
pub struct HostKey {
    /// OpenSSH's private format.
    pub openssh: String,
    /// dropbear's private format, base64.
    pub dropbear: String,
    /// The public half, as in `known_hosts`.
    pub public: String,
}

fn generate() -> io::Result<PrivateKey> {
    PrivateKey::random(&mut rand_core::OsRng, Algorithm::Ed25519).map_err(io::Error::other)
}

/// A new host key.
pub fn host_key() -> io::Result<HostKey> {
    let key = generate()?;
    let pair = key.key_data().ed25519().ok_or_else(|| io::Error::other("not an Ed25519 key"))?;
    // dropbear's file: name and key as SSH strings; the key is secret then public half.
    let mut dropbear = Vec::new();
    for part in [b"ssh-ed25519".as_slice(), &pair.to_bytes()] {
        dropbear.extend((part.len() as u32).to_be_bytes());
        dropbear.extend(part);
    }
    Ok(HostKey {
        openssh: key.to_openssh(LineEnding::LF).map_err(io::Error::other)?.to_string(),
        dropbear: BASE64_STANDARD.encode(dropbear),
        public: key.public_key().to_openssh().map_err(io::Error::other)?,
    })
}

/// The user's key below the state root: path of the private half and the public line.
/// Made on first use.
pub fn user_key(state: &Path) -> io::Result<(PathBuf, String)> {
    let path = state.join(USER_KEY);
    if !path.exists() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(state.join("ssh"))?;
        // Two commands may come here at once: the first to take the lock makes the key.
        let lock = nix::fcntl::Flock::lock(
            std::fs::File::create(state.join("ssh/lock"))?,
            nix::fcntl::FlockArg::LockExclusive,
        )
        .map_err(|(_, errno)| errno)?;
        if !path.exists() {
            let mut key = generate()?;
            key.set_comment("mvm");
            let private = key.to_openssh(LineEnding::LF).map_err(io::Error::other)?;
            files::write_atomic(&path, private.as_bytes(), 0o600)?;
        }
        drop(lock);
    }
    let key = PrivateKey::read_openssh_file(&path).map_err(io::Error::other)?;
    Ok((path, key.public_key().to_openssh().map_err(io::Error::other)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_key_is_made_once_and_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let (path, public) = user_key(dir.path()).unwrap();
        assert_eq!(user_key(dir.path()).unwrap(), (path.clone(), public));
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn two_host_keys_differ() {
        assert_ne!(host_key().unwrap().public, host_key().unwrap().public);
    }
}
