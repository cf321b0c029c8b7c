//! `mvm agent serve`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, anyhow, bail};
use clap::Args;
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use super::super::context::{Context, print, say};
use crate::agent::limits::Limits;
use crate::agent::metrics::Metrics;
use crate::agent::owner::{Owner, watch};
use crate::agent::pki::{self, AUTHORITY, Authority, Identity, Role};
use crate::agent::response::NodeInfo;
use crate::agent::scrape;
use crate::agent::server::{Backend, Server};
use crate::event::{Event, Kind};
use crate::headless::lines::Lines;
use crate::host::node;
use crate::run::machine::MachineChoice;
use crate::vm::config::RuntimeConfig;

/// Requests that wait for the fleet.
const WAITING: usize = 256;
/// Events that a slow listener may be behind.
const BEHIND: usize = 1024;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mvm agent certs init && mvm agent certs issue node here\n  mvm agent serve --desired desired.json\n  mvm agent serve --listen 127.0.0.1:4433 --metrics 127.0.0.1:9433\n\nWithout --desired, what `mvm tenant` and `mvm pool` have set is kept true. Instances go on when the\nagent ends; the next one takes them over. SIGHUP reads the certificate again. It listens by QUIC (UDP)."
)]
pub struct ServeArgs {
    /// File with the desired state, JSON; it is read again whenever it changes
    #[arg(long, value_name = "FILE")]
    desired: Option<PathBuf>,
    /// Where it listens
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:4433")]
    listen: SocketAddr,
    /// Where it tells Prometheus its numbers; loopback only
    #[arg(long, value_name = "ADDR")]
    metrics: Option<SocketAddr>,
    /// The node's certificate with its key [default: the one of a node in cluster/pki of the state]
    #[arg(long, value_name = "FILE")]
    tls_identity: Option<PathBuf>,
    /// The cluster's authority [default: ca.pem beside the certificate]
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
}

/// Runs the command.
pub async fn serve(context: &mut Context, args: ServeArgs) -> Result<ExitCode> {
    // A mistake in the file is told now, and not by a log.
    if let Some(file) = &args.desired {
        watch::read(file).map_err(|error| anyhow!(error))?;
    }
    let _lock = context.serve_alone("agent")?;
    let identity_file = match args.tls_identity {
        Some(file) => file,
        None => node_certificate(&context.paths.pki())?,
    };
    let authority_file = args.tls_ca.unwrap_or_else(|| identity_file.with_file_name(AUTHORITY));
    let (identity, authority) = (Identity::load(&identity_file)?, Authority::load(&authority_file)?);
    let (fleet, incoming) = mpsc::channel(WAITING);
    let (events, listener) = broadcast::channel(BEHIND);
    let metrics = Metrics::default();
    let backend = Backend { fleet, events: events.clone(), metrics: metrics.clone() };
    let server = Server::bind(args.listen, &identity, &authority, backend, Limits::default())?;
    let stop = CancellationToken::new();
    if let Some(address) = args.metrics {
        let listener = scrape::bind(address).await?;
        print(&format!("metrics on http://{}/metrics", listener.local_addr()?))?;
        let metrics = metrics.clone();
        let text = move || std::future::ready(metrics.text());
        tokio::spawn(scrape::serve(listener, text, stop.clone()));
    }
    let node = node_info(context, identity.certificate().name.as_str()).await?;
    print(&format!("agent {} listens on {}", node.node, server.local_addr()?))?;
    let owner = Owner { paths: context.paths.clone(), node, desired: args.desired, events, metrics };
    let log = tokio::spawn(log(listener));
    // The owner ends first: what it has begun is still told to subscribers.
    let (owned, (), ()) = tokio::join!(
        async {
            let owned = owner.run(incoming, stop.clone()).await;
            stop.cancel();
            owned
        },
        server.run(stop.clone()),
        signals(&server, &identity_file, &stop),
    );
    // The last who could tell of anything.
    drop(server);
    drop(log.await);
    owned?;
    say("the agent has ended; its instances go on");
    Ok(ExitCode::SUCCESS)
}

/// The one certificate of a node there is.
fn node_certificate(dir: &Path) -> Result<PathBuf> {
    let status = pki::status(dir)?;
    let is_node = |listed: &&pki::Listed| listed.certificate.as_ref().is_ok_and(|one| one.role == Role::Node);
    let found: Vec<_> = status.certificates.iter().filter(is_node).map(|listed| &listed.path).collect();
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => bail!(
            "there is no certificate of a node in `{}`\nhelp: `mvm agent certs issue node NAME`",
            dir.display()
        ),
        _ => bail!("there are {} certificates of nodes\nhelp: choose one by --tls-identity", found.len()),
    }
}

async fn node_info(context: &Context, name: &str) -> Result<NodeInfo> {
    let machine = MachineChoice::new(&RuntimeConfig::default(), &context.paths).await?;
    Ok(NodeInfo {
        node: name.into(),
        version: env!("CARGO_PKG_VERSION").into(),
        hypervisor: format!(
            "{}/{}",
            machine.hypervisor.name().to_lowercase(),
            if machine.kvm { "kvm" } else { "emulated" }
        ),
        network: format!("{:?}", machine.network).to_lowercase(),
        cpus: node::cpus(),
        memory_mib: node::memory_mib(),
        started: Timestamp::now(),
    })
}

/// Ends at the first signal that asks for it, or with the rest; reads the certificate again at SIGHUP.
async fn signals(server: &Server, identity: &Path, stop: &CancellationToken) {
    let streams = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = streams else { return };
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            () = stop.cancelled() => return,
            _ = hangup.recv() => {
                let loaded = Identity::load(identity).map_err(anyhow::Error::from);
                match loaded.and_then(|identity| Ok(server.use_identity(&identity)?)) {
                    Ok(()) => say("the certificate was read again"),
                    Err(error) => say(&format!("error: the certificate stays as it was: {error}")),
                }
            }
        }
    }
    stop.cancel();
}

/// Writes what happens to standard error until there is nothing more to come.
async fn log(mut events: broadcast::Receiver<Event>) {
    let mut tasks: HashMap<String, Lines> = HashMap::new();
    loop {
        let event = match events.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(lost)) => {
                say(&format!("{} {lost} events were too many for this log", now()));
                // The ends of some tasks may be among them, and would never come.
                tasks.clear();
                continue;
            }
            Err(RecvError::Closed) => return,
        };
        let task = event.task.as_str().to_string();
        let lines = tasks.entry(task.clone()).or_insert_with(|| Lines::new(false));
        for line in lines.lines(&event) {
            say(&format!("{} {}", now(), line.render(false).trim()));
        }
        if matches!(event.kind, Kind::TaskEnded { .. }) {
            tasks.remove(&task);
        }
    }
}

fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
