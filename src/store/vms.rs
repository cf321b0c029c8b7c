//! VMs and the audit trail.

use std::collections::HashSet;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, TransactionBehavior, params};
use serde::{Deserialize, Serialize};

use super::{Store, StoreError};
use crate::host::identity::ProcessId;

/// States of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VmState {
    /// Recorded; no process yet.
    Created,
    /// Its shim is up; the guest is on its way.
    Booting,
    /// Ready.
    Running,
    /// Its CPUs are halted.
    Paused,
    /// Ended in order.
    Stopped,
    /// Ended otherwise; `detail` says how.
    Failed,
}

impl VmState {
    const ALL: [Self; 6] =
        [Self::Created, Self::Booting, Self::Running, Self::Paused, Self::Stopped, Self::Failed];

    /// The state's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Booting => "booting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
        }
    }

    /// Whether it has, or is about to have, a process.
    pub fn is_live(self) -> bool {
        !matches!(self, Self::Stopped | Self::Failed)
    }
}

/// A VM as the database knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmRow {
    /// Its id, `v-<8 hex>`; names its directory below `vms`.
    pub id: String,
    /// Its label.
    pub name: String,
    /// The build it boots.
    pub build: String,
    /// Its state.
    pub state: VmState,
    /// Why it failed.
    pub detail: Option<String>,
    /// The specification, JSON.
    pub spec: String,
    /// Its shim.
    pub process: Option<ProcessId>,
    /// When it was created, milliseconds since the epoch.
    pub created_ms: i64,
    /// When its state last changed, milliseconds since the epoch.
    pub changed_ms: i64,
    /// The live VM of the same name whose place it is about to take, or which took its own.
    pub beside: Option<String>,
}

const COLUMNS: &str = "id, name, build, state, detail, spec, process, created_ms, changed_ms, beside";

