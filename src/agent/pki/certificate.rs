//! What a certificate says.

use jiff::Timestamp;
use serde::Serialize;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::X509Certificate;

use super::{PeerName, PkiError, Role, Validity};

/// Beginning of the URI that says the role.
const ROLE_URI: &str = "mvm://role/";

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Certificate {
    /// Whose it is.
    pub name: PeerName,
    /// What the holder may do.
    pub role: Role,
    /// From when until when.
    #[serde(flatten)]
    pub validity: Validity,
}

impl Certificate {
    /// Reads a certificate; who signed it is another question.
    pub fn read(der: &[u8]) -> Result<Self, PkiError> {
        let parsed = parse(der)?;
        let names = parsed.subject_alternative_name().map_err(|error| odd(error.to_string()))?;
        let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
        let mut roles = names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix(ROLE_URI),
            _ => None,
        });
        let mut hosts = names.iter().filter_map(|name| match name {
            GeneralName::DNSName(host) => Some(PeerName::from_host(host)),
            _ => None,
        });
        let role = match (roles.next(), roles.next()) {
            (Some(role), None) => role.parse()?,
            (None, _) => return Err(odd("it says no role")),
            (Some(_), Some(_)) => return Err(odd("it says several roles")),
        };
        let (Some(Some(name)), None) = (hosts.next(), hosts.next()) else {
            return Err(odd("it does not say one name"));
        };
        Ok(Self { name, role, validity: validity_of(&parsed)? })
    }
}

/// The URI of a role.
pub(super) fn role_uri(role: Role) -> String {
    format!("{ROLE_URI}{role}")
}

/// From when until when any certificate holds.
pub(super) fn validity(der: &[u8]) -> Result<Validity, PkiError> {
    validity_of(&parse(der)?)
}

/// Whether `authority` signed `certificate`.
pub(super) fn is_signed_by(certificate: &[u8], authority: &[u8]) -> Result<bool, PkiError> {
    let (certificate, authority) = (parse(certificate)?, parse(authority)?);
    Ok(certificate.verify_signature(Some(authority.public_key())).is_ok())
}

/// Whether the certificate is about this public key.
pub(super) fn is_about(certificate: &[u8], public_key: &[u8]) -> Result<bool, PkiError> {
    Ok(parse(certificate)?.public_key().subject_public_key.data == public_key)
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, PkiError> {
    let (_, parsed) = x509_parser::parse_x509_certificate(der).map_err(|error| odd(error.to_string()))?;
    Ok(parsed)
}

fn validity_of(parsed: &X509Certificate<'_>) -> Result<Validity, PkiError> {
    let moment = |time: x509_parser::time::ASN1Time| {
        Timestamp::from_second(time.timestamp()).map_err(|error| odd(error.to_string()))
    };
    let validity = parsed.validity();
    Validity::between(moment(validity.not_before)?, moment(validity.not_after)?)
}

fn odd(what: impl Into<String>) -> PkiError {
    PkiError::Odd(what.into())
}
