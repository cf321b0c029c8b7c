//! TLS 1.3 with certificates on both sides, as QUIC wants it.

use std::sync::Arc;

use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::pki::{Authority, Identity};

/// Version 1 of the protocol.
pub const ALPN: &[u8] = b"mvm/1";

/// Why certificates cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Key, certificate or authority are not as they should be.
    #[error(
        "the certificates cannot be used: {0}\nhelp: `mvm agent certs status` says what is wrong with them"
    )]
    Unfit(#[from] rustls::Error),
    /// The authority is none.
    #[error(
        "the authority's certificate cannot be used: {0}\nhelp: `mvm agent certs status` says what is wrong"
    )]
    Authority(#[from] VerifierBuilderError),
    /// No cipher for the first packets.
    #[error("QUIC cannot be set up: {0}\nhelp: this is a fault of mvm; please report it")]
    Cipher(#[from] NoInitialCipherSuite),
}

/// For a server, that talks to holders of the authority's certificates only.
pub fn server(identity: &Identity, authority: &Authority) -> Result<QuicServerConfig, TlsError> {
    let provider = provider();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(authority)?), Arc::clone(&provider));
    let (chain, key) = identity.pair();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier.build()?)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN.into()];
    // A resumed session would not show its certificate again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config.try_into()?)
}

/// For a client, that talks to nodes of the authority only.
pub fn client(identity: &Identity, authority: &Authority) -> Result<QuicClientConfig, TlsError> {
    let (chain, key) = identity.pair();
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots(authority)?)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![ALPN.into()];
    config.resumption = Resumption::disabled();
    Ok(config.try_into()?)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn roots(authority: &Authority) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone())?;
    Ok(roots)
}
