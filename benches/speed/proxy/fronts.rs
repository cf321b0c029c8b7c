//! The proxies, each in a process of its own, with the configuration one would give them.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mvm::agent::pki::Role;
use mvm::agent::request::{LeaseId, Request};
use mvm::agent::response::{FaultCode, InstanceSummary, Response, Woken};
use mvm::fleet::ids::InstancePath;
use mvm::fleet::state::InstanceState;
use mvm::host::child::{self, find_program};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::backend::Backend;
use super::load;
use crate::agent::{Served, run_agent, serve};
use crate::hand::free_port;
use crate::place::Place;
use crate::process;

pub const MVM: &str = "mvm";
pub const DIRECT: &str = "direct";
/// How long a proxy has to end by itself.
const GRACE: Duration = Duration::from_secs(5);
const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// A way to the backend.
pub struct Front {
    /// Whose.
    pub name: &'static str,
    /// Where clients connect.
    pub address: SocketAddr,
    /// The process that carries; none on the direct way.
    pid: Option<u32>,
}

impl Front {
    /// CPU time of all its processes so far.
    pub fn cpu(&self) -> Result<Duration> {
        self.processes()?.into_iter().map(process::cpu).sum()
    }

    /// Memory of all its processes, in bytes.
    pub fn memory(&self) -> Result<u64> {
        let kib = |pid| process::memory(pid, "VmRSS").context("it has ended");
        self.processes()?.into_iter().map(|pid| Ok(kib(pid)? * 1024)).sum()
    }

    fn processes(&self) -> Result<Vec<u32>> {
        let mut all = Vec::from_iter(self.pid);
        if let Some(pid) = self.pid {
            all.extend(process::children(pid)?);
        }
        Ok(all)
    }
}

/// All ways to one backend.
pub struct Fronts {
    /// Ours, theirs, and the one without a proxy.
    pub all: Vec<Front>,
    children: Vec<Child>,
    node: Option<Served>,
    _backend: Backend,
}

/// Why those that mvm is compared with are not here, if so.
pub fn missing() -> Option<String> {
    let lacks = |found: bool, package: &'static str| (!found).then_some(package);
    let packages: Vec<_> = [
        lacks(find_program("haproxy").is_some(), "haproxy"),
        lacks(find_program("nginx").is_some(), "nginx"),
        lacks(Path::new(NGINX_STREAM).exists(), "libnginx-mod-stream"),
    ]
    .into_iter()
    .flatten()
    .collect();
    (!packages.is_empty()).then(|| format!("not installed: {}", packages.join(", ")))
}

impl Fronts {
    /// Starts the backend and all proxies, and waits until they answer.
    pub fn open(place: &Place) -> Result<Self> {
        let place = place.within("proxy")?;
        let backend = Backend::start()?;
        let mut fronts = Self { all: Vec::new(), children: Vec::new(), node: None, _backend: backend };
        fronts.open_mvm(&place)?;
        fronts.open_haproxy(&place)?;
        fronts.open_nginx(&place)?;
        let address = fronts._backend.address;
        fronts.all.push(Front { name: DIRECT, address, pid: None });
        fronts.all.iter().try_for_each(|front| load::reach(front.address))?;
        Ok(fronts)
    }

