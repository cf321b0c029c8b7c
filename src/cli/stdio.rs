//! Standard input and output, joined to a stream; and the hidden `connect`.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clap::Args;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::context::say;

#[derive(Debug, Args)]
pub struct ConnectArgs {
    address: SocketAddr,
}

/// Connects standard input and output to a TCP address.
pub async fn connect(args: ConnectArgs) -> Result<ExitCode> {
    let address = args.address;
    let stream = TcpStream::connect(address).await.map_err(|error| {
        anyhow!("cannot connect to {address}: {error}\nhelp: `mvm coordinator routes` lists what listens")
    })?;
    say(&format!("connected to {address}; what you type is sent line by line, ^D ends it"));
    join(stream).await?;
    say(&format!("{address} has closed the connection"));
    Ok(ExitCode::SUCCESS)
}

/// Copies both ways until the other side has closed its own.
pub async fn join(stream: impl AsyncRead + AsyncWrite) -> io::Result<()> {
    let (mut from_there, mut to_there) = tokio::io::split(stream);
    let (mut stdin, mut stdout) = (tokio::io::stdin(), tokio::io::stdout());
    let upwards = async {
        let copied = tokio::io::copy(&mut stdin, &mut to_there).await;
        // The other side may have closed first.
        let _ = to_there.shutdown().await;
        copied
    };
    let downwards = tokio::io::copy(&mut from_there, &mut stdout);
    tokio::select! {
        biased;
        _ = downwards => {}
        Err(error) = upwards => return Err(error),
    }
    Ok(())
}
