//! Why a client has no answer, in words.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use quinn::{ConnectionError, TransportErrorCode};
use rustls::AlertDescription;

use super::connection::{ODD_CERTIFICATE, STOPPING};
use super::pki::{PeerName, Role, Validity};
use super::response::Fault;
use super::tls::TlsError;
use super::wire::WireError;

/// Why a client has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers.
    #[error(
        "no agent answers at {address} within {after:?}\nhelp: `mvm agent serve` runs one; see that it listens there"
    )]
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// How long it was tried.
        after: Duration,
    },
    /// The address cannot be connected to at all.
    #[error("cannot connect to {address}: {why}\nhelp: give the agent's address as IP:PORT")]
    Address {
        /// Where.
        address: SocketAddr,
        /// Why.
        why: String,
    },
    /// The agent has as many connections as it takes.
    #[error("the agent at {address} takes no more connections\nhelp: try again later, or close others")]
    Full {
        /// Where.
        address: SocketAddr,
    },
    /// The agent's certificate is of another authority.
    #[error(
        "the agent at {address} is of another cluster: our authority has not issued its certificate\nhelp: use the `ca.pem` of its cluster"
    )]
    TheirsUnknown {
        /// Where.
        address: SocketAddr,
    },
    /// The agent's certificate is over.
    #[error(
        "the certificate of the agent at {address} is over, or not yet valid\nhelp: `mvm agent certs rotate` there gives a new one; see that the clocks agree"
    )]
    TheirsOver {
        /// Where.
        address: SocketAddr,
    },
    /// The certificate is that of another node, or of none.
    #[error(
        "who listens at {address} is not the node that was to be there: {why}\nhelp: see that name and address belong together"
    )]
    OtherNode {
        /// Where.
        address: SocketAddr,
        /// What TLS said.
        why: String,
    },
    /// The agent does not know our authority.
    #[error(
        "the agent at {address} does not know the authority of our certificate\nhelp: use a certificate that its cluster has issued"
    )]
    OursUnknown {
        /// Where.
        address: SocketAddr,
    },
    /// Our certificate is over, as the agent sees it.
    #[error(
        "the agent at {address} says that our certificate is over, or not yet valid\nhelp: `mvm agent certs rotate` gives a new one; see that the clocks agree"
    )]
    OursRefused {
        /// Where.
        address: SocketAddr,
    },
    /// Our certificate is over.
    #[error(
        "our certificate, of the {role} `{name}`, is valid from {from} until {until}\nhelp: `mvm agent certs rotate` gives a new one; see that the clock is right",
        from = .validity.from, until = .validity.until
    )]
    OursOver {
        /// Its name.
        name: PeerName,
        /// Its role.
        role: Role,
        /// From when until when.
        validity: Validity,
    },
    /// Our certificate cannot be used.
    #[error("the agent at {address} does not take our certificate: {why}")]
    OursOdd {
        /// Where.
        address: SocketAddr,
        /// What the agent said.
        why: String,
    },
    /// Another protocol, or another version.
    #[error(
        "who listens at {address} does not speak mvm/1\nhelp: see that it is an agent, and its mvm not older than this one"
    )]
    OtherProtocol {
        /// Where.
        address: SocketAddr,
    },
    /// The agent ends.
    #[error("the agent at {address} ends\nhelp: try again when it is back")]
    Stopping {
        /// Where.
        address: SocketAddr,
    },
    /// The connection is over.
    #[error(
        "the connection to the agent at {address} is over: {why}\nhelp: try again; the agent's log says more"
    )]
    Closed {
        /// Where.
        address: SocketAddr,
        /// Why.
        why: String,
    },
    /// The agent refuses, and says why.
    #[error(transparent)]
    Refused(Fault),
    /// No answer in time.
    #[error(
        "the agent at {address} has not answered `{request}` within {after:?}\nhelp: its log may say why"
    )]
    TooSlow {
        /// Where.
        address: SocketAddr,
        /// To what.
        request: &'static str,
        /// How long it had.
        after: Duration,
    },
    /// An answer to something else.
    #[error(
        "the agent at {address} answered `{answer}`, which was not asked for\nhelp: see that its mvm is of this version"
    )]
    Odd {
        /// Where.
        address: SocketAddr,
        /// What came.
        answer: &'static str,
    },
    /// Something else than a frame.
    #[error("the exchange with the agent at {address} failed: {source}")]
    Wire {
        /// Where.
        address: SocketAddr,
        /// What failed.
        source: WireError,
    },
    /// Our certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No socket to be had.
    #[error("cannot open a UDP socket: {0}\nhelp: see `ulimit -n`")]
    Socket(io::Error),
}

/// Why one exchange did not come to its end.
#[derive(Debug)]
pub(super) enum Broken {
    Refused(Fault),
    Odd(&'static str),
    Wire(WireError),
    Connection(ConnectionError),
}

impl From<WireError> for Broken {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

impl From<ConnectionError> for Broken {
    fn from(error: ConnectionError) -> Self {
        Self::Connection(error)
    }
}

/// What the end of a connection means.
pub(super) fn explain(error: ConnectionError, address: SocketAddr) -> ClientError {
    use AlertDescription as Alert;
    let closed = |why: String| ClientError::Closed { address, why };
    match error {
        // We do not take what the agent shows.
        ConnectionError::TransportError(error) => match alert(error.code) {
            Some(Alert::UnknownCA | Alert::DecryptError) => ClientError::TheirsUnknown { address },
            Some(Alert::CertificateExpired) => ClientError::TheirsOver { address },
            Some(Alert::BadCertificate | Alert::UnsupportedCertificate) => {
                ClientError::OtherNode { address, why: error.reason }
            }
            Some(Alert::NoApplicationProtocol) => ClientError::OtherProtocol { address },
            _ => closed(error.to_string()),
        },
        // The agent does not take what we show.
        ConnectionError::ConnectionClosed(frame) => match alert(frame.error_code) {
            Some(Alert::UnknownCA | Alert::DecryptError) => ClientError::OursUnknown { address },
            Some(Alert::CertificateExpired) => ClientError::OursRefused { address },
            Some(
                Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateUnknown
                | Alert::CertificateRequired
                | Alert::AccessDenied,
            ) => ClientError::OursOdd { address, why: frame.to_string() },
            Some(Alert::NoApplicationProtocol) => ClientError::OtherProtocol { address },
            None if frame.error_code == TransportErrorCode::CONNECTION_REFUSED => {
                ClientError::Full { address }
            }
            _ => closed(frame.to_string()),
        },
        ConnectionError::ApplicationClosed(frame) => {
            let why = String::from_utf8_lossy(&frame.reason).into_owned();
            match frame.error_code {
                STOPPING => ClientError::Stopping { address },
                ODD_CERTIFICATE => ClientError::OursOdd { address, why },
                _ => closed(why),
            }
        }
        ConnectionError::VersionMismatch => ClientError::OtherProtocol { address },
        ConnectionError::TimedOut => closed("nothing more is heard of it".into()),
        ConnectionError::Reset => closed("it has started anew".into()),
        ConnectionError::LocallyClosed => closed("it was closed on this side".into()),
        ConnectionError::CidsExhausted => closed(error.to_string()),
    }
}

/// The TLS alert in a QUIC error.
fn alert(code: TransportErrorCode) -> Option<AlertDescription> {
    let code = u64::from(code).checked_sub(0x100)?;
    u8::try_from(code).ok().map(AlertDescription::from)
}
