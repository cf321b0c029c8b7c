//! QEMU's control protocol: one command at a time over one connection.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::UnixStream;

use super::{HypervisorError, NAME};

/// How long QEMU has to answer a command.
const DEADLINE: Duration = Duration::from_secs(5);

/// A connection to QEMU's monitor.
#[derive(Debug)]
pub struct Qmp {
    stream: BufReader<UnixStream>,
    /// Numbers the commands, so that an answer that came too late is known for what it is.
    last: u64,
    line: Vec<u8>,
}

impl Qmp {
    /// Greets QEMU and makes it ready for commands.
    pub async fn start(stream: UnixStream) -> Result<Self, HypervisorError> {
        let mut qmp = Self { stream: BufReader::new(stream), last: 0, line: Vec::new() };
        qmp.execute("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    /// Runs a command and returns what it returned. Events and the greeting are passed over.
    pub async fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, HypervisorError> {
        self.within_deadline(command, arguments, None).await
    }

    /// Lends QEMU a descriptor under a name, for the command that comes next.
    pub async fn lend(&mut self, name: &str, descriptor: BorrowedFd<'_>) -> Result<(), HypervisorError> {
        self.within_deadline("getfd", json!({ "fdname": name }), Some(descriptor)).await.map(drop)
    }

    async fn within_deadline(
        &mut self,
        command: &str,
        arguments: Value,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<Value, HypervisorError> {
        let run = self.exchange(command, arguments, descriptor);
        let late = HypervisorError::Silent { name: NAME, what: command.into() };
        tokio::time::timeout(DEADLINE, run).await.unwrap_or(Err(late))
    }

    async fn exchange(
        &mut self,
        command: &str,
        arguments: Value,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<Value, HypervisorError> {
        let lost = |source| HypervisorError::Lost { name: NAME, source };
        self.last += 1;
        let id = self.last;
        let mut line = json!({ "execute": command, "arguments": arguments, "id": id }).to_string();
        line.push('\n');
        let sent = match descriptor {
            Some(descriptor) => {
                send_with(self.stream.get_ref(), line.as_bytes(), descriptor).await.map_err(lost)?
            }
            None => 0,
        };
        self.stream.get_mut().write_all(&line.as_bytes()[sent..]).await.map_err(lost)?;
        loop {
            // What a deadline cut short of a line stays for the next call.
            if self.stream.read_until(b'\n', &mut self.line).await.map_err(lost)? == 0 {
                return Err(lost(io::ErrorKind::UnexpectedEof.into()));
            }
            let line = std::mem::take(&mut self.line);
            let mut message: Value =
                serde_json::from_slice(&line).map_err(|error| lost(io::Error::from(error)))?;
            if message.get("id").is_none_or(|answered| *answered != id) {
                continue;
            }
            if let Some(value) = message.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = message.get("error") {
                let reason = error["desc"].as_str().unwrap_or("no reason given").into();
                return Err(HypervisorError::Refused { name: NAME, what: command.into(), reason });
            }
        }
    }

    /// Runs a command of the human monitor and returns its text.
    pub async fn human(&mut self, line: &str) -> Result<String, HypervisorError> {
        let answer = self.execute("human-monitor-command", json!({ "command-line": line })).await?;
        Ok(answer.as_str().unwrap_or_default().to_string())
    }
}

/// Writes the beginning of `bytes` with a descriptor beside it; returns how many went.
async fn send_with(stream: &UnixStream, bytes: &[u8], descriptor: BorrowedFd<'_>) -> io::Result<usize> {
    let descriptors = [descriptor.as_raw_fd()];
    stream
        .async_io(Interest::WRITABLE, || {
            let rights = [ControlMessage::ScmRights(&descriptors)];
            let flags = MsgFlags::MSG_NOSIGNAL;
            Ok(sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(bytes)], &rights, flags, None)?)
        })
        .await
}
