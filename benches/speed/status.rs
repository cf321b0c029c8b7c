//! A look at a hundred VMs.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mvm::host::files::Lock;
use mvm::store::Store;
use mvm::store::vms::{VmRow, VmState};
use mvm::vm::spec::{HypervisorKind, Network, StartedBy, VmSpec};

use crate::claim::{Claim, Limit, stated};
use crate::place::Place;
use crate::process::run;

const VMS: usize = 100;

/// CPU time of `mvm status`.
pub fn measure(place: &Place) -> Result<Claim> {
    let place = place.within("crowd")?;
    let _locks = fill(&place)?;
    let last = format!("vm-{}", VMS - 1);
    ensure!(place.vm(&last)?["state"] == "running", "not all VMs count as running");
    let samples = (0..31).map(|_| run(&mut place.mvm(&["status"])?)).collect::<Result<Vec<_>>>()?;
    Ok(Claim {
        what: "mvm status, 100 running VMs, CPU time",
        ours: samples.iter().map(|spent| spent.cpu).collect(),
        limit: Limit::Absolute(Duration::from_millis(20)),
        stated: vec![stated("wall time", &samples.iter().map(|spent| spent.wall).collect::<Vec<_>>())],
    })
}

/// Puts running VMs into the state; their locks are what makes them running.
fn fill(place: &Place) -> Result<Vec<Lock>> {
    let paths = place.paths()?;
    let mut store = Store::open(&paths.database())?.store;
    let now = jiff::Timestamp::now().as_millisecond();
    let mut locks = Vec::new();
    for number in 0..VMS {
        let spec = spec(number, paths.builds().join("0123456789abcdfghijklmnpqrsvwxyz"))?;
        let dir = paths.vm(&spec.id);
        fs::create_dir_all(&dir)?;
        locks.push(Lock::try_take(&dir.join("lock"))?.context("somebody else holds the lock")?);
        store.insert_vm(&VmRow {
            id: spec.id.clone(),
            name: spec.name.to_string(),
            build: "0123456789abcdfghijklmnpqrsvwxyz".into(),
            state: VmState::Running,
            detail: None,
            spec: serde_json::to_string(&spec)?,
            process: None,
            created_ms: now,
            changed_ms: now,
            beside: None,
        })?;
    }
    Ok(locks)
}

fn spec(number: usize, build_dir: std::path::PathBuf) -> Result<VmSpec> {
    Ok(VmSpec {
        id: format!("v-{number:08x}"),
        name: format!("vm-{number}").parse()?,
        build_dir,
        cpus: 1,
        memory_mib: 256,
        disk_mib: 1024,
        kernel_args: Vec::new(),
        ports: vec![format!("{}:22", 20000 + number).parse()?],
        volumes: Vec::new(),
        network: Network::User,
        egress: true,
        kvm: false,
        role: None,
        boot_timeout_secs: 60,
        remove: false,
        hypervisor: HypervisorKind::Qemu,
        cold: false,
        started_by: StartedBy::Run,
        restore_from: None,
        takes_over: None,
        instance: None,
        secrets: None,
        tenant: None,
    })
}
