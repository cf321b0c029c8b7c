//! Talking to a VM's shim.

use std::io;
use std::path::Path;

use tokio::io::BufReader;
use tokio::net::UnixStream;

use super::protocol::{self, Ask, Said, Saved};
use crate::guest::client::AgentClient;

/// Why a shim did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It cannot be reached.
    #[error("cannot reach the VM's process: {0}\nhelp: is it still booting? `mvm status` tells")]
    Unreachable(#[from] io::Error),
    /// It refused.
    #[error("the VM refused: {0}{help}", help = help_for(.0))]
    Refused(String),
}

/// A word of the shim's mostly says itself what to do.
fn help_for(word: &str) -> &'static str {
    if word.contains("\nhelp: ") { "" } else { "\nhelp: `mvm logs` shows the guest's console" }
}

/// Asks one question over a shim's socket; the connection is returned for those that go on.
async fn ask(socket: &Path, ask: &Ask) -> Result<BufReader<UnixStream>, ClientError> {
    let mut stream = BufReader::new(UnixStream::connect(socket).await?);
    protocol::write(&mut stream, ask).await?;
    match protocol::read(&mut stream).await? {
        Some(Said::Done) => Ok(stream),
        Some(Said::Error { message }) => Err(ClientError::Refused(message)),
        _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
    }
}

/// Ends the VM, politely within the deadline. Returns when its shim is gone.
pub async fn stop(socket: &Path, deadline: std::time::Duration) -> Result<(), ClientError> {
    end(socket, &Ask::Stop { deadline_ms: deadline.as_millis() as u64 }).await
}

/// Ends the VM at once. Returns when its shim is gone.
pub async fn kill(socket: &Path) -> Result<(), ClientError> {
    end(socket, &Ask::Kill).await
}

async fn end(socket: &Path, ask: &Ask) -> Result<(), ClientError> {
    let mut stream = BufReader::new(UnixStream::connect(socket).await?);
    protocol::write(&mut stream, ask).await?;
    match protocol::read(&mut stream).await {
        Ok(Some(Said::Error { message })) => Err(ClientError::Refused(message)),
        // The shim's end closes, or resets, the connection.
        _ => Ok(()),
    }
}

/// Saves the machine into the VM's directory; with `stop` the VM is over then.
pub async fn save(socket: &Path, stop: bool) -> Result<Saved, ClientError> {
    let mut stream = BufReader::new(UnixStream::connect(socket).await?);
    protocol::write(&mut stream, &Ask::Save { stop }).await?;
    match protocol::read(&mut stream).await? {
        Some(Said::Saved(saved)) => Ok(saved),
        Some(Said::Error { message }) => Err(ClientError::Refused(message)),
        _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
    }
}

/// Halts the guest's CPUs.
pub async fn pause(socket: &Path) -> Result<(), ClientError> {
    ask(socket, &Ask::Pause).await.map(drop)
}

/// Has a halted guest go on, with its clock set.
pub async fn resume(socket: &Path) -> Result<(), ClientError> {
    ask(socket, &Ask::Resume).await.map(drop)
}

/// Connects to a TCP port of the guest.
pub async fn dial(socket: &Path, port: u16) -> Result<BufReader<UnixStream>, ClientError> {
    ask(socket, &Ask::Dial { port }).await
}

/// Connects to the guest agent.
pub async fn agent(socket: &Path) -> Result<AgentClient, ClientError> {
    let (agent, driver) = AgentClient::start(ask(socket, &Ask::Agent).await?);
    // Its end shows in every session.
    tokio::spawn(driver);
    Ok(agent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_shim_refuses_says_once_what_to_do() {
        for (word, said) in [
            ("it is over", "the VM refused: it is over\nhelp: `mvm logs` shows the guest's console"),
            ("it is over\nhelp: start it", "the VM refused: it is over\nhelp: start it"),
        ] {
            assert_eq!(ClientError::Refused(word.into()).to_string(), said);
        }
    }
}
