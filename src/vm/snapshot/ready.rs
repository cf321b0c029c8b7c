//! Ready snapshots: guests saved at the seal, one for each key, for VMs to come.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::fit::Fit;
use super::{MANIFEST, Snapshot, SnapshotError};
use crate::event::words::bytes;
use crate::host::files;
use crate::host::paths::Paths;

/// How many are kept; those used longest ago go first.
pub const MOST: usize = 16;
/// How many bytes they may take in all, but for the one used last.
const MOST_BYTES: u64 = 8 << 30;
/// Bytes that a snapshot leaves free.
const RESERVE: u64 = 1 << 30;

/// Whether there is room for one more, or why not.
pub fn room(paths: &Paths, fit: &Fit) -> Result<(), String> {
    // Where that is not known, taking it shows.
    let free = files::free_space(paths.state()).unwrap_or(u64::MAX);
    fits(free, fit)
}

fn fits(free: u64, fit: &Fit) -> Result<(), String> {
    let needed = (u64::from(fit.memory_mib) << 20) + RESERVE;
    if free >= needed {
        return Ok(());
    }
    let (free, needed) = (bytes(free), bytes(needed));
    Err(format!("no ready snapshot is kept: {free} of disk are free, and it takes {needed}"))
}

/// A place to take a ready snapshot of the VM `id` in; what an interrupted taking left is removed.
pub fn begin(paths: &Paths, id: &str) -> io::Result<PathBuf> {
    let dir = unfinished(paths, id);
    abandon(paths, id)?;
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

/// Removes what the VM `id` left of a taking that did not come to its end.
pub fn abandon(paths: &Paths, id: &str) -> io::Result<()> {
    files::remove_dir_if_there(&unfinished(paths, id))
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
        let snapshot = match Snapshot::open(&dir) {
            Ok(snapshot) => snapshot,
            Err(error) => {
                // Half removed, or another mvm's: in the way of a good one. `mvm gc` finds it.
                let aside = paths.snapshots().join(format!(".{key}"));
                let _ = files::remove_dir_if_there(&aside).and_then(|()| std::fs::rename(&dir, aside));
                return Err(NotReady::Missing(error.to_string()));
            }
        };
        let remedy = |error: SnapshotError| {
            NotReady::Unusable(format!("{error} (`mvm snapshot rm {}` removes it)", &key[..12]))
        };
        snapshot.check(fit).map_err(remedy)?;
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

/// Directories that are no snapshots: half removed, another mvm's, or being made right now.
pub fn broken(paths: &Paths) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(paths.snapshots()).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|dir| Snapshot::open(dir).is_err()).collect()
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
    let mut total = 0;
    for (index, snapshot) in list(paths).iter().enumerate() {
        total += snapshot.bytes();
        if index >= MOST || (index > 0 && total > MOST_BYTES) {
            remove(&snapshot.dir)?;
        }
    }
    Ok(())
}

/// Removes a snapshot; VMs that map its memory keep it until they are over.
pub fn remove(dir: &Path) -> io::Result<()> {
    // Without its manifest it is none, should this be interrupted.
    files::remove_file_if_there(&dir.join(MANIFEST))?;
    files::remove_dir_if_there(dir)
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
        remove(&snapshot.dir).unwrap();
        assert!(!snapshot.dir.exists());
    }

    #[test]
    fn what_cannot_be_opened_is_moved_out_of_the_way_of_a_good_one() {
        let (_dir, paths) = paths();
        let snapshot = put(&paths, &fit().key());
        let manifest = snapshot.dir.join(MANIFEST);
        let json = std::fs::read_to_string(&manifest).unwrap();
        for content in [json.replace("\"v\": 1", "\"v\": 9"), String::new()] {
            std::fs::write(&manifest, content).unwrap();
            assert!(matches!(find(&paths, &fit()), Err(NotReady::Missing(_))));
            assert!(!snapshot.dir.exists() && paths.snapshots().join(format!(".{}", fit().key())).exists());
            put(&paths, &fit().key());
            find(&paths, &fit()).unwrap();
        }
    }

    #[test]
    fn a_snapshot_is_not_taken_of_the_last_of_the_disk() {
        let least = (256 << 20) + RESERVE;
        fits(least, &fit()).unwrap();
        let why = fits(least - 1, &fit()).unwrap_err();
        assert!(why.ends_with("of disk are free, and it takes 1.2 GiB"), "{why}");
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
