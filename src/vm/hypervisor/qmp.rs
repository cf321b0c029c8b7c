//! QEMU's control protocol: one command at a time over one connection.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

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

/// Why QEMU did not do as told.
#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    /// The connection broke, mostly because QEMU ended.
    #[error("QEMU's monitor: {0}")]
    Io(#[from] std::io::Error),
    /// QEMU refused.
    #[error("QEMU refused `{command}`: {reason}")]
    Refused {
        /// The command.
        command: String,
        /// QEMU's words.
        reason: String,
    },
    /// QEMU did not answer.
    #[error("QEMU did not answer `{0}` within {DEADLINE:?}")]
    Silent(String),
}

impl Qmp {
    /// Greets QEMU and makes it ready for commands.
    pub async fn start(stream: UnixStream) -> Result<Self, QmpError> {
        let mut qmp = Self { stream: BufReader::new(stream), last: 0, line: Vec::new() };
        qmp.execute("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    /// Runs a command and returns what it returned. Events and the greeting are passed over.
    pub async fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        let run = self.exchange(command, arguments);
        tokio::time::timeout(DEADLINE, run).await.unwrap_or_else(|_| Err(QmpError::Silent(command.into())))
    }

    async fn exchange(&mut self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        self.last += 1;
        let id = self.last;
        let mut line = json!({ "execute": command, "arguments": arguments, "id": id }).to_string();
        line.push('\n');
        self.stream.get_mut().write_all(line.as_bytes()).await?;
        loop {
            // What a deadline cut short of a line stays for the next call.
            if self.stream.read_until(b'\n', &mut self.line).await? == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
            let line = std::mem::take(&mut self.line);
            let mut message: Value = serde_json::from_slice(&line).map_err(std::io::Error::from)?;
            if message.get("id").is_none_or(|answered| *answered != id) {
                continue;
            }
            if let Some(value) = message.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = message.get("error") {
                let reason = error["desc"].as_str().unwrap_or("no reason given").into();
                return Err(QmpError::Refused { command: command.into(), reason });
            }
        }
    }

    /// Runs a command of the human monitor and returns its text.
    pub async fn human(&mut self, line: &str) -> Result<String, QmpError> {
        let answer = self.execute("human-monitor-command", json!({ "command-line": line })).await?;
        Ok(answer.as_str().unwrap_or_default().to_string())
    }
}
