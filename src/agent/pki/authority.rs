//! The authority: founding it, and what it issues.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use super::certificate::{self, Certificate};
use super::identity::{Authority, Identity, damaged};
use super::{PeerName, PkiError, Role, Validity};
use crate::host::files::{Lock, hex, write_atomic};

/// The authority's certificate, in its directory.
pub const AUTHORITY: &str = "ca.pem";
const KEY: &str = "ca.key";
const LOCK: &str = ".lock";

/// How long an authority lasts.
pub const AUTHORITY_DAYS: u32 = 3652;

/// How long a certificate lasts, unless said otherwise.
pub const DAYS: u32 = 365;

/// An authority, founded now or before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founded {
    /// Whether it was founded now.
    pub new: bool,
    /// Its certificate's file.
    pub path: PathBuf,
    /// From when until when.
    pub validity: Validity,
}

/// A certificate that was issued, with its key in the same file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The file.
    pub path: PathBuf,
    /// What it says.
    pub certificate: Certificate,
}

/// What a directory of certificates has.
#[derive(Debug)]
pub struct Status {
    /// The authority.
    pub authority: Validity,
    /// Whether its key is there, so that it can issue.
    pub can_issue: bool,
    /// What was issued, by file.
    pub certificates: Vec<Listed>,
}

/// A certificate in a list.
#[derive(Debug)]
pub struct Listed {
    /// The file.
    pub path: PathBuf,
    /// What it says, or why it cannot be used.
    pub certificate: Result<Certificate, PkiError>,
}

/// The file of a certificate and its key, in the authority's directory.
pub fn file_name(role: Role, name: &PeerName) -> String {
    format!("{role}-{name}.pem")
}

/// Founds an authority in `dir`, unless there is one.
pub fn init(dir: &Path) -> Result<Founded, PkiError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io("make", dir))?;
    let _lock = lock(dir)?;
    let path = dir.join(AUTHORITY);
    if path.exists() {
        return Ok(Founded { new: false, validity: validity(&path)?, path });
    }
    // The key goes first: without the certificate it is found again and used.
    let key_path = dir.join(KEY);
    let key = match read_key(&key_path)? {
        Some(key) => key,
        None => {
            let key = KeyPair::generate()?;
            write(&key_path, &key.serialize_pem())?;
            key
        }
    };
    let validity = Validity::days(AUTHORITY_DAYS)?;
    // Two authorities have two names, so that a wrong one is told from a damaged one.
    let digest = <sha2::Sha256 as sha2::Digest>::digest(key.public_key_raw());
    let mut params = params(&format!("mvm cluster {}", hex(&digest[..4])), validity);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    write(&path, &params.self_signed(&key)?.pem())?;
    Ok(Founded { new: true, path, validity })
}

/// Issues a certificate that is not there yet.
pub fn issue(dir: &Path, role: Role, name: &PeerName, validity: Validity) -> Result<Issued, PkiError> {
    let office = Office::open(dir)?;
    let path = dir.join(file_name(role, name));
    if path.exists() {
        return Err(PkiError::Exists(path));
    }
    if validity.until > office.validity.until {
        return Err(PkiError::Outlasts(office.validity.until));
    }
    office.issue(path, role, name, validity)
}

/// Issues new certificates, with new keys, in place of all that are there; each lasts from now on
/// as long as the one before. A file is the old one or the new one at any moment.
pub fn rotate(dir: &Path) -> Result<Vec<Issued>, PkiError> {
    let office = Office::open(dir)?;
    let mut old = Vec::new();
    // All are read before any is written.
    for path in issued(dir)? {
        let certificate = read_issued(&path, None)?;
        old.push((path, certificate));
    }
    let renew = |(path, old): (PathBuf, Certificate)| {
        let mut validity = Validity::lasting(old.validity.length())?;
        validity.until = validity.until.min(office.validity.until);
        office.issue(path, old.role, &old.name, validity)
    };
    old.into_iter().map(renew).collect()
}

/// Says what there is.
pub fn status(dir: &Path) -> Result<Status, PkiError> {
    let path = dir.join(AUTHORITY);
    if !path.exists() {
        return Err(PkiError::NoAuthority(dir.into()));
    }
    let authority = Authority::load(&path)?;
    let list = |path: PathBuf| Listed { certificate: read_issued(&path, Some(&authority)), path };
    Ok(Status {
        authority: certificate::validity(authority.der())?,
        can_issue: dir.join(KEY).exists(),
        certificates: issued(dir)?.into_iter().map(list).collect(),
    })
}

