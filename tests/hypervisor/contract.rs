//! What every hypervisor does, whichever it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mvm::vm::hypervisor::{HypervisorError, Launch, MEMORY_FILE, STATE_FILE};
use mvm::vm::network::tap::TapNetwork;
use mvm::vm::spec::HypervisorKind;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::timeout;

use crate::machine::{Backend, Vm};
use crate::support::{DEADLINE, is_root, mount_tmpfs, wait_until};

/// What an error is to people: what failed, and what to do.
#[track_caller]
pub fn expect_words(error: &HypervisorError, word: &str) {
    let text = error.to_string();
    assert!(text.contains(word) && text.contains("\nhelp: "), "no `{word}` in: {text}");
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid as i32), signal).unwrap();
}

/// A program that stands in for a hypervisor that misbehaves.
pub fn stand_in(place: &Path, script: &str) -> PathBuf {
    let path = place.join("stand-in");
    // Written by a child, lest another test's fork hold the file open for writing when it is run.
    let write = "printf '%s' \"$2\" > \"$1\" && chmod 755 \"$1\"";
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", write, "sh"]).arg(&path).arg(format!("#!/bin/sh\n{script}\n"));
    assert!(shell.status().unwrap().success());
    path
}

pub async fn it_starts_and_its_console_speaks(backend: Backend, place: &Path) {
    let mut vm = backend.boot(&place.join("vm")).await;
    let number = vm.console.number().await;
    assert_eq!(vm.console.number().await, number + 1);
    vm.end().await;
}

pub async fn paused_it_stands_still_and_resumed_it_goes_on_as_if_nothing_had_been(
    backend: Backend,
    place: &Path,
) {
    let mut vm = backend.boot(&place.join("vm")).await;
    for _ in 0..3 {
        let last = vm.pause().await;
        // What is so already is no error.
        vm.hypervisor.pause().await.unwrap();
        vm.hypervisor.resume().await.unwrap();
        assert_eq!(vm.console.number().await, last + 1);
        vm.hypervisor.resume().await.unwrap();
    }
}

pub async fn saved_it_goes_on_in_another_process_from_where_it_was_and_in_its_own_too(
    backend: Backend,
    place: &Path,
) {
    let mut vm = backend.boot(&place.join("vm")).await;
    let last = vm.pause().await;
    let snapshot = place.join("snapshot");
    vm.save(&snapshot).await;
    let mut other = backend.load(&place.join("other"), &snapshot).await.unwrap();
    assert_eq!(other.console.silence().await, 0, "it is paused");
    other.hypervisor.resume().await.unwrap();
    vm.hypervisor.resume().await.unwrap();
    assert_eq!(vm.console.number().await, last + 1);
    // The rest of a line that was begun before is no number.
    let first = other.console.number().await;
    assert!([last + 1, last + 2].contains(&first), "{first} after {last}");
    // And from there it is saved again.
    let last = other.pause().await;
    let again = place.join("again");
    other.save(&again).await;
    other.end().await;
    let mut third = backend.load(&place.join("third"), &again).await.unwrap();
    third.hypervisor.resume().await.unwrap();
    let first = third.console.number().await;
    assert!([last + 1, last + 2].contains(&first), "{first} after {last}");
}

pub async fn a_snapshot_takes_no_space_for_memory_that_is_empty(backend: Backend, place: &Path) {
    use std::os::unix::fs::MetadataExt;
    let mut vm = backend.boot(&place.join("vm")).await;
    vm.pause().await;
    let snapshot = place.join("snapshot");
    vm.save(&snapshot).await;
    let memory = snapshot.join(MEMORY_FILE);
    if backend.kind == HypervisorKind::Firecracker {
        // It writes all of it: completing the snapshot gives the space back, once the guest goes on.
        let file = fs::File::options().read(true).write(true).open(&memory).unwrap();
        mvm::host::sparse::punch(&file).unwrap();
    }
    let memory = fs::metadata(memory).unwrap();
    assert_eq!(memory.len(), u64::from(backend.memory_mib) << 20);
    assert!(memory.blocks() * 512 < memory.len() * 3 / 4, "{} blocks", memory.blocks());
    assert_eq!(memory.mode() & 0o077, 0, "others cannot read it");
}

