//! The hypervisor's start.

use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::PathBuf;

use super::super::booted::Booted;
use super::super::prepare::Prepared;
use super::super::volumes::Volumes;
use super::super::{ShimError, keep_console};
use crate::host::child::find_program;
use crate::host::firecracker as release;
use crate::host::paths::Paths;
use crate::vm::console::ConsoleLog;
use crate::vm::hypervisor::qemu::{self, tsc};
use crate::vm::hypervisor::{Hypervisor, Launch, Machine, Share, firecracker};
use crate::vm::network::{Addresses, TapPlace};
use crate::vm::spec::HypervisorKind;
use crate::vm::virtiofs::ShareDaemon;

/// Starts the hypervisor, with the guest's console going into its log.
pub(super) async fn launch(
    paths: &Paths,
    prepared: &Prepared,
    volumes: &mut Volumes,
    how: Launch<'_>,
) -> Result<Booted, ShimError> {
    let Prepared { spec, artifacts, dir, .. } = prepared;
    let addresses = Addresses::of(spec);
    let mut command_line = String::from(match spec.hypervisor {
        HypervisorKind::Qemu => qemu::COMMAND_LINE,
        HypervisorKind::Firecracker => firecracker::COMMAND_LINE,
    });
    // A guest that goes on has its clock already, and measuring takes a while.
    if !spec.kvm
        && matches!(how, Launch::Cold)
        && let Some(khz) = tsc::khz().await
    {
        command_line += &format!(" tsc_early_khz={khz}");
    }
    for argument in &spec.kernel_args {
        command_line.push(' ');
        command_line += argument;
    }
    if !artifacts.has_agent() {
        // Without an agent the kernel itself has to take the address.
        let Addresses { guest, prefix, gateway, .. } = &addresses;
        let netmask = Ipv4Addr::from(u32::MAX << (32 - prefix));
        command_line += &format!(" root=/dev/vda ro ip={guest}::{gateway}:{netmask}::eth0:off");
    }
    let shares: Vec<Share> = volumes.daemons.iter().map(ShareDaemon::share).collect();
    let program = program(paths, spec.hypervisor)?;
    let machine = Machine {
        program: &program,
        dir,
        spec,
        kernel: &artifacts.kernel,
        initrd: artifacts.initrd.as_deref(),
        command_line: &command_line,
        disks: &volumes.disks,
        shares: &shares,
        mac: &addresses.mac,
        tap: prepared.tap.as_ref().map(TapPlace::device),
        lock: prepared.lock.as_fd(),
    };
    let mut hypervisor: Box<dyn Hypervisor> = match spec.hypervisor {
        HypervisorKind::Qemu => Box::new(qemu::start(&machine, how).await?),
        HypervisorKind::Firecracker => Box::new(firecracker::start(&machine, how).await?),
    };
    if let Some(output) = hypervisor.child().stdout.take() {
        let log = ConsoleLog::open(dir)
            .map_err(|source| ShimError::File { path: dir.join("console.log"), source })?;
        tokio::spawn(keep_console(output, log));
    }
    Ok(Booted {
        hypervisor,
        agent: None,
        daemons: std::mem::take(&mut volumes.daemons),
        disks: volumes.disks.clone(),
        restored: false,
        why: None,
        completing: None,
    })
}

/// Where the hypervisor is.
pub(super) fn program(paths: &Paths, kind: HypervisorKind) -> Result<PathBuf, ShimError> {
    match kind {
        HypervisorKind::Qemu => find_program(qemu::PROGRAM).ok_or(ShimError::NoHypervisor(qemu::PROGRAM)),
        HypervisorKind::Firecracker => release::find(paths).ok_or(ShimError::NoHypervisor(release::PROGRAM)),
    }
}