/// An authority that can issue, and that nobody else uses meanwhile.
struct Office {
    issuer: Issuer<'static, KeyPair>,
    validity: Validity,
    _lock: Lock,
}

impl Office {
    fn open(dir: &Path) -> Result<Self, PkiError> {
        let path = dir.join(AUTHORITY);
        if !path.exists() {
            return Err(PkiError::NoAuthority(dir.into()));
        }
        let lock = lock(dir)?;
        let key_path = dir.join(KEY);
        let key = read_key(&key_path)?.ok_or_else(|| PkiError::NoKey(key_path.clone()))?;
        let authority = Authority::load(&path)?;
        if !certificate::is_about(authority.der(), key.public_key_raw())? {
            return Err(PkiError::OtherKey(key_path));
        }
        let validity = certificate::validity(authority.der())?;
        if validity.until <= Timestamp::now() {
            return Err(PkiError::AuthorityOver { dir: dir.into(), until: validity.until });
        }
        Ok(Self { issuer: Issuer::from_ca_cert_der(authority.der(), key)?, validity, _lock: lock })
    }

    fn issue(
        &self,
        path: PathBuf,
        role: Role,
        name: &PeerName,
        validity: Validity,
    ) -> Result<Issued, PkiError> {
        let key = KeyPair::generate()?;
        let mut params = params(name.as_str(), validity);
        params.subject_alt_names = vec![
            SanType::DnsName(name.host().try_into()?),
            SanType::URI(certificate::role_uri(role).try_into()?),
        ];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // A node may knock, so that it can be told in words that it may not ask; only a node serves.
        params.extended_key_usages = match role {
            Role::Node => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            Role::Coordinator | Role::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        };
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?;
        // One file for both: they are replaced together.
        write(&path, &format!("{}{}", certificate.pem(), key.serialize_pem()))?;
        Ok(Issued { path, certificate: Certificate::read(certificate.der())? })
    }
}

fn params(name: &str, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "mvm");
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = SystemTime::from(validity.from).into();
    params.not_after = SystemTime::from(validity.until).into();
    params
}

