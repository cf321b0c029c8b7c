//! Makes the sealed guest one particular VM.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rand_core::{OsRng, RngCore};

use super::frames::{Network, Personalise, Volume};
use super::system::{System, invalid};
use super::user::{self, User};

/// Least entropy a clone needs to go its own way.
const ENTROPY_BYTES: usize = 32;

/// The keys of those who may log in, in memory.
const AUTHORIZED_KEYS: &str = "/run/mvm/authorized_keys";

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub struct StepError {
    /// The step, e.g. `network`.
    pub step: &'static str,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Whether the guest under `root` was personalised before, by this agent or one before it.
pub fn is_personalised(root: &Path) -> bool {
    marker(root).exists()
}

/// Applies everything but the image's start; `root` stands before every path.
pub fn apply(root: &Path, system: &dyn System, what: &Personalise) -> Result<(), StepError> {
    let step = |step, result: io::Result<()>| result.map_err(|source| StepError { step, source });
    wake(system, what.time_ns, &what.entropy)?;
    step("hostname", hostname(root, system, &what.hostname))?;
    step("machine-id", machine_id(root))?;
    step("ssh host key", host_keys(root, what))?;
    step("authorized keys", authorized_keys(root, system, &what.authorized_keys))?;
    step("network", system.configure_network(what.network.as_ref()))?;
    step("resolv.conf", resolv_conf(root, what.network.as_ref()))?;
    for volume in &what.volumes {
        step("volume", mount(root, system, volume))?;
    }
    step("secrets", secrets(root, system, what))?;
    step("role", role(root, what.role.as_deref()))?;
    step("marker", put(&marker(root), b"", 0o600))
}

/// Brings a guest that stood still up to now, with random numbers that no other copy of it has.
pub fn wake(system: &dyn System, time_ns: u64, base64: &str) -> Result<(), StepError> {
    let step = |step, result: io::Result<()>| result.map_err(|source| StepError { step, source });
    // The clock first, as the next steps may wait; entropy before anything draws from it.
    step("clock", system.set_clock(time_ns))?;
    step("entropy", entropy(system, base64))
}

/// Goes through those of the steps that touch disks, and changes nothing.
pub fn touch(root: &Path, system: &dyn System) -> Result<(), StepError> {
    let step = |source| StepError { step: "rehearsal", source };
    for name in ["etc/hostname", "etc/hosts", "etc/resolv.conf"] {
        let path = root.join(name);
        if let Ok(bytes) = fs::read(&path) {
            put(&path, &bytes, 0o644).map_err(step)?;
        }
    }
    authorized_keys(root, system, &[]).map_err(step)
}

fn marker(root: &Path) -> PathBuf {
    root.join("run/mvm/personalised")
}

fn entropy(system: &dyn System, base64: &str) -> io::Result<()> {
    let bytes = decode(base64)?;
    if bytes.len() < ENTROPY_BYTES {
        return Err(invalid(format!("{} bytes are too few, {ENTROPY_BYTES} are needed", bytes.len())));
    }
    system.credit_entropy(&bytes)
}

fn hostname(root: &Path, system: &dyn System, name: &str) -> io::Result<()> {
    let fits = (1..=64).contains(&name.len());
    if !fits || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.') {
        return Err(invalid(format!("{name:?} is no host name")));
    }
    system.set_hostname(name)?;
    put(&root.join("etc/hostname"), format!("{name}\n").as_bytes(), 0o644)?;
    let path = root.join("etc/hosts");
    let old = fs::read_to_string(&path).unwrap_or_else(|_| "127.0.0.1 localhost\n::1 localhost\n".into());
    let mut hosts = String::new();
    for line in old.lines().filter(|line| !line.starts_with("127.0.1.1")) {
        hosts.push_str(line);
        hosts.push('\n');
    }
    hosts.push_str(&format!("127.0.1.1 {name}\n"));
    put(&path, hosts.as_bytes(), 0o644)
}

