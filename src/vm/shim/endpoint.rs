//! Where a guest's ports answer.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::vm::hypervisor::qemu::Qemu;
use crate::vm::hypervisor::qmp::Qmp;
use crate::vm::network;
use crate::vm::spec::Network;

/// Port of ssh.
const SSH: u16 = 22;
/// How long one try at the banner takes at most.
const TRY: Duration = Duration::from_secs(1);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// The address at which a port of the guest answers this process.
pub async fn endpoint(network: Network, qmp: &mut Qmp, port: u16) -> Result<SocketAddr, String> {
    match network {
        Network::Tap => Ok(SocketAddr::new(network::GUEST.parse().map_err(|_| "no address")?, port)),
        Network::User => match Qemu::forward(qmp, port).await {
            Ok(port) => Ok(SocketAddr::from(([127, 0, 0, 1], port))),
            Err(error) => Err(error.to_string()),
        },
    }
}

/// Waits until the guest's ssh server greets. A connection alone proves nothing: user-mode
/// networking accepts for ports nobody listens on.
pub async fn ssh_greets(network: Network, qmp: &mut Qmp) {
    loop {
        if let Ok(address) = endpoint(network, qmp, SSH).await
            && tokio::time::timeout(TRY, greets(address)).await.is_ok_and(|greets| greets)
        {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn greets(address: SocketAddr) -> bool {
    let mut greeting = [0; 4];
    let Ok(mut stream) = TcpStream::connect(address).await else { return false };
    stream.read_exact(&mut greeting).await.is_ok() && greeting == *b"SSH-"
}
