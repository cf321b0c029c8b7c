//! A TAP device in a network namespace of the VM's own.
//!
//! The namespace has no name: the shim makes it, lives in it, and starts the hypervisor in it. When
//! both are gone, however they went, the kernel removes the namespace with its TAP and veth.

use std::sync::Arc;

use super::addresses::{GATEWAY, TAP};
use super::commands::{NetworkError, ip, step};
use super::connecting::Connecting;
use super::device::Device;
use super::namespace::Namespace;
use super::uplink;
use crate::vm::hypervisor::Tap;
use crate::vm::spec::HypervisorKind;

/// The network of one VM. The calling thread is inside its namespace.
#[derive(Debug)]
pub struct TapNetwork {
    device: Device,
    host: Arc<Namespace>,
    egress: bool,
}

impl TapNetwork {
    /// Moves the calling thread into a new namespace, makes the VM's TAP there, and begins to connect it.
    ///
    /// Must be called before other threads are started, or they stay outside.
    pub fn enter(
        vm: &str,
        egress: bool,
        hypervisor: HypervisorKind,
    ) -> Result<(Self, Connecting), NetworkError> {
        let host = Arc::new(Namespace::current().map_err(step("open the host's namespace"))?);
        Namespace::make().map_err(step("make a network namespace"))?;
        let device = Device::make(TAP, hypervisor).map_err(step("make a TAP device"))?;
        let inside = vec![
            "link set lo up".to_string(),
            format!("addr add {GATEWAY}/24 dev {TAP}"),
            format!("link set {TAP} up"),
        ];
        let (vm, outside) = (vm.to_string(), host.clone());
        let connecting = Connecting::begin(move || match egress {
            true => uplink::connect(&outside, &vm, inside),
            false => ip(&inside),
        })?;
        Ok((Self { device, host, egress }, connecting))
    }

    /// The TAP device, for the hypervisor.
    pub fn device(&self) -> Tap<'_> {
        self.device.for_hypervisor()
    }

    /// Removes what the namespace's end does not take with it. Called when the VM is over.
    pub fn leave(&self) -> Result<(), NetworkError> {
        if self.egress { uplink::disconnect(&self.host) } else { Ok(()) }
    }
}