fn machine_id(root: &Path) -> io::Result<()> {
    let mut bytes = [0; 16];
    OsRng.try_fill_bytes(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    let id: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    put(&root.join("etc/machine-id"), format!("{id}\n").as_bytes(), 0o444)
}

fn host_keys(root: &Path, what: &Personalise) -> io::Result<()> {
    let dir = root.join("run/mvm/ssh");
    make_dir(&dir, 0o700)?;
    let dropbear = decode(&what.ssh_host_key_dropbear)?;
    put(&dir.join("ssh_host_ed25519_key"), what.ssh_host_key.as_bytes(), 0o600)?;
    put(&dir.join("dropbear_ed25519_host_key"), &dropbear, 0o600)
}

fn authorized_keys(root: &Path, system: &dyn System, keys: &[String]) -> io::Result<()> {
    let text: String = keys.iter().map(|key| format!("{}\n", key.trim_end())).collect();
    // Public, and root's: a file that images may link to.
    put(&under(root, Path::new(AUTHORIZED_KEYS))?, text.as_bytes(), 0o644)?;
    for user in ["root", user::DEFAULT].iter().filter_map(|name| User::find(root, name)) {
        let home = under(root, &user.home)?;
        if fs::read_link(home.join(".ssh/authorized_keys")).is_ok_and(|to| to == Path::new(AUTHORIZED_KEYS)) {
            continue;
        }
        let missing_home = !home.exists();
        make_dir(&home, 0o700)?;
        let dir = home.join(".ssh");
        make_dir(&dir, 0o700)?;
        let file = dir.join("authorized_keys");
        put(&file, text.as_bytes(), 0o600)?;
        if missing_home {
            system.chown(&home, user.uid, user.gid)?;
        }
        system.chown(&dir, user.uid, user.gid)?;
        system.chown(&file, user.uid, user.gid)?;
    }
    Ok(())
}

fn resolv_conf(root: &Path, network: Option<&Network>) -> io::Result<()> {
    let Some(network) = network else {
        return Ok(());
    };
    let lines: String = network.dns.iter().map(|server| format!("nameserver {server}\n")).collect();
    put(&root.join("etc/resolv.conf"), lines.as_bytes(), 0o644)
}

fn mount(root: &Path, system: &dyn System, volume: &Volume) -> io::Result<()> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", volume.target));
    let target = under(root, Path::new(&volume.target)).map_err(named)?;
    fs::create_dir_all(&target).map_err(named)?;
    system.mount(&volume.source, &target, volume.read_only).map_err(named)
}

fn secrets(root: &Path, system: &dyn System, what: &Personalise) -> io::Result<()> {
    if what.secrets.is_empty() {
        return Ok(());
    }
    let dir = root.join("run/secrets");
    make_dir(&dir, 0o700)?;
    system.keep_in_memory(&dir)?;
    for (name, content) in &what.secrets {
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
            return Err(invalid(format!("{name:?} is no name for a secret")));
        }
        put(&dir.join(name), &decode(content)?, 0o400)?;
    }
    system.close(&dir)
}

fn role(root: &Path, role: Option<&str>) -> io::Result<()> {
    match role {
        Some(role) => put(&root.join("run/mvm/role"), format!("{role}\n").as_bytes(), 0o644),
        None => Ok(()),
    }
}

fn decode(base64: &str) -> io::Result<Vec<u8>> {
    BASE64_STANDARD.decode(base64).map_err(|error| invalid(format!("not base64: {error}")))
}

/// `path`, absolute in the guest, below `root`.
fn under(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    match path.strip_prefix("/") {
        Ok(inner) if plain => Ok(root.join(inner)),
        _ => Err(invalid(format!("{path:?} is no absolute path without .."))),
    }
}

/// Makes a directory and those above it; the last one with exactly this mode.
fn make_dir(dir: &Path, mode: u32) -> io::Result<()> {
    if dir.is_dir() && !dir.ends_with(".ssh") {
        return Ok(());
    }
    if let Some(above) = dir.parent() {
        fs::create_dir_all(above)?;
    }
    match DirBuilder::new().mode(mode).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(mode))
}

