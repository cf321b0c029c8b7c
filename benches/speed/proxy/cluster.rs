//! A coordinator and an agent with a pool of one real guest, which sleeps unless it is used.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mvm::agent::pki::Role;
use mvm::coordinator::status::{RouteStatus, Status};
use mvm::fleet::ids::InstanceId;

use super::fronts::{end, leashed, loopback};
use crate::place::Place;
use crate::process::run;

/// Connections that the guest has at once.
const AT_ONCE: u32 = 64;
/// How long connections whose clients have gone may stay, and the pause between two looks.
const LAST_CONNECTION: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(20);

/// A cluster of one node; ended, and its tenant destroyed, when it is dropped.
pub struct Cluster<'a> {
    place: &'a Place,
    /// Where clients connect.
    pub route: SocketAddr,
    /// The pool's instance.
    pub instance: InstanceId,
    children: Vec<Child>,
}

impl<'a> Cluster<'a> {
    /// Builds and boots the guest, has it sleep, and starts both.
    pub fn open(place: &'a Place) -> Result<Self> {
        let page = ("www/index.html", "It works.\n");
        let flake = place.flake("nix/examples/gateway", &[page])?;
        run(&mut place.mvm(&["tenant", "create", "front"])?)?;
        let policy = ["--min-running", "0", "--min-warm", "0"];
        run(place.mvm(&["pool", "create", "front/web", "--flake"])?.arg(flake).args(policy))?;
        let route = loopback()?;
        let mut cluster = Self { place, route, instance: "i-00000000".parse()?, children: Vec::new() };
        run(&mut place.mvm(&["pool", "scale", "front/web", "--sleeping", "1"])?)?;
        place.certify(&[Role::Node, Role::Coordinator], &"bench".parse()?)?;
        let listens = cluster.start(&["agent", "serve", "--listen", "127.0.0.1:0"])?;
        let agent = listens.split_whitespace().find_map(|word| word.parse::<SocketAddr>().ok());
        let agent = agent.with_context(|| format!("the agent says `{listens}`"))?;
        let file = place.paths()?.state().join("front.toml");
        let text = format!(
            "[coordinator]\nidle_timeout_secs = 600\nwake_timeout_secs = 120\nmax_connections_per_tenant = 2000\n\
             max_queued_per_route = 2000\ndrain_timeout_secs = 1\n\
             [[nodes]]\nname = \"bench\"\naddress = \"{agent}\"\n\
             [[routes]]\ntenant_id = \"front\"\npool_id = \"web\"\nnode = \"bench\"\nlisten = \"{route}\"\n\
             max_connections_per_instance = {AT_ONCE}\n"
        );
        fs::write(&file, text)?;
        let file = file.to_str().context("the path is not UTF-8")?;
        cluster.start(&["coordinator", "serve", "--config", file])?;
        // Once around, so that it has a snapshot of its own.
        run(&mut place.mvm(&["coordinator", "wake", &route.to_string()])?)?;
        let status = cluster.status()?;
        let path = &status.instances.first().context("the pool has no instance")?.path;
        cluster.instance = path.instance.clone();
        cluster.sleep()?;
        Ok(cluster)
    }

    /// Starts a part of it; its first line says that it is there.
    fn start(&mut self, arguments: &[&str]) -> Result<String> {
        let mut command = self.place.mvm(arguments)?;
        command.stdout(Stdio::piped());
        let mut child = leashed(command)?;
        let output = child.stdout.take();
        self.children.push(child);
        let mut line = String::new();
        BufReader::new(output.context("it has no output")?).read_line(&mut line)?;
        ensure!(!line.is_empty(), "`mvm {}` has ended", arguments.join(" "));
        Ok(line)
    }

    /// Has the guest sleep, once the last connection to it has ended.
    pub fn sleep(&self) -> Result<()> {
        let since = Instant::now();
        while self.status()?.connections > 0 {
            ensure!(since.elapsed() < LAST_CONNECTION, "connections stay open");
            std::thread::sleep(RETRY);
        }
        run(&mut self.place.mvm(&["coordinator", "sleep", &self.route.to_string()])?).map(drop)
    }

    /// How the route stands.
    pub fn status(&self) -> Result<RouteStatus> {
        let mut command = self.place.mvm(&["coordinator", "routes", "--json"])?;
        let output = command.stdout(Stdio::piped()).output()?;
        let status: Status = serde_json::from_slice(&output.stdout)?;
        status.routes.into_iter().next().context("there is no route")
    }
}

impl Drop for Cluster<'_> {
    fn drop(&mut self) {
        // The coordinator before its agent.
        self.children.iter_mut().rev().for_each(end);
        // Whatever went wrong before is what is reported.
        let destroy = self.place.mvm(&["tenant", "destroy", "front", "--force"]);
        let _ = destroy.and_then(|mut command| run(&mut command));
    }
}
