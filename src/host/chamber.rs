//! A program apart from this machine: its own mounts, processes and names, and, if wished, a root directory made
//! of layers in which it is root as in a container: without the rights that reach the machine itself. Whatever
//! happens to it, nothing of it stays mounted or running. A program without such a root installs packages: it may
//! mount and make devices, too.
//!
//! It takes root, and a process of its own with one thread: `mvm chamber` is that.

use std::ffi::{CStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::libc::{PR_CAPBSET_DROP, SYS_capget, SYS_capset, c_int, prctl, syscall};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{chdir, pivot_root};

use super::child;

/// What the process exits with when the program could not even be started.
pub const BROKEN: i32 = 125;
/// How the line begins that says why.
pub const COMPLAINT: &str = "mvm chamber: ";
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
/// Devices of the kernel's that harm nobody, by major and minor number.
const DEVICES: [(&str, u64, u64); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
/// Files of this machine by which programs find others.
const NAMES: [&str; 2] = ["resolv.conf", "hosts"];
/// Parts of /proc that are this machine's, whoever looks.
const SHARED_PROC: [&CStr; 4] = [c"/proc/sys", c"/proc/sysrq-trigger", c"/proc/irq", c"/proc/bus"];
/// What root may do in a container, as its makers have agreed upon, but for making devices: chown, dac_override,
/// fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, net_raw, sys_chroot, audit_write, setfcap.
const CAPABILITIES: [c_int; 13] = [0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 29, 31];
/// What the installing of packages takes besides: to make devices, and to mount: mknod, sys_admin.
const TO_INSTALL: [c_int; 2] = [27, 21];
/// Numbers of capabilities, those to come included.
const ALL_CAPABILITIES: std::ops::Range<c_int> = 0..64;

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
    /// Let it reach other machines
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
        let mut apart = CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWPID
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS;
        apart.set(CloneFlags::CLONE_NEWNET, !self.network);
        unshare(apart).map_err(at("leave the namespaces of", "/"))?;
        let nothing = None::<&str>;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(nothing, "/", nothing, private, nothing).map_err(at("keep to itself", "/"))?;
        if let Some(root) = &self.root {
            self.join(root)?;
            if self.enter {
                enter(root, self.network)?;
            }
        }
        nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]);
        if self.enter {
            let passed = PASSED.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
            command.env_clear().env("PATH", PATH).env("HOME", "/root").env("LC_ALL", "C.UTF-8");
            command.env("DEBIAN_FRONTEND", "noninteractive").envs(passed);
        }
        let confined = self.enter;
        let to_install = [&CAPABILITIES[..], &TO_INSTALL].concat();
        // SAFETY: this process has one thread, and what is called are system calls on memory that is there.
        unsafe {
            command.pre_exec(move || {
                nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
                child::keep_only_standard_streams();
                // Its processes see none but each other.
                let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
                mount(Some(c"proc"), c"/proc", Some(c"proc"), flags, None::<&CStr>)?;
                match confined {
                    true => freeze_proc().and_then(|()| keep_only(&CAPABILITIES)),
                    false => keep_only(&to_install),
                }
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

/// Has this process be in another root directory, with what programs expect of a machine: none of that is
/// written into a layer.
fn enter(root: &Path, network: bool) -> Result<(), ChamberError> {
    let read = |name: &str| Some((name.to_string(), fs::read(Path::new("/etc").join(name)).ok()?));
    let names: Vec<_> = NAMES.into_iter().filter(|_| network).filter_map(read).collect();
    // From here on links lead nowhere but into the image.
    chdir(root).map_err(at("enter", root))?;
    pivot_root(".", ".").map_err(at("enter", root))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(at("leave", "/"))?;
    chdir("/").map_err(at("enter", root))?;

    let tree = |path: &str, kind: &str, options: &str| {
        fs::create_dir_all(path).map_err(at("make", path))?;
        let flags = MsFlags::MS_NOSUID;
        mount(Some(kind), path, Some(kind), flags, Some(options)).map_err(at("mount", path))
    };
    fs::create_dir_all("/proc").map_err(at("make", "/proc"))?;
    tree("/dev", "tmpfs", "mode=0755")?;
    for (name, major, minor) in DEVICES {
        let path = format!("/dev/{name}");
        let anybody = Mode::from_bits_truncate(0o666);
        mknod(path.as_str(), SFlag::S_IFCHR, anybody, makedev(major, minor)).map_err(at("make", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).map_err(at("make", &path))?;
    }
    for (name, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
        ("/dev/ptmx", "pts/ptmx"),
    ] {
        std::os::unix::fs::symlink(target, name).map_err(at("make", name))?;
    }
    tree("/dev/pts", "devpts", "newinstance,ptmxmode=0666,mode=0620")?;
    tree("/dev/shm", "tmpfs", "mode=1777")?;
    tree("/tmp", "tmpfs", "mode=1777")?;
    tree("/run", "tmpfs", "mode=0755")?;
    for (name, content) in names {
        let (own, place) = (format!("/run/.{name}"), format!("/etc/{name}"));
        fs::write(&own, content).map_err(at("write", &own))?;
        fs::OpenOptions::new().create(true).append(true).open(&place).map_err(at("make", &place))?;
        let bind = MsFlags::MS_BIND;
        mount(Some(own.as_str()), place.as_str(), None::<&str>, bind, None::<&str>)
            .map_err(at("mount", &place))?;
    }
    Ok(())
}

/// Lets nothing of this machine's own be set in /proc.
fn freeze_proc() -> io::Result<()> {
    let none = None::<&CStr>;
    for path in SHARED_PROC {
        let bound = mount(Some(path), path, none, MsFlags::MS_BIND, none);
        let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        match bound.and_then(|()| mount(none, path, none, read_only, none)) {
            // Not every kernel has all of them.
            Err(Errno::ENOENT) => {}
            frozen => frozen?,
        }
    }
    Ok(())
}

/// Gives up all capabilities but these, for good.
fn keep_only(kept: &[c_int]) -> io::Result<()> {
    for capability in ALL_CAPABILITIES.filter(|number| !kept.contains(number)) {
        // SAFETY: it takes numbers only. One that the kernel does not know it refuses.
        unsafe { prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
    // Those that are inherited would come back with the program.
    let header = CapabilityHeader { version: CAPABILITIES_V3, pid: 0 };
    let mut sets = [CapabilitySets::default(); 2];
    // SAFETY: the structures are those of the kernel's third version, which wants two of the latter.
    unsafe {
        Errno::result(syscall(SYS_capget, &raw const header, sets.as_mut_ptr()))?;
        sets.iter_mut().for_each(|sets| sets.inheritable = 0);
        Errno::result(syscall(SYS_capset, &raw const header, sets.as_ptr()))?;
    }
    Ok(())
}

/// `_LINUX_CAPABILITY_VERSION_3`.
const CAPABILITIES_V3: u32 = 0x2008_0522;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilitySets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        chamber: Chamber,
    }

    #[test]
    fn a_chamber_is_what_its_arguments_say() {
        let chamber = Chamber {
            dir: "/layers".into(),
            lower: vec!["b/fs".into(), "a/fs".into()],
            upper: Some("c/fs".into()),
            work: Some("c/work".into()),
            root: Some("c/root".into()),
            enter: true,
            network: true,
            command: vec!["/bin/sh".into(), "-ec".into(), "echo --network".into()],
        };
        assert_eq!(Line::parse_from(chamber.args()).chamber, chamber);
    }
}
