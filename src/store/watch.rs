//! The database as a watcher opens it: one that only looks, and never keeps others or itself waiting.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::{MIGRATIONS, Store, StoreError, version};

/// How long a watcher waits for a writer before it tries again another time.
const BUSY: Duration = Duration::from_millis(50);

impl Store {
    /// Opens the database for somebody who looks often. It is neither made nor migrated nor set
    /// aside: `None` while it is not there or older than this mvm.
    pub fn open_to_watch(path: &Path) -> Result<Option<Self>, StoreError> {
        if !path.exists() {
            return Ok(None);
        }
        let open = |source| StoreError::Open { path: path.into(), source };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(open)?;
        connection.busy_timeout(BUSY).map_err(open)?;
        connection.pragma_update(None, "foreign_keys", true).map_err(open)?;
        let found = version(&connection).map_err(open)?;
        if found > MIGRATIONS.len() {
            return Err(StoreError::Newer { path: path.into(), found, known: MIGRATIONS.len() });
        }
        Ok((found == MIGRATIONS.len()).then_some(Self { connection }))
    }

    /// A number that changes whenever somebody else has written. What this very store writes
    /// does not change it.
    pub fn data_version(&self) -> Result<i64, StoreError> {
        Ok(self.connection.pragma_query_value(None, "data_version", |row| row.get(0))?)
    }
}

impl StoreError {
    /// Whether somebody else holds the database, so that another try may succeed.
    pub fn is_busy(&self) -> bool {
        let (Self::Open { source, .. } | Self::Sqlite(source)) = self else { return false };
        let code = source.sqlite_error_code();
        matches!(code, Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::store::vms::VmState;

    #[test]
    fn a_watcher_makes_no_database_and_migrates_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        assert!(Store::open_to_watch(&path).unwrap().is_none());
        assert!(!path.exists());
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE older (id INTEGER)").unwrap();
        assert!(Store::open_to_watch(&path).unwrap().is_none());
        assert_eq!(version(&Connection::open(&path).unwrap()).unwrap(), 0);
    }

    #[test]
    fn a_watcher_sees_that_another_has_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let mut writer = Store::open(&path).unwrap().store;
        let watcher = Store::open_to_watch(&path).unwrap().expect("a database");
        let before = watcher.data_version().unwrap();
        assert_eq!(watcher.data_version().unwrap(), before);
        writer.audit("v-1", "written").unwrap();
        assert_ne!(watcher.data_version().unwrap(), before);
    }

    #[test]
    fn a_watcher_reads_while_another_writes_and_gives_up_writing_soon() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let mut writer = Store::open(&path).unwrap().store;
        let mut watcher = Store::open_to_watch(&path).unwrap().expect("a database");
        writer
            .transaction(|_| {
                assert!(watcher.vms().unwrap().is_empty());
                let since = Instant::now();
                let error = watcher.set_vm_state("v-1", VmState::Failed, None).unwrap_err();
                assert!(error.is_busy(), "{error}");
                assert!(since.elapsed() < super::super::BUSY / 2, "{:?}", since.elapsed());
                Ok(())
            })
            .unwrap();
    }

    #[test]
    fn a_database_that_is_held_for_one_process_alone_is_an_error_soon() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        drop(Store::open(&path).unwrap());
        let holder = Connection::open(&path).unwrap();
        holder.pragma_update(None, "locking_mode", "EXCLUSIVE").unwrap();
        holder.execute_batch("BEGIN EXCLUSIVE; CREATE TABLE mine (id INTEGER); COMMIT").unwrap();
        let error = Store::open_to_watch(&path).unwrap_err();
        assert!(error.is_busy(), "{error}");
    }
}
