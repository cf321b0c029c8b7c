//! What the end-to-end tests share: a state of its own for each, the real binary, and ways to
//! wait for what happens.

#![allow(dead_code, reason = "each test program uses a part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod apart;
mod running;
pub mod shims;
pub mod terminal;

#[allow(unused_imports, reason = "each test program uses a part")]
pub use apart::{Namespace, in_own_mounts, mount_over, mount_tmpfs};
#[allow(unused_imports, reason = "each test program uses a part")]
pub use running::Running;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use mvm::host::files::Lock;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take. Guests are emulated and other tests run beside.
pub const DEADLINE: Duration = Duration::from_secs(90);
/// Pause between two looks at what cannot announce itself.
const POLL: Duration = Duration::from_millis(20);

/// Looks until `is` holds; panics with `what` when it does not in time.
pub fn wait_until(deadline: Duration, what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < deadline, "not within {deadline:?}: {what}");
        thread::sleep(POLL);
    }
}

/// Whether the test runs as root; says that it is skipped if not.
pub fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("SKIPPED: needs root");
    }
    root
}

/// A state with kernel and tools that tests take theirs from: the one `tests/run` prepared, else
/// one that `mvm setup` prepares once below `target`.
fn prepared() -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_mvm")).ancestors().nth(2).unwrap();
    let given = std::env::var_os("MVM_TEST_STATE").map(PathBuf::from);
    let state = given.clone().unwrap_or_else(|| target.join("test-state"));
    let lock_file = target.join("test-state.lock");
    let mut lock = None;
    wait_until(10 * DEADLINE, "another test's preparations", || {
        lock = Lock::try_take(&lock_file).unwrap();
        lock.is_some()
    });
    let mvm = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mvm"));
        command.arg("--no-tui").args(args).env("MVM_STATE_DIR", &state).env("NIX_CONFIG", NIX_CONFIG);
        let output = command.output().unwrap();
        assert!(output.status.success(), "mvm {args:?}: {}", stderr(&output));
    };
    if given.is_none() {
        mvm(&["setup", "--yes"]);
    }
    if !inputs_are_added(&state) {
        // Once for all tests: the kernel is large.
        let dir = tempfile::tempdir().unwrap();
        copy_tree(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("nix/examples/hello"),
            &dir.path().join("hello"),
        );
        mvm(&["build", "--flake", dir.path().join("hello").to_str().unwrap()]);
    }
    state
}

/// Whether the Nix store holds what setup laid out.
fn inputs_are_added(state: &Path) -> bool {
    let json = fs::read(state.join("nix/inputs.json")).unwrap_or_default();
    let added: Value = serde_json::from_slice(&json).unwrap_or_default();
    ["kernel", "host-tools", "nix/offline"].into_iter().all(|dir| {
        let name = format!("mvm-{}", dir.trim_start_matches("nix/"));
        let stamp = fs::read_to_string(state.join(format!("{dir}.stamp"))).unwrap();
        let path = added[&name]["store_path"].as_str().unwrap_or("none");
        added[&name]["stamp"] == stamp && Path::new(path).exists()
    })
}

/// Derivations here need nothing from a binary cache.
const NIX_CONFIG: &str = "substituters =";

/// A state, a runtime directory and a place for flakes, all of one test's own.
pub struct World {
    base: TempDir,
    mvm: PathBuf,
    uid: Option<u32>,
    env: Vec<(OsString, OsString)>,
}

impl Drop for World {
    fn drop(&mut self) {
        // A test that failed in the middle leaves no guest behind, nor a cluster.
        if self.state().join("cluster/agent.json").exists() {
            let _ = self.mvm(["dev", "cluster", "down"]).output();
        }
        let _ = self.mvm(["destroy", "--all", "--force"]).output();
    }
}

impl World {
    /// A state that `mvm setup` has nothing to do in.
    pub fn new() -> Self {
        let world = Self::empty();
        world.prepare();
        world
    }

