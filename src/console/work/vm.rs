//! Jobs on one VM that are quickly done, and forwards to it.

use super::Bench;
use crate::event::{Kind, Level};
use crate::run::STOP_DEADLINE;
use crate::run::task::Failure;
use crate::store::Store;
use crate::vm::forward::Forward;
use crate::vm::lifecycle;
use crate::vm::spec::PortMap;

/// Ends a VM.
pub async fn stop(bench: &Bench, id: &str, at_once: bool) -> Result<(), Failure> {
    let mut store = Store::open(&bench.paths.database())?.store;
    let vm = lifecycle::find_running(&store, id)?;
    lifecycle::stop(&bench.paths, &mut store, &vm, (!at_once).then_some(STOP_DEADLINE)).await?;
    bench.say(Level::Info, format!("stopped {}", vm.name));
    Ok(())
}

/// Removes a VM, ending it if it runs.
pub async fn delete(bench: &Bench, id: &str) -> Result<(), Failure> {
    let mut store = Store::open(&bench.paths.database())?.store;
    let vm = lifecycle::find(&store, id)?;
    if vm.state.is_live() {
        lifecycle::stop(&bench.paths, &mut store, &vm, None).await?;
    }
    lifecycle::remove(&bench.paths, &mut store, &vm)?;
    bench.say(Level::Info, format!("removed {}", vm.name));
    Ok(())
}

/// Forwards a port until the VM is over, nobody wants it any more, or the console ends.
pub async fn forward(bench: &Bench, id: &str, map: &PortMap) -> Result<(), Failure> {
    let vm = lifecycle::find_running(&Store::open(&bench.paths.database())?.store, id)?;
    let forward = Forward::listen(map, &bench.paths.shim_socket(&vm.id))?;
    let map = forward.map;
    let told = |on| Kind::Forwarded { vm: vm.id.clone(), map: map.to_string(), on };
    let way = format!("{} to port {} of {}", map.host, map.guest, vm.name);
    let let_go = bench.hold(&vm.id, Some(map));
    bench.out.send(told(true));
    bench.say(Level::Info, format!("forwarding {way}"));
    tokio::select! {
        () = forward.serve(|error| bench.say(Level::Warning, error.to_string())) => {}
        () = let_go.cancelled() => bench.say(Level::Info, format!("no longer forwarding {way}")),
        () = lifecycle::over(&bench.paths, &vm.id, lifecycle::LATER) => {
            bench.say(Level::Warning, format!("no longer forwarding {way}: the VM is over"));
        }
        () = bench.cancel.cancelled() => {}
    }
    bench.out.send(told(false));
    Ok(())
}

/// Says why nothing is done: the VM is over, or else `why`.
pub fn refuse(bench: &Bench, id: &str, why: &str) -> Result<(), Failure> {
    let vm = lifecycle::find_running(&Store::open(&bench.paths.database())?.store, id)?;
    bench.say(Level::Warning, format!("{} {why}", vm.name));
    Ok(())
}
