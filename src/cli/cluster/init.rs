//! `mvm dev cluster init`.

use std::net::SocketAddr;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use super::super::context::{Context, print, print_json, say};
use super::super::report::Usage;
use crate::cluster::error::ClusterError;
use crate::cluster::init::{self, AGENT, GATEWAYS, Options, Written};

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mvm dev cluster init\n  mvm dev cluster init --listen 127.0.0.1:9443 --agent 127.0.0.1:5433\n  mvm dev cluster init --recreate\n\nWhat is there already is left as it is, and named; --recreate writes it anew and keeps the old one\nbeside it. Everything listens on loopback."
)]
pub struct InitArgs {
    /// Where the agent is to listen (UDP)
    #[arg(long, value_name = "ADDR", default_value_t = AGENT)]
    agent: SocketAddr,
    /// Where clients reach the gateways (TCP)
    #[arg(long, value_name = "ADDR", default_value_t = GATEWAYS)]
    listen: SocketAddr,
    /// Where clients reach the workers (TCP) [default: the port after the gateways']
    #[arg(long, value_name = "ADDR")]
    listen_workers: Option<SocketAddr>,
    /// Write all files anew, but for certificates; what was there is kept under another name
    #[arg(long)]
    recreate: bool,
}

/// Runs the command.
pub fn init(context: &Context, args: InitArgs) -> Result<()> {
    let InitArgs { agent, listen: gateways, listen_workers: workers, recreate } = args;
    let options = Options { agent, gateways, workers, recreate };
    let done = init::init(&options, &context.paths, &context.store);
    let done = done.map_err(|error| match error {
        ClusterError::Address { .. } => Usage(error.to_string()).into(),
        error => anyhow::Error::from(error),
    })?;
    if context.json {
        let files: Vec<Value> = done
            .iter()
            .map(|(path, written)| match written {
                Written::New => json!({ "path": path, "was": "missing" }),
                Written::Same => json!({ "path": path, "was": "same" }),
                Written::Kept => json!({ "path": path, "was": "kept" }),
                Written::Replaced(saved) => json!({ "path": path, "was": "replaced", "saved": saved }),
            })
            .collect();
        return print_json(&json!({ "v": 1, "files": files }));
    }
    for (path, written) in &done {
        let path = path.display();
        match written {
            Written::New => print(&format!("written   {path}"))?,
            Written::Same => print(&format!("there     {path}"))?,
            Written::Kept => print(&format!("kept      {path}"))?,
            Written::Replaced(saved) => {
                print(&format!("replaced  {path}; the old one is {}", saved.display()))?;
            }
        }
    }
    if done.iter().any(|(_, written)| *written == Written::Kept) {
        say("note: what is kept was changed since, or made with other options; --recreate writes it anew");
    }
    say("`mvm dev cluster up` starts it");
    Ok(())
}
