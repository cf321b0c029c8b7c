//! How long builds of derivations took.

use std::collections::HashMap;

use jiff::Timestamp;
use rusqlite::params;

use super::{Store, StoreError};

/// How many builds are remembered of a name on a host.
const MOST_OF_A_NAME: u32 = 10;
/// How many builds are remembered in all.
const MOST: u32 = 5000;

/// One build of a derivation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildTimeRow {
    /// The derivation's name, without its hash.
    pub name: String,
    /// The machine that built it; empty for this one.
    pub host: String,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}

impl Store {
    /// Remembers builds; the oldest of their names are forgotten.
    pub fn put_build_times(&mut self, builds: &[BuildTimeRow]) -> Result<(), StoreError> {
        if builds.is_empty() {
            return Ok(());
        }
        let now = Timestamp::now().as_millisecond();
        self.transaction(|transaction| {
            let mut insert = transaction.prepare(
                "INSERT INTO durations (name, host, duration_ms, time_ms) VALUES (?1, ?2, ?3, ?4)",
            )?;
            let mut prune = transaction.prepare(
                "DELETE FROM durations WHERE name = ?1 AND host = ?2 AND id NOT IN
                     (SELECT id FROM durations WHERE name = ?1 AND host = ?2 ORDER BY id DESC LIMIT ?3)",
            )?;
            for BuildTimeRow { name, host, duration_ms } in builds {
                insert.execute(params![name, host, i64::try_from(*duration_ms).unwrap_or(i64::MAX), now])?;
                prune.execute(params![name, host, MOST_OF_A_NAME])?;
            }
            transaction.execute(
                "DELETE FROM durations WHERE id <= (SELECT id FROM durations ORDER BY id DESC LIMIT 1 OFFSET ?1)",
                [MOST],
            )?;
            Ok(())
        })
    }

    /// The median of what is remembered, in milliseconds, by name and host.
    pub fn median_build_times(&self) -> Result<HashMap<(String, String), u64>, StoreError> {
        let mut statement = self
            .connection
            .prepare("SELECT name, host, duration_ms FROM durations ORDER BY name, host, duration_ms")?;
        let rows = statement.query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?;
        let mut times: HashMap<(String, String), Vec<i64>> = HashMap::new();
        for row in rows {
            let (key, time) = row?;
            times.entry(key).or_default().push(time);
        }
        let median = |sorted: Vec<i64>| sorted[sorted.len() / 2].unsigned_abs();
        Ok(times.into_iter().map(|(key, sorted)| (key, median(sorted))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> Store {
        Store::open(std::path::Path::new(":memory:")).unwrap().store
    }

    fn build(name: &str, host: &str, duration_ms: u64) -> BuildTimeRow {
        BuildTimeRow { name: name.into(), host: host.into(), duration_ms }
    }

    fn count(store: &Store) -> u32 {
        store.connection.query_row("SELECT count(*) FROM durations", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn what_a_build_usually_takes_is_the_median_of_its_last_builds_on_the_same_host() {
        let mut store = store();
        store.put_build_times(&[build("hello", "", 900), build("hello", "far", 5)]).unwrap();
        for time in [10, 20, 30, 40, 50, 60, 70, 80, 90, 10_000] {
            store.put_build_times(&[build("hello", "", time)]).unwrap();
        }
        let medians = store.median_build_times().unwrap();
        assert_eq!(medians[&("hello".into(), String::new())], 60, "the first is forgotten");
        assert_eq!(medians[&("hello".into(), "far".into())], 5);
        assert_eq!(count(&store), MOST_OF_A_NAME + 1);
    }

    #[test]
    fn the_oldest_builds_are_forgotten_when_there_are_too_many() {
        let mut store = store();
        let many: Vec<_> = (0..MOST + 3).map(|number| build(&format!("d{number}"), "", 1)).collect();
        store.put_build_times(&many).unwrap();
        assert_eq!(count(&store), MOST);
        assert!(!store.median_build_times().unwrap().contains_key(&("d2".into(), String::new())));
    }
}