pub async fn clones_of_one_snapshot_run_side_by_side_each_on_disks_of_its_own(
    backend: Backend,
    place: &Path,
) {
    let mut vm = backend.boot(&place.join("vm")).await;
    let last = vm.pause().await;
    let snapshot = place.join("snapshot");
    vm.save(&snapshot).await;
    vm.end().await;
    let before = fs::read(snapshot.join(MEMORY_FILE)).unwrap();
    let mut clones: Vec<Vm> = Vec::new();
    for name in ["one", "two"] {
        let mut clone = backend.load(&place.join(name), &snapshot).await.unwrap();
        clone.hypervisor.resume().await.unwrap();
        clones.push(clone);
    }
    for clone in &mut clones {
        let first = clone.console.number().await;
        assert!([last + 1, last + 2].contains(&first), "{first} after {last}");
        assert_eq!(clone.console.number().await, first + 1);
        let disk = clone.dir.join("upper.ext4");
        let open = clone.open_files();
        let uppers: Vec<_> = open.iter().filter(|file| file.ends_with("upper.ext4")).collect();
        assert_eq!(uppers, [&disk], "{open:?}");
    }
    assert!(before == fs::read(snapshot.join(MEMORY_FILE)).unwrap(), "clones write into a snapshot");
}

pub async fn a_snapshot_that_was_cut_short_is_refused_in_words(backend: Backend, place: &Path) {
    let mut vm = backend.boot(&place.join("vm")).await;
    vm.pause().await;
    let snapshot = place.join("snapshot");
    vm.save(&snapshot).await;
    vm.end().await;
    for (name, part) in [(STATE_FILE, 0), (STATE_FILE, 2), (MEMORY_FILE, 0), (MEMORY_FILE, 2)] {
        let file = snapshot.join(name);
        let whole = fs::read(&file).unwrap();
        let length = whole.len().checked_div(part).unwrap_or(0);
        fs::write(&file, &whole[..length]).unwrap();
        let refused = backend.load(&place.join("other"), &snapshot).await;
        let error = refused.expect_err(&format!("{name} of {length} bytes is loaded"));
        assert_eq!(fs::metadata(&file).unwrap().len() as usize, length, "{name} was written to");
        println!("{name} of {length} bytes: {error}");
        expect_words(&error, "the snapshot is kept");
        fs::write(&file, whole).unwrap();
    }
    let mut other = backend.load(&place.join("other"), &snapshot).await.unwrap();
    other.hypervisor.resume().await.unwrap();
    other.console.number().await;
}

pub async fn a_full_disk_fails_the_save_in_words_and_the_machine_goes_on(backend: Backend, place: &Path) {
    if !is_root() {
        return;
    }
    let snapshot = place.join("snapshot");
    fs::create_dir(&snapshot).unwrap();
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount_tmpfs(&snapshot, "size=2M", MsFlags::empty());
    let mut vm = backend.boot(&place.join("vm")).await;
    let last = vm.pause().await;
    let error = vm.hypervisor.save(&snapshot).await.unwrap_err();
    println!("{error}");
    expect_words(&error, "No space left on device");
    expect_words(&error, "mvm gc");
    vm.hypervisor.resume().await.unwrap();
    assert_eq!(vm.console.number().await, last + 1);
    vm.end().await;
    umount2(&snapshot, MntFlags::MNT_DETACH).unwrap();
}

pub async fn a_program_or_a_kernel_that_is_not_there_is_named(backend: Backend, place: &Path) {
    let absent = place.join("absent");
    let lacks_program = Backend { program: absent.clone(), ..backend.clone() };
    let error = lacks_program.start(&place.join("vm"), Launch::Cold).await.unwrap_err();
    assert!(matches!(error, HypervisorError::Spawn { .. }), "{error}");
    expect_words(&error, "absent");
    let lacks_kernel = Backend { kernel: absent, ..backend };
    let error = lacks_kernel.start(&place.join("vm"), Launch::Cold).await.unwrap_err();
    println!("{error}");
    expect_words(&error, "kernel");
}

pub async fn a_machine_it_cannot_be_is_refused_with_its_own_words(backend: Backend, place: &Path) {
    let crowded = Backend { cpus: 9999, ..backend.clone() };
    let error = crowded.start(&place.join("vm"), Launch::Cold).await.unwrap_err();
    println!("{error}");
    expect_words(&error, "9999");
    let huge = Backend { memory_mib: u32::MAX, ..backend };
    let error = huge.start(&place.join("vm"), Launch::Cold).await.unwrap_err();
    expect_words(&error, "MiB of memory are more than this machine's");
}

pub async fn one_that_dies_at_once_has_its_last_words_told(backend: Backend, place: &Path) {
    let program = stand_in(place, "echo out of luck >&2; exit 3");
    let dying = Backend { program, ..backend };
    let error = dying.start(&place.join("vm"), Launch::Cold).await.unwrap_err();
    expect_words(&error, "out of luck");
}

pub async fn one_that_never_speaks_is_given_up_and_ended(backend: Backend, place: &Path) {
    let note = place.join("pid");
    let program = stand_in(place, &format!("echo $$ > '{}'; exec sleep 600", note.display()));
    let mute = Backend { program, ..backend };
    let error = mute.start(&place.join("vm"), Launch::Cold).await.unwrap_err();
    expect_words(&error, "did not start");
    let pid = fs::read_to_string(note).unwrap();
    // Nobody waits for it any more but the runtime.
    let gone = || fs::read(format!("/proc/{}/cmdline", pid.trim())).is_ok_and(|line| !line.is_empty());
    wait_until(DEADLINE, "the end of a hypervisor that is of no use", || !gone());
}

