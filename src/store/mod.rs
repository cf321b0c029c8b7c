//! Durable state: one SQLite database, one file per table family.

pub mod builds;
pub mod durations;
pub mod fleet;
pub mod vms;

mod watch;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags};

/// Schema changes, oldest first; the database's `user_version` counts those applied.
const MIGRATIONS: &[&str] = &[
    include_str!("schema-1.sql"),
    include_str!("schema-2.sql"),
    include_str!("schema-3.sql"),
    include_str!("schema-4.sql"),
];

/// How long a writer waits for another.
const BUSY: Duration = Duration::from_secs(10);

/// Pause between two tries where SQLite does not wait by itself.
const POLL: Duration = Duration::from_millis(1);

/// The database.
#[derive(Debug)]
pub struct Store {
    connection: Connection,
}

/// Why the database does not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A newer mvm has written it.
    #[error(
        "the state in `{path}` was written by a newer mvm (schema {found}, this one knows {known})\nhelp: use the newer mvm, or another MVM_STATE_DIR"
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: usize,
        /// Ours.
        known: usize,
    },
    /// It is damaged and cannot be set aside.
    #[error("the state in `{path}` is damaged and cannot be set aside: {source}\nhelp: move the file away")]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It cannot be made.
    #[error(
        "the state in `{path}` cannot be used: {source}\nhelp: is the disk full, or the directory read-only?"
    )]
    Create {
        /// The database.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// SQLite says no.
    #[error("the state in `{path}` cannot be used: {source}\nhelp: {help}", help = help(.source))]
    Open {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A query failed.
    #[error("mvm's state database: {0}\nhelp: {help}", help = help(.0))]
    Sqlite(#[from] rusqlite::Error),
    /// A value in the database is not what this mvm writes.
    #[error("mvm's state database holds a value this mvm does not understand: {0}")]
    Json(#[from] serde_json::Error),
}

/// A database and what had to be done to open it.
#[derive(Debug)]
pub struct Opened {
    /// The database.
    pub store: Store,
    /// Where a damaged one was set aside.
    pub set_aside: Option<PathBuf>,
}

impl Store {
    /// Opens the database, making or migrating it. A damaged one is set aside and reported.
    pub fn open(path: &Path) -> Result<Opened, StoreError> {
        match Self::open_sound(path) {
            Err(StoreError::Open { source, .. } | StoreError::Sqlite(source)) if is_damage(&source) => {
                let aside =
                    set_aside(path).map_err(|source| StoreError::Damaged { path: path.into(), source })?;
                Ok(Opened { store: Self::open_sound(path)?, set_aside: Some(aside) })
            }
            opened => Ok(Opened { store: opened?, set_aside: None }),
        }
    }

    fn open_sound(path: &Path) -> Result<Self, StoreError> {
        let open = |source| StoreError::Open { path: path.into(), source };
        if path != Path::new(":memory:") {
            // SQLite gives its side files the mode of this one. One that is there must not be opened
            // here: closing it would drop the locks of this process's other connections.
            match OpenOptions::new().create_new(true).write(true).mode(0o600).open(path) {
                Err(source) if source.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(StoreError::Create { path: path.into(), source });
                }
                _ => {}
            }
        }
        let mut connection = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE
                | OpenFlags::SQLITE_OPEN_CREATE
                | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )
        .map_err(open)?;
        connection.busy_timeout(BUSY).map_err(open)?;
        use_wal(&connection).map_err(open)?;
        connection.pragma_update(None, "foreign_keys", true).map_err(open)?;
        migrate(&mut connection, path)?;
        Ok(Self { connection })
    }

    /// Runs `work` as one transaction that no other writer can interleave.
    pub fn transaction<T>(
        &mut self,
        work: impl FnOnce(&rusqlite::Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let transaction =
            self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let result = work(&transaction)?;
        transaction.commit()?;
        Ok(result)
    }
}

/// Has the database keep a write-ahead log. Two who begin a database at once would wait for each
/// other, so SQLite tells one of them at once that it is busy; the timeout does not apply.
fn use_wal(connection: &Connection) -> rusqlite::Result<()> {
    let begun = Instant::now();
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(error) if is_busy(&error) && begun.elapsed() < BUSY => std::thread::sleep(POLL),
            done => return done,
        }
    }
}

fn version(connection: &Connection) -> rusqlite::Result<usize> {
    connection.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let found = version(connection)?;
    if found > MIGRATIONS.len() {
        return Err(StoreError::Newer { path: path.into(), found, known: MIGRATIONS.len() });
    }
    if found == MIGRATIONS.len() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    // Another process may have migrated while this one waited for the lock.
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(version(&transaction)?) {
        transaction.execute_batch(migration)?;
        transaction.pragma_update(None, "user_version", index + 1)?;
    }
    transaction.commit()?;
    Ok(())
}

fn help(error: &rusqlite::Error) -> &'static str {
    match is_busy(error) {
        true => "another process keeps it locked; try again when that is done",
        false => "is the disk full (`mvm gc` frees space), or the directory read-only?",
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

fn set_aside(path: &Path) -> std::io::Result<PathBuf> {
    let now = jiff::Timestamp::now().as_second();
    let aside = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let target = aside(&format!(".damaged-{now}"));
    std::fs::rename(path, &target)?;
    for suffix in ["-wal", "-shm"] {
        match std::fs::rename(aside(suffix), aside(&format!(".damaged-{now}{suffix}"))) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_database_is_set_aside_and_a_new_one_begun() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        std::fs::write(&path, vec![b'x'; 4096]).unwrap();
        let opened = Store::open(&path).unwrap();
        let aside = opened.set_aside.expect("set aside");
        assert_eq!(std::fs::read(aside).unwrap(), vec![b'x'; 4096]);
        assert!(opened.store.vms().unwrap().is_empty());
    }

    #[test]
    fn a_database_of_a_newer_mvm_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        drop(Store::open(&path).unwrap());
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
        let error = Store::open(&path).unwrap_err();
        assert!(error.to_string().contains("newer mvm (schema 99"), "{error}");
    }

    #[test]
    fn many_who_begin_a_database_at_once_all_open_it() {
        for _ in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("state.db");
            let start = std::sync::Barrier::new(8);
            std::thread::scope(|scope| {
                let open = || {
                    start.wait();
                    Store::open(&path).map(drop)
                };
                let opened: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
                for one in opened {
                    one.join().unwrap().unwrap();
                }
            });
        }
    }

    #[test]
    fn opening_the_database_again_leaves_the_locks_of_the_first_in_place() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.db");
        let first = Store::open(&path).unwrap();
        let inode = path.metadata().unwrap().ino();
        // Without its lock another process would take itself for the last and remove the log.
        let locked = || {
            let locks = std::fs::read_to_string("/proc/locks").unwrap();
            locks.lines().any(|line| line.contains(&format!(":{inode} ")))
        };
        assert!(locked());
        drop(Store::open(&path).unwrap());
        assert!(locked());
        drop(first);
    }
}
