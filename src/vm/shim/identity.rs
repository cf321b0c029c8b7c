//! What makes one VM out of a sealed guest.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rand_core::RngCore;

use super::ShimError;
use super::prepare::Prepared;
use super::volumes::Volumes;
use crate::guest::frames::{self, Personalise};
use crate::host::files;
use crate::host::paths::Paths;
use crate::vm::keys;
use crate::vm::network::{Addresses, dns};

/// Everything that makes this VM differ from others of its image.
pub fn personalise(paths: &Paths, prepared: &Prepared, volumes: &Volumes) -> Result<Personalise, ShimError> {
    let Prepared { spec, dir, .. } = prepared;
    let file = |path: PathBuf| move |source| ShimError::File { path, source };
    let host_key = keys::host_key().map_err(file(dir.join("known_hosts")))?;
    let (_, user_key) = keys::user_key(paths.state()).map_err(file(paths.state().join("ssh")))?;
    // ssh knows the VM by its id, which is never used again.
    let known = format!("{} {}\n", spec.id, host_key.public);
    files::write_atomic(&dir.join("known_hosts"), known.as_bytes(), 0o600)
        .map_err(file(dir.join("known_hosts")))?;
    let addresses = Addresses::of(spec);
    Ok(Personalise {
        time_ns: now_ns(),
        entropy: entropy(),
        hostname: spec.name.to_string(),
        ssh_host_key: host_key.openssh,
        ssh_host_key_dropbear: host_key.dropbear,
        authorized_keys: vec![user_key],
        network: Some(frames::Network {
            address: addresses.cidr(),
            dns: if spec.egress { dns(spec.network) } else { Vec::new() },
            gateway: spec.egress.then(|| addresses.gateway.to_string()),
            mac: Some(addresses.mac),
        }),
        volumes: volumes.guest.clone(),
        secrets: secrets(spec.secrets.as_deref())?,
        role: spec.role.clone(),
    })
}

/// The files of a directory, base64 by name; they are told to the guest and to nobody else.
fn secrets(dir: Option<&Path>) -> Result<BTreeMap<String, String>, ShimError> {
    let Some(dir) = dir else { return Ok(BTreeMap::new()) };
    let read = || -> io::Result<_> {
        let mut secrets = BTreeMap::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // What another command writes right now bears a leading dot.
            if !name.starts_with('.') {
                secrets.insert(name, BASE64_STANDARD.encode(std::fs::read(entry.path())?));
            }
        }
        Ok(secrets)
    };
    match read() {
        // None was ever given.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        read => read.map_err(|source| ShimError::File { path: dir.into(), source }),
    }
}

/// The time, in nanoseconds since the epoch.
pub fn now_ns() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or_default()
}

/// Randomness for a guest, base64.
pub fn entropy() -> String {
    let mut entropy = [0; 64];
    rand_core::OsRng.fill_bytes(&mut entropy);
    BASE64_STANDARD.encode(entropy)
}
