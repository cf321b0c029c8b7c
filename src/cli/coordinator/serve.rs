//! `mvm coordinator serve`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::LocalSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::Level;

use super::super::context::{Context, print};
use crate::agent::pki::{self, AUTHORITY, Role};
use crate::agent::scrape;
use crate::coordinator::admin;
use crate::coordinator::config::Config;
use crate::coordinator::control::Order;
use crate::coordinator::descriptors::Descriptors;
use crate::coordinator::metrics::Metrics;
use crate::coordinator::node::Credentials;
use crate::coordinator::serve::Coordinator;
use crate::host::files::Stamp;

/// Orders that wait.
const ORDERS: usize = 64;
/// Pause between two looks at the configuration's file.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mvm agent certs issue coordinator here\n  mvm coordinator serve --config coordinator.toml\n  mvm coordinator serve --log-format json 2>> coordinator.log\n\nThe configuration is read again when its file changes, and at SIGHUP; connections go on. SIGTERM and\n^C take nothing new and wait for what is open; a second one cuts it. `mvm coordinator routes` shows\nwhat it does."
)]
pub struct ServeArgs {
    /// The configuration [default: cluster/coordinator.toml of the state]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How the log on standard error is written
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: LogFormat,
    /// The least of what is logged: error, warn, info or debug
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: Level,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    /// A line each, with fields as key=value
    Text,
    /// A JSON object a line
    Json,
}

/// Runs the command.
pub async fn serve(context: &mut Context, args: ServeArgs) -> Result<ExitCode> {
    let file = args.config.unwrap_or_else(|| context.paths.cluster().join("coordinator.toml"));
    let config = Config::read(&file)?;
    let _lock = context.serve_alone("coordinator")?;
    log(args.log_format, args.log_level);
    let credentials = credentials(&config, &context.paths.pki())?;
    LocalSet::new().run_until(run(context, file, config, credentials)).await
}

async fn run(context: &Context, file: PathBuf, config: Config, credentials: Credentials) -> Result<ExitCode> {
    let metrics = Metrics::default();
    let (orders, mut incoming) = mpsc::channel(ORDERS);
    let stop = CancellationToken::new();
    let scraped = match config.coordinator.metrics {
        Some(address) => Some(scrape::bind(address).await?),
        None => None,
    };
    let socket = context.paths.coordinator_socket();
    let api = admin::listen(&socket)?;
    let descriptors = Descriptors::of_this_process().context("cannot see how many files may be open")?;
    let mut stamp = Stamp::of(&file);
    let mut coordinator = Coordinator::new(file.clone(), credentials, &descriptors, metrics.clone())
        .context("cannot start the threads that carry connections")?;
    let faults = coordinator.apply(config);
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    let signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    let [mut interrupt, mut terminate, mut hangup] = match signals {
        [Ok(interrupt), Ok(terminate), Ok(hangup)] => [interrupt, terminate, hangup],
        _ => bail!("cannot listen for signals"),
    };
    if let Some(listener) = scraped {
        print(&format!("metrics on http://{}/metrics", listener.local_addr()?))?;
        let text = admin::metrics_text(orders.clone(), metrics.clone());
        tokio::spawn(scrape::serve(listener, text, stop.clone()));
    }
    let api = tokio::spawn(admin::serve(api, orders, metrics, stop.clone()));
    print(&format!("coordinator listens on {} routes", coordinator.listening()))?;
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = hangup.recv() => reload(&mut coordinator),
            order = incoming.recv() => if let Some(order) = order { coordinator.take(order).await },
            _ = looks.tick() => {
                coordinator.tidy();
                let now = Stamp::of(&file);
                // One that is being replaced is not there for a moment.
                if now != stamp && now.is_some() {
                    stamp = now;
                    reload(&mut coordinator);
                }
            }
        }
    }
    coordinator.drain();
    let open = coordinator.connections();
    tracing::info!(open, "taking nothing new; waiting for what is open");
    let deadline = tokio::time::sleep(coordinator.drain_timeout());
    tokio::pin!(deadline);
    loop {
        let order = tokio::select! {
            () = coordinator.drained() => break,
            () = &mut deadline => break,
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            order = incoming.recv() => order,
        };
        if let Some(order @ (Order::Status(_) | Order::Route { .. })) = order {
            coordinator.take(order).await;
        }
    }
    let cut = coordinator.connections();
    coordinator.end().await;
    stop.cancel();
    drop(incoming);
    // Those who watch see a clean end; a panic there has been told.
    let _ = api.await;
    // Another may listen there already, but for its lock.
    let _ = std::fs::remove_file(&socket);
    tracing::info!(cut, "the coordinator has ended");
    Ok(ExitCode::SUCCESS)
}

fn reload(coordinator: &mut Coordinator) {
    // What is wrong with it is in the log and in the status.
    let _ = coordinator.reload();
}

/// The certificates that the configuration names, or those of the state.
fn credentials(config: &Config, pki: &Path) -> Result<Credentials> {
    let identity = match &config.coordinator.tls_identity {
        Some(file) => file.clone(),
        None => {
            let status = pki::status(pki)?;
            let ours = status
                .certificates
                .into_iter()
                .filter(|listed| listed.certificate.as_ref().is_ok_and(|one| one.role == Role::Coordinator));
            let mut found = ours.map(|listed| listed.path);
            let dir = pki.display();
            match (found.next(), found.next()) {
                (Some(one), None) => one,
                (None, _) => bail!(
                    "there is no certificate of a coordinator in `{dir}`\nhelp: `mvm agent certs issue coordinator NAME`, or `tls_identity` in the configuration"
                ),
                (Some(_), Some(_)) => bail!(
                    "there are several certificates of coordinators in `{dir}`\nhelp: name one by `tls_identity` in the configuration"
                ),
            }
        }
    };
    let authority = config.coordinator.tls_ca.clone().unwrap_or_else(|| identity.with_file_name(AUTHORITY));
    // What cannot be read is told now, and not by a log.
    pki::Identity::load(&identity)?;
    pki::Authority::load(&authority)?;
    Ok(Credentials { identity, authority })
}

fn log(format: LogFormat, level: Level) {
    let builder =
        tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_target(false);
    // There is one already only in a process that has called this.
    let _ = match format {
        LogFormat::Text => tracing::subscriber::set_global_default(builder.with_ansi(false).finish()),
        LogFormat::Json => {
            tracing::subscriber::set_global_default(builder.json().flatten_event(true).finish())
        }
    };
}
