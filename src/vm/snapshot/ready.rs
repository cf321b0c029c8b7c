//! Ready snapshots: guests saved at the seal, one for each key, for VMs to come.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::fit::Fit;
use super::{MANIFEST, Snapshot, SnapshotError};
use crate::host::paths::Paths;

/// How many are kept; those used longest ago go first.
pub const MOST: usize = 16;

/// A place to take a ready snapshot of the VM `id` in; what an interrupted taking left is removed.
pub fn begin(paths: &Paths, id: &str) -> io::Result<PathBuf> {
    let dir = unfinished(paths, id);
    abandon(paths, id)?;
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// Removes what the VM `id` left of a taking that did not come to its end.
pub fn abandon(paths: &Paths, id: &str) -> io::Result<()> {
    match std::fs::remove_dir_all(unfinished(paths, id)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn unfinished(paths: &Paths, id: &str) -> PathBuf {
    paths.snapshots().join(format!(".{id}"))
}

/// Puts a complete snapshot in its place; one that is there already stays.
pub fn publish(paths: &Paths, dir: &Path, key: &str) -> io::Result<()> {
    match std::fs::rename(dir, paths.snapshots().join(key)) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => std::fs::remove_dir_all(dir)?,
        renamed => renamed?,
    }
    prune(paths)
}

/// Why there is no ready snapshot to go on from, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotReady {
    /// None fits.
    Missing(String),
    /// The one that fits is damaged; it is kept.
    Unusable(String),
}

/// The snapshot a machine like `fit` can go on from.
pub fn find(paths: &Paths, fit: &Fit) -> Result<Snapshot, NotReady> {
    let key = fit.key();
    let dir = paths.snapshots().join(&key);
    if dir.exists() {
        let found = Snapshot::open(&dir).and_then(|snapshot| snapshot.check(fit).map(|()| snapshot));
        let remedy = |error: SnapshotError| {
            NotReady::Unusable(format!("{error} (`mvm snapshot rm {}` removes it)", &key[..12]))
        };
        let snapshot = found.map_err(remedy)?;
        mark_used(&snapshot);
        return Ok(snapshot);
    }
    let others = list(paths).into_iter().filter(|other| other.manifest.fit.build == fit.build);
    let nearest = others.map(|other| fit.differences(&other.manifest.fit)).min_by_key(Vec::len);
    Err(NotReady::Missing(match nearest {
        None => "no ready snapshot yet".into(),
        Some(differences) => format!("the build's ready snapshot does not fit: {}", differences.join("; ")),
    }))
}

/// All complete ones, the one used last first.
pub fn list(paths: &Paths) -> Vec<Snapshot> {
    let entries = std::fs::read_dir(paths.snapshots()).into_iter().flatten().flatten();
    let visible = entries.filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
    let mut all: Vec<Snapshot> = visible.filter_map(|entry| Snapshot::open(&entry.path()).ok()).collect();
    all.sort_by_key(|snapshot| std::cmp::Reverse(used(snapshot)));
    all
}

/// When it was last gone on from.
pub fn used(snapshot: &Snapshot) -> SystemTime {
    let modified = std::fs::metadata(snapshot.dir.join(MANIFEST)).and_then(|meta| meta.modified());
    modified.unwrap_or(SystemTime::UNIX_EPOCH)
}

fn mark_used(snapshot: &Snapshot) {
    let touched = std::fs::File::open(snapshot.dir.join(MANIFEST))
        .and_then(|manifest| manifest.set_modified(SystemTime::now()));
    // At worst it is taken for older than it is.
    drop(touched);
}

fn prune(paths: &Paths) -> io::Result<()> {
    for snapshot in list(paths).iter().skip(MOST) {
        remove(snapshot)?;
    }
    Ok(())
}

/// Removes a snapshot; VMs that map its memory keep it until they are over.
pub fn remove(snapshot: &Snapshot) -> io::Result<()> {
    // Without its manifest it is none, should this be interrupted.
    for gone in [std::fs::remove_file(snapshot.dir.join(MANIFEST)), std::fs::remove_dir_all(&snapshot.dir)] {
        match gone {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::fit::tests::fit;
    use super::super::tests::snapshot;
    use super::*;

    fn paths() -> (tempfile::TempDir, Paths) {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::at(dir.path().join("s"), dir.path().join("r")).unwrap();
        (dir, paths)
    }

    fn put(paths: &Paths, key: &str) -> Snapshot {
        let place = begin(paths, "v-1").unwrap();
        snapshot(&place);
        publish(paths, &place, key).unwrap();
        assert!(!place.exists());
        Snapshot::open(&paths.snapshots().join(key)).unwrap()
    }

    #[test]
    fn a_published_snapshot_is_found_by_what_it_fits() {
        let (_dir, paths) = paths();
        assert_eq!(find(&paths, &fit()).unwrap_err(), NotReady::Missing("no ready snapshot yet".into()));
        let snapshot = put(&paths, &fit().key());
        assert_eq!(find(&paths, &fit()).unwrap(), snapshot);
        // A second one of the same key gives way.
        assert_eq!(put(&paths, &fit().key()), snapshot);
        let why = find(&paths, &Fit { cpus: 2, ..fit() }).unwrap_err();
        assert_eq!(
            why,
            NotReady::Missing("the build's ready snapshot does not fit: cpus was 1 and is 2".into())
        );
    }

    #[test]
    fn a_damaged_snapshot_is_kept_and_the_way_to_remove_it_named() {
        let (_dir, paths) = paths();
        let snapshot = put(&paths, &fit().key());
        std::fs::write(snapshot.dir.join("memory"), "mem").unwrap();
        let NotReady::Unusable(why) = find(&paths, &fit()).unwrap_err() else { panic!("it fits") };
        let key = &fit().key()[..12];
        assert!(
            why.ends_with(&format!("has 3 bytes and had 6 (`mvm snapshot rm {key}` removes it)")),
            "{why}"
        );
        assert!(snapshot.dir.exists());
        remove(&snapshot).unwrap();
        assert!(!snapshot.dir.exists());
    }

    #[test]
    fn those_used_longest_ago_make_room() {
        let (_dir, paths) = paths();
        for number in 0..MOST {
            put(&paths, &format!("{number:032}"));
        }
        let first = Snapshot::open(&paths.snapshots().join(format!("{:032}", 0))).unwrap();
        mark_used(&first);
        put(&paths, "new");
        let names: Vec<_> = list(&paths).iter().map(|one| one.dir.file_name().unwrap().to_owned()).collect();
        assert_eq!(names.len(), MOST);
        assert!(
            names.contains(&format!("{:032}", 0).into()) && !names.contains(&format!("{:032}", 1).into())
        );
    }

    #[test]
    fn what_an_interrupted_taking_left_is_no_snapshot_and_goes() {
        let (_dir, paths) = paths();
        let place = begin(&paths, "v-1").unwrap();
        std::fs::write(place.join("memory"), "half").unwrap();
        assert!(list(&paths).is_empty());
        assert!(std::fs::read_dir(begin(&paths, "v-1").unwrap()).unwrap().next().is_none());
        abandon(&paths, "v-1").unwrap();
        assert!(!place.exists());
    }
}
