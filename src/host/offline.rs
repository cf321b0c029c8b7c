//! mvm's own offline flake, laid out from the files compiled in.

use std::fs;
use std::io;
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use super::files;
use super::layout;
use super::paths::Paths;

/// Each file of the flake: where it lies there, and its content.
const FILES: [(&str, &str); 20] = [
    ("flake.nix", include_str!("../../nix/offline/flake.nix")),
    ("guest.nix", include_str!("../../nix/offline/guest.nix")),
    ("modules.nix", include_str!("../../nix/offline/modules.nix")),
    ("profiles.nix", include_str!("../../nix/profiles.nix")),
    ("initrd.sh", include_str!("../../nix/offline/initrd.sh")),
    ("rootfs.sh", include_str!("../../nix/offline/rootfs.sh")),
    ("join.sh", include_str!("../../nix/offline/join.sh")),
    ("guest/init", include_str!("../../assets/guest/init")),
    ("guest/inittab", include_str!("../../assets/guest/inittab")),
    ("guest/start", include_str!("../../assets/guest/start")),
    ("guest/stop", include_str!("../../assets/guest/stop")),
    ("guest/rehearse", include_str!("../../assets/guest/rehearse")),
    ("guest/supervise", include_str!("../../assets/guest/supervise")),
    ("guest/sshd", include_str!("../../assets/guest/sshd")),
    ("guest/poweroff", include_str!("../../assets/guest/poweroff")),
    ("guest/sudo", include_str!("../../assets/guest/sudo")),
    ("guest/passwd", include_str!("../../assets/guest/passwd")),
    ("guest/shadow", include_str!("../../assets/guest/shadow")),
    ("guest/group", include_str!("../../assets/guest/group")),
    ("guest/profile", include_str!("../../assets/guest/profile")),
];

/// What names in flake references mean where the user has not said: Nix's own list lies on a
/// server, and to ask it would make every build depend on the network.
const REGISTRY: &str = include_str!("../../assets/registry.json");

/// Lays out the flake unless this very version of it is there; true when it did.
pub fn lay_out(paths: &Paths, recreate: bool) -> io::Result<bool> {
    let dir = paths.offline_flake();
    let mut digest = Sha256::new();
    for (name, content) in FILES {
        digest.update(name);
        digest.update([0]);
        digest.update(content);
        digest.update([0]);
    }
    digest.update(REGISTRY);
    let wanted = files::hex(&digest.finalize());
    if !recreate && layout::stamp(&dir).is_some_and(|stamp| stamp == wanted) {
        return Ok(false);
    }
    let next = layout::begin(&dir)?;
    fs::create_dir(next.join("guest"))?;
    for (name, content) in FILES {
        fs::write(next.join(name), content)?;
    }
    files::write_atomic(&registry(paths), REGISTRY.as_bytes(), 0o644)?;
    layout::finish(&next, &dir, &wanted)?;
    Ok(true)
}

/// The flake registry mvm gives to Nix.
pub fn registry(paths: &Paths) -> PathBuf {
    paths.offline_flake().with_file_name("registry.json")
}
