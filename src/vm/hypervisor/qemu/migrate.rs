//! Snapshots by QEMU's migration to and from a file.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::qmp::Qmp;
use super::{HypervisorError, NAME};
use crate::vm::hypervisor::STATE_FILE;

/// Pause between two questions whether a migration is done.
const POLL: Duration = Duration::from_millis(1);
/// How long a migration may take.
const DEADLINE: Duration = Duration::from_secs(120);
/// How long one that is given up may take to end.
const CANCEL_DEADLINE: Duration = Duration::from_secs(10);
/// Name under which the file is lent.
const LENT: &str = "snapshot";
/// Bytes a second; QEMU's own limit is made for networks.
const UNHURRIED: u64 = 1 << 40;

/// Writes the paused machine's state into `dir`; the memory too, unless it lies in a shared file.
pub async fn save(qmp: &mut Qmp, dir: &Path, memory_is_shared: bool) -> Result<(), HypervisorError> {
    let path = dir.join(STATE_FILE);
    let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path);
    let file = file.map_err(|source| HypervisorError::File { path, source })?;
    ignore_shared(qmp, memory_is_shared).await?;
    qmp.execute("migrate-set-parameters", json!({ "max-bandwidth": UNHURRIED })).await?;
    qmp.lend(LENT, file.as_fd()).await?;
    qmp.execute("migrate", json!({ "uri": format!("fd:{LENT}") })).await?;
    let saved = wait(qmp, "query-migrate", "migrate", |status| status == "completed").await;
    if let Err(HypervisorError::Silent { .. }) = saved {
        // It would go on, and no other could begin. What went wrong first is what is told.
        drop(tokio::time::timeout(CANCEL_DEADLINE, cancel(qmp)).await);
    }
    saved
}

async fn cancel(qmp: &mut Qmp) -> Result<(), HypervisorError> {
    qmp.execute("migrate_cancel", json!({})).await?;
    let is_over = |status: &str| matches!(status, "completed" | "cancelled" | "failed");
    wait(qmp, "query-migrate", "migrate_cancel", is_over).await
}

/// Loads a machine's state from `dir`. A QEMU that does not like it ends.
pub async fn load(qmp: &mut Qmp, dir: &Path, memory_is_mapped: bool) -> Result<(), HypervisorError> {
    let path = dir.join(STATE_FILE);
    let file = File::open(&path).map_err(|source| HypervisorError::File { path, source })?;
    ignore_shared(qmp, memory_is_mapped).await?;
    qmp.lend(LENT, file.as_fd()).await?;
    qmp.execute("migrate-incoming", json!({ "uri": format!("fd:{LENT}") })).await?;
    wait(qmp, "query-status", "migrate-incoming", |status| status != "inmigrate").await
}

/// Memory in a shared file is left out of the stream, and expected to be mapped already.
async fn ignore_shared(qmp: &mut Qmp, on: bool) -> Result<(), HypervisorError> {
    let capability = json!({ "capability": "x-ignore-shared", "state": on });
    qmp.execute("migrate-set-capabilities", json!({ "capabilities": [capability] })).await.map(drop)
}

async fn wait(
    qmp: &mut Qmp,
    question: &str,
    of: &str,
    is_done: impl Fn(&str) -> bool,
) -> Result<(), HypervisorError> {
    let done = async {
        loop {
            let answer = qmp.execute(question, json!({})).await?;
            match answer["status"].as_str().unwrap_or_default() {
                status if is_done(status) => return Ok(()),
                "failed" | "cancelled" => {
                    let reason = answer["error-desc"].as_str().unwrap_or("no reason given").into();
                    return Err(HypervisorError::Refused { name: NAME, what: of.into(), reason });
                }
                _ => tokio::time::sleep(POLL).await,
            }
        }
    };
    let late = HypervisorError::Silent { name: NAME, what: of.into() };
    tokio::time::timeout(DEADLINE, done).await.unwrap_or(Err(late))
}
