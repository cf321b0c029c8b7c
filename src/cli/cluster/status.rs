//! `mvm dev cluster status`, and its line in `mvm status`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::context::{Context, print, print_json, say};
use super::super::coordinator::show;
use super::super::fleet;
use crate::cluster::status::{self, InstanceStatus, PartState, PartStatus, Status};
use crate::host::paths::Paths;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  mvm dev cluster status\n  mvm dev cluster status --json\n\nExits with 1 unless agent and coordinator run."
)]
pub struct StatusArgs {}

/// Shows how the cluster stands.
pub async fn status(context: &mut Context, _: StatusArgs) -> Result<ExitCode> {
    let status = status::status(&context.paths, &context.store).await?;
    let runs = [&status.agent, &status.coordinator].iter().all(|part| part.state == PartState::Running);
    let code = if runs { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if context.json {
        print_json(&status)?;
        return Ok(code);
    }
    if !status.initialised {
        print("There is no cluster in this state. `mvm dev cluster init` writes its files.")?;
        return Ok(code);
    }
    show_all(&status)?;
    Ok(code)
}

fn show_all(status: &Status) -> Result<()> {
    let parts = [("agent", &status.agent), ("coordinator", &status.coordinator)];
    let rows = parts.map(|(name, part)| {
        [
            name.into(),
            part.state.as_str().into(),
            part.pid.map_or_else(|| "-".into(), |pid| pid.to_string()),
            part.since.filter(|_| runs(part)).map_or_else(|| "-".into(), ago),
            part.address.clone().filter(|_| runs(part)).unwrap_or_else(|| "-".into()),
        ]
    });
    put(fleet::lines(["PART", "STATE", "PID", "SINCE", "ADDRESS"], rows))?;
    print("")?;
    if status.instances.is_empty() {
        print("No instances.")?;
    } else {
        let rows = status.instances.iter().map(row);
        put(fleet::lines(["INSTANCE", "STATE", "SINCE", "ENDPOINT", "LEASED"], rows))?;
    }
    for instance in &status.instances {
        if let Some(detail) = &instance.detail {
            print(&format!(" {}: {}", instance.path, detail.lines().next().unwrap_or_default()))?;
        }
    }
    print("")?;
    match &status.told {
        Some(told) => put(show::table(told))?,
        None => print("No routes, as no coordinator runs.")?,
    }
    for (name, part) in parts {
        if part.state == PartState::Crashed {
            say(&format!(
                "note: the {name} has ended without a word: `mvm dev cluster logs {name}` may say why, `mvm dev cluster up` starts it again"
            ));
        }
    }
    status.errors.iter().for_each(|error| say(&format!("warning: {error}")));
    Ok(())
}

fn runs(part: &PartStatus) -> bool {
    part.pid.is_some()
}

fn row(instance: &InstanceStatus) -> [String; 5] {
    [
        instance.path.to_string(),
        instance.state.as_str().into(),
        fleet::since(instance.since_ms),
        instance.endpoint.map_or_else(|| "-".into(), |endpoint| endpoint.to_string()),
        if instance.leased { "yes" } else { "-" }.into(),
    ]
}

fn ago(moment: Timestamp) -> String {
    fleet::since(moment.as_millisecond())
}

fn put(lines: Vec<String>) -> Result<()> {
    lines.iter().try_for_each(|line| print(line))
}

/// A line for `mvm status`; none where there never was a cluster.
pub fn brief(paths: &Paths) -> Option<String> {
    if !status::is_there(paths) {
        return None;
    }
    let [agent, coordinator] = status::parts(paths).map(|part| part.state);
    Some(match (agent, coordinator) {
        (PartState::Running, PartState::Running) => {
            "The cluster runs; `mvm dev cluster status` says more.".into()
        }
        (PartState::Stopped, PartState::Stopped) => {
            "The cluster does not run; `mvm dev cluster up` starts it.".into()
        }
        (agent, coordinator) => format!(
            "The cluster is not whole: the agent is {}, the coordinator {}; `mvm dev cluster up` mends it.",
            agent.as_str(),
            coordinator.as_str()
        ),
    })
}

/// The same for programs.
pub fn brief_json(paths: &Paths) -> Option<Value> {
    let [agent, coordinator] = status::is_there(paths).then(|| status::parts(paths))?;
    Some(json!({ "agent": agent, "coordinator": coordinator }))
}
