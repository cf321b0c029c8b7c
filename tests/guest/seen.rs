//! What a console hears of a guest that another process started.

use crate::start_gateway;
use crate::support::{DEADLINE, Namespace, World, http_get, kill_process, published};

/// What a console hears of a guest that another process started.
fn a_console_sees_a_detached_guest_and_its_end(world: &World, network: &str) {
    use mvm::console::source::{Interest, watch};
    use mvm::event::{EventSink, Kind, Source, TaskId};
    use mvm::host::paths::Paths;
    use tokio::sync::watch::channel;

    let gateway = start_gateway(world, network, &[]);
    let id = gateway["id"].as_str().unwrap().to_owned();
    let paths = Paths::at(world.state(), world.path("run/console")).unwrap();
    let (sink, mut events) = EventSink::new(TaskId::machine());
    let (_interest, interest) = channel(Interest { console: Some(id.clone()), sources: None });
    let watching = watch(paths, interest, sink, Default::default());
    let seeing = async {
        let (mut sampled, mut console, mut task, mut received) = (false, false, false, network == "user");
        let mut states = Vec::new();
        let mut killed = false;
        while states.len() < 2 {
            let event = events.next().await.unwrap();
            match event.kind {
                Kind::VmSample { vm, sample } if vm == id && !killed => {
                    sampled |= sample.cpu_permille > 0 && sample.memory_kib > 10_000;
                    assert_eq!(sample.rx_bps.is_some(), network == "tap");
                    received |= sample.rx_bps.is_some_and(|rate| rate > 0);
                    // Something for it to do.
                    http_get(published(&gateway));
                }
                Kind::Log { source: Source::Console { .. }, text } => console |= !text.is_empty(),
                Kind::TaskEnded { .. } => task |= event.task.as_str().starts_with("r-"),
                // It is told of again when the ready snapshot of its build is there.
                Kind::VmSeen { info } if states.last() != Some(&info.state) => states.push(info.state),
                _ => {}
            }
            if sampled && console && task && received && !killed {
                kill_process(&gateway["pid"]);
                killed = true;
            }
        }
        assert_eq!(states, ["running", "failed"]);
        assert!(killed, "it failed by itself");
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::select! {
            () = watching => panic!("the watcher ended"),
            seen = tokio::time::timeout(DEADLINE, seeing) => seen.expect("all to be seen in time"),
        }
    });
}

#[test]
fn a_console_sees_a_guest_of_another_process_work_and_die() {
    a_console_sees_a_detached_guest_and_its_end(&World::new(), "user");
}

#[test]
fn a_console_sees_the_traffic_of_a_guest_in_tap_mode() {
    let Some(namespace) = Namespace::new() else { return };
    let world = World::new();
    namespace.enter(|| a_console_sees_a_detached_guest_and_its_end(&world, "tap"));
}
