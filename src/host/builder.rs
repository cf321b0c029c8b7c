//! What the builder VM's image is made of: its flake, with this machine's Nix and git and the libraries
//! they need.

use std::io;
use std::path::PathBuf;

use super::child::find_program;
use super::files;
use super::layout;
use super::nix;
use super::paths::Paths;
use super::tools::{self, ToolsError};

/// The flake.
const FLAKE: &str = include_str!("../../nix/builder/flake.nix");
/// Changes when the layout does, so that older ones are redone.
const LAYOUT: &str = "2";
/// Loaded by the C library when a name is looked up.
const NAME_SERVICE: [&str; 2] = ["libnss_dns.so.2", "libresolv.so.2"];
/// Where distributions keep the certificates of authorities, for downloads.
const CERTIFICATES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

/// Lays out the flake unless it is there as this machine's programs are; gives its directory.
pub async fn lay_out(paths: &Paths) -> Result<PathBuf, ToolsError> {
    let dir = paths.builder_flake();
    let nix = nix::find().ok_or(ToolsError::Missing("nix"))?;
    let mut programs = vec![nix.clone()];
    programs.extend([nix.with_file_name("nix-store")].into_iter().filter(|file| file.is_file()));
    // Without it flakes in git repositories cannot be read.
    programs.extend(find_program("git"));
    let certificates = CERTIFICATES.iter().map(PathBuf::from).find(|file| file.is_file());
    let sources = programs.iter().chain(&certificates);
    let stamp =
        format!("{LAYOUT}\n{FLAKE}{}", sources.map(|file| tools::fingerprint(file)).collect::<String>());
    if layout::stamp(&dir).is_some_and(|known| known == stamp) {
        return Ok(dir);
    }
    let at = |path: &PathBuf| {
        let path = path.clone();
        move |source: io::Error| ToolsError::Io { path, source }
    };
    let next = layout::begin(&dir).map_err(at(&dir))?;
    let tools = next.join("tools");
    for program in &programs {
        tools::copy_into(&tools.join("bin"), program).await?;
        for library in tools::libraries_of(program).await? {
            tools::copy_into(&tools.join("lib"), &library).await?;
            // They lie where the C library does.
            let beside = NAME_SERVICE.iter().map(|name| library.with_file_name(name));
            for library in beside.filter(|file| file.is_file()) {
                tools::copy_into(&tools.join("lib"), &library).await?;
            }
        }
    }
    // Nix asks it whether another machine builds, and acts by the name it is called.
    let hook = tools.join("bin/build-remote");
    std::fs::copy(&nix, &hook).map_err(at(&hook))?;
    let text = certificates.map_or(Ok(Vec::new()), std::fs::read).map_err(at(&tools))?;
    files::write_atomic(&tools.join("certificates"), &text, 0o644).map_err(at(&tools))?;
    files::write_atomic(&next.join("flake.nix"), FLAKE.as_bytes(), 0o644).map_err(at(&next))?;
    layout::finish(&next, &dir, &stamp).map_err(at(&dir))?;
    Ok(dir)
}
