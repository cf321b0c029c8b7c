//! Certificates and keys as they are used: read from files.

use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

use super::{Certificate, PkiError};

const HELP: &str =
    "`mvm agent certs status` says what there is, `mvm agent certs issue` makes what is missing";

/// Who this process is: a certificate and its key.
#[derive(Debug)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    certificate: Certificate,
}

impl Identity {
    /// Reads a PEM file with a key and its certificate.
    pub fn load(path: &Path) -> Result<Self, PkiError> {
        let pem = read(path)?;
        let chain = certificates(path, &pem)?;
        let key = PrivateKeyDer::from_pem_slice(&pem)
            .map_err(|error| damaged(path, format!("it has no key ({error})")))?;
        let first = chain.first().ok_or_else(|| damaged(path, "it has no certificate"))?;
        let certificate = Certificate::read(first)
            .map_err(|error| damaged(path, error.to_string().lines().next().unwrap_or_default()))?;
        Ok(Self { chain, key, certificate })
    }

    /// What the certificate says.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// A secret for another purpose than TLS, the same as long as the key is.
    pub(in crate::agent) fn secret(&self, purpose: &str) -> [u8; 32] {
        Sha256::new().chain_update(purpose).chain_update(self.key.secret_der()).finalize().into()
    }

    /// For TLS: the certificates, and the key.
    pub(in crate::agent) fn pair(&self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        (self.chain.clone(), self.key.clone_key())
    }
}

/// Whom this process trusts: the cluster's authority.
#[derive(Debug, Clone)]
pub struct Authority(CertificateDer<'static>);

impl Authority {
    /// Reads a PEM file with the authority's certificate.
    pub fn load(path: &Path) -> Result<Self, PkiError> {
        let pem = read(path)?;
        match <[_; 1]>::try_from(certificates(path, &pem)?) {
            Ok([certificate]) => Ok(Self(certificate)),
            Err(several) => Err(damaged(path, format!("it has {} certificates, not one", several.len()))),
        }
    }

    /// The certificate.
    pub(in crate::agent) fn der(&self) -> &CertificateDer<'static> {
        &self.0
    }
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    all.map_err(|error| damaged(path, error.to_string()))
}

fn read(path: &Path) -> Result<Vec<u8>, PkiError> {
    std::fs::read(path).map_err(|source| PkiError::Io { verb: "read", path: path.into(), source })
}

pub(super) fn damaged(path: &Path, what: impl Into<String>) -> PkiError {
    PkiError::Damaged { path: path.into(), what: what.into(), help: HELP }
}
