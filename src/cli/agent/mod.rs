//! `mvm agent`.

mod certs;
mod reconcile;
mod serve;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

use super::context::Context;

#[derive(Debug, Args)]
pub struct AgentArgs {
    #[command(subcommand)]
    command: AgentCommand,
}

#[derive(Debug, Subcommand)]
enum AgentCommand {
    /// Keep a desired state true, and answer the coordinator and operators, until it is ended
    Serve(serve::ServeArgs),
    /// Make a desired state true once, or say what that would take
    Reconcile(reconcile::ReconcileArgs),
    /// Make and look after the certificates with which agents and their peers know each other
    Certs(certs::CertsArgs),
}

/// Runs the command.
pub async fn agent(context: &mut Context, args: AgentArgs) -> Result<ExitCode> {
    match args.command {
        AgentCommand::Serve(args) => serve::serve(context, args).await,
        AgentCommand::Reconcile(args) => reconcile::reconcile(context, args).await,
        AgentCommand::Certs(args) => certs::certs(context, args),
    }
}
