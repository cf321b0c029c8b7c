//! What mvm does with QEMU, done by hand.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use mvm::guest::client::AgentClient;
use mvm::guest::frames::{Network, Personalise, Request};
use mvm::host::sparse;
use mvm::vm::{disks, keys, network};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use rand_core::RngCore;
use tokio::runtime::Runtime;

use crate::guest::{Guest, Start};
use crate::place::Place;

/// How long a guest has to show its banner.
const DEADLINE: Duration = Duration::from_secs(60);
/// Pause between two dials.
const RETRY: Duration = Duration::from_millis(5);

/// Starts by hand what mvm would start.
pub struct Hand {
    program: String,
    arguments: Vec<String>,
    upper: PathBuf,
    upper_mib: u64,
    memory_mib: u64,
    state: PathBuf,
    /// The snapshot, when the machine is to go on from one.
    snapshot: Option<PathBuf>,
    runtime: Runtime,
}

impl Hand {
    /// Learns the command line from a VM of mvm's.
    pub fn learn(place: &Place, flake: &str, start: Start) -> Result<Self> {
        let guest = Guest::boot(place, flake, "0:22", start)?;
        let status = guest.status()?;
        let id = status["id"].as_str().context("the VM has no id")?;
        let paths = place.paths()?;
        let text = fs::read_to_string(paths.vm(id).join("qemu.args"))?;
        let mut lines = text.lines().map(str::to_owned);
        let program = lines.next().context("`qemu.args` is empty")?;
        let theirs = paths.vm(id).join("upper.ext4");
        let upper = paths.state().join("by-hand.ext4");
        let swap = |line: String| line.replace(&*theirs.to_string_lossy(), &upper.to_string_lossy());
        let arguments: Vec<String> = lines.map(swap).collect();
        let memory = arguments.iter().find_map(|line| Some(line.split_once("share=off,mem-path=")?.1));
        let snapshot = memory.and_then(|file| Some(Path::new(file).parent()?.to_path_buf()));
        ensure!(snapshot.is_some() == (start == Start::Restored), "the VM started in another way");
        let number = |name: &str| status["spec"][name].as_u64().with_context(|| format!("no {name}"));
        Ok(Self {
            program,
            arguments,
            upper,
            upper_mib: number("disk_mib")?,
            memory_mib: number("memory_mib")?,
            state: paths.state().into(),
            snapshot,
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
        })
    }

    /// Starts once, to the banner. The disk and the keys are made before the clock runs.
    pub fn start(&self) -> Result<Duration> {
        self.make_disk()?;
        let port = free_port()?;
        let personalise = Request::Personalise(Box::new(identity(&self.state)?));
        let since = Instant::now();
        let (mut qmp, qmp_theirs) = inherited_pair()?;
        let (control, control_theirs) = inherited_pair()?;
        let memory = inherited(memory(self.memory_mib)?)?;
        let state = match &self.snapshot {
            Some(dir) => Some(inherited(File::open(dir.join("state"))?)?),
            None => None,
        };
        let arguments = self.arguments.iter().map(|argument| match argument.split_once(",fd=") {
            Some(("socket,id=qmp", _)) => format!("socket,id=qmp,fd={}", qmp_theirs.as_raw_fd()),
            Some(("socket,id=control", _)) => format!("socket,id=control,fd={}", control_theirs.as_raw_fd()),
            _ if argument.starts_with("user,") => {
                format!("{argument},hostfwd=tcp:127.0.0.1:{port}-{}:22", network::GUEST)
            }
            _ => match argument.split_once("/proc/self/fd/") {
                Some((before, _)) => format!("{before}/proc/self/fd/{}", memory.as_raw_fd()),
                None => argument.clone(),
            },
        });
        let mut command = Command::new(&self.program);
        command.args(arguments.map(OsString::from));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let _machine = Machine(command.spawn()?);
        drop((qmp_theirs, control_theirs));
        if let Some(state) = &state {
            load(&mut qmp, state, true)?;
        }
        self.runtime.block_on(async {
            control.set_nonblocking(true)?;
            let (agent, driver) = AgentClient::start(tokio::net::UnixStream::from_std(control)?);
            let driver = tokio::spawn(driver);
            let personalised = async {
                agent.hello().await?;
                agent.request(personalise).await
            };
            tokio::time::timeout(DEADLINE, personalised).await.context("the guest is late")??;
            driver.abort();
            anyhow::Ok(())
        })?;
        banner(port)?;
        drop(qmp);
        Ok(since.elapsed())
    }

