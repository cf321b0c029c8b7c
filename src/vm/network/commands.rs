//! `ip` and `nft`, run in the calling thread's namespace.

use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::process::{Child, Command, Output, Stdio};

use super::subnet::Subnet;
use crate::host::child::find_program;
use crate::store::StoreError;

/// Why a network could not be made.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A program is missing.
    #[error("`{0}` is not installed\nhelp: run `mvm setup`, or use `--network user`")]
    Missing(&'static str),
    /// A step failed.
    #[error(
        "cannot make the VM's network: {step}: {reason}\nhelp: tap networking needs root; `--network user` does not"
    )]
    Step {
        /// What was tried.
        step: String,
        /// What the system said.
        reason: String,
    },
    /// The address is not one of the tenant's.
    #[error(
        "a VM of the tenant network {subnet} cannot have the address {address}\nhelp: its VMs' addresses lie between the gateway's and the broadcast address, and the network in 10.240.0.0/12"
    )]
    Address {
        /// The network.
        subnet: Subnet,
        /// The address.
        address: Ipv4Addr,
    },
    /// Another VM has the address.
    #[error("the address {address} belongs to the VM `{holder}`\nhelp: `mvm stop {holder}` frees it")]
    AddressTaken {
        /// The address.
        address: Ipv4Addr,
        /// Who has it.
        holder: String,
    },
    /// The tenant's running VMs have another network.
    #[error(
        "the tenant's running VMs are in a network {found}, and this one is to be in one {wished}\nhelp: stop the tenant's VMs first"
    )]
    Differs {
        /// What their network is like.
        found: String,
        /// What it is to be like.
        wished: String,
    },
    /// Database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The error of a step.
pub(super) fn step(step: &str) -> impl Fn(io::Error) -> NetworkError {
    move |error| NetworkError::Step { step: step.into(), reason: error.to_string() }
}

/// Gives these commands to one `ip`, in order, until one fails.
pub(super) fn ip<T: AsRef<str>>(commands: &[T]) -> Result<(), NetworkError> {
    let program = find_program("ip").ok_or(NetworkError::Missing("ip"))?;
    let lines: Vec<&str> = commands.iter().map(AsRef::as_ref).collect();
    let run = || {
        let mut command = Command::new(program);
        command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let fed = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(lines.join("\n").as_bytes()));
        // One that has failed before it has heard all says why.
        let output = child.wait_with_output()?;
        if output.status.success() { fed.map(|()| output) } else { Ok(output) }
    };
    checked(&format!("ip {}", lines.join("; ip ")), run())
}

/// Rules on their way to `nft`, all of them or none. Dropped, they still get there.
pub(super) struct Rules(Child);

impl Rules {
    /// Begins to give them, in the calling thread's namespace.
    pub(super) fn give(rules: &str) -> Result<Self, NetworkError> {
        let program = find_program("nft").ok_or(NetworkError::Missing("nft"))?;
        let mut command = Command::new(program);
        command.arg(rules).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Ok(Self(command.spawn().map_err(step("nft"))?))
    }

    /// Waits until they are in force.
    pub(super) fn are_given(self) -> Result<(), NetworkError> {
        checked("nft", self.0.wait_with_output())
    }
}

/// Names of all interfaces.
pub(super) fn interfaces() -> Result<Vec<String>, NetworkError> {
    let names = nix::net::if_::if_nameindex().map_err(io::Error::from);
    let names = names.map_err(step("list the interfaces"))?;
    Ok(names.iter().map(|interface| interface.name().to_string_lossy().into_owned()).collect())
}

fn checked(named: &str, output: io::Result<Output>) -> Result<(), NetworkError> {
    let output = output.map_err(step(named))?;
    if output.status.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&output.stderr).trim().to_string();
    Err(NetworkError::Step { step: named.into(), reason })
}