pub async fn one_that_hangs_later_is_not_waited_for_without_end(backend: Backend, place: &Path) {
    let mut vm = backend.boot(&place.join("vm")).await;
    let pid = vm.pid();
    signal(pid, Signal::SIGSTOP);
    let error = vm.hypervisor.pause().await.unwrap_err();
    signal(pid, Signal::SIGCONT);
    assert!(matches!(error, HypervisorError::Silent { .. }), "{error}");
    expect_words(&error, "in time");
    // Nor is it lost for that.
    vm.hypervisor.pause().await.unwrap();
    let last = vm.console.silence().await;
    vm.hypervisor.resume().await.unwrap();
    assert_eq!(vm.console.number().await, last + 1);
}

pub async fn one_that_was_killed_is_known_to_be_lost(backend: Backend, place: &Path) {
    let mut vm = backend.boot(&place.join("vm")).await;
    signal(vm.pid(), Signal::SIGKILL);
    let error = vm.hypervisor.pause().await.unwrap_err();
    println!("{error}");
    assert!(matches!(error, HypervisorError::Lost { .. }), "{error}");
    expect_words(&error, "cannot be reached");
    let status = vm.hypervisor.child().wait().await.unwrap();
    assert!(!status.success());
}

pub async fn it_dies_with_who_started_it(backend: Backend, place: &Path) {
    let dir = place.join("vm");
    // The kernel watches the thread: its end is that of a process of one thread.
    let starting = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut vm = backend.boot(&dir).await;
            let pid = vm.pid();
            // As a process that is killed, it cleans nothing up.
            std::mem::forget(vm);
            pid
        })
    };
    let pid = tokio::task::spawn_blocking(|| std::thread::spawn(starting).join().unwrap()).await.unwrap();
    let runs = || fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty());
    wait_until(DEADLINE, "the end of an orphan", || !runs());
}

pub async fn it_runs_below_a_path_that_is_too_long_for_a_socket(backend: Backend, place: &Path) {
    let place = place.join("d".repeat(120)).join("e".repeat(120));
    let mut vm = backend.boot(&place.join("vm")).await;
    vm.pause().await;
    let snapshot = place.join("snapshot");
    vm.save(&snapshot).await;
    let mut other = backend.load(&place.join("other"), &snapshot).await.unwrap();
    other.hypervisor.resume().await.unwrap();
    other.console.number().await;
}

pub async fn its_power_button_ends_a_guest_that_heeds_it(backend: Backend, place: &Path) {
    let mut vm = backend.boot(&place.join("vm")).await;
    vm.hypervisor.power_button().await.unwrap();
    if backend.heeds_the_button {
        let status = timeout(DEADLINE, vm.hypervisor.child().wait()).await.unwrap().unwrap();
        assert!(status.success(), "{status}");
    } else {
        // It goes on, and can be ended all the same.
        vm.console.number().await;
        vm.end().await;
    }
}

pub async fn a_guest_that_nobody_serves_its_agent_from_leaves_the_deadline_to_the_caller(
    backend: Backend,
    place: &Path,
) {
    let mut vm = backend.boot(&place.join("vm")).await;
    let hello = async {
        let control = vm.hypervisor.control().await.unwrap();
        let (client, driver) = mvm::guest::client::AgentClient::start(control);
        tokio::select! {
            hello = client.hello() => drop(hello.unwrap()),
            end = driver => end.unwrap(),
        }
    };
    assert!(timeout(Duration::from_millis(500), hello).await.is_err(), "the guest has no agent");
    vm.console.number().await;
}

pub async fn it_takes_the_tap_of_its_network_namespace(backend: Backend, place: &Path) {
    if !is_root() {
        return;
    }
    // A namespace belongs to a thread; the test's own ends with it.
    let (network, connecting) = TapNetwork::enter("v-00000001", false, backend.kind).unwrap();
    connecting.made().unwrap();
    let dir = place.join("vm");
    let mut vm = backend.start_on(Some(network.device()), &dir, Launch::Cold).await.unwrap();
    vm.console.line("hello").await;
    let carrier = || fs::read_to_string("/proc/thread-self/net/dev").unwrap().contains("tap0:");
    assert!(carrier());
    let last = vm.pause().await;
    let snapshot = place.join("snapshot");
    vm.save(&snapshot).await;
    vm.end().await;
    let tap = Some(network.device());
    let mut other = backend.start_on(tap, &place.join("other"), Launch::Restore(&snapshot)).await.unwrap();
    other.hypervisor.load(&snapshot).await.unwrap();
    other.hypervisor.resume().await.unwrap();
    assert!(other.console.number().await > last);
    network.leave().unwrap();
}
