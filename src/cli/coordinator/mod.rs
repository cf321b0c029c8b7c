//! `mvm coordinator`.

mod routes;
mod serve;
mod show;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::json;

use super::context::{Context, print, print_json, say};
use crate::coordinator::admin::client;
use crate::coordinator::config::Config;
use crate::coordinator::control::RouteOp;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mvm coordinator routes --watch\n  mvm coordinator wake 127.0.0.1:8443\n  mvm coordinator check && mvm coordinator reload"
)]
pub struct CoordinatorArgs {
    #[command(subcommand)]
    command: CoordinatorCommand,
}

#[derive(Debug, Subcommand)]
enum CoordinatorCommand {
    /// Listen for clients and carry them to instances, until it is ended
    Serve(serve::ServeArgs),
    /// List routes with their states, connections and last wakes
    Routes(routes::RoutesArgs),
    /// Have an instance of a route awake, as a connection would
    #[command(
        after_help = "Examples:\n  mvm coordinator wake 127.0.0.1:8443\n  mvm coordinator wake 8443              the same"
    )]
    Wake(Which),
    /// Let the instances of a route go to sleep now, if nobody is connected
    #[command(after_help = "Examples:\n  mvm coordinator sleep 127.0.0.1:8443")]
    Sleep(Which),
    /// Have a route take nothing new; what is open goes on to its end
    #[command(
        after_help = "Examples:\n  mvm coordinator drain 127.0.0.1:8443\n  mvm coordinator resume 127.0.0.1:8443    undoes it"
    )]
    Drain(Which),
    /// Have a route take connections again
    #[command(after_help = "Examples:\n  mvm coordinator resume 127.0.0.1:8443")]
    Resume(Which),
    /// Have the configuration read again; connections go on
    #[command(
        after_help = "Examples:\n  mvm coordinator check && mvm coordinator reload\n\nA configuration that is not valid changes nothing."
    )]
    Reload,
    /// Say whether a configuration is valid
    Check(CheckArgs),
}

#[derive(Debug, Args)]
struct Which {
    /// Where the route listens: IP:PORT, or PORT on 127.0.0.1
    #[arg(value_parser = parse_listen)]
    listen: SocketAddr,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mvm coordinator check\n  mvm coordinator check --config coordinator.toml"
)]
struct CheckArgs {
    /// The configuration [default: cluster/coordinator.toml of the state]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let port = text.parse().map(|port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    port.or_else(|_| text.parse()).map_err(|_| "write IP:PORT, such as 127.0.0.1:8443, or PORT".into())
}

/// Runs the command.
pub async fn coordinator(context: &mut Context, args: CoordinatorArgs) -> Result<ExitCode> {
    match args.command {
        CoordinatorCommand::Serve(args) => return serve::serve(context, args).await,
        CoordinatorCommand::Routes(args) => return routes::routes(context, args).await,
        CoordinatorCommand::Wake(which) => order(context, which, RouteOp::Wake).await?,
        CoordinatorCommand::Sleep(which) => order(context, which, RouteOp::Sleep).await?,
        CoordinatorCommand::Drain(which) => order(context, which, RouteOp::Drain).await?,
        CoordinatorCommand::Resume(which) => order(context, which, RouteOp::Resume).await?,
        CoordinatorCommand::Reload => {
            client::reload(&context.paths.coordinator_socket()).await?;
            done(context, "the configuration was read again")?;
        }
        CoordinatorCommand::Check(args) => check(context, args)?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn order(context: &Context, Which { listen }: Which, op: RouteOp) -> Result<()> {
    client::route(&context.paths.coordinator_socket(), listen, op).await?;
    done(context, &format!("{listen}: {}", op.done()))
}

fn done(context: &Context, word: &str) -> Result<()> {
    if context.json {
        return print_json(&json!({ "v": 1 }));
    }
    say(word);
    Ok(())
}

fn check(context: &Context, args: CheckArgs) -> Result<()> {
    let file = args.config.unwrap_or_else(|| context.paths.cluster().join("coordinator.toml"));
    let config = Config::read(&file)?;
    let (routes, nodes) = (config.routes.len(), config.nodes.len());
    if context.json {
        return print_json(&json!({ "v": 1, "routes": routes, "nodes": nodes }));
    }
    let many = |count: usize, what| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    print(&format!("{}, {}", many(routes, "route"), many(nodes, "node")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_named_by_its_address_or_by_a_port_of_loopback() {
        let loopback = Ok("127.0.0.1:8443".parse().unwrap());
        assert_eq!(parse_listen("8443"), loopback);
        assert_eq!(parse_listen("127.0.0.1:8443"), loopback);
        assert_eq!(parse_listen("[::1]:80"), Ok("[::1]:80".parse().unwrap()));
        for text in ["", "web", "127.0.0.1", "65536", ":8443"] {
            assert!(parse_listen(text).is_err(), "{text}");
        }
    }
}