    fn make_disk(&self) -> Result<()> {
        match &self.snapshot {
            None => self.runtime.block_on(disks::make_upper(&self.upper, self.upper_mib))?,
            Some(dir) => {
                // Absent the first time.
                let _ = fs::remove_file(&self.upper);
                sparse::copy(&File::open(dir.join("upper.ext4"))?, &self.upper)?;
            }
        }
        Ok(())
    }
}

/// A guest's memory.
pub fn memory(mib: u64) -> Result<File> {
    let file = File::from(memfd_create(c"by-hand", MFdFlags::empty())?);
    file.set_len(mib * 1024 * 1024)?;
    Ok(file)
}

/// Has QEMU load the machine, and lets it go on. Its memory is mapped, or comes with the rest.
pub fn load(qmp: &mut UnixStream, state: &File, is_mapped: bool) -> Result<()> {
    qmp.set_read_timeout(Some(DEADLINE))?;
    let mut answers = BufReader::new(qmp.try_clone()?);
    let mut execute = |command: &str, arguments: serde_json::Value| {
        let line = serde_json::json!({ "execute": command, "arguments": arguments });
        writeln!(qmp, "{line}")?;
        loop {
            let mut line = String::new();
            ensure!(answers.read_line(&mut line)? > 0, "QEMU ended");
            let answer: serde_json::Value = serde_json::from_str(&line)?;
            ensure!(answer.get("error").is_none(), "QEMU refused {command}: {line}");
            if let Some(value) = answer.get("return") {
                return anyhow::Ok(value.clone());
            }
        }
    };
    let none = || serde_json::json!({});
    execute("qmp_capabilities", none())?;
    let capability = serde_json::json!([{ "capability": "x-ignore-shared", "state": is_mapped }]);
    execute("migrate-set-capabilities", serde_json::json!({ "capabilities": capability }))?;
    execute("migrate-incoming", serde_json::json!({ "uri": format!("fd:{}", state.as_raw_fd()) }))?;
    while execute("query-status", none())?["status"] == "inmigrate" {
        thread::sleep(Duration::from_millis(1));
    }
    execute("cont", none())?;
    Ok(())
}

/// A QEMU that ends with its owner.
pub struct Machine(pub Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// Two ends of a socket, the second of which a child keeps.
pub fn inherited_pair() -> Result<(UnixStream, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    Ok((ours, inherited(theirs)?))
}

/// Has a child keep a descriptor.
pub fn inherited<F: AsFd>(file: F) -> Result<F> {
    fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(file)
}

fn identity(state: &Path) -> Result<Personalise> {
    let key = keys::host_key()?;
    let mut entropy = [0; 64];
    rand_core::OsRng.fill_bytes(&mut entropy);
    Ok(Personalise {
        time_ns: u64::try_from(jiff::Timestamp::now().as_nanosecond())?,
        entropy: BASE64_STANDARD.encode(entropy),
        hostname: "by-hand".into(),
        ssh_host_key: key.openssh,
        ssh_host_key_dropbear: key.dropbear,
        authorized_keys: vec![keys::user_key(state)?.1],
        network: Some(Network {
            address: format!("{}/24", network::GUEST),
            gateway: Some(network::GATEWAY.to_string()),
            mac: None,
            dns: Vec::new(),
        }),
        volumes: Vec::new(),
        secrets: Default::default(),
        role: Some("worker".into()),
    })
}

/// Dials until an ssh server says what it is.
pub fn banner(port: u16) -> Result<()> {
    let since = Instant::now();
    while since.elapsed() < DEADLINE {
        let mut start = [0; 4];
        let read = TcpStream::connect(("127.0.0.1", port)).and_then(|mut stream| {
            stream.set_read_timeout(Some(DEADLINE))?;
            stream.read_exact(&mut start)
        });
        if read.is_ok() {
            ensure!(&start == b"SSH-", "port {port} is not ssh's");
            return Ok(());
        }
        thread::sleep(RETRY);
    }
    bail!("no banner within {} s", DEADLINE.as_secs())
}

pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
