//! What this machine works with, looked for once.

use crate::event::{EventSink, Kind};
use crate::host::paths::Paths;
use crate::host::versions::Versions;
use crate::run::machine::MachineChoice;
use crate::vm::config::RuntimeConfig;
use crate::vm::spec::HypervisorKind;

/// Tells hypervisor and Nix, e.g. `qemu/tcg · nix 2.8.0`.
pub async fn describe(paths: Paths, sink: EventSink) {
    let versions = Versions::find(&paths).await;
    let with = |name: &str, version: &Option<String>| match version {
        Some(version) => format!("{name} {version}"),
        None => format!("no {name}"),
    };
    let hypervisor = match MachineChoice::new(&RuntimeConfig::default(), &paths).await {
        Err(_) => "no qemu".into(),
        Ok(choice) => match (choice.hypervisor, choice.kvm) {
            (HypervisorKind::Firecracker, _) => with("firecracker", &versions.firecracker),
            (HypervisorKind::Qemu, true) => "qemu/kvm".into(),
            (HypervisorKind::Qemu, false) => "qemu/tcg".into(),
        },
    };
    sink.send(Kind::Machine { text: format!("{hypervisor} · {}", with("nix", &versions.nix)) });
}
