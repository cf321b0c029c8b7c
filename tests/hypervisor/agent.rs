//! The agent of a real guest, over each hypervisor's own channel.

use std::path::Path;

use mvm::artifacts::Artifacts;
use mvm::guest::client::AgentClient;
use mvm::guest::frames::Request;
use mvm::vm::disks;
use mvm::vm::hypervisor::Launch;
use tokio::time::timeout;

use crate::machine::{Backend, Vm};
use crate::prove;
use crate::support::{DEADLINE, World};

/// The example `hello`.
fn hello(world: &World) -> Artifacts {
    let built = world.ok(["build", "--flake", world.example("hello").to_str().unwrap()]);
    Artifacts::open(Path::new(built.trim())).unwrap()
}

async fn meet(vm: &mut Vm) -> AgentClient {
    let meeting = async {
        let (client, driver) = AgentClient::start(vm.hypervisor.control().await.unwrap());
        tokio::spawn(driver);
        client.hello().await.unwrap();
        client
    };
    timeout(DEADLINE, meeting).await.expect("an agent that says what it is")
}

async fn stats(agent: &AgentClient) {
    timeout(DEADLINE, agent.request(Request::Stats)).await.expect("an answer").unwrap();
}

async fn an_agent_is_met_again_wherever_its_guest_goes_on(backend: Backend, place: &Path) {
    let world = World::new();
    let image = hello(&world);
    let backend = Backend {
        kernel: image.kernel.clone(),
        initrd: image.initrd.clone(),
        rootfs: image.rootfs.clone(),
        memory_mib: 256,
        ..backend
    };
    let dirs = ["vm", "other"].map(|name| place.join(name));
    std::fs::create_dir(&dirs[0]).unwrap();
    disks::upper(&dirs[0], 64).await.unwrap();
    let mut vm = backend.start(&dirs[0], Launch::Cold).await.unwrap();
    let agent = meet(&mut vm).await;
    stats(&agent).await;
    // As the host does before it saves: what is under way would be cut off.
    timeout(DEADLINE, agent.retire()).await.unwrap().unwrap();
    drop(agent);
    vm.hypervisor.pause().await.unwrap();
    let snapshot = place.join("snapshot");
    vm.save(&snapshot).await;
    vm.hypervisor.resume().await.unwrap();
    stats(&meet(&mut vm).await).await;
    std::fs::create_dir(&dirs[1]).unwrap();
    std::fs::copy(dirs[0].join(disks::UPPER_FILE), dirs[1].join(disks::UPPER_FILE)).unwrap();
    let mut other = backend.load(&dirs[1], &snapshot).await.unwrap();
    other.hypervisor.resume().await.unwrap();
    let agent = meet(&mut other).await;
    stats(&agent).await;
    // A guest that ends itself ends its machine.
    timeout(DEADLINE, agent.request(Request::Poweroff)).await.unwrap().unwrap();
    let status = timeout(DEADLINE, other.hypervisor.child().wait()).await.unwrap().unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn an_agent_is_met_again_wherever_its_guest_goes_on_with_qemu() {
    prove(Backend::qemu, an_agent_is_met_again_wherever_its_guest_goes_on);
}

#[test]
fn an_agent_is_met_again_wherever_its_guest_goes_on_with_firecracker() {
    prove(Backend::firecracker_linux, an_agent_is_met_again_wherever_its_guest_goes_on);
}
