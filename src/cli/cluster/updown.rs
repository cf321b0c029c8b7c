//! `mvm dev cluster up` and `down`.

use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::super::context::{Context, print, say};
use super::super::{machine, task};
use crate::cluster::plan::Plan;
use crate::cluster::status::{PartState, parts};
use crate::cluster::{down, up};
use crate::event::TaskKind;
use crate::host::setup::SetupOptions;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mvm dev cluster up\n  mvm dev cluster up --timeout 1800\n\nInstalls what is missing, starts agent and coordinator in the background, has the pools' images built\nand their guests booted, and is done when an HTTP request through the gateways' route is answered. What\nruns already is left alone, what has crashed is started again. If it fails, what it started is ended."
)]
pub struct UpArgs {
    /// How long all of it may take, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = up::TIMEOUT.as_secs(), value_parser = clap::value_parser!(u64).range(1..=86400))]
    timeout: u64,
}

/// Starts the cluster.
pub async fn up(context: &mut Context, args: UpArgs) -> Result<()> {
    // What is wrong with the files is told before anything is installed.
    Plan::read(&context.paths)?;
    let runs = parts(&context.paths).iter().all(|part| part.state == PartState::Running);
    if !runs {
        machine::prepare(context, SetupOptions::usual()).await?;
    }
    let within = Duration::from_secs(args.timeout);
    let title = "start the cluster".to_string();
    let up = task::run(context, TaskKind::Cluster, title, async |paths, store, sink, cancel| {
        Ok(up::up(within, paths, store, sink, cancel).await?)
    })
    .await?;
    if context.json {
        return Ok(());
    }
    say(match up.started.len() {
        0 => "the cluster runs already",
        _ => "the cluster runs",
    });
    if up.answer.is_none() {
        say("note: there is no HTTP route with instances to try");
    }
    let answered = up.answer.as_ref().map(|answer| answer.url.as_str());
    for (listen, target) in &up.routes {
        let http = format!("http://{listen}/");
        match answered {
            Some(url) if url.starts_with(&http) => print(&format!("{url}  {target}"))?,
            _ => print(&format!("{listen}  {target}"))?,
        }
    }
    Ok(())
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mvm dev cluster down\n  mvm dev cluster down --purge\n\nConnections have their time to end, then coordinator, agent, and the pools of the desired state go, with\ninstances and disks. What you may have changed stays: configuration, desired state, flakes,\ncertificates, other pools. `mvm dev cluster up` begins anew."
)]
pub struct DownArgs {
    /// Remove the images of its pools, too
    #[arg(long)]
    purge: bool,
}

/// Ends the cluster.
pub async fn down(context: &mut Context, args: DownArgs) -> Result<()> {
    let title = "end the cluster".to_string();
    let down = task::run(context, TaskKind::Cluster, title, async |paths, store, sink, cancel| {
        Ok(down::down(args.purge, paths, store, sink, cancel).await?)
    })
    .await?;
    if context.json {
        return Ok(());
    }
    if down == down::Down::default() {
        say("nothing of the cluster runs");
        return Ok(());
    }
    let many = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let mut removed = vec![many(down.pools.len(), "pool"), many(down.instances, "instance")];
    if args.purge {
        removed.push(many(down.builds, "image"));
    }
    say(&format!("the cluster has ended; removed {}", removed.join(", ")));
    Ok(())
}
