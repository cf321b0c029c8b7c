//! A sleeping instance's guest, restored by hand: QEMU alone, in a network namespace with a TAP.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mvm::fleet::ids::InstanceId;
use mvm::host::sparse;
use mvm::store::Store;
use mvm::vm::lifecycle::spec_of;
use mvm::vm::spec::TenantLink;
use nix::sched::{CloneFlags, unshare};

use crate::hand::{Machine, inherited, inherited_pair, load, memory};
use crate::place::Place;
use crate::process::run;

/// How long a guest has to answer.
const DEADLINE: Duration = Duration::from_secs(60);
/// Pause between two tries, and how long one takes at most.
const RETRY: Duration = Duration::from_millis(2);
const TRY: Duration = Duration::from_secs(2);
const PORT: u16 = 8080;

/// What the hypervisor is given.
pub struct Bare {
    arguments: Vec<String>,
    snapshot: PathBuf,
    /// Whether memory is mapped from a file: that of a guest which was so restored itself comes with the
    /// rest of its state.
    pub is_mapped: bool,
    upper: PathBuf,
    memory_mib: u64,
    link: TenantLink,
}

impl Bare {
    /// Learns it from the instance, which sleeps and was woken before.
    pub fn learn(place: &Place, instance: &InstanceId) -> Result<Self> {
        let paths = place.paths()?;
        let vms = Store::open(&paths.database())?.store.vms_named(instance.as_str())?;
        let vm = vms.iter().find(|vm| paths.vm_snapshot(&vm.id).exists()).context("it has no snapshot")?;
        let spec = spec_of(vm).context("it cannot be read")?;
        let (snapshot, dir) = (paths.vm_snapshot(&vm.id), paths.vm(&vm.id));
        let upper = paths.state().join("bare.ext4");
        let text = fs::read_to_string(dir.join("qemu.args"))?;
        ensure!(text.contains("\n-incoming\n"), "the instance was not restored the last time");
        let theirs = dir.join("upper.ext4");
        let adapt = |line: &str| match line.starts_with("tap,") {
            true => "tap,id=n0,ifname=tap0,script=no,downscript=no".into(),
            false => line.replace(&*theirs.to_string_lossy(), &upper.to_string_lossy()),
        };
        let (arguments, link) =
            (text.lines().map(adapt).collect(), spec.tenant.context("it has no address")?);
        let is_mapped = snapshot.join("memory").exists();
        Ok(Self { arguments, snapshot, is_mapped, upper, memory_mib: spec.memory_mib.into(), link })
    }

    /// Restores it once, to the first byte of an answer. Disk and network are made before the clock runs.
    pub fn start(&self) -> Result<Duration> {
        // Absent the first time.
        let _ = fs::remove_file(&self.upper);
        sparse::copy(&File::open(self.snapshot.join("upper.ext4"))?, &self.upper)?;
        // A namespace belongs to a thread, and ends with it.
        let restored = thread::scope(|scope| scope.spawn(|| self.inside()).join());
        restored.map_err(|_| anyhow::anyhow!("the thread panicked"))?
    }

    fn inside(&self) -> Result<Duration> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let gateway = format!("{}/{}", self.link.subnet.gateway(), self.link.subnet.prefix());
        let (guest, here) = (self.link.address, mac(self.link.subnet.gateway()));
        // Nobody has to look for anybody.
        for arguments in [
            &["tuntap", "add", "dev", "tap0", "mode", "tap"][..],
            &["link", "set", "tap0", "address", &here, "up"],
            &["addr", "add", &gateway, "dev", "tap0"],
            &["neigh", "add", &guest.to_string(), "lladdr", &mac(guest), "dev", "tap0", "nud", "permanent"],
        ] {
            run(Command::new("ip").args(arguments))?;
        }
        let since = Instant::now();
        let (mut qmp, qmp_theirs) = inherited_pair()?;
        let (_control, control_theirs) = inherited_pair()?;
        let state = inherited(File::open(self.snapshot.join("state"))?)?;
        let (memory, mapped) = (inherited(memory(self.memory_mib)?)?, self.snapshot.join("memory"));
        let (program, arguments) = self.arguments.split_first().context("`qemu.args` is empty")?;
        let arguments = arguments.iter().map(|argument| match argument.split_once(",fd=") {
            Some(("socket,id=qmp", _)) => format!("socket,id=qmp,fd={}", qmp_theirs.as_raw_fd()),
            Some(("socket,id=control", _)) => format!("socket,id=control,fd={}", control_theirs.as_raw_fd()),
            _ => match argument.split_once(",share=") {
                Some((start, _)) if self.is_mapped => {
                    format!("{start},share=off,mem-path={}", mapped.display())
                }
                Some((start, _)) => format!("{start},share=on,mem-path=/proc/self/fd/{}", memory.as_raw_fd()),
                None => argument.clone(),
            },
        });
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let _machine = Machine(command.spawn()?);
        drop((qmp_theirs, control_theirs));
        load(&mut qmp, &state, self.is_mapped)?;
        first_byte((guest, PORT).into())?;
        Ok(since.elapsed())
    }
}

/// The link's address that mvm gives one in a tenant's network.
fn mac(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("02:6d:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// Asks for a page until the first byte of an answer is there.
pub fn first_byte(address: SocketAddr) -> Result<()> {
    let since = Instant::now();
    while since.elapsed() < DEADLINE {
        let asked = TcpStream::connect_timeout(&address, TRY).and_then(|mut stream| {
            stream.set_read_timeout(Some(DEADLINE))?;
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
            stream.read_exact(&mut [0])
        });
        if asked.is_ok() {
            return Ok(());
        }
        thread::sleep(RETRY);
    }
    bail!("no answer within {} s", DEADLINE.as_secs())
}
