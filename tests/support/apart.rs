//! Namespaces of a test's own: nothing in them is seen on this machine.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use super::{is_root, stderr, stdout};

/// A network namespace of the test's own, with loopback up.
pub struct Namespace(String);

impl Namespace {
    /// `None`, and a word about it, where none can be made.
    pub fn new() -> Option<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        if !is_root() {
            return None;
        }
        let name = format!("mvmt-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        if !Command::new("ip").args(["netns", "add", &name]).status().is_ok_and(|status| status.success()) {
            println!("SKIPPED: no network namespace can be made here");
            return None;
        }
        let namespace = Self(name);
        namespace.ip(&["link", "set", "lo", "up"]);
        Some(namespace)
    }

    /// Runs `work` inside; what it starts stays inside.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = fs::File::open(Path::new("/run/netns").join(&self.0)).unwrap();
        // A namespace belongs to a thread.
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(file, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs `ip` inside; returns what it printed.
    pub fn ip(&self, args: &[&str]) -> String {
        self.run("ip", args)
    }

    /// Runs a program inside; returns what it printed.
    pub fn run(&self, program: &str, args: &[&str]) -> String {
        let output =
            Command::new("ip").args(["netns", "exec", &self.0, program]).args(args).output().unwrap();
        assert!(output.status.success(), "{program} {args:?}: {}", stderr(&output));
        stdout(&output)
    }

    /// A cable between this and `other`, with these addresses at its ends.
    pub fn connect(&self, other: &Self, here: &str, there: &str) {
        self.ip(&["link", "add", "out0", "type", "veth", "peer", "name", "in0", "netns", &other.0]);
        for (namespace, link, address) in [(self, "out0", here), (other, "in0", there)] {
            namespace.ip(&["addr", "add", &format!("{address}/24"), "dev", link]);
            namespace.ip(&["link", "set", link, "up"]);
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // What is still inside keeps it; its name goes.
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// Runs `work` in a mount namespace of its own (needs root); what it starts is inside as well.
pub fn in_own_mounts(work: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            work();
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// Mounts an empty file system.
pub fn mount_tmpfs(dir: &Path, options: &str, flags: MsFlags) {
    mount(Some("tmpfs"), dir, Some("tmpfs"), flags, Some(options)).unwrap();
}

/// Puts `what` in the place of `path`.
pub fn mount_over(what: &Path, path: &Path) {
    mount(Some(what), path, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
}
