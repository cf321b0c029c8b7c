//! Where a guest's ports answer.

use std::net::SocketAddr;
use std::process::ExitStatus;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::vm::hypervisor::Hypervisor;
use crate::vm::network::Addresses;
use crate::vm::spec::{Network, VmSpec};

/// Port of ssh.
const SSH: u16 = 22;
/// How long one try at the banner takes at most.
const TRY: Duration = Duration::from_secs(1);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// The address at which a port of the guest answers this process.
pub async fn endpoint(
    spec: &VmSpec,
    hypervisor: &mut dyn Hypervisor,
    port: u16,
) -> Result<SocketAddr, String> {
    match spec.network {
        Network::Tap => Ok((Addresses::of(spec).guest, port).into()),
        Network::User => hypervisor.forward(port).await.map_err(|error| error.to_string()),
    }
}

/// Waits until the guest's ssh server greets, or the hypervisor ends. A connection alone proves nothing: user-mode
/// networking accepts for ports nobody listens on.
pub async fn ssh_greets(spec: &VmSpec, hypervisor: &mut dyn Hypervisor) -> Result<(), ExitStatus> {
    loop {
        if let Ok(address) = endpoint(spec, hypervisor, SSH).await
            && tokio::time::timeout(TRY, greets(address)).await.is_ok_and(|greets| greets)
        {
            return Ok(());
        }
        if let Ok(Some(status)) = hypervisor.child().try_wait() {
            return Err(status);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn greets(address: SocketAddr) -> bool {
    let mut greeting = [0; 4];
    let Ok(mut stream) = TcpStream::connect(address).await else { return false };
    stream.read_exact(&mut greeting).await.is_ok() && greeting == *b"SSH-"
}