/// Files of certificates that were issued.
fn issued(dir: &Path) -> Result<Vec<PathBuf>, PkiError> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io("read", dir))? {
        let path = entry.map_err(io("read", dir))?.path();
        if path.extension().is_some_and(|end| end == "pem") && !path.ends_with(AUTHORITY) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn read_issued(path: &Path, authority: Option<&Authority>) -> Result<Certificate, PkiError> {
    let identity = Identity::load(path)?;
    if let Some(authority) = authority {
        let (chain, _) = identity.pair();
        if !certificate::is_signed_by(&chain[0], authority.der())? {
            return Err(damaged(path, "another authority issued it"));
        }
    }
    Ok(identity.certificate().clone())
}

fn validity(path: &Path) -> Result<Validity, PkiError> {
    certificate::validity(Authority::load(path)?.der())
}

fn read_key(path: &Path) -> Result<Option<KeyPair>, PkiError> {
    match std::fs::read_to_string(path) {
        Ok(pem) => Ok(Some(KeyPair::from_pem(&pem).map_err(|error| damaged(path, error.to_string()))?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(io("read", path)(source)),
    }
}

fn write(path: &Path, pem: &str) -> Result<(), PkiError> {
    write_atomic(path, pem.as_bytes(), 0o600).map_err(io("write", path))
}

fn lock(dir: &Path) -> Result<Lock, PkiError> {
    let lock = Lock::try_take(&dir.join(LOCK)).map_err(io("lock", dir))?;
    lock.ok_or_else(|| PkiError::Locked(dir.into()))
}

fn io<'a>(verb: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> PkiError + use<'a> {
    move |source| PkiError::Io { verb, path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn name(text: &str) -> PeerName {
        text.parse().unwrap()
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    /// A founded authority with a certificate of each role.
    fn founded() -> (tempfile::TempDir, PathBuf) {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("cluster/pki");
        init(&dir).unwrap();
        for role in Role::ALL {
            issue(&dir, role, &name("dev"), Validity::days(DAYS).unwrap()).unwrap();
        }
        (temp, dir)
    }

    #[test]
    fn what_is_issued_says_who_what_and_until_when_and_only_its_owner_reads_it() {
        let (_temp, dir) = founded();
        let status = status(&dir).unwrap();
        assert!(status.can_issue);
        assert_eq!(status.authority.days_left(Timestamp::now()), i64::from(AUTHORITY_DAYS) - 1);
        let says = |listed: &Listed| {
            let certificate = listed.certificate.as_ref().unwrap();
            assert_eq!(certificate.validity.days_left(Timestamp::now()), i64::from(DAYS) - 1);
            (certificate.role, certificate.name.to_string())
        };
        let said: Vec<_> = status.certificates.iter().map(says).collect();
        let dev = String::from("dev");
        assert_eq!(said, [(Role::Client, dev.clone()), (Role::Coordinator, dev.clone()), (Role::Node, dev)]);
        assert_eq!(mode(&dir), 0o700);
        for entry in std::fs::read_dir(&dir).unwrap() {
            assert_eq!(mode(&entry.unwrap().path()), 0o600);
        }
    }

    #[test]
    fn founding_twice_changes_nothing_and_issuing_twice_is_refused() {
        let (_temp, dir) = founded();
        let before = std::fs::read(dir.join(AUTHORITY)).unwrap();
        assert!(!init(&dir).unwrap().new);
        assert_eq!(std::fs::read(dir.join(AUTHORITY)).unwrap(), before);
        let again = issue(&dir, Role::Node, &name("dev"), Validity::days(1).unwrap());
        assert!(matches!(again, Err(PkiError::Exists(_))), "{again:?}");
    }

    #[test]
    fn founding_that_was_cut_short_goes_on_with_the_same_key() {
        let (_temp, dir) = founded();
        let key = std::fs::read(dir.join(KEY)).unwrap();
        std::fs::remove_file(dir.join(AUTHORITY)).unwrap();
        assert!(init(&dir).unwrap().new);
        assert_eq!(std::fs::read(dir.join(KEY)).unwrap(), key);
        assert!(status(&dir).unwrap().certificates.iter().all(|listed| listed.certificate.is_ok()));
    }

    #[test]
    fn rotating_replaces_keys_and_keeps_names_roles_and_lengths() {
        let (_temp, dir) = founded();
        let path = dir.join(file_name(Role::Node, &name("dev")));
        let old = (std::fs::read(&path).unwrap(), Identity::load(&path).unwrap().certificate().clone());
        assert_eq!(rotate(&dir).unwrap().len(), 3);
        let new = Identity::load(&path).unwrap().certificate().clone();
        assert_ne!(std::fs::read(&path).unwrap(), old.0);
        assert_eq!((&new.name, new.role), (&old.1.name, old.1.role));
        let drift = new.validity.length() - old.1.validity.length();
        assert!(drift.as_secs().abs() <= 2, "{drift}");
        assert!(status(&dir).unwrap().certificates.iter().all(|listed| listed.certificate.is_ok()));
    }

    #[test]
    fn nothing_outlasts_its_authority() {
        let (_temp, dir) = founded();
        let long = Validity::days(AUTHORITY_DAYS + 1).unwrap();
        let outlasts = issue(&dir, Role::Node, &name("old"), long);
        assert!(matches!(outlasts, Err(PkiError::Outlasts(_))), "{outlasts:?}");
    }

    #[test]
    fn what_is_missing_damaged_or_of_others_is_said() {
        let (_temp, dir) = founded();
        let (_other, other) = founded();
        let empty = tempfile::tempdir().unwrap();
        assert!(matches!(status(empty.path()), Err(PkiError::NoAuthority(_))));
        assert!(matches!(rotate(empty.path()), Err(PkiError::NoAuthority(_))));
        std::fs::copy(other.join("node-dev.pem"), dir.join("node-dev.pem")).unwrap();
        std::fs::write(dir.join("client-dev.pem"), "nonsense").unwrap();
        let faults: Vec<bool> =
            status(&dir).unwrap().certificates.iter().map(|listed| listed.certificate.is_err()).collect();
        assert_eq!(faults, [true, false, true]);
        // Nothing is replaced when one of them cannot be.
        let kept = std::fs::read(dir.join("coordinator-dev.pem")).unwrap();
        assert!(matches!(rotate(&dir), Err(PkiError::Damaged { .. })));
        assert_eq!(std::fs::read(dir.join("coordinator-dev.pem")).unwrap(), kept);
        std::fs::copy(other.join(KEY), dir.join(KEY)).unwrap();
        assert!(matches!(rotate(&dir), Err(PkiError::OtherKey(_))));
        std::fs::remove_file(dir.join(KEY)).unwrap();
        assert!(matches!(rotate(&dir), Err(PkiError::NoKey(_))));
        assert!(!status(&dir).unwrap().can_issue);
    }

    #[test]
    fn two_do_not_write_at_once() {
        let (_temp, dir) = founded();
        let _lock = lock(&dir).unwrap();
        assert!(matches!(rotate(&dir), Err(PkiError::Locked(_))));
    }
}
