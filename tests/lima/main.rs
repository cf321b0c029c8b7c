//! The way into Lima's VM, with a stand-in for `limactl` that runs here what Lima would run there,
//! and the template the VM is made from. No real Lima is called.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod template;

use std::fs;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::pty::openpty;
use nix::sys::signal::Signal;
use support::{Running, World, stderr, stdout};

/// A world whose mvm works in a Lima that is the stand-in, with a VM in this state, if any, which
/// sees the directory `home`.
fn world(status: Option<&str>) -> World {
    let mut world = World::new();
    for dir in ["stand-in", "home"] {
        fs::create_dir(world.path(dir)).unwrap();
    }
    let stand_in = world.path("stand-in");
    fs::write(stand_in.join("sees"), world.path("home").to_str().unwrap()).unwrap();
    if let Some(status) = status {
        fs::write(stand_in.join("status"), status).unwrap();
    }
    let limactl = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lima");
    let mvm = Path::new(env!("CARGO_BIN_EXE_mvm")).parent().unwrap();
    let path = std::env::var("PATH").unwrap();
    world.env("PATH", format!("{}:{}:{path}", limactl.display(), mvm.display()));
    world.env("STAND_IN", stand_in);
    world.env("MVM_LIMA", "1");
    world
}

/// `mvm` with these arguments, in the directory the VM sees.
fn mvm(world: &World, args: &[&str]) -> Command {
    let mut command = world.mvm(args);
    command.current_dir(world.path("home"));
    command
}

/// How the stand-in was called, the test's directory written as `[DIR]`.
fn calls(world: &World) -> Vec<String> {
    let text = fs::read_to_string(world.path("stand-in/calls")).unwrap_or_default();
    text.replace(world.path("").to_str().unwrap().trim_end_matches('/'), "[DIR]")
        .lines()
        .map(String::from)
        .collect()
}

fn said(world: &World, args: &[&str]) -> (i32, String) {
    let output = mvm(world, args).output().unwrap();
    let text = stderr(&output).replace(world.path("").to_str().unwrap().trim_end_matches('/'), "[DIR]");
    (output.status.code().unwrap(), text)
}

#[test]
fn a_command_goes_into_the_vm_as_it_stands_and_its_exit_code_comes_back() {
    let world = world(Some("Running"));
    let words = ["shell", "--", "sh", "-c", "echo \"$1\"; pwd; exit 7", "-", "two words $HOME"];
    let output = mvm(&world, &words).output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
    assert_eq!(stdout(&output), format!("two words $HOME\n{}\n", world.path("home").display()));
    let last = calls(&world).pop().unwrap();
    assert!(last.starts_with("shell|--workdir|[DIR]/home|mvm|--|env|MVM_LIMA_VERSION=2.2.0|"), "{last}");
    assert!(
        last.ends_with("|mvm|--no-tui|shell|--|sh|-c|echo \"$1\"; pwd; exit 7|-|two words $HOME"),
        "{last}"
    );
}

#[test]
fn the_command_has_the_terminal() {
    let world = world(Some("Running"));
    let pty = openpty(None, None).unwrap();
    let mut command = mvm(&world, &["shell", "--", "sh", "-c", "test -t 0 && test -t 1 && test -t 2 && tty"]);
    for end in 0..3 {
        let slave = Stdio::from(pty.slave.try_clone().unwrap());
        match end {
            0 => command.stdin(slave),
            1 => command.stdout(slave),
            _ => command.stderr(slave),
        };
    }
    let mut child = command.spawn().unwrap();
    drop((command, pty.slave));
    assert!(child.wait().unwrap().success());
    let mut text = Vec::new();
    // Without a writer a terminal ends with an error.
    let _ = File::from(pty.master).read_to_end(&mut text);
    assert!(String::from_utf8_lossy(&text).starts_with("/dev/pts/"));
}

#[test]
fn an_interrupt_reaches_the_command() {
    let world = world(Some("Running"));
    let script = "trap 'exit 9' INT; echo ready; while :; do sleep 0.05; done";
    let mut running = Running::start(mvm(&world, &["shell", "--", "sh", "-c", script]));
    running.line("ready");
    running.signal(Signal::SIGINT);
    assert_eq!(running.end().0.code(), Some(9));
}

#[test]
fn inside_the_banner_and_status_name_the_lima_outside() {
    let world = world(Some("Running"));
    let (code, banner) = said(&world, &["shell", "--banner", "--", "true"]);
    assert!(code == 0 && banner.contains("Lima 2.2.0") && banner.contains("Nix "), "{banner}");
    let status = stdout(&mvm(&world, &["status"]).output().unwrap());
    assert!(status.contains("Lima 2.2.0"), "{status}");
}

#[test]
fn a_project_is_where_the_shell_begins() {
    let world = world(Some("Running"));
    fs::create_dir(world.path("home/web")).unwrap();
    let output = mvm(&world, &["shell", "--project", "web", "--", "pwd"]).output().unwrap();
    assert_eq!(stdout(&output), format!("{}\n", world.path("home/web").display()), "{}", stderr(&output));
}

