//! A cold boot to the ssh banner.

use std::cell::RefCell;
use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
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
use mvm::vm::{disks, keys, network};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use rand_core::RngCore;
use tokio::runtime::Runtime;

use crate::claim::{Claim, Limit, in_turns, stated};
use crate::guest::Guest;
use crate::place::Place;

/// How long a guest has to show its banner.
const DEADLINE: Duration = Duration::from_secs(60);
/// Pause between two dials.
const RETRY: Duration = Duration::from_millis(5);

/// `mvm run` against the QEMU command line it makes, started by hand.
pub fn measure(place: &Place) -> Result<Claim> {
    let flake = place.flake("nix/examples/hello", &[])?;
    let flake = flake.to_str().context("the path is not UTF-8")?;
    let hand = Hand::learn(place, flake)?;
    let stops = RefCell::new(Vec::new());
    let ours = || {
        let port = free_port()?;
        let since = Instant::now();
        let guest = Guest::boot(place, flake, &format!("{port}:22"))?;
        banner(port)?;
        let took = since.elapsed();
        stops.borrow_mut().push(guest.stop()?);
        Ok(took)
    };
    let (ours, theirs) = in_turns(9, ours, || hand.boot())?;
    Ok(Claim {
        what: "mvm run, cold, to the ssh banner",
        ours,
        limit: Limit::Share(1.10, "the same QEMU by hand", theirs),
        stated: vec![stated("mvm stop", &stops.take())],
    })
}

/// Boots by hand what mvm would boot.
struct Hand {
    program: String,
    arguments: Vec<String>,
    upper: PathBuf,
    upper_mib: u64,
    state: PathBuf,
    runtime: Runtime,
}

impl Hand {
    /// Learns the command line from a VM of mvm's.
    fn learn(place: &Place, flake: &str) -> Result<Self> {
        let guest = Guest::boot(place, flake, "0:22")?;
        let status = guest.status()?;
        let id = status["id"].as_str().context("the VM has no id")?;
        let paths = place.paths()?;
        let text = fs::read_to_string(paths.vm(id).join("qemu.args"))?;
        let mut lines = text.lines().map(str::to_owned);
        let program = lines.next().context("`qemu.args` is empty")?;
        let theirs = paths.vm(id).join("upper.ext4");
        let upper = paths.state().join("by-hand.ext4");
        let swap = |line: String| line.replace(&*theirs.to_string_lossy(), &upper.to_string_lossy());
        let arguments = lines.map(swap).collect();
        let upper_mib = status["spec"]["disk_mib"].as_u64().context("the VM has no disk")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { program, arguments, upper, upper_mib, state: paths.state().into(), runtime })
    }

    /// Boots once. The disk and the keys are made before the clock runs.
    fn boot(&self) -> Result<Duration> {
        self.runtime.block_on(disks::make_upper(&self.upper, self.upper_mib))?;
        let port = free_port()?;
        let personalise = Request::Personalise(Box::new(identity(&self.state)?));
        let since = Instant::now();
        let (qmp, qmp_theirs) = inherited_pair()?;
        let (control, control_theirs) = inherited_pair()?;
        let arguments = self.arguments.iter().map(|argument| match argument.split_once(",fd=") {
            Some(("socket,id=qmp", _)) => format!("socket,id=qmp,fd={}", qmp_theirs.as_raw_fd()),
            Some(("socket,id=control", _)) => format!("socket,id=control,fd={}", control_theirs.as_raw_fd()),
            _ if argument.starts_with("user,") => {
                format!("{argument},hostfwd=tcp:127.0.0.1:{port}-{}:22", network::GUEST)
            }
            _ => argument.clone(),
        });
        let mut command = Command::new(&self.program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let _machine = Machine(command.spawn()?);
        drop((qmp_theirs, control_theirs));
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
}

/// A QEMU that ends with its owner.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

/// Two ends of a socket, the second of which a child keeps.
fn inherited_pair() -> Result<(UnixStream, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    fcntl(&theirs, FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok((ours, theirs))
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
            address: network::GUEST_CIDR.into(),
            gateway: Some(network::GATEWAY.into()),
            mac: None,
            dns: Vec::new(),
        }),
        volumes: Vec::new(),
        secrets: Default::default(),
        role: Some("worker".into()),
    })
}

/// Dials until an ssh server says what it is.
fn banner(port: u16) -> Result<()> {
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

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
