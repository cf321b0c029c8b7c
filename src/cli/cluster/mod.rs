//! `mvm dev cluster`.

mod init;
mod logs;
mod status;
mod updown;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

use super::context::Context;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mvm dev cluster init && mvm dev cluster up\n  curl http://127.0.0.1:8443/                a guest is woken, and answers\n  mvm dev cluster status\n  mvm coordinator routes --watch\n  mvm dev cluster logs -f\n  mvm dev cluster down\n\nIts files are in `cluster` of the state, for you to change: coordinator.toml and desired.json are read\nagain when they change, `flakes` is what the pools are built of."
)]
pub struct ClusterArgs {
    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    /// Write what is missing of its files: configuration, desired state, flakes, certificates
    Init(init::InitArgs),
    /// Start what does not run, and wait until the gateways' route answers
    Up(updown::UpArgs),
    /// Show agent, coordinator, instances and routes
    Status(status::StatusArgs),
    /// End all of it and remove its instances; files and images stay
    Down(updown::DownArgs),
    /// Show what agent and coordinator wrote
    Logs(logs::LogsArgs),
}

/// Runs the command.
pub async fn cluster(context: &mut Context, args: ClusterArgs) -> Result<ExitCode> {
    match args.command {
        ClusterCommand::Init(args) => init::init(context, args)?,
        ClusterCommand::Up(args) => updown::up(context, args).await?,
        ClusterCommand::Status(args) => return status::status(context, args).await,
        ClusterCommand::Down(args) => updown::down(context, args).await?,
        ClusterCommand::Logs(args) => logs::logs(context, args).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What `mvm status` says of the cluster; nothing where there never was one.
pub use status::{brief, brief_json};
