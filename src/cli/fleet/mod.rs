//! `mvm tenant`, `pool`, `instance`, `node`: the fleet of this machine.

pub mod instance;
pub mod net;
pub mod node;
pub mod pool;
pub mod tenant;

use std::time::Duration;

use anyhow::{Result, bail};
use comfy_table::{Table, presets};
use jiff::Timestamp;
use serde_json::json;

use super::context::{Context, print, print_json};
use super::task;
use crate::event::TaskKind;
use crate::event::words::duration;
use crate::fleet::error::FleetError;
use crate::fleet::execute::Outcome;
use crate::fleet::ids::{InstanceId, InstancePath};
use crate::fleet::record::{self, Instance};
use crate::fleet::work::{AskedBy, Work};

/// Runs an operation on the fleet as a task.
pub async fn work<T>(
    context: &mut Context,
    title: String,
    operate: impl AsyncFnOnce(&mut Work<'_>) -> Result<T, FleetError>,
) -> Result<T> {
    task::run(context, TaskKind::Fleet, title, async |paths, store, sink, cancel| {
        Ok(operate(&mut Work { paths, store, sink, cancel, asked_by: AskedBy::Person }).await?)
    })
    .await
}

/// The instance with this path or, as it is unique on the node, this id.
fn find_instance(context: &Context, text: &str) -> Result<Instance, FleetError> {
    if !text.contains('/') {
        let id: InstanceId = text.parse()?;
        if let Some(row) = context.store.instance(id.as_str())? {
            return record::parse(row);
        }
        return Err(FleetError::Refused {
            what: format!("there is no instance `{id}`"),
            help: "`mvm instance list` lists them".into(),
        });
    }
    record::find_instance(&context.store, &text.parse::<InstancePath>()?)
}

/// Tells what was planned and done; what failed is the command's failure.
pub fn told(context: &Context, outcome: &Outcome) -> Result<()> {
    if context.json {
        print_json(&json!({ "v": 1, "plans": outcome.plans, "failed": outcome.failed }))?;
    } else {
        outcome.plans.iter().try_for_each(|plan| print(&plan.to_string()))?;
    }
    match outcome.failed.as_slice() {
        [] => Ok(()),
        failed => bail!("{}", failed.join("\n")),
    }
}

/// How long ago that was, for people.
pub fn since(ms: i64) -> String {
    let ms = Timestamp::now().as_millisecond().saturating_sub(ms).max(0).unsigned_abs();
    let whole = if ms < 1000 { ms } else { ms / 1000 * 1000 };
    duration(Duration::from_millis(whole))
}

fn table<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> Result<()> {
    lines(header, rows).iter().try_for_each(|line| print(line))
}

/// The lines of a table.
pub fn lines<const N: usize>(header: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> Vec<String> {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(header);
    table.add_rows(rows);
    table.to_string().lines().map(|line| line.trim_end().to_owned()).collect()
}
