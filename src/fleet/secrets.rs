//! A tenant's secrets: small files that its instances find in `/run/secrets`, from their next start on.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use super::error::FleetError;
use super::ids::TenantId;
use crate::host::files;
use crate::host::paths::Paths;

/// Largest secret, in bytes: all of them travel in one frame to the guest.
pub const LARGEST: usize = 32 * 1024;
/// Most secrets of a tenant.
const MOST: usize = 32;

/// Where a tenant's secrets lie.
pub fn dir(paths: &Paths, tenant: &TenantId) -> PathBuf {
    paths.tenant(tenant.as_str()).join("secrets")
}

/// The names of a tenant's secrets; what they are is for its instances only.
pub fn names(paths: &Paths, tenant: &TenantId) -> Vec<String> {
    let entries = std::fs::read_dir(dir(paths, tenant)).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort();
    names
}

/// Sets a secret, or gives it a new value.
pub fn set(paths: &Paths, tenant: &TenantId, name: &str, value: &[u8]) -> Result<(), FleetError> {
    check(name)?;
    let refuse = |what: String, help: &str| Err(FleetError::Refused { what, help: help.into() });
    if value.len() > LARGEST {
        let what = format!("the secret `{name}` has {} bytes, and may have {LARGEST}", value.len());
        return refuse(what, "keep large files in the image, and the key to them in a secret");
    }
    let known = names(paths, tenant);
    if known.len() >= MOST && !known.iter().any(|one| one == name) {
        return refuse(format!("the tenant `{tenant}` has {MOST} secrets already"), "remove one first");
    }
    let dir = dir(paths, tenant);
    let file = |path: PathBuf| move |source| FleetError::File { path, source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(file(dir.clone()))?;
    let path = dir.join(name);
    files::write_atomic(&path, value, 0o600).map_err(file(path.clone()))
}

/// Removes a secret.
pub fn remove(paths: &Paths, tenant: &TenantId, name: &str) -> Result<(), FleetError> {
    check(name)?;
    let path = dir(paths, tenant).join(name);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(FleetError::Refused {
            what: format!("the tenant `{tenant}` has no secret `{name}`"),
            help: format!("`mvm tenant secrets list {tenant}` lists them"),
        }),
        removed => removed.map_err(|source| FleetError::File { path, source }),
    }
}

fn check(name: &str) -> Result<(), FleetError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if (1..=63).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(plain) {
        return Ok(());
    }
    Err(FleetError::Refused {
        what: format!("the secret's name `{}` is not valid", name.chars().take(80).collect::<String>()),
        help: "use 1 to 63 of letters, digits, `-`, `_` and `.`, not beginning with `.`".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn world() -> (tempfile::TempDir, Paths, TenantId) {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::at(dir.path().join("s"), dir.path().join("r")).unwrap();
        (dir, paths, "dev".parse().unwrap())
    }

    #[test]
    fn a_secret_is_readable_by_its_owner_only_and_known_by_name_only() {
        let (_dir, paths, tenant) = world();
        set(&paths, &tenant, "token", b"s3cret").unwrap();
        set(&paths, &tenant, "token", b"rotated").unwrap();
        let file = dir(&paths, &tenant).join("token");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read(file).unwrap(), b"rotated");
        assert_eq!(names(&paths, &tenant), ["token"]);
        remove(&paths, &tenant, "token").unwrap();
        assert!(remove(&paths, &tenant, "token").unwrap_err().to_string().contains("no secret `token`"));
    }

    #[test]
    fn names_that_lead_elsewhere_and_values_too_large_are_refused() {
        let (_dir, paths, tenant) = world();
        for name in ["", ".x", "../x", "a/b", "a b", &"x".repeat(64)] {
            assert!(set(&paths, &tenant, name, b"x").is_err(), "{name}");
            assert!(remove(&paths, &tenant, name).is_err(), "{name}");
        }
        assert!(set(&paths, &tenant, "big", &[0; LARGEST + 1]).is_err());
        assert!(names(&paths, &tenant).is_empty());
    }
}
