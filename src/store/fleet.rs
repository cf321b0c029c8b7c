//! Tenants, pools, revisions and instances.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::{Store, StoreError};

/// Revisions kept of a pool besides those in use.
const MOST_REVISIONS: u32 = 10;

/// A tenant as the database knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRow {
    /// Its name.
    pub id: String,
    /// Network and quotas, JSON.
    pub body: String,
    /// When it was created, milliseconds since the epoch.
    pub created_ms: i64,
}

/// A pool as the database knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolRow {
    /// Its tenant.
    pub tenant: String,
    /// Its name.
    pub id: String,
    /// What it is to be, JSON.
    pub body: String,
    /// The build of its current revision.
    pub build: Option<String>,
    /// What that was built of, JSON.
    pub source: Option<String>,
    /// Why its last build failed.
    pub detail: Option<String>,
    /// How many builds failed in a row.
    pub failures: u32,
    /// When the next is due, milliseconds since the epoch.
    pub retry_at_ms: Option<i64>,
    /// When the next instance may be created after one failed, milliseconds since the epoch.
    pub create_at_ms: Option<i64>,
    /// Until when reconciling leaves it alone, milliseconds since the epoch.
    pub held_until_ms: Option<i64>,
    /// When it was created, milliseconds since the epoch.
    pub created_ms: i64,
}

/// A build that a pool had, or has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevisionRow {
    /// Its number; later ones are greater.
    pub number: i64,
    /// The build.
    pub build: String,
    /// What it was built of, JSON.
    pub source: String,
    /// When it became the current one, milliseconds since the epoch.
    pub created_ms: i64,
}

/// An instance as the database knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceRow {
    /// Its id, unique on the node; the name of its VM.
    pub id: String,
    /// Its tenant.
    pub tenant: String,
    /// Its pool.
    pub pool: String,
    /// The build it boots.
    pub build: String,
    /// Its state.
    pub state: String,
    /// Why it failed.
    pub detail: Option<String>,
    /// Its number in the tenant's subnet.
    pub host: u32,
    /// What it has, JSON.
    pub resources: String,
    /// Who holds it awake, JSON.
    pub lease: Option<String>,
    /// How many starts failed in a row.
    pub failures: u32,
    /// When the next is due, milliseconds since the epoch.
    pub retry_at_ms: Option<i64>,
    /// Until when reconciling leaves it alone, milliseconds since the epoch.
    pub held_until_ms: Option<i64>,
    /// When it came into its state, milliseconds since the epoch.
    pub since_ms: i64,
    /// When it was created, milliseconds since the epoch.
    pub created_ms: i64,
}

const POOL: &str = "tenant, id, body, build, source, detail, failures, retry_at_ms, create_at_ms, \
                    held_until_ms, created_ms";
const INSTANCE: &str = "id, tenant, pool, build, state, detail, host, resources, lease, failures, retry_at_ms, \
                        held_until_ms, since_ms, created_ms";

