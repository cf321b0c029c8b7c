//! What this machine works with, looked for once.

use tokio::process::Command;

use crate::event::{EventSink, Kind};
use crate::host::child::find_program;
use crate::host::paths::Paths;
use crate::host::{firecracker, program, versions};
use crate::run::machine::MachineChoice;
use crate::vm::config::RuntimeConfig;
use crate::vm::spec::HypervisorKind;

/// Tells hypervisor and Nix, e.g. `qemu/tcg · nix 2.8.0`.
pub async fn describe(paths: Paths, sink: EventSink) {
    let hypervisor = match MachineChoice::new(&RuntimeConfig::default(), &paths).await {
        Err(_) => "no qemu".into(),
        Ok(choice) => match (choice.hypervisor, choice.kvm) {
            (HypervisorKind::Firecracker, _) => firecracker(&paths).await,
            (HypervisorKind::Qemu, true) => "qemu/kvm".into(),
            (HypervisorKind::Qemu, false) => "qemu/tcg".into(),
        },
    };
    sink.send(Kind::Machine { text: format!("{hypervisor} · {}", nix().await) });
}

async fn firecracker(paths: &Paths) -> String {
    let said = match firecracker::find(paths) {
        Some(program) => versions::version(paths, &program).await,
        None => None,
    };
    match said.as_deref().and_then(firecracker::Version::parse) {
        Some(version) => format!("firecracker {version}"),
        None => "firecracker".into(),
    }
}

async fn nix() -> String {
    let Some(nix) = find_program("nix") else { return "no nix".into() };
    match program::output(Command::new(nix).arg("--version")).await {
        // It says `nix (Nix) 2.8.0`.
        Ok(text) => format!("nix {}", text.split_whitespace().last().unwrap_or_default()),
        Err(_) => "nix does not run".into(),
    }
}
