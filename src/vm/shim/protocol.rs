//! What a shim and its clients say to each other: one JSON object a line.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::vm::spec::PortMap;

/// How long a guest has to end by itself when nobody says otherwise.
pub const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// Longest line either side takes, in bytes.
const LONGEST: u64 = 64 * 1024;

/// What a client asks; one question a connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// End the guest in order within the deadline, then by force. The connection ends with the shim.
    Stop {
        /// Milliseconds the guest has.
        deadline_ms: u64,
    },
    /// End the VM at once. The connection ends with the shim.
    Kill,
    /// Connect to a TCP port of the guest. After [`Said::Done`] the connection is the guest's.
    Dial {
        /// Port in the guest.
        port: u16,
    },
    /// Save the machine into the VM's directory, for it to go on from.
    Save {
        /// Whether the VM is over then.
        stop: bool,
    },
    /// Halt the guest's CPUs.
    Pause,
    /// Have them go on; the guest's clock is set.
    Resume,
    /// Hand over the listeners of the published ports. The VM stops accepting at them when it is told to end.
    Listeners,
    /// Talk to the guest agent. After [`Said::Done`] the connection carries its frames.
    Agent,
}

/// What the shim answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "said", rename_all = "snake_case")]
pub enum Said {
    /// As asked.
    Done,
    /// Saved.
    Saved(Saved),
    /// The listeners come with this, one for each.
    Listeners {
        /// Where they listen, and for which port of the guest.
        ports: Vec<PortMap>,
    },
    /// Not as asked: why.
    Error {
        /// Why.
        message: String,
    },
}

/// What a snapshot took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// Bytes on disk.
    pub bytes: u64,
    /// How long the guest stood still, in milliseconds.
    pub paused_ms: u64,
    /// How long it took in all, in milliseconds.
    pub ms: u64,
}

/// What the shim tells the command that started it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "word", rename_all = "snake_case")]
pub enum Word {
    /// A step of the start ended.
    Step {
        /// Its name, e.g. `seal`.
        name: String,
        /// What it took, in milliseconds.
        ms: u64,
    },
    /// Something the user should know.
    Warning {
        /// The text.
        text: String,
    },
    /// The guest is ready.
    Ready {
        /// Published ports, none of them 0 any more.
        ports: Vec<PortMap>,
        /// Whether it was restored from a snapshot; booted otherwise.
        restored: bool,
        /// Why it was not restored, where it could have been.
        why: Option<String>,
    },
    /// The VM is over, as it should be.
    Ended,
    /// The VM could not be started, or ended otherwise than it should.
    Failed {
        /// What failed, on what, and what to do next.
        error: String,
        /// Whether a deadline passed.
        late: bool,
        /// Whether the snapshot it was to go on from will never do.
        #[serde(default)]
        unusable: bool,
    },
}

/// What the command that started a shim may answer; silence (end of file) ends the VM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "leash", rename_all = "snake_case")]
pub enum Leash {
    /// From here on the VM lives on its own.
    Detach,
}

/// Reads one message; `None` at the end of the stream.
pub async fn read<T: for<'a> Deserialize<'a>>(
    stream: &mut (impl AsyncBufRead + Unpin),
) -> std::io::Result<Option<T>> {
    let mut line = String::new();
    if stream.take(LONGEST).read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    Ok(Some(serde_json::from_str(&line)?))
}

/// Writes one message.
pub async fn write(stream: &mut (impl AsyncWrite + Unpin), message: &impl Serialize) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line).await
}