#[test]
fn a_directory_that_the_vm_does_not_see_is_an_error_that_says_which_it_sees() {
    let world = world(Some("Running"));
    fs::create_dir(world.path("else where")).unwrap();
    let expected = (
        1,
        "error: Lima's VM `mvm` does not see the directory `[DIR]/else where`\n\
         help: it sees `[DIR]/home`; work below one of them, or add the directory: `limactl stop mvm`, then \
         `limactl edit mvm --mount '[DIR]/else where':w`\n"
            .to_string(),
    );
    assert_eq!(said(&world, &["shell", "--project", "../else where"]), expected);
    let mut there = world.mvm(["run", "--flake", "."]);
    let output = there.current_dir(world.path("else where")).output().unwrap();
    assert!(stderr(&output).contains("does not see the directory"), "{}", stderr(&output));
    // What has nothing to do with files goes its way.
    let mut status = world.mvm(["status"]);
    assert!(status.current_dir(world.path("else where")).output().unwrap().status.success());
}

#[test]
fn a_link_out_of_what_the_vm_sees_does_not_deceive() {
    let world = world(Some("Running"));
    fs::create_dir(world.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(world.path("elsewhere"), world.path("home/link")).unwrap();
    let (code, said) = said(&world, &["shell", "--project", "link", "--", "true"]);
    assert!(code == 1 && said.contains("does not see the directory `[DIR]/elsewhere`"), "{said}");
}

#[test]
fn a_stopped_vm_is_started_and_the_commands_output_stays_its_own() {
    let world = world(Some("Stopped"));
    let output = mvm(&world, &["shell", "--", "echo", "hello"]).output().unwrap();
    assert_eq!(stdout(&output), "hello\n", "{}", stderr(&output));
    assert!(calls(&world).contains(&"start|--tty=false|--timeout=60m|mvm".into()), "{:?}", calls(&world));
}

#[test]
fn setup_makes_the_vm_from_the_template_and_its_own_source() {
    let world = world(None);
    let (code, text) = said(&world, &["setup", "--yes"]);
    assert!(code == 0 && text.contains("nothing to do"), "{text}");
    let source = serde_json::json!(env!("CARGO_MANIFEST_DIR"));
    let start = format!(
        "start|--tty=false|--timeout=60m|--name|mvm|--set|.param.source = {source}|--vm-type=qemu|[DIR]/state/lima/mvm.yaml"
    );
    assert!(calls(&world).contains(&start), "{:?}", calls(&world));
    let template = fs::read_to_string(world.path("state/lima/mvm.yaml")).unwrap();
    assert_eq!(template, mvm::host::lima::TEMPLATE);
}

#[test]
fn a_release_goes_before_the_source() {
    let mut world = world(None);
    world.env("MVM_RELEASE", "https://example.org/mvm.tar.gz");
    assert_eq!(said(&world, &["setup", "--yes"]).0, 0);
    let wanted = "|--set|.param.release = \"https://example.org/mvm.tar.gz\"|";
    assert!(calls(&world).iter().any(|call| call.contains(wanted)), "{:?}", calls(&world));
}

#[test]
fn without_a_vm_other_commands_say_what_makes_it() {
    let world = world(None);
    let expected =
        "error: Lima has no VM named `mvm` yet\nhelp: `mvm bootstrap` makes it; `mvm dev` does so too\n";
    assert_eq!(said(&world, &["status"]), (1, expected.into()));
}

#[test]
fn what_lima_says_of_a_vm_or_of_itself_is_passed_on() {
    let world = world(Some("Broken"));
    let (code, text) = said(&world, &["status"]);
    assert!(code == 1 && text.starts_with("error: Lima's VM `mvm` is broken\nhelp: "), "{text}");
    fs::write(world.path("stand-in/fails"), "").unwrap();
    let (code, text) = said(&world, &["status"]);
    assert!(code == 1 && text.contains("`limactl list --json` failed"), "{text}");
    assert!(text.contains("out-of-order"), "{text}");
}

#[test]
fn without_lima_it_says_so() {
    let mut world = world(None);
    world.env("PATH", "/usr/bin:/bin");
    if mvm::host::child::find_program("limactl").is_some() {
        println!("SKIPPED: there is a real limactl here");
        return;
    }
    let (code, text) = said(&world, &["status"]);
    assert!(code == 1 && text.starts_with("error: Lima is not installed"), "{text}");
}

#[test]
fn what_is_of_no_machine_needs_no_vm() {
    let world = world(None);
    assert!(stdout(&mvm(&world, &["man", "shell"]).output().unwrap()).contains("mvm-shell"));
    assert_eq!(said(&world, &["biuld"]).0, 2);
    assert_eq!(calls(&world), [""; 0]);
}