    /// Puts into the state what `mvm setup` would.
    pub fn prepare(&self) {
        let (from, state) = (prepared(), self.state());
        fs::create_dir_all(state.join("nix")).unwrap();
        for dir in ["kernel", "host-tools", "nix/offline"] {
            symlink(from.join(dir), state.join(dir)).unwrap();
        }
        let stamps = ["kernel.stamp", "host-tools.stamp", "nix/offline.stamp"];
        for file in stamps.into_iter().chain(["nix/registry.json", "nix/inputs.json"]) {
            fs::copy(from.join(file), state.join(file)).unwrap();
        }
    }

    /// A state with nothing in it.
    pub fn empty() -> Self {
        // Short, for the sake of sockets below it.
        let base = tempfile::Builder::new().prefix("mvm").tempdir().unwrap();
        for dir in ["state", "run"] {
            fs::create_dir(base.path().join(dir)).unwrap();
        }
        Self { base, mvm: env!("CARGO_BIN_EXE_mvm").into(), uid: None, env: Vec::new() }
    }

    /// The state of a user without rights, with only the kernel in it.
    pub fn of_user(uid: u32) -> Self {
        let mut world = Self::empty();
        world.uid = Some(uid);
        let from = prepared();
        let bin = world.path("bin");
        fs::create_dir(&bin).unwrap();
        for program in ["mvm", "mvm-guest"] {
            fs::copy(Path::new(env!("CARGO_BIN_EXE_mvm")).with_file_name(program), bin.join(program))
                .unwrap();
        }
        world.mvm = bin.join("mvm");
        link_tree(&from.join("kernel"), &world.state().join("kernel"));
        fs::copy(from.join("kernel.stamp"), world.state().join("kernel.stamp")).unwrap();
        for dir in ["", "state", "run", "state/kernel.stamp"] {
            chown(world.path(dir), Some(uid), Some(uid)).unwrap();
        }
        fs::set_permissions(world.base.path(), fs::Permissions::from_mode(0o755)).unwrap();
        world.env("HOME", world.base.path().to_path_buf());
        world
    }

