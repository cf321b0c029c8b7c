//! Machines for the contract: a backend with a guest that counts on its console.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use mvm::host::child::find_program;
use mvm::host::kvm;
use mvm::host::paths::Paths;
use mvm::vm::hypervisor::qemu::{self, tsc};
use mvm::vm::hypervisor::{Disk, Hypervisor, HypervisorError, Launch, Machine, Tap, firecracker};
use mvm::vm::spec::{HypervisorKind, VmSpec};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::ChildStdout;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

use crate::bare;
use crate::support::{DEADLINE, World};

/// A console that says nothing for so long says nothing more.
const SILENCE: Duration = Duration::from_millis(300);

/// What a Linux guest does as the bare one does.
const COUNT: &str = "
b=/bin/busybox
exec >/dev/console
echo hello
n=0
while :; do
	n=$((n + 1))
	printf 'n=%016x\\n' $n
	$b usleep 20000
done";

/// A hypervisor, and a guest for it.
#[derive(Debug, Clone)]
pub struct Backend {
    pub kind: HypervisorKind,
    pub program: PathBuf,
    pub kernel: PathBuf,
    pub initrd: Option<PathBuf>,
    /// The root, read only; a file of no use to guests that count.
    pub rootfs: PathBuf,
    pub command_line: String,
    pub memory_mib: u32,
    pub cpus: u32,
    /// Whether the guest ends when the power button is pressed.
    pub heeds_the_button: bool,
}

impl Backend {
    /// QEMU with a Linux that counts.
    pub async fn qemu(place: &Path) -> Option<Self> {
        let Some(program) = find_program(qemu::PROGRAM) else {
            println!("SKIPPED: no {} is installed", qemu::PROGRAM);
            return None;
        };
        let khz = tsc::khz().await.map(|khz| format!(" tsc_early_khz={khz}")).unwrap_or_default();
        Some(Self::linux(HypervisorKind::Qemu, program, format!("{}{khz}", qemu::COMMAND_LINE), place))
    }

    /// Firecracker with the bare guest.
    pub async fn firecracker(place: &Path) -> Option<Self> {
        let program = firecracker_program()?;
        Some(Self {
            kind: HypervisorKind::Firecracker,
            program,
            kernel: bare::kernel(place)?,
            initrd: None,
            rootfs: empty_disk(place),
            command_line: "console=ttyS0".into(),
            memory_mib: 32,
            cpus: 1,
            heeds_the_button: true,
        })
    }

    /// Firecracker with a Linux that counts, where KVM is real.
    pub async fn firecracker_linux(place: &Path) -> Option<Self> {
        let program = firecracker_program()?;
        if let Err(why) = real_kvm() {
            println!("SKIPPED: Linux in Firecracker needs KVM: {why}");
            return None;
        }
        Some(Self::linux(HypervisorKind::Firecracker, program, firecracker::COMMAND_LINE.into(), place))
    }

    fn linux(kind: HypervisorKind, program: PathBuf, command_line: String, place: &Path) -> Self {
        static GUEST: OnceLock<PathBuf> = OnceLock::new();
        let guest = GUEST.get_or_init(|| {
            let world = World::new();
            let flake = world.odd_guest("counting", COUNT);
            let built = PathBuf::from(world.ok(["build", "--flake", flake.to_str().unwrap()]).trim());
            let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("counting-guest");
            fs::create_dir_all(&kept).unwrap();
            for file in ["vmlinux", "initrd"] {
                // Beside and then in its place: another run may read it.
                let beside = kept.join(format!("{file}.{}", std::process::id()));
                fs::copy(built.join(file), &beside).unwrap();
                fs::rename(beside, kept.join(file)).unwrap();
            }
            kept
        });
        Self {
            kind,
            program,
            kernel: guest.join("vmlinux"),
            initrd: Some(guest.join("initrd")),
            rootfs: empty_disk(place),
            command_line,
            memory_mib: 96,
            cpus: 1,
            heeds_the_button: false,
        }
    }

    /// Starts a machine in `dir`, with its own disk in it.
    pub async fn start(&self, dir: &Path, launch: Launch<'_>) -> Result<Vm, HypervisorError> {
        self.start_on(None, dir, launch).await
    }

    /// Starts a machine on a network.
    pub async fn start_on(
        &self,
        tap: Option<Tap<'_>>,
        dir: &Path,
        launch: Launch<'_>,
    ) -> Result<Vm, HypervisorError> {
        fs::create_dir_all(dir).unwrap();
        let upper = dir.join("upper.ext4");
        if !upper.exists() {
            File::create(&upper).unwrap().set_len(1 << 20).unwrap();
        }
        let lock = File::create(dir.join("lock")).unwrap();
        let disk = |path: &Path, read_only| Disk { path: path.into(), read_only };
        let mut hypervisor: Box<dyn Hypervisor> = {
            let spec = self.spec();
            let machine = Machine {
                program: &self.program,
                dir,
                spec: &spec,
                kernel: &self.kernel,
                initrd: self.initrd.as_deref(),
                command_line: &self.command_line,
                disks: &[disk(&self.rootfs, true), disk(&upper, false)],
                shares: &[],
                mac: "02:00:00:00:00:01",
                tap,
                lock: lock.as_fd(),
            };
            match self.kind {
                HypervisorKind::Qemu => Box::new(qemu::start(&machine, launch).await?),
                HypervisorKind::Firecracker => Box::new(firecracker::start(&machine, launch).await?),
            }
        };
        let console = Console::read(hypervisor.child().stdout.take().unwrap());
        Ok(Vm { hypervisor, console, dir: dir.into() })
    }

