//! Frames on the control channel between host and guest agent.
//!
//! The channel is one byte stream (vsock port 1024, or the virtio-serial port `mvm.control`).
//! A frame is a 4-byte big-endian length of what follows, a 4-byte big-endian session number,
//! one byte of kind, and the payload. The host opens a session with a [`Request`] under a number
//! it has not used; each session ends with [`FrameKind::Reply`], or with [`FrameKind::Exit`]
//! when it ran a command. Session 0 is the agent's own: its [`Hello`].
//!
//! A host that takes up a channel says [`FrameKind::Hello`] with a number of its choice; the agent
//! ends whatever ran for an earlier host and answers a [`Hello`] that names the number. A `Hello`
//! nobody asked for means that the agent started, or gave up on bytes that were no frames: all
//! sessions are over.
//!
//! Bytes of a command (stdin, stdout, stderr) are under credit: a side may have [`WINDOW`] bytes
//! of a session under way; the receiver gives back what it consumed with [`FrameKind::Credit`].
//! Stdout and stderr share one window and are never empty. So a reader that stops holds up its
//! session only.

use serde::{Deserialize, Serialize};

/// vsock port the agent listens on.
pub const VSOCK_PORT: u32 = 1024;
/// Name of the virtio-serial port.
pub const SERIAL_PORT: &str = "mvm.control";
/// Largest payload of a frame, in bytes.
pub const MAX_PAYLOAD: usize = 64 * 1024;
/// Bytes of session and kind that the length covers besides the payload.
pub const HEADER: usize = 5;
/// Bytes a command's stream may have under way in one direction.
pub const WINDOW: usize = 256 * 1024;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// Host → guest: JSON [`Request`]; opens the session.
    Request = 1,
    /// Guest → host: JSON [`Reply`]; ends the session.
    Reply = 2,
    /// Host → guest: input of the command; empty means end of input.
    Stdin = 3,
    /// Guest → host: output of the command.
    Stdout = 4,
    /// Guest → host: error output of the command.
    Stderr = 5,
    /// Host → guest: JSON [`TermSize`].
    Resize = 6,
    /// Host → guest: 4-byte big-endian signal number for the command's process group.
    Signal = 7,
    /// Guest → host: 4-byte big-endian exit code (128 + signal when killed); ends the session.
    Exit = 8,
    /// Either way: 4-byte big-endian count of bytes consumed.
    Credit = 9,
    /// Session 0. Guest → host: JSON [`Hello`]. Host → guest: 4-byte big-endian number to be
    /// named in the answer.
    Hello = 10,
    /// Host → guest: the host has no more interest; the command is killed.
    Close = 11,
}

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The session it belongs to.
    pub session: u32,
    /// What it carries.
    pub kind: FrameKind,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length field is out of bounds.
    #[error("frame of {0} bytes is out of bounds")]
    Length(u32),
    /// No such kind.
    #[error("frame of unknown kind {0}")]
    Kind(u8),
}

impl FrameKind {
    fn parse(byte: u8) -> Result<Self, FrameError> {
        use FrameKind::*;
        [Request, Reply, Stdin, Stdout, Stderr, Resize, Signal, Exit, Credit, Hello, Close]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
            .ok_or(FrameError::Kind(byte))
    }
}

impl Frame {
    /// A frame with raw bytes; `payload` is at most [`MAX_PAYLOAD`].
    pub fn new(session: u32, kind: FrameKind, payload: impl Into<Vec<u8>>) -> Self {
        Self { session, kind, payload: payload.into() }
    }

    /// A frame with a JSON payload.
    pub fn json(session: u32, kind: FrameKind, value: &impl Serialize) -> serde_json::Result<Self> {
        Ok(Self::new(session, kind, serde_json::to_vec(value)?))
    }

    /// A frame with a number.
    pub fn number(session: u32, kind: FrameKind, value: u32) -> Self {
        Self::new(session, kind, value.to_be_bytes())
    }

    /// The number in the payload of [`FrameKind::Signal`], [`FrameKind::Exit`],
    /// [`FrameKind::Credit`] or the host's [`FrameKind::Hello`].
    pub fn as_number(&self) -> Option<u32> {
        Some(u32::from_be_bytes(self.payload.as_slice().try_into().ok()?))
    }

    /// The bytes that go on the wire.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4 + HEADER + self.payload.len());
        out.extend(((HEADER + self.payload.len()) as u32).to_be_bytes());
        out.extend(self.session.to_be_bytes());
        out.push(self.kind as u8);
        out.extend(&self.payload);
        out
    }

    /// Takes one whole frame from the front of `buffer`; `None` until more bytes are there.
    pub fn decode(buffer: &mut Vec<u8>) -> Result<Option<Self>, FrameError> {
        let Some(length) = buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length);
        if !(HEADER..=HEADER + MAX_PAYLOAD).contains(&(length as usize)) {
            return Err(FrameError::Length(length));
        }
        let end = 4 + length as usize;
        if buffer.len() < end {
            return Ok(None);
        }
        let kind = FrameKind::parse(buffer[8])?;
        let session = u32::from_be_bytes([buffer[4], buffer[5], buffer[6], buffer[7]]);
        let payload = buffer[9..end].to_vec();
        buffer.drain(..end);
        Ok(Some(Self { session, kind, payload }))
    }
}

/// What the agent says when it starts and when it is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The guest contract it speaks, [`crate::artifacts::GUEST_CONTRACT`].
    pub contract: u32,
    /// mvm's version.
    pub version: String,
    /// True until a `personalise` was applied.
    pub sealed: bool,
    /// The number of the host's `Hello` this answers; none when nobody asked.
    #[serde(default)]
    pub answers: Option<u32>,
}

