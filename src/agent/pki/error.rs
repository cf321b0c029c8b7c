//! What can be wrong with certificates.

use std::io;
use std::path::PathBuf;

use jiff::Timestamp;

/// Why certificates cannot be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// No such role.
    #[error("there is no role `{0}`\nhelp: there are node, coordinator and client")]
    Role(String),
    /// A name that cannot be one.
    #[error("the name `{0}` is not valid\nhelp: use 1 to 63 of a-z, 0-9 and `-`, with no `-` at either end")]
    Name(String),
    /// More days than there are.
    #[error("a certificate cannot last {0} days\nhelp: it ends with its authority at the latest")]
    Days(u32),
    /// Longer than time is counted.
    #[error("a certificate cannot last so long\nhelp: it ends with its authority at the latest")]
    TooLong,
    /// It would end before it begins.
    #[error("a certificate cannot end before it begins\nhelp: give a later end")]
    Never,
    /// There is no authority.
    #[error("there is no certificate authority in `{0}`\nhelp: `mvm agent certs init` makes one")]
    NoAuthority(PathBuf),
    /// The authority's key is not there.
    #[error(
        "the authority's key `{0}` is missing: nothing can be issued\nhelp: put it back, or begin a new cluster in another directory"
    )]
    NoKey(PathBuf),
    /// Key and certificate of the authority are not of one pair.
    #[error(
        "the key in `{0}` is not that of the certificate beside it\nhelp: put the right one back, or begin a new cluster in another directory"
    )]
    OtherKey(PathBuf),
    /// The authority's time is over.
    #[error(
        "the certificate authority in `{dir}` has ended ({until})\nhelp: begin a new cluster with `mvm agent certs init --dir` another directory"
    )]
    AuthorityOver {
        /// Its directory.
        dir: PathBuf,
        /// Its end.
        until: Timestamp,
    },
    /// The certificate would last longer than its authority.
    #[error("the certificate would outlast its authority, which ends {0}\nhelp: give it fewer days")]
    Outlasts(Timestamp),
    /// There is one already.
    #[error(
        "there is `{0}` already\nhelp: `mvm agent certs rotate` gives new certificates to all; or move the file away"
    )]
    Exists(PathBuf),
    /// Somebody else is at it.
    #[error("another mvm writes in `{0}`\nhelp: try again when it is done")]
    Locked(PathBuf),
    /// A file that does not hold what it should.
    #[error("`{path}` cannot be used: {what}\nhelp: {help}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
        /// What to do.
        help: &'static str,
    },
    /// A certificate of a peer that does not hold what it should.
    #[error(
        "the certificate cannot be used: {0}\nhelp: `mvm agent certs issue` makes such as agents understand"
    )]
    Odd(String),
    /// The system refused.
    #[error("cannot {verb} `{path}`: {source}\nhelp: mend its permissions, or give another --dir")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Making a key or a certificate failed.
    #[error("cannot make a certificate: {0}\nhelp: this is a fault of mvm; please report it")]
    Make(#[from] rcgen::Error),
}