    /// A machine that counts.
    pub async fn boot(&self, dir: &Path) -> Vm {
        let mut vm = self.start(dir, Launch::Cold).await.unwrap();
        vm.console.line("hello").await;
        vm.console.number().await;
        vm
    }

    /// Loads a machine that does not count yet.
    pub async fn load(&self, dir: &Path, snapshot: &Path) -> Result<Vm, HypervisorError> {
        let mut vm = self.start(dir, Launch::Restore(snapshot)).await?;
        vm.hypervisor.load(snapshot).await?;
        Ok(vm)
    }

    fn spec(&self) -> VmSpec {
        serde_json::from_value(json!({
            "id": "v-00000001", "name": "contract", "build_dir": "/", "cpus": self.cpus,
            "memory_mib": self.memory_mib, "disk_mib": 1, "kernel_args": [], "ports": [], "volumes": [],
            "network": "user", "egress": false, "kvm": real_kvm().is_ok(), "role": null,
            "boot_timeout_secs": 60, "remove": false, "hypervisor": self.kind,
        }))
        .unwrap()
    }
}

/// Whether KVM is one that runs a Linux, or why not.
pub fn real_kvm() -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths::at(dir.path().join("s"), dir.path().join("r")).unwrap();
    kvm::usable(&paths).map_err(|why| why.reason())
}

fn firecracker_program() -> Option<PathBuf> {
    let Some(program) = find_program(mvm::host::firecracker::PROGRAM) else {
        println!("SKIPPED: no firecracker is on PATH");
        return None;
    };
    if let Err(error) = File::options().read(true).write(true).open("/dev/kvm") {
        println!("SKIPPED: /dev/kvm cannot be opened: {error}");
        return None;
    }
    Some(program)
}

fn empty_disk(place: &Path) -> PathBuf {
    let path = place.join("rootfs.ext4");
    File::create(&path).unwrap().set_len(1 << 20).unwrap();
    path
}

/// A machine with its console.
#[derive(Debug)]
pub struct Vm {
    pub hypervisor: Box<dyn Hypervisor>,
    pub console: Console,
    pub dir: PathBuf,
}

impl Vm {
    /// Its process.
    pub fn pid(&mut self) -> u32 {
        self.hypervisor.child().id().unwrap()
    }

    /// Ends it, and waits for that.
    pub async fn end(mut self) {
        self.hypervisor.child().kill().await.unwrap();
    }

    /// Pauses it; returns the last number it said.
    pub async fn pause(&mut self) -> u64 {
        self.hypervisor.pause().await.unwrap();
        self.console.silence().await
    }

    /// Saves it, paused, into a new directory.
    pub async fn save(&mut self, dir: &Path) {
        fs::create_dir(dir).unwrap();
        self.hypervisor.save(dir).await.unwrap();
    }

    /// Files it has open.
    pub fn open_files(&mut self) -> Vec<PathBuf> {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap().flatten();
        descriptors.filter_map(|entry| fs::read_link(entry.path()).ok()).collect()
    }
}

/// Lines of a guest's console.
#[derive(Debug)]
pub struct Console {
    lines: UnboundedReceiver<String>,
    last: u64,
}

impl Console {
    fn read(output: ChildStdout) -> Self {
        let (sender, lines) = unbounded_channel();
        tokio::spawn(async move {
            let mut lines = BufReader::new(output).split(b'\n');
            while let Ok(Some(line)) = lines.next_segment().await {
                // A machine whose lines nobody reads has an end in sight.
                let _ = sender.send(String::from_utf8_lossy(&line).trim_end().to_string());
            }
        });
        Self { lines, last: 0 }
    }

    /// Waits for a line; returns the number in it, if it is one.
    async fn next(&mut self, patience: Duration) -> Option<Option<u64>> {
        let line = timeout(patience, self.lines.recv()).await.ok()?.expect("a console that goes on");
        // A machine may have been saved in the middle of a line.
        let number = line.strip_prefix("n=").filter(|digits| digits.len() == 16);
        let number = number.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        self.last = number.unwrap_or(self.last);
        Some(number)
    }

    /// Waits for a line that is `text`.
    pub async fn line(&mut self, text: &str) {
        let look = async { while self.lines.recv().await.expect("a console that goes on") != text {} };
        timeout(DEADLINE, look).await.unwrap_or_else(|_| panic!("no line `{text}`"));
    }

    /// The next number.
    pub async fn number(&mut self) -> u64 {
        let look = async {
            loop {
                if let Some(Some(number)) = self.next(DEADLINE).await {
                    return number;
                }
            }
        };
        timeout(DEADLINE, look).await.expect("a guest that counts")
    }

    /// Reads until nothing more comes; returns the last number.
    pub async fn silence(&mut self) -> u64 {
        let look = async { while self.next(SILENCE).await.is_some() {} };
        timeout(DEADLINE, look).await.expect("a guest that falls silent");
        self.last
    }
}
