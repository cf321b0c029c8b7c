//! `mvm status`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use comfy_table::{Table, presets};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::cluster;
use super::context::{Context, print, print_json};
use crate::event::words::duration;
use crate::host::kvm;
use crate::host::versions::Versions;
use crate::run::past;
use crate::store::builds::BuildRow;
use crate::store::vms::VmRow;
use crate::vm::lifecycle;
use crate::vm::spec::{PortMap, StartedBy};

#[derive(Debug, Default, Args)]
#[command(after_help = "Examples:\n  mvm status\n  mvm status --all --json")]
pub struct StatusArgs {
    /// Show VMs that are over, too
    #[arg(long, short)]
    all: bool,
}

/// Shows versions, VMs and builds. Starts no process as long as what is installed stays the same.
pub async fn status(context: &mut Context, args: StatusArgs) -> Result<ExitCode> {
    let vms = context.store.vms()?;
    let over = vms.iter().filter(|vm| !vm.state.is_live()).count();
    let shown: Vec<&VmRow> = vms.iter().filter(|vm| args.all || vm.state.is_live()).collect();
    let builds = context.store.builds()?;
    let building = past::running(&context.paths)?;
    let versions = Versions::find(&context.paths).await;
    let kvm = kvm::usable(&context.paths);
    if context.json {
        let vms: Vec<Value> = shown.iter().map(|vm| vm_json(vm)).collect();
        let builds: Vec<Value> = builds
            .iter()
            .map(|build| {
                json!({ "id": build.id, "flake": build.flake, "attribute": build.attribute,
                        "path": context.paths.builds().join(&build.id), "used_ms": build.used_ms })
            })
            .collect();
        let building: Vec<Value> = building
            .iter()
            .map(|past| json!({ "task": past.task, "flake": past.flake, "began_ms": past.began.as_millisecond() }))
            .collect();
        let state = context.paths.state();
        let kvm = json!({ "usable": kvm.is_ok(), "why_not": kvm.err().map(|why| why.reason()) });
        print_json(
            &json!({ "v": 1, "version": env!("CARGO_PKG_VERSION"), "state": state, "versions": versions,
                     "kvm": kvm, "vms": vms, "building": building, "builds": builds,
                     "cluster": cluster::brief_json(&context.paths) }),
        )?;
        return Ok(ExitCode::SUCCESS);
    }
    print(&format!("mvm {}, state in {}", env!("CARGO_PKG_VERSION"), context.paths.state().display()))?;
    print(&versions.line())?;
    print(&match kvm {
        Ok(()) => "KVM is used.".to_string(),
        Err(why) => format!("KVM is not used: {}.", why.reason()),
    })?;
    if shown.is_empty() {
        print("No VM is running. `mvm run --flake DIR` starts one.")?;
    } else {
        let table = table(&shown, &builds).to_string();
        table.lines().try_for_each(|line| print(line.trim_end()))?;
        for vm in &shown {
            if let Some(detail) = &vm.detail {
                print(&format!(" {} ({}): {}", vm.name, vm.id, detail.lines().next().unwrap_or_default()))?;
            }
        }
    }
    if over > 0 && !args.all {
        print(&format!("{over} ended; `mvm status --all` shows them, `mvm gc` removes them."))?;
    }
    for past in &building {
        let (flake, task) = (&past.flake, past.task.as_str());
        let since = duration(age(past.began.as_millisecond()));
        print(&format!("{flake} is being built, for {since}; `mvm log {task}` shows it."))?;
    }
    let builds = if builds.len() == 1 { "1 build".into() } else { format!("{} builds", builds.len()) };
    print(&format!("{builds} cached."))?;
    cluster::brief(&context.paths).iter().try_for_each(|line| print(line))?;
    Ok(ExitCode::SUCCESS)
}

fn table(vms: &[&VmRow], builds: &[BuildRow]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["NAME", "STATE", "FOR", "ID", "CPUS", "MEM", "NET", "PORTS", "SINCE", "FLAKE"]);
    for vm in vms {
        let spec = lifecycle::spec_of(vm);
        let spec = spec.as_ref();
        let ports = spec.map(|spec| spec.ports.iter().map(port).collect::<Vec<_>>().join(" "));
        let started_by = spec.map(|spec| spec.started_by).unwrap_or_default();
        let of_user = started_by != StartedBy::Dev;
        let flake = builds.iter().find(|build| build.id == vm.build).filter(|_| of_user);
        let flake = flake.map(|build| short(&build.flake));
        table.add_row([
            vm.name.clone(),
            vm.state.as_str().into(),
            started_by.as_str().into(),
            vm.id.clone(),
            spec.map(|spec| spec.cpus.to_string()).unwrap_or_default(),
            spec.map(|spec| format!("{}M", spec.memory_mib)).unwrap_or_default(),
            spec.map(|spec| format!("{:?}", spec.network).to_lowercase()).unwrap_or_default(),
            ports.unwrap_or_default(),
            duration(age(vm.changed_ms)),
            flake.unwrap_or_default(),
        ]);
    }
    table
}

/// A published port without the address that goes without saying.
fn port(map: &PortMap) -> String {
    match map.host.ip().is_loopback() {
        true => format!("{}:{}", map.host.port(), map.guest),
        false => map.to_string(),
    }
}

/// The last part of a flake reference, with its attribute.
fn short(flake: &str) -> String {
    flake.rsplit('/').next().unwrap_or(flake).into()
}

fn vm_json(vm: &VmRow) -> Value {
    let spec = lifecycle::spec_of(vm);
    json!({
        "id": vm.id,
        "name": vm.name,
        "state": vm.state,
        "detail": vm.detail,
        "build": vm.build,
        "pid": vm.process.as_ref().map(|process| process.pid),
        "created_ms": vm.created_ms,
        "changed_ms": vm.changed_ms,
        "started_by": spec.as_ref().map(|spec| spec.started_by),
        "spec": spec,
    })
}

fn age(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(Timestamp::now().as_millisecond() - ms).unwrap_or_default())
}
