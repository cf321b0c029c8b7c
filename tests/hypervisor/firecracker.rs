//! What only Firecracker does.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Instant;

use mvm::vm::hypervisor::{HypervisorError, Launch, Tap};
use mvm::vm::network::tap::TapNetwork;
use tokio::time::timeout;

use crate::contract::{expect_words, stand_in};
use crate::machine::{Backend, real_kvm};
use crate::prove;
use crate::support::{DEADLINE, is_root, wait_until};

#[test]
fn a_tap_that_is_not_there_is_missed_and_not_made() {
    prove(Backend::firecracker, async |backend: Backend, place: &Path| {
        let tap = Some(Tap::Named("mvm-absent0"));
        let error = backend.start_on(tap, &place.join("vm"), Launch::Cold).await.unwrap_err();
        expect_words(&error, "`mvm-absent0` is not there");
        assert!(!fs::read_to_string("/proc/net/dev").unwrap().contains("mvm-absent0"));
    });
}

#[test]
fn a_saved_machine_goes_on_with_the_tap_of_another() {
    prove(Backend::firecracker, async |backend: Backend, place: &Path| {
        if !is_root() {
            return;
        }
        // A namespace belongs to a thread; the test's own ends with it.
        let (network, connecting) = TapNetwork::enter("v-00000001", false, backend.kind).unwrap();
        connecting.made().unwrap();
        let mut vm = backend.start_on(Some(network.device()), &place.join("vm"), Launch::Cold).await.unwrap();
        vm.console.line("hello").await;
        let last = vm.pause().await;
        let snapshot = place.join("snapshot");
        vm.save(&snapshot).await;
        // The first one goes on, with its TAP.
        vm.hypervisor.resume().await.unwrap();
        let made = Command::new("ip").args(["tuntap", "add", "tap-0af00103", "mode", "tap"]).status();
        assert!(made.unwrap().success());
        let (dir, tap) = (place.join("other"), Some(Tap::Named("tap-0af00103")));
        let mut other = backend.start_on(tap, &dir, Launch::Restore(&snapshot)).await.unwrap();
        other.hypervisor.load(&snapshot).await.unwrap();
        other.hypervisor.resume().await.unwrap();
        assert!(other.console.number().await > last && vm.console.number().await > last);
        network.leave().unwrap();
    });
}

#[test]
fn without_rights_on_kvm_it_says_so() {
    prove(Backend::firecracker, async |backend: Backend, place: &Path| {
        if !is_root() {
            return;
        }
        let run = format!(
            "chmod 666 hypervisor.log; exec setpriv --reuid 65534 --clear-groups '{}' \"$@\"",
            backend.program.display()
        );
        let program = stand_in(place, &run);
        let (dir, open) = (place.join("vm"), fs::Permissions::from_mode(0o777));
        fs::create_dir(&dir).unwrap();
        for path in [place, &dir] {
            fs::set_permissions(path, open.clone()).unwrap();
        }
        fs::write(dir.join("upper.ext4"), vec![0; 1 << 20]).unwrap();
        fs::set_permissions(dir.join("upper.ext4"), fs::Permissions::from_mode(0o666)).unwrap();
        let error = Backend { program, ..backend }.start(&dir, Launch::Cold).await.unwrap_err();
        println!("{error}");
        expect_words(&error, "Permission denied");
        expect_words(&error, "/dev/kvm");
    });
}

#[test]
fn its_sockets_are_gone_with_it_and_those_that_were_left_are_not_in_its_way() {
    prove(Backend::firecracker, async |backend: Backend, place: &Path| {
        let dir = place.join("vm");
        fs::create_dir(&dir).unwrap();
        let sockets = ["api.sock", "v.sock"].map(|name| dir.join(name));
        for socket in &sockets {
            drop(UnixListener::bind(socket).unwrap());
        }
        let vm = backend.boot(&dir).await;
        assert!(sockets.iter().all(|socket| socket.exists()));
        vm.end().await;
        assert!(!sockets.iter().any(|socket| socket.exists()));
    });
}