impl Store {
    /// All tenants, by name.
    pub fn tenants(&self) -> Result<Vec<TenantRow>, StoreError> {
        let mut statement =
            self.connection.prepare("SELECT id, body, created_ms FROM tenants ORDER BY id")?;
        let rows = statement.query_map([], |row| {
            Ok(TenantRow { id: row.get(0)?, body: row.get(1)?, created_ms: row.get(2)? })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Records a tenant, or what has changed of it.
    pub fn put_tenant(&mut self, id: &str, body: &str) -> Result<(), StoreError> {
        self.connection.execute(
            "INSERT INTO tenants VALUES (?1, ?2, ?3) ON CONFLICT(id) DO UPDATE SET body = excluded.body",
            params![id, body, now()],
        )?;
        self.audit(id, "tenant set")
    }

    /// Forgets a tenant that has no pools any more.
    pub fn remove_tenant(&mut self, id: &str) -> Result<(), StoreError> {
        self.connection.execute("DELETE FROM tenants WHERE id = ?1", [id])?;
        self.audit(id, "tenant removed")
    }

    /// All pools, by tenant and name.
    pub fn pools(&self) -> Result<Vec<PoolRow>, StoreError> {
        let mut statement =
            self.connection.prepare(&format!("SELECT {POOL} FROM pools ORDER BY tenant, id"))?;
        let rows = statement.query_map([], pool_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Records a pool, or what has changed of it; what was built of it stays.
    pub fn put_pool(&mut self, tenant: &str, id: &str, body: &str) -> Result<(), StoreError> {
        self.connection.execute(
            "INSERT INTO pools (tenant, id, body, created_ms) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT(tenant, id) DO UPDATE SET body = excluded.body",
            params![tenant, id, body, now()],
        )?;
        self.audit(&format!("{tenant}/{id}"), "pool set")
    }

    /// Has reconciling leave a pool alone until then.
    pub fn hold_pool(&mut self, tenant: &str, id: &str, until_ms: Option<i64>) -> Result<(), StoreError> {
        self.connection.execute(
            "UPDATE pools SET held_until_ms = ?3 WHERE tenant = ?1 AND id = ?2",
            params![tenant, id, until_ms],
        )?;
        Ok(())
    }

    /// Has no instance of a pool created until then.
    pub fn hold_creation(&mut self, tenant: &str, id: &str, until_ms: Option<i64>) -> Result<(), StoreError> {
        self.connection.execute(
            "UPDATE pools SET create_at_ms = ?3 WHERE tenant = ?1 AND id = ?2",
            params![tenant, id, until_ms],
        )?;
        Ok(())
    }

    /// Makes a build a pool's current revision; the oldest of those that nobody runs are forgotten.
    pub fn put_revision(
        &mut self,
        tenant: &str,
        pool: &str,
        build: &str,
        source: &str,
    ) -> Result<(), StoreError> {
        self.transaction(|transaction| {
            transaction.execute(
                "INSERT INTO revisions (tenant, pool, build, source, created_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![tenant, pool, build, source, now()],
            )?;
            transaction.execute(
                "UPDATE pools SET build = ?3, source = ?4, detail = NULL, failures = 0, retry_at_ms = NULL,
                 create_at_ms = NULL WHERE tenant = ?1 AND id = ?2",
                params![tenant, pool, build, source],
            )?;
            transaction.execute(
                "DELETE FROM revisions WHERE tenant = ?1 AND pool = ?2
                 AND build NOT IN (SELECT build FROM instances WHERE tenant = ?1 AND pool = ?2)
                 AND number NOT IN (SELECT number FROM revisions WHERE tenant = ?1 AND pool = ?2
                                    ORDER BY number DESC LIMIT ?3)",
                params![tenant, pool, MOST_REVISIONS],
            )?;
            Ok(())
        })?;
        self.audit(&format!("{tenant}/{pool}"), &format!("revision {build}"))
    }

    /// A pool's revisions, the newest first.
    pub fn revisions(&self, tenant: &str, pool: &str) -> Result<Vec<RevisionRow>, StoreError> {
        let mut statement = self.connection.prepare(
            "SELECT number, build, source, created_ms FROM revisions WHERE tenant = ?1 AND pool = ?2
             ORDER BY number DESC",
        )?;
        let rows = statement.query_map([tenant, pool], |row| {
            Ok(RevisionRow {
                number: row.get(0)?,
                build: row.get(1)?,
                source: row.get(2)?,
                created_ms: row.get(3)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Marks a pool whose build failed.
    pub fn set_pool_failed(
        &mut self,
        tenant: &str,
        pool: &str,
        detail: &str,
        retry_at_ms: i64,
    ) -> Result<(), StoreError> {
        self.connection.execute(
            "UPDATE pools SET detail = ?3, failures = failures + 1, retry_at_ms = ?4
             WHERE tenant = ?1 AND id = ?2",
            params![tenant, pool, detail, retry_at_ms],
        )?;
        self.audit(&format!("{tenant}/{pool}"), "build failed")
    }

    /// Has a pool whose build or whose new instances failed tried again now.
    pub fn retry_pool(&mut self, tenant: &str, pool: &str) -> Result<(), StoreError> {
        self.connection.execute(
            "UPDATE pools SET retry_at_ms = NULL, create_at_ms = NULL WHERE tenant = ?1 AND id = ?2",
            params![tenant, pool],
        )?;
        self.connection.execute(
            "UPDATE instances SET retry_at_ms = NULL WHERE tenant = ?1 AND pool = ?2",
            params![tenant, pool],
        )?;
        Ok(())
    }

    /// Forgets a pool that has no instances any more.
    pub fn remove_pool(&mut self, tenant: &str, id: &str) -> Result<(), StoreError> {
        self.connection.execute("DELETE FROM pools WHERE tenant = ?1 AND id = ?2", [tenant, id])?;
        self.audit(&format!("{tenant}/{id}"), "pool removed")
    }

    /// Builds that pools and instances use.
    pub fn fleet_builds(&self) -> Result<Vec<String>, StoreError> {
        let mut statement =
            self.connection.prepare("SELECT build FROM revisions UNION SELECT build FROM instances")?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Records a new instance under the lowest number from `first` to `last` that is free in the
    /// tenant's subnet, and returns it; none when all are taken.
    pub fn insert_instance(
        &mut self,
        new: &InstanceRow,
        first: u32,
        last: u32,
    ) -> Result<Option<u32>, StoreError> {
        let host = self.transaction(|transaction| {
            let Some(host) = free_host(transaction, &new.tenant, first, last)? else { return Ok(None) };
            transaction.execute(
                &format!("INSERT INTO instances ({INSTANCE}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)"),
                params![
                    new.id,
                    new.tenant,
                    new.pool,
                    new.build,
                    new.state,
                    new.detail,
                    host,
                    new.resources,
                    new.lease,
                    new.failures,
                    new.retry_at_ms,
                    new.held_until_ms,
                    new.since_ms,
                    new.created_ms
                ],
            )?;
            Ok(Some(host))
        })?;
        self.audit(&format!("{}/{}/{}", new.tenant, new.pool, new.id), &new.state)?;
        Ok(host)
    }

    /// All instances, by tenant, pool and age.
    pub fn instances(&self) -> Result<Vec<InstanceRow>, StoreError> {
        let mut statement = self
            .connection
            .prepare(&format!("SELECT {INSTANCE} FROM instances ORDER BY tenant, pool, created_ms, id"))?;
        let rows = statement.query_map([], instance_row)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The instance with this id.
    pub fn instance(&self, id: &str) -> Result<Option<InstanceRow>, StoreError> {
        let row = self
            .connection
            .query_row(&format!("SELECT {INSTANCE} FROM instances WHERE id = ?1"), [id], instance_row)
            .optional()?;
        Ok(row)
    }

    /// Moves an instance from one state to another; false when it is not in the first any more.
    pub fn move_instance(
        &mut self,
        row: &InstanceRow,
        to: &str,
        detail: Option<&str>,
    ) -> Result<bool, StoreError> {
        let changed = self.connection.execute(
            "UPDATE instances SET state = ?3, detail = ?4, since_ms = ?5 WHERE id = ?1 AND state = ?2",
            params![row.id, row.state, to, detail, now()],
        )?;
        if changed > 0 {
            let subject = format!("{}/{}/{}", row.tenant, row.pool, row.id);
            self.audit(&subject, &format!("{} → {to}", row.state))?;
        }
        Ok(changed > 0)
    }

    /// Sets when a failed instance is tried again.
    pub fn set_instance(&mut self, row: &InstanceRow) -> Result<(), StoreError> {
        self.connection.execute(
            "UPDATE instances SET failures = ?2, retry_at_ms = ?3 WHERE id = ?1",
            params![row.id, row.failures, row.retry_at_ms],
        )?;
        Ok(())
    }

    /// Has reconciling leave an instance alone until then.
    pub fn hold_instance(&mut self, id: &str, until_ms: Option<i64>) -> Result<(), StoreError> {
        self.connection
            .execute("UPDATE instances SET held_until_ms = ?2 WHERE id = ?1", params![id, until_ms])?;
        Ok(())
    }

    /// Changes who holds an instance awake, in one step that no other can come between; `None` when the
    /// instance is gone.
    pub fn change_lease<T>(
        &mut self,
        id: &str,
        change: impl FnOnce(Option<String>) -> Result<(String, T), StoreError>,
    ) -> Result<Option<T>, StoreError> {
        self.transaction(|transaction| {
            let lease =
                transaction.query_row("SELECT lease FROM instances WHERE id = ?1", [id], |row| row.get(0));
            let Some(lease) = lease.optional()? else { return Ok(None) };
            let (lease, result) = change(lease)?;
            transaction.execute("UPDATE instances SET lease = ?2 WHERE id = ?1", params![id, lease])?;
            Ok(Some(result))
        })
    }

    /// Forgets an instance.
    pub fn remove_instance(&mut self, row: &InstanceRow) -> Result<(), StoreError> {
        self.connection.execute("DELETE FROM instances WHERE id = ?1", [&row.id])?;
        self.audit(&format!("{}/{}/{}", row.tenant, row.pool, row.id), "removed")
    }
}

fn now() -> i64 {
    Timestamp::now().as_millisecond()
}

fn free_host(
    transaction: &Transaction<'_>,
    tenant: &str,
    first: u32,
    last: u32,
) -> Result<Option<u32>, StoreError> {
    let mut statement =
        transaction.prepare("SELECT host FROM instances WHERE tenant = ?1 AND host >= ?2 ORDER BY host")?;
    let mut free = first;
    for taken in statement.query_map(params![tenant, first], |row| row.get::<_, u32>(0))? {
        if taken? != free {
            break;
        }
        free += 1;
    }
    Ok((free <= last).then_some(free))
}

fn pool_row(row: &Row<'_>) -> rusqlite::Result<PoolRow> {
    Ok(PoolRow {
        tenant: row.get(0)?,
        id: row.get(1)?,
        body: row.get(2)?,
        build: row.get(3)?,
        source: row.get(4)?,
        detail: row.get(5)?,
        failures: row.get(6)?,
        retry_at_ms: row.get(7)?,
        create_at_ms: row.get(8)?,
        held_until_ms: row.get(9)?,
        created_ms: row.get(10)?,
    })
}

fn instance_row(row: &Row<'_>) -> rusqlite::Result<InstanceRow> {
    Ok(InstanceRow {
        id: row.get(0)?,
        tenant: row.get(1)?,
        pool: row.get(2)?,
        build: row.get(3)?,
        state: row.get(4)?,
        detail: row.get(5)?,
        host: row.get(6)?,
        resources: row.get(7)?,
        lease: row.get(8)?,
        failures: row.get(9)?,
        retry_at_ms: row.get(10)?,
        held_until_ms: row.get(11)?,
        since_ms: row.get(12)?,
        created_ms: row.get(13)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> Store {
        let mut store = Store::open(std::path::Path::new(":memory:")).unwrap().store;
        store.put_tenant("dev", "{}").unwrap();
        store.put_pool("dev", "web", "{}").unwrap();
        store
    }

    fn instance(id: &str) -> InstanceRow {
        InstanceRow {
            id: id.into(),
            tenant: "dev".into(),
            pool: "web".into(),
            build: "b".into(),
            state: "created".into(),
            detail: None,
            host: 0,
            resources: "{}".into(),
            lease: None,
            failures: 0,
            retry_at_ms: None,
            held_until_ms: None,
            since_ms: 1,
            created_ms: 1,
        }
    }

    #[test]
    fn an_instance_takes_the_lowest_number_that_is_free() {
        let mut store = store();
        for (id, host) in [("i-1", 3), ("i-2", 4), ("i-3", 5)] {
            assert_eq!(store.insert_instance(&instance(id), 3, 5).unwrap(), Some(host));
        }
        assert_eq!(store.insert_instance(&instance("i-4"), 3, 5).unwrap(), None);
        store.remove_instance(&instance("i-2")).unwrap();
        assert_eq!(store.insert_instance(&instance("i-4"), 3, 5).unwrap(), Some(4));
    }

    #[test]
    fn an_instance_moves_only_from_the_state_it_is_in() {
        let mut store = store();
        store.insert_instance(&instance("i-1"), 3, 9).unwrap();
        let row = store.instance("i-1").unwrap().unwrap();
        assert!(store.move_instance(&row, "ready", None).unwrap());
        assert!(!store.move_instance(&row, "failed", None).unwrap());
        assert_eq!(store.instance("i-1").unwrap().unwrap().state, "ready");
    }

    #[test]
    fn revisions_in_use_and_the_latest_are_kept() {
        let mut store = store();
        store.insert_instance(&instance("i-1"), 3, 9).unwrap();
        for build in std::iter::once("b".to_string()).chain((0..20).map(|number| number.to_string())) {
            store.put_revision("dev", "web", &build, "{}").unwrap();
        }
        let revisions = store.revisions("dev", "web").unwrap();
        assert_eq!(revisions.len() as u32, MOST_REVISIONS + 1);
        assert_eq!((revisions[0].build.as_str(), revisions[10].build.as_str()), ("19", "b"));
        assert!(store.remove_pool("dev", "web").is_err(), "it has an instance");
    }
}
