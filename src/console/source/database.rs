//! The database, read again when anything was written, and squared with what really runs.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;

use super::Trouble;
use crate::fleet::error::FleetError;
use crate::fleet::record::{self, TenantRecord};
use crate::fleet::square;
use crate::host::paths::Paths;
use crate::store::fleet::{PoolRow, RevisionRow};
use crate::store::vms::VmRow;
use crate::store::{Store, StoreError};
use crate::vm::lifecycle::{self, LifecycleError};

/// The database of a state, as it was seen last.
#[derive(Debug)]
pub struct Database {
    paths: Paths,
    opened: Option<Opened>,
    looking: Trouble,
    reading: Trouble,
    squaring: Trouble,
    matching: Trouble,
}

/// The database, and what tells whether it is still the one and unchanged.
#[derive(Debug)]
struct Opened {
    store: Store,
    inode: u64,
    version: Option<i64>,
}

/// What the database holds.
#[derive(Debug)]
pub struct Read {
    /// The VMs.
    pub vms: Vec<VmRow>,
    /// Flakes by the build's id.
    pub flakes: HashMap<String, String>,
    /// The fleet; absent where its records make no sense.
    pub fleet: Option<Vec<TenantRecord>>,
}

impl Database {
    /// It is not open yet.
    pub fn new(paths: Paths) -> Self {
        Self {
            paths,
            opened: None,
            looking: Trouble::default(),
            reading: Trouble::default(),
            squaring: Trouble::default(),
            matching: Trouble::default(),
        }
    }

    /// What it holds, if anything was written since the last time.
    pub fn look(&mut self) -> Option<Read> {
        let read = self.read().map_err(|error| words(error.into()));
        self.looking.told("VMs cannot be shown", read)?
    }

    fn read(&mut self) -> Result<Option<Read>, StoreError> {
        let path = self.paths.database();
        let inode = path.metadata().map(|meta| meta.ino()).ok();
        // A damaged one was set aside meanwhile, or the state was removed.
        self.opened.take_if(|opened| Some(opened.inode) != inode);
        if self.opened.is_none() {
            let store = Store::open_to_watch(&path)?;
            self.opened = store.zip(inode).map(|(store, inode)| Opened { store, inode, version: None });
        }
        let Some(opened) = &mut self.opened else { return Ok(None) };
        let version = opened.store.data_version()?;
        if opened.version == Some(version) {
            return Ok(None);
        }
        let vms = opened.store.vms()?;
        let builds = opened.store.builds()?;
        let fleet = match record::load(&opened.store) {
            Err(FleetError::Store(error)) => return Err(error),
            fleet => self.reading.told("the fleet cannot be shown", fleet),
        };
        // Only what was read whole is known.
        opened.version = Some(version);
        let flakes = builds.into_iter().map(|build| (build.id, build.flake)).collect();
        Ok(Some(Read { vms, flakes, fleet }))
    }

    /// The revisions of a pool, the newest first.
    pub fn revisions(&self, pool: &PoolRow) -> Vec<RevisionRow> {
        let opened = self.opened.as_ref();
        let rows = opened.map(|opened| opened.store.revisions(&pool.tenant, &pool.id));
        // They are there again at the pool's next change.
        rows.and_then(Result::ok).unwrap_or_default()
    }

    /// Has VMs whose process is gone marked as failed.
    pub fn square(&mut self) {
        let Some(opened) = &mut self.opened else { return };
        let lost = lifecycle::square(&self.paths, &mut opened.store).map_err(words);
        let lost = self.squaring.told("VMs cannot be compared with what runs", lost);
        if lost.is_some_and(|lost| !lost.is_empty()) {
            // What this store writes does not change its version.
            opened.version = None;
        }
    }

    /// Has instances marked as what their VMs are.
    pub fn square_fleet(&mut self) {
        let Some(opened) = &mut self.opened else { return };
        let found = square::square(&self.paths, &mut opened.store).map_err(|error| match error {
            FleetError::Store(error) => words(error.into()),
            error => error.to_string(),
        });
        let found = self.matching.told("instances cannot be compared with what runs", found);
        if found.is_some_and(|found| !found.is_empty()) {
            opened.version = None;
        }
    }
}

fn words(error: LifecycleError) -> String {
    match &error {
        LifecycleError::Store(store) if store.is_busy() => {
            "another process holds the state; mvm goes on trying".into()
        }
        error => error.to_string(),
    }
}