#[test]
fn ports_are_not_forwarded_by_it() {
    prove(Backend::firecracker, async |backend: Backend, place: &Path| {
        let mut vm = backend.boot(&place.join("vm")).await;
        let error = vm.hypervisor.forward(22).await.unwrap_err();
        expect_words(&error, "--network tap");
    });
}

#[test]
fn a_key_that_nobody_takes_is_refused_in_its_words_in_the_end() {
    prove(Backend::firecracker, async |backend: Backend, place: &Path| {
        let mut vm = backend.boot(&place.join("vm")).await;
        vm.pause().await;
        let mut refused = None;
        for _ in 0..10 {
            refused = refused.or(vm.hypervisor.power_button().await.err());
        }
        let error = refused.expect("a full keyboard buffer");
        println!("{error}");
        assert!(matches!(error, HypervisorError::Refused { .. }), "{error}");
        expect_words(&error, "PUT /actions");
    });
}

/// Has somebody else answer in the place of Firecracker, in the directory of a VM.
fn answer(dir: &Path, answer: &'static str) -> thread::JoinHandle<()> {
    let dir = dir.to_path_buf();
    thread::spawn(move || {
        // Sockets are cleared away before the program starts.
        wait_until(DEADLINE, "the stand-in's start", || dir.join("started").exists());
        let listener = UnixListener::bind(dir.join("api.sock")).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 1024]).unwrap();
        let length = answer.len();
        write!(stream, "HTTP/1.1 200 \r\nContent-Length: {length}\r\n\r\n{answer}").unwrap();
    })
}

#[test]
fn a_version_too_old_or_unknown_is_refused() {
    for version in ["1.6.9", "0.25.2", "new"] {
        prove(Backend::firecracker, async |backend: Backend, place: &Path| {
            let dir = place.join("vm");
            fs::create_dir(&dir).unwrap();
            let program = stand_in(place, "touch started; exec sleep 600");
            let text = format!("{{\"firecracker_version\":\"{version}\"}}").leak();
            let answering = answer(&dir, text);
            let error = Backend { program, ..backend }.start(&dir, Launch::Cold).await.unwrap_err();
            answering.join().unwrap();
            expect_words(&error, version);
            expect_words(&error, "mvm needs 1.7.0 or newer");
        });
    }
}

#[test]
fn one_that_ends_while_its_agent_is_waited_for_is_not_waited_for() {
    prove(Backend::firecracker, async |backend: Backend, place: &Path| {
        let mut vm = backend.boot(&place.join("vm")).await;
        vm.hypervisor.power_button().await.unwrap();
        let error = timeout(DEADLINE, vm.hypervisor.control()).await.expect("an end").unwrap_err();
        println!("{error}");
        assert!(matches!(error, HypervisorError::Lost { .. }), "{error}");
        expect_words(&error, "it ended (exit status: 0)");
    });
}

/// Not a test of speed but a look at it: what each step takes, on standard output.
#[test]
fn it_starts_and_loads_in_a_moment() {
    prove(Backend::firecracker, async |backend: Backend, place: &Path| {
        let lap = |name: &str, begun: Instant| println!("{name}: {} ms", begun.elapsed().as_millis());
        let backend = Backend { memory_mib: 256, ..backend };
        let begun = Instant::now();
        let mut vm = backend.start(&place.join("vm"), Launch::Cold).await.unwrap();
        lap("start", begun);
        vm.console.line("hello").await;
        lap("first line", begun);
        let begun = Instant::now();
        vm.hypervisor.pause().await.unwrap();
        lap("pause", begun);
        let (snapshot, begun) = (place.join("snapshot"), Instant::now());
        vm.save(&snapshot).await;
        lap("save", begun);
        let begun = Instant::now();
        let mut other = backend.load(&place.join("other"), &snapshot).await.unwrap();
        other.hypervisor.resume().await.unwrap();
        lap("start, load and resume", begun);
        other.console.number().await;
        lap("first line again", begun);
        if real_kvm().is_ok() {
            assert!(begun.elapsed() < DEADLINE / 10, "{:?}", begun.elapsed());
        }
    });
}