/// Writes a file beside and moves it into place, so that its mode holds from the first byte. A
/// symlink of the image is followed into `/run/mvm`, and else (as into /nix/store) replaced.
fn put(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    if let Ok(target) = fs::read_link(path)
        && target.starts_with("../run/mvm")
        && let Some(dir) = path.parent()
    {
        return put(&dir.join(target), bytes, mode);
    }
    if let Some(above) = path.parent() {
        fs::create_dir_all(above)?;
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".mvm-new");
    let _ = fs::remove_file(&beside);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::frames::VolumeSource;
    use crate::guest::system::Rehearsal;

    fn wish() -> Personalise {
        let base64 = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
        Personalise {
            time_ns: 7,
            entropy: base64(&[1; 64]),
            hostname: "web".into(),
            ssh_host_key: "PRIVATE".into(),
            ssh_host_key_dropbear: base64(b"\0bear"),
            authorized_keys: vec!["ssh-ed25519 A".into(), "ssh-ed25519 B\n".into()],
            network: Some(Network {
                address: "172.16.0.2/24".into(),
                gateway: None,
                mac: None,
                dns: vec!["172.16.0.1".into()],
            }),
            volumes: vec![Volume {
                source: VolumeSource::Tag("proj".into()),
                target: "/srv/proj".into(),
                read_only: true,
            }],
            secrets: [("token".to_string(), base64(b"s3cret"))].into(),
            role: Some("gateway".into()),
        }
    }

    fn guest() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        let passwd = "root:x:0:0::/root:/bin/sh\nmvm:x:1000:100::/home/mvm:/bin/sh\n";
        fs::write(root.path().join("etc/passwd"), passwd).unwrap();
        fs::write(root.path().join("etc/hosts"), "127.0.0.1 localhost\n127.0.1.1 old\n").unwrap();
        root
    }

    #[test]
    fn time_comes_first_then_entropy_and_files_have_their_content_and_mode() {
        let (root, system) = (guest(), Rehearsal::default());
        std::os::unix::fs::symlink("/nowhere", root.path().join("etc/resolv.conf")).unwrap();
        assert!(!is_personalised(root.path()));
        apply(root.path(), &system, &wish()).unwrap();
        assert!(is_personalised(root.path()));
        let steps = system.steps.into_inner().unwrap();
        let expected = [
            "clock 7",
            "entropy 64",
            "hostname web",
            "chown root 0:0",
            "chown .ssh 0:0",
            "chown authorized_keys 0:0",
            "chown mvm 1000:100",
            "chown .ssh 1000:100",
            "chown authorized_keys 1000:100",
            "network 172.16.0.2/24",
            "mount Tag(\"proj\") read_only=true",
            "tmpfs",
            "no more writing",
        ];
        assert_eq!(steps, expected);
        let keys = "ssh-ed25519 A\nssh-ed25519 B\n";
        for (path, mode, content) in [
            ("etc/hostname", 0o644, "web\n"),
            ("etc/hosts", 0o644, "127.0.0.1 localhost\n127.0.1.1 web\n"),
            ("etc/resolv.conf", 0o644, "nameserver 172.16.0.1\n"),
            ("run/mvm/ssh/ssh_host_ed25519_key", 0o600, "PRIVATE"),
            ("run/mvm/ssh/dropbear_ed25519_host_key", 0o600, "\0bear"),
            ("root/.ssh/authorized_keys", 0o600, keys),
            ("home/mvm/.ssh/authorized_keys", 0o600, keys),
            ("run/secrets/token", 0o400, "s3cret"),
            ("run/mvm/role", 0o644, "gateway\n"),
        ] {
            let path = root.path().join(path);
            assert_eq!(fs::read_to_string(&path).unwrap(), content, "{path:?}");
            assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, mode, "{path:?}");
        }
        let mode = |path: &str| root.path().join(path).metadata().unwrap().permissions().mode();
        assert_eq!(mode("home/mvm/.ssh") & 0o777, 0o700);
        assert_eq!(mode("run/secrets") & 0o777, 0o700);
        assert!(root.path().join("srv/proj").is_dir());
    }

    #[test]
    fn every_vm_has_a_machine_id_of_its_own() {
        let (one, two) = (guest(), guest());
        let id = |root: &tempfile::TempDir| {
            apply(root.path(), &Rehearsal::default(), &wish()).unwrap();
            fs::read_to_string(root.path().join("etc/machine-id")).unwrap()
        };
        let (one, two) = (id(&one), id(&two));
        assert_eq!(one.trim_end().len(), 32);
        assert_ne!(one, two);
    }

    #[test]
    fn an_error_names_its_step_and_leaves_the_guest_sealed() {
        let failing = |change: fn(&mut Personalise)| {
            let root = guest();
            let mut wish = wish();
            change(&mut wish);
            let error = apply(root.path(), &Rehearsal::default(), &wish).unwrap_err();
            assert!(!is_personalised(root.path()));
            error.to_string()
        };
        assert!(failing(|wish| wish.entropy = "AAAA".into()).starts_with("entropy: 3 bytes"));
        assert!(failing(|wish| wish.hostname = "a b".into()).starts_with("hostname:"));
        let error = failing(|wish| wish.secrets = [("../x".into(), String::new())].into());
        assert!(error.starts_with("secrets:"), "{error}");
        let error = failing(|wish| wish.volumes[0].target = "/a/../b".into());
        assert!(error.starts_with("volume: /a/../b"), "{error}");
    }
}