impl Store {
    /// Records a new VM. Returns false when a live one bears the name, unless it is to be beside that.
    pub fn insert_vm(&mut self, row: &VmRow) -> Result<bool, StoreError> {
        let process = row.process.as_ref().map(serde_json::to_string).transpose()?;
        let inserted = self.connection.execute(
            &format!("INSERT INTO vms ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"),
            params![
                row.id,
                row.name,
                row.build,
                row.state.as_str(),
                row.detail,
                row.spec,
                process,
                row.created_ms,
                row.changed_ms,
                row.beside
            ],
        );
        match inserted {
            Ok(_) => {
                self.audit(&row.id, &format!("created as {}", row.name))?;
                Ok(true)
            }
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) => {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Moves a VM to `state`; `detail` says why it failed. Returns false when it is gone or,
    /// being over already, does not move any more.
    pub fn set_vm_state(
        &mut self,
        id: &str,
        state: VmState,
        detail: Option<&str>,
    ) -> Result<bool, StoreError> {
        let changed = self.connection.execute(
            "UPDATE vms SET state = ?2, detail = ?3, changed_ms = ?4
             WHERE id = ?1 AND state NOT IN ('stopped', 'failed')",
            params![id, state.as_str(), detail, Timestamp::now().as_millisecond()],
        )?;
        if changed > 0 {
            self.audit(id, state.as_str())?;
        }
        Ok(changed > 0)
    }

    /// Has a VM that is beside another one of its name be the one that is meant by it. Returns false when
    /// that is over: somebody ended it, and does not want another in its place.
    pub fn take_place(&mut self, old: &str, new: &str) -> Result<bool, StoreError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let lives = transaction.execute(
            "UPDATE vms SET beside = ?2 WHERE id = ?1 AND state NOT IN ('stopped', 'failed')",
            [old, new],
        )?;
        if lives == 0 {
            return Ok(false);
        }
        transaction.execute("UPDATE vms SET beside = NULL WHERE id = ?1", [new])?;
        transaction.commit()?;
        self.audit(new, &format!("took the place of {old}"))?;
        Ok(true)
    }

    /// Records which process is the VM's shim.
    pub fn set_vm_process(&mut self, id: &str, process: &ProcessId) -> Result<(), StoreError> {
        self.connection.execute(
            "UPDATE vms SET process = ?2 WHERE id = ?1",
            params![id, serde_json::to_string(process)?],
        )?;
        Ok(())
    }

    /// Replaces the VM's specification, e.g. once its ports are known.
    pub fn set_vm_spec(&mut self, id: &str, spec: &str) -> Result<(), StoreError> {
        self.connection.execute("UPDATE vms SET spec = ?2 WHERE id = ?1", params![id, spec])?;
        Ok(())
    }

    /// All VMs, the newest first.
    pub fn vms(&self) -> Result<Vec<VmRow>, StoreError> {
        let mut statement =
            self.connection.prepare(&format!("SELECT {COLUMNS} FROM vms ORDER BY created_ms DESC, id"))?;
        let rows = statement.query_map([], vm_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The VMs with this name, the newest first, but one beside another after it.
    pub fn vms_named(&self, name: &str) -> Result<Vec<VmRow>, StoreError> {
        let mut statement = self.connection.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM vms WHERE name = ?1 ORDER BY beside IS NOT NULL, created_ms DESC, id"
        ))?;
        let rows = statement.query_map([name], vm_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The ids of all VMs.
    pub fn vm_ids(&self) -> Result<HashSet<String>, StoreError> {
        let mut statement = self.connection.prepare_cached("SELECT id FROM vms")?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The VM with this id.
    pub fn vm(&self, id: &str) -> Result<Option<VmRow>, StoreError> {
        let row = self
            .connection
            .query_row(&format!("SELECT {COLUMNS} FROM vms WHERE id = ?1"), [id], vm_row)
            .optional()?;
        Ok(row)
    }

    /// Forgets a VM.
    pub fn remove_vm(&mut self, id: &str) -> Result<(), StoreError> {
        self.connection.execute("DELETE FROM vms WHERE id = ?1", [id])?;
        self.audit(id, "removed")
    }

    /// Adds to the audit trail, which keeps its last 10 000 entries.
    pub fn audit(&mut self, subject: &str, what: &str) -> Result<(), StoreError> {
        self.connection.execute(
            "INSERT INTO events (time_ms, subject, what) VALUES (?1, ?2, ?3)",
            params![Timestamp::now().as_millisecond(), subject, what],
        )?;
        self.connection.execute("DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - 10000", [])?;
        Ok(())
    }
}

fn vm_row(row: &Row<'_>) -> rusqlite::Result<VmRow> {
    let bad = |column: usize, error: Box<dyn std::error::Error + Send + Sync>| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error)
    };
    let state: String = row.get(3)?;
    let state = VmState::ALL
        .into_iter()
        .find(|known| known.as_str() == state)
        .ok_or_else(|| bad(3, format!("no such VM state: {state}").into()))?;
    let process: Option<String> = row.get(6)?;
    let process =
        process.map(|json| serde_json::from_str(&json)).transpose().map_err(|error| bad(6, error.into()))?;
    Ok(VmRow {
        id: row.get(0)?,
        name: row.get(1)?,
        build: row.get(2)?,
        state,
        detail: row.get(4)?,
        spec: row.get(5)?,
        process,
        created_ms: row.get(7)?,
        changed_ms: row.get(8)?,
        beside: row.get(9)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, name: &str) -> VmRow {
        VmRow {
            id: id.into(),
            name: name.into(),
            build: "b".into(),
            state: VmState::Created,
            detail: None,
            spec: "{}".into(),
            process: None,
            created_ms: 1,
            changed_ms: 1,
            beside: None,
        }
    }

    fn store() -> Store {
        Store::open(std::path::Path::new(":memory:")).unwrap().store
    }

    #[test]
    fn a_name_belongs_to_one_live_vm_and_is_free_again_when_it_is_over() {
        let mut store = store();
        assert!(store.insert_vm(&row("v-1", "hello")).unwrap());
        assert!(!store.insert_vm(&row("v-2", "hello")).unwrap());
        assert!(store.set_vm_state("v-1", VmState::Stopped, None).unwrap());
        assert!(store.insert_vm(&row("v-2", "hello")).unwrap());
    }

    #[test]
    fn a_vm_beside_another_of_its_name_is_meant_by_it_once_it_took_its_place() {
        let mut store = store();
        store.insert_vm(&row("v-1", "hello")).unwrap();
        let beside = |id: &str| VmRow { beside: Some("v-1".into()), created_ms: 2, ..row(id, "hello") };
        assert!(store.insert_vm(&beside("v-2")).unwrap());
        let meant = |store: &Store| store.vms_named("hello").unwrap().remove(0).id;
        assert_eq!(meant(&store), "v-1");
        assert!(store.take_place("v-1", "v-2").unwrap());
        assert_eq!(meant(&store), "v-2");
        store.set_vm_state("v-1", VmState::Stopped, None).unwrap();
        assert!(!store.insert_vm(&row("v-3", "hello")).unwrap());
        assert!(store.insert_vm(&beside("v-4")).unwrap());
        assert!(!store.take_place("v-1", "v-4").unwrap(), "it is over");
    }

    #[test]
    fn a_vm_that_is_over_never_comes_back() {
        let mut store = store();
        store.insert_vm(&row("v-1", "hello")).unwrap();
        store.set_vm_state("v-1", VmState::Failed, Some("killed")).unwrap();
        assert!(!store.set_vm_state("v-1", VmState::Running, None).unwrap());
        let vm = store.vm("v-1").unwrap().unwrap();
        assert_eq!((vm.state, vm.detail.as_deref()), (VmState::Failed, Some("killed")));
    }
}