    fn start(&mut self, names: &[(&'static str, SocketAddr)], mut command: Command) -> Result<()> {
        command.stdin(Stdio::null());
        let child = leashed(command)?;
        let pid = Some(child.id());
        self.all.extend(names.iter().map(|(name, address)| Front { name, address: *address, pid }));
        self.children.push(child);
        Ok(())
    }

    fn open_mvm(&mut self, place: &Place) -> Result<()> {
        let paths = place.paths()?;
        let pki = place.certify(&[Role::Node, Role::Coordinator], &"dev".parse()?)?;
        let stand_in = StandIn::new(self._backend.address)?;
        let node = serve(&pki, move |dir, tell, runtime, stop| {
            run_agent(dir, tell, runtime, stop, move |request| stand_in.answer(request))
        })?;
        let address = loopback()?;
        let file = paths.state().join("coordinator.toml");
        let text = format!(
            "[coordinator]\nmax_connections_per_tenant = 20000\ndrain_timeout_secs = 1\n\
             [[nodes]]\nname = \"dev\"\naddress = \"{}\"\n\
             [[routes]]\ntenant_id = \"bench\"\npool_id = \"web\"\nnode = \"dev\"\nlisten = \"{address}\"\n",
            node.address
        );
        self.node = Some(node);
        fs::write(&file, text)?;
        let mut command = place.mvm(&["coordinator", "serve", "--config"])?;
        command.arg(file);
        self.start(&[(MVM, address)], command)
    }

    fn open_haproxy(&mut self, place: &Place) -> Result<()> {
        let (plain, splice) = (loopback()?, loopback()?);
        let to = self._backend.address;
        let file = place.paths()?.state().join("haproxy.cfg");
        let text = format!(
            "global\n maxconn 9000\n maxpipes 256\n\
             defaults\n mode tcp\n maxconn 9000\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n\
             listen plain\n bind {plain}\n server backend {to}\n\
             listen splice\n option splice-auto\n bind {splice}\n server backend {to}\n"
        );
        fs::write(&file, text)?;
        let mut command = Command::new(find_program("haproxy").context("there is no haproxy")?);
        command.arg("-db").arg("-f").arg(file).stdout(Stdio::null());
        self.start(&[("haproxy", plain), ("haproxy, splice-auto", splice)], command)
    }

    fn open_nginx(&mut self, place: &Place) -> Result<()> {
        let (address, to) = (loopback()?, self._backend.address);
        let paths = place.paths()?;
        let dir = paths.state();
        let file = dir.join("nginx.conf");
        let text = format!(
            "daemon off;\nload_module {NGINX_STREAM};\nworker_processes auto;\npid nginx.pid;\n\
             events {{ worker_connections 18000; }}\n\
             stream {{ server {{ listen {address} reuseport backlog=4096; proxy_pass {to}; proxy_timeout 1h; }} }}\n"
        );
        fs::write(&file, text)?;
        let mut command = Command::new(find_program("nginx").context("there is no nginx")?);
        command.arg("-p").arg(dir).arg("-c").arg(file).args(["-e", "nginx.log"]);
        self.start(&[("nginx", address)], command)
    }
}

impl Drop for Fronts {
    fn drop(&mut self) {
        self.children.iter_mut().for_each(end);
        if let Some(node) = self.node.take() {
            // What went wrong before is what is reported.
            let _ = node.end();
        }
    }
}

/// What an agent would answer of a pool with one instance, which always runs.
struct StandIn {
    instance: InstancePath,
    lease: LeaseId,
    endpoint: SocketAddr,
}

impl StandIn {
    fn new(endpoint: SocketAddr) -> Result<Self> {
        Ok(Self { instance: "bench/web/i-00000001".parse()?, lease: "l-0123456789abcdef".parse()?, endpoint })
    }

    fn answer(&self, request: Request) -> Response {
        let (instance, endpoint) = (self.instance.clone(), self.endpoint);
        match request {
            Request::Wake { .. } => {
                Response::Woken(Woken { lease: self.lease.clone(), instance, endpoint, steps: Vec::new() })
            }
            Request::Renew { .. } => Response::Renewed,
            Request::Release { .. } => Response::Released,
            Request::InstanceList(filter) => {
                let summary = InstanceSummary {
                    path: instance,
                    state: InstanceState::Running,
                    since: jiff::Timestamp::now(),
                    endpoint: Some(endpoint),
                    revision: None,
                    leased: true,
                    at_home: true,
                };
                Response::instances([summary], &filter)
            }
            _ => Response::error(FaultCode::BadRequest, "nobody asks that here"),
        }
    }
}

/// Starts a child that does not outlive this process.
pub fn leashed(command: Command) -> Result<Child> {
    let mut command = tokio::process::Command::from(command);
    let command = child::tame(&mut command).as_std_mut();
    command.spawn().with_context(|| format!("cannot start {command:?}"))
}

/// Ends a child.
pub fn end(child: &mut Child) {
    let pid = Pid::from_raw(child.id() as i32);
    // It may have ended by itself.
    let _ = kill(pid, Signal::SIGINT);
    let since = Instant::now();
    while since.elapsed() < GRACE {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill().and_then(|()| child.wait());
}

/// A free address.
pub fn loopback() -> Result<SocketAddr> {
    Ok((std::net::Ipv4Addr::LOCALHOST, free_port()?).into())
}
