//! What this machine works with, looked for once.

use tokio::process::Command;

use crate::event::{EventSink, Kind};
use crate::host::child::find_program;
use crate::host::paths::Paths;
use crate::host::{kvm, program};
use crate::vm::hypervisor::qemu;

/// Tells hypervisor and Nix, e.g. `qemu/tcg · nix 2.8.0`.
pub async fn describe(paths: Paths, sink: EventSink) {
    let hypervisor = match (find_program(qemu::PROGRAM), kvm::usable(&paths)) {
        (None, _) => "no qemu",
        (Some(_), Ok(())) => "qemu/kvm",
        (Some(_), Err(_)) => "qemu/tcg",
    };
    sink.send(Kind::Machine { text: format!("{hypervisor} · {}", nix().await) });
}

async fn nix() -> String {
    let Some(nix) = find_program("nix") else { return "no nix".into() };
    match program::output(Command::new(nix).arg("--version")).await {
        // It says `nix (Nix) 2.8.0`.
        Ok(text) => format!("nix {}", text.split_whitespace().last().unwrap_or_default()),
        Err(_) => "nix does not run".into(),
    }
}