    /// A path below the test's own directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.base.path().join(name)
    }

    /// The state.
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// Sets a variable for every `mvm` from here on.
    pub fn env(&mut self, name: &str, value: impl Into<OsString>) {
        self.env.push((name.into(), value.into()));
    }

    /// A copy of an example flake: what lies in a git work tree is no flake of its own.
    pub fn example(&self, name: &str) -> PathBuf {
        let to = self.path(name);
        if !to.exists() {
            copy_tree(&Path::new(env!("CARGO_MANIFEST_DIR")).join("nix/examples").join(name), &to);
        }
        to
    }

    /// A flake with this text.
    pub fn flake(&self, name: &str, text: &str) -> PathBuf {
        let dir = self.path(name);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("flake.nix"), text).unwrap();
        dir
    }

    /// A flake of an image whose guest does nothing but what `init` says.
    pub fn odd_guest(&self, name: &str, init: &str) -> PathBuf {
        let dir = self.flake(name, include_str!("odd-guest.nix"));
        fs::write(dir.join("init"), format!("#!/bin/busybox sh\n{init}\n")).unwrap();
        dir
    }

    /// `mvm` with these arguments.
    pub fn mvm<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = self.program(&self.mvm);
        command.arg("--no-tui").args(args);
        command
    }

    /// A program that finds this state as `mvm` does.
    pub fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("MVM_STATE_DIR", self.state()).env("XDG_RUNTIME_DIR", self.path("run"));
        command.env("NIX_CONFIG", NIX_CONFIG).env_remove("MVM_HYPERVISOR");
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.current_dir(self.base.path()).stdin(Stdio::null());
        if let Some(uid) = self.uid {
            command.uid(uid).gid(uid);
        }
        command
    }

    /// Runs `mvm` to its end and expects it to succeed; returns what it printed.
    pub fn ok<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> String {
        let output = self.mvm(args).output().unwrap();
        assert!(output.status.success(), "{}\n{}", output.status, stderr(&output));
        stdout(&output)
    }

    /// Runs `mvm` to its end and expects exit code 1; returns what it said.
    pub fn fails<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> String {
        self.exits(1, args)
    }

    /// Runs `mvm` to its end and expects this exit code; returns what it said.
    pub fn exits<A: AsRef<OsStr>>(&self, code: i32, args: impl IntoIterator<Item = A>) -> String {
        let output = self.mvm(args).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        stderr(&output)
    }

    /// What `mvm status` tells programs of all VMs, the newest first.
    pub fn vms(&self) -> Vec<Value> {
        let status: Value = serde_json::from_str(&self.ok(["status", "--all", "--json"])).unwrap();
        status["vms"].as_array().unwrap().clone()
    }

    /// The VM of this name.
    pub fn vm(&self, name: &str) -> Value {
        let vms = self.vms();
        vms.iter().find(|vm| vm["name"] == name).unwrap_or_else(|| panic!("no {name} in {vms:?}")).clone()
    }

    /// Processes that work for this state: they name it in their arguments or environment.
    pub fn processes(&self) -> Vec<String> {
        let mark = self.base.path().as_os_str().as_bytes();
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
            let line = read("cmdline");
            let names = |bytes: &[u8]| bytes.windows(mark.len()).any(|window| window == mark);
            if pid != std::process::id() && (names(&line) || names(&read("environ"))) {
                found.push(format!("{pid} {}", String::from_utf8_lossy(&line).replace('\0', " ")));
            }
        }
        found
    }

    /// Sockets of this state.
    pub fn sockets(&self) -> Vec<PathBuf> {
        let dirs = fs::read_dir(self.path("run/mvm")).into_iter().flatten().flatten();
        dirs.flat_map(|dir| fs::read_dir(dir.path()).unwrap().flatten()).map(|entry| entry.path()).collect()
    }

    /// Builds that are not whole.
    pub fn half_builds(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.state().join("dev/builds")).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| !path.join("manifest.json").exists()).collect()
    }

    /// Ends of uplinks on the host that belong to VMs of this state.
    pub fn links(&self) -> Vec<String> {
        let ids: Vec<String> =
            self.vms().iter().map(|vm| vm["id"].as_str().unwrap().replace("v-", "mvm-")).collect();
        let links = nix::ifaddrs::getifaddrs().unwrap().map(|link| link.interface_name);
        links.filter(|name| ids.contains(name)).collect()
    }

    /// Waits until nothing works for this state any more.
    pub fn expect_no_process(&self) {
        let begun = Instant::now();
        wait_until(DEADLINE + POLL, "the end of every process", || {
            let left = self.processes();
            assert!(left.is_empty() || begun.elapsed() < DEADLINE, "still there: {left:#?}");
            left.is_empty()
        });
    }

    /// Waits until nothing works for this state any more, and looks that nothing lies about.
    pub fn expect_nothing_left(&self) {
        self.expect_no_process();
        let (links, sockets, builds) = (self.links(), self.sockets(), self.half_builds());
        assert!(links.is_empty(), "{links:?}");
        assert!(sockets.is_empty(), "{sockets:?}");
        assert!(builds.is_empty(), "{builds:?}");
    }
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Like [`copy_tree`], but by hard links where the file system has them.
fn link_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            link_tree(&entry.path(), &target);
        } else if fs::hard_link(entry.path(), &target).is_err() {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// What a program wrote to standard output.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a program wrote to standard error.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Ends a process that `mvm status` named.
pub fn kill_process(pid: &Value) {
    kill(Pid::from_raw(pid.as_i64().unwrap() as i32), Signal::SIGKILL).unwrap();
}

/// The host's side of a VM's only published port.
pub fn published(vm: &Value) -> SocketAddr {
    let map = vm["spec"]["ports"][0].as_str().unwrap();
    map.rsplit_once(':').unwrap().0.parse().unwrap()
}

/// The answer to an HTTP request.
pub fn http_get(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect_timeout(&address, DEADLINE).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Answers every connection with `text` and tells who called. Ends with the test.
pub fn serve(listener: TcpListener, text: &'static str) -> Receiver<SocketAddr> {
    let (sender, callers) = mpsc::channel();
    thread::spawn(move || {
        while let Ok((mut stream, caller)) = listener.accept() {
            // The guest may hang up at any moment.
            let _ = stream.read(&mut [0; 1024]);
            let _ = write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
            if sender.send(caller).is_err() {
                break;
            }
        }
    });
    callers
}
