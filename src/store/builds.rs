//! Builds, and the source each came from.

use rusqlite::{OptionalExtension, params};

use super::{Store, StoreError};

/// A build as the database knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildRow {
    /// Hash part of the Nix store path; names the directory below `dev/builds`.
    pub id: String,
    /// Flake reference.
    pub flake: String,
    /// Attribute.
    pub attribute: String,
    /// When it was first built, milliseconds since the epoch.
    pub created_ms: i64,
    /// When it was last asked for, milliseconds since the epoch.
    pub used_ms: i64,
    /// How long building took, in milliseconds.
    pub duration_ms: i64,
}

/// What a source looked like when it gave a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceRow {
    /// Digest of all that the build depends on.
    pub fingerprint: String,
    /// The build's id.
    pub build: String,
}

impl Store {
    /// Records a build; a known one is only marked as used.
    pub fn put_build(&mut self, row: &BuildRow) -> Result<(), StoreError> {
        self.connection.execute(
            "INSERT INTO builds VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT(id) DO UPDATE SET used_ms = excluded.used_ms, flake = excluded.flake,
                 attribute = excluded.attribute",
            params![row.id, row.flake, row.attribute, row.created_ms, row.used_ms, row.duration_ms],
        )?;
        Ok(())
    }

    /// Marks a build as used now; to the minute, so that a run of hits costs no disk write each.
    pub fn use_build(&mut self, id: &str, now_ms: i64) -> Result<(), StoreError> {
        self.connection.execute(
            "UPDATE builds SET used_ms = ?2 WHERE id = ?1 AND used_ms < ?2 - 60000",
            params![id, now_ms],
        )?;
        Ok(())
    }

    /// All builds, the last used first.
    pub fn builds(&self) -> Result<Vec<BuildRow>, StoreError> {
        let mut statement = self.connection.prepare(
            "SELECT id, flake, attribute, created_ms, used_ms, duration_ms FROM builds ORDER BY used_ms DESC",
        )?;
        let rows = statement.query_map([], |row| {
            Ok(BuildRow {
                id: row.get(0)?,
                flake: row.get(1)?,
                attribute: row.get(2)?,
                created_ms: row.get(3)?,
                used_ms: row.get(4)?,
                duration_ms: row.get(5)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Forgets a build and the sources that gave it.
    pub fn remove_build(&mut self, id: &str) -> Result<(), StoreError> {
        self.connection.execute("DELETE FROM builds WHERE id = ?1", [id])?;
        Ok(())
    }

    /// What is remembered of the source with this key.
    pub fn source(&self, key: &str) -> Result<Option<SourceRow>, StoreError> {
        let row = self
            .connection
            .query_row("SELECT fingerprint, build FROM sources WHERE key = ?1", [key], |row| {
                Ok(SourceRow { fingerprint: row.get(0)?, build: row.get(1)? })
            })
            .optional()?;
        Ok(row)
    }

    /// Remembers what the source with this key looked like.
    pub fn put_source(&mut self, key: &str, row: &SourceRow) -> Result<(), StoreError> {
        self.connection.execute(
            "INSERT OR REPLACE INTO sources VALUES (?1, ?2, ?3)",
            params![key, row.fingerprint, row.build],
        )?;
        Ok(())
    }
}