/// What the host asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Makes the sealed guest one particular VM, then starts its services.
    Personalise(Box<Personalise>),
    /// Brings a personalised guest that was saved, and goes on, up to now.
    Wake {
        /// Wall clock, nanoseconds since the epoch.
        time_ns: u64,
        /// Entropy to credit, base64, at least 32 bytes.
        entropy: String,
    },
    /// Has a sealed guest do what `personalise` can do without an identity, before it is saved.
    Rehearse {
        /// Milliseconds it has; an older host does not say.
        #[serde(default)]
        deadline_ms: Option<u64>,
    },
    /// Which TCP ports listen? Answered by [`Answer::Ready`] once those named do, or after the time given.
    Ready {
        /// Ports to wait for.
        #[serde(default)]
        ports: Vec<u16>,
        /// How long, in milliseconds.
        #[serde(default)]
        wait_ms: u64,
    },
    /// Runs a command.
    Exec(Exec),
    /// Asks the services to finish their work.
    Drain {
        /// Milliseconds they have.
        deadline_ms: u64,
    },
    /// Load and memory. Answered by [`Answer::Stats`].
    Stats,
    /// Ends the guest: services stopped, disks synced, power off.
    Poweroff,
}

/// What makes one VM out of a sealed image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Personalise {
    /// Wall clock, nanoseconds since the epoch. Set first.
    pub time_ns: u64,
    /// Entropy to credit, base64, at least 32 bytes. Second.
    pub entropy: String,
    /// Host name.
    pub hostname: String,
    /// ssh host key in OpenSSH's private format (`-----BEGIN OPENSSH PRIVATE KEY-----`).
    pub ssh_host_key: String,
    /// The same Ed25519 key as dropbear stores it, base64.
    pub ssh_host_key_dropbear: String,
    /// Lines for `authorized_keys` of root and `mvm`.
    pub authorized_keys: Vec<String>,
    /// The network device, where there is one.
    pub network: Option<Network>,
    /// What to mount.
    pub volumes: Vec<Volume>,
    /// Name → base64 content of files under `/run/secrets`.
    pub secrets: std::collections::BTreeMap<String, String>,
    /// Role of the VM, e.g. `gateway`; written to `/run/mvm/role`.
    pub role: Option<String>,
}

/// The guest's network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Address with prefix length, e.g. `172.16.0.2/24`.
    pub address: String,
    /// Default gateway; none means no way out.
    pub gateway: Option<String>,
    /// MAC address, e.g. `02:…`.
    pub mac: Option<String>,
    /// Name servers.
    pub dns: Vec<String>,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Where it comes from.
    #[serde(flatten)]
    pub source: VolumeSource,
    /// Absolute directory in the guest; made when missing.
    pub target: String,
    /// No writing.
    #[serde(default)]
    pub read_only: bool,
}

/// Where a volume comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VolumeSource {
    /// A block device with an ext4 file system of this UUID.
    Uuid(String),
    /// A virtio-fs share of this tag.
    Tag(String),
}

/// A command to run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// Program and arguments; looked up on PATH.
    pub argv: Vec<String>,
    /// Added to a login-like environment (HOME, USER, PATH, TERM).
    #[serde(default)]
    pub env: Vec<(String, String)>,
    /// Working directory; the user's home when absent.
    #[serde(default)]
    pub cwd: Option<String>,
    /// User name; `mvm` when absent and there, else root.
    #[serde(default)]
    pub user: Option<String>,
    /// A pseudo-terminal of this size, when wanted.
    #[serde(default)]
    pub tty: Option<TermSize>,
}

/// Size of a terminal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TermSize {
    /// Columns.
    pub cols: u16,
    /// Rows.
    pub rows: u16,
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Done.
    Ok(Answer),
    /// Not done: why.
    Error(String),
}

/// What a request is answered with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// Nothing more to say.
    Done,
    /// To [`Request::Ready`].
    Ready {
        /// True until personalised.
        sealed: bool,
        /// TCP ports that listen on any address but loopback's, ascending.
        ports: Vec<u16>,
    },
    /// To [`Request::Stats`].
    Stats {
        /// Load average of the last minute, in hundredths.
        load1_hundredths: u64,
        /// Total memory in KiB.
        mem_total_kib: u64,
        /// Available memory in KiB.
        mem_available_kib: u64,
        /// Seconds since boot.
        uptime_seconds: u64,
        /// Microseconds of CPU the guest has used, all CPUs together.
        cpu_busy_us: u64,
        /// Established TCP connections.
        connections: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_frame_comes_back_as_it_went(session: u32, payload: Vec<u8>, rest: Vec<u8>) {
            let frame = Frame::new(session, FrameKind::Stdout, payload);
            let mut wire = frame.encode();
            wire.extend(&rest);
            prop_assert_eq!(Frame::decode(&mut wire).unwrap(), Some(frame));
            prop_assert_eq!(wire, rest);
        }

        #[test]
        fn arbitrary_bytes_never_panic(mut bytes: Vec<u8>) {
            while let Ok(Some(_)) = Frame::decode(&mut bytes) {}
        }
    }

    #[test]
    fn a_frame_of_four_gigabytes_is_refused_before_it_is_read() {
        let mut wire = vec![0xff; 9];
        assert_eq!(Frame::decode(&mut wire), Err(FrameError::Length(u32::MAX)));
    }
}
