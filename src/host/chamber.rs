//! A program apart from this machine: its own mounts and processes, and, if wished, a root directory made of
//! layers. Whatever happens to it, nothing of it stays mounted or running.
//!
//! It takes root, and a process of its own with one thread: `mvm chamber` is that.

use std::ffi::{CString, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{chdir, chroot};

use super::child;

/// What the process exits with when the program could not even be started.
pub const BROKEN: i32 = 125;
/// Most layers below a root: the kernel takes one page of options.
pub const MOST_LAYERS: usize = 80;

/// Where programs are in the chamber.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What a program may know of this machine: how to get out, and how to show itself.
const PASSED: [&str; 10] = [
    "http_proxy",
    "https_proxy",
    "ftp_proxy",
    "all_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "TERM",
];
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Files of this machine by which programs find others, where the image has none of its own.
const NAMES: [&str; 2] = ["resolv.conf", "hosts"];

/// A program and where it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct Chamber {
    /// What relative paths are relative to
    #[arg(long)]
    pub dir: PathBuf,
    /// A layer of the root, the topmost first; relative, so that many fit
    #[arg(long)]
    pub lower: Vec<PathBuf>,
    /// What is written on top of them; without it nothing can be
    #[arg(long, requires = "work")]
    pub upper: Option<PathBuf>,
    /// An empty directory beside `upper`
    #[arg(long)]
    pub work: Option<PathBuf>,
    /// The empty directory where the layers are joined
    #[arg(long)]
    pub root: Option<PathBuf>,
    /// Run the program with that as its root directory
    #[arg(long, requires = "root")]
    pub enter: bool,
    /// Let it find other machines by name
    #[arg(long)]
    pub network: bool,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    pub command: Vec<OsString>,
}

/// Why a program was not started.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{}`: {source}", path.display())]
pub struct ChamberError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn at<E: Into<io::Error>>(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(E) -> ChamberError {
    let path = path.into();
    move |source| ChamberError { action, path, source: source.into() }
}

impl Chamber {
    /// The arguments of `mvm chamber` for it.
    pub fn args(&self) -> Vec<OsString> {
        let Self { dir, lower, upper, work, root, enter, network, command } = self;
        let mut args: Vec<OsString> = vec!["chamber".into(), "--dir".into(), dir.into()];
        for layer in lower {
            args.extend(["--lower".into(), layer.into()]);
        }
        for (name, path) in [("--upper", upper), ("--work", work), ("--root", root)] {
            args.extend(path.iter().flat_map(|path| [name.into(), path.into()]));
        }
        args.extend(enter.then(|| "--enter".into()));
        args.extend(network.then(|| "--network".into()));
        args.push("--".into());
        args.extend(command.iter().cloned());
        args
    }

    /// Runs the program to its end; gives its exit code, as a shell would.
    pub fn run(&self) -> Result<i32, ChamberError> {
        // Who started mvm in the background may have had it ignored; here it is how mvm's own end is heard of.
        // SAFETY: no handler is installed, and there is none whose place it takes.
        unsafe { signal(Signal::SIGINT, SigHandler::SigDfl) }.map_err(at("hear signals in", "/"))?;
        chdir(&self.dir).map_err(at("enter", &self.dir))?;
        let apart = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC;
        unshare(apart).map_err(at("leave the namespaces of", "/"))?;
        let nothing = None::<&str>;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(nothing, "/", nothing, private, nothing).map_err(at("keep to itself", "/"))?;
        if let Some(root) = &self.root {
            self.join(root)?;
            if self.enter {
                furnish(root, self.network)?;
            }
        }
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]);
        let inside = self.root.as_deref().filter(|_| self.enter);
        if inside.is_some() {
            let passed = PASSED.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
            command.env_clear().env("PATH", PATH).env("HOME", "/root").env("LC_ALL", "C.UTF-8");
            command.env("DEBIAN_FRONTEND", "noninteractive").envs(passed);
        }
        // Its processes see none but each other.
        let proc = inside.unwrap_or(Path::new("/")).join("proc");
        let proc = CString::new(proc.as_os_str().as_bytes()).map_err(at("mount", "proc"))?;
        let inside = inside
            .map(|root| CString::new(root.as_os_str().as_bytes()))
            .transpose()
            .map_err(at("enter", "the root"))?;
        // SAFETY: this process has one thread, and what is called are system calls on memory that is there.
        unsafe {
            command.pre_exec(move || {
                nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
                child::keep_only_standard_streams();
                let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
                mount(Some(c"proc"), proc.as_c_str(), Some(c"proc"), flags, None::<&std::ffi::CStr>)?;
                if let Some(root) = &inside {
                    chroot(root.as_c_str())?;
                    chdir(c"/")?;
                }
                Ok(())
            });
        }
        let status = command.status().map_err(at("run", &self.command[0]))?;
        Ok(status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(BROKEN))
    }

    /// Mounts the layers, one upon the other.
    fn join(&self, root: &Path) -> Result<(), ChamberError> {
        let mut options = OsString::from("lowerdir=");
        for (index, layer) in self.lower.iter().enumerate() {
            options.push(if index == 0 { "" } else { ":" });
            options.push(layer);
        }
        if let (Some(upper), Some(work)) = (&self.upper, &self.work) {
            options.push(",upperdir=");
            options.push(upper);
            options.push(",workdir=");
            options.push(work);
            // What is written shall be a layer like any other, wherever it is put.
            options.push(",index=off,metacopy=off,redirect_dir=off");
        }
        let kind = Some("overlay");
        mount(kind, root, kind, MsFlags::empty(), Some(options.as_os_str()))
            .map_err(at("join the layers in", root))
    }
}

/// Puts into a root directory what programs expect of a machine; none of it is written into a layer.
fn furnish(root: &Path, network: bool) -> Result<(), ChamberError> {
    let tree = |name: &str, kind: &str, options: &str| {
        let path = root.join(name);
        fs::create_dir_all(&path).map_err(at("make", &path))?;
        let flags = MsFlags::MS_NOSUID;
        mount(Some(kind), &path, Some(kind), flags, Some(options)).map_err(at("mount", &path))
    };
    let bind = |from: &Path, to: &Path| {
        mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).map_err(at("mount", to))
    };
    tree("dev", "tmpfs", "mode=0755")?;
    for name in DEVICES {
        let device = root.join("dev").join(name);
        fs::write(&device, "").map_err(at("make", &device))?;
        bind(&Path::new("/dev").join(name), &device)?;
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        let link = root.join("dev").join(name);
        std::os::unix::fs::symlink(target, &link).map_err(at("make", &link))?;
    }
    tree("dev/pts", "devpts", "newinstance,ptmxmode=0666,mode=0620")?;
    for name in ["dev/shm", "tmp"] {
        tree(name, "tmpfs", "mode=1777")?;
    }
    tree("run", "tmpfs", "mode=0755")?;
    if network {
        for name in NAMES {
            let (from, to) = (Path::new("/etc").join(name), root.join("etc").join(name));
            // A link would lead out of the root.
            if from.exists() && !to.is_symlink() {
                fs::OpenOptions::new().create(true).append(true).open(&to).map_err(at("make", &to))?;
                bind(&from, &to)?;
            }
        }
    }
    Ok(())
}
