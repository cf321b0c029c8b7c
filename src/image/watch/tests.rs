//! With real files, told of by the real system.

use std::fs;
use std::process::Command;

use tempfile::TempDir;

use super::*;

const DEADLINE: Duration = Duration::from_secs(30);

struct World {
    _dir: TempDir,
    root: PathBuf,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap().join("flake");
        fs::create_dir_all(root.join("src")).unwrap();
        let world = Self { _dir: dir, root };
        world.write("flake.nix", "{ }");
        world.write("src/main.c", "");
        world
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.root.join(file), text).unwrap();
    }

    /// As editors save: a new file takes the old one's place.
    fn save(&self, file: &str, text: &str) {
        self.write("src/.new", text);
        fs::rename(self.root.join("src/.new"), self.root.join(file)).unwrap();
    }

    fn git(&self, arguments: &[&str]) {
        let status = Command::new("git").current_dir(&self.root).args(arguments).status().unwrap();
        assert!(status.success());
    }

    fn watch(&self, poll: bool) -> Watch {
        let tree = Tree::find(&self.root).unwrap();
        Watch::open(&tree, &[&self.root.join("state")], poll).unwrap()
    }
}

async fn heard(watch: &mut Watch) -> Heard {
    tokio::time::timeout(DEADLINE, watch.next()).await.expect("something to be heard in time")
}

fn changed(paths: &[&str]) -> Heard {
    Heard::Changed(Change { paths: paths.iter().map(PathBuf::from).collect(), more: 0 })
}

#[tokio::test]
async fn a_saved_file_is_told_of_however_it_is_saved_and_for_the_second_time_as_well() {
    let world = World::new();
    let mut watch = world.watch(false);
    assert_eq!((watch.size(), watch.polls()), ((2, 2), None));
    for _ in 0..2 {
        world.save("src/main.c", "atomically");
        assert_eq!(heard(&mut watch).await, changed(&["src/main.c"]));
        world.write("src/main.c", "in place");
        assert_eq!(heard(&mut watch).await, changed(&["src/main.c"]));
    }
    fs::remove_file(world.root.join("src/main.c")).unwrap();
    assert_eq!(heard(&mut watch).await, changed(&["src/main.c"]));
}

#[tokio::test]
async fn what_is_in_new_and_moved_directories_is_told_of_at_once_and_later() {
    let world = World::new();
    let mut watch = world.watch(false);
    fs::create_dir_all(world.root.join("a/b")).unwrap();
    world.write("a/b/one", "");
    assert_eq!(heard(&mut watch).await, changed(&["a/b/one"]));
    world.write("a/b/two", "");
    assert_eq!(heard(&mut watch).await, changed(&["a/b/two"]));
    fs::rename(world.root.join("a"), world.root.join("c")).unwrap();
    assert_eq!(heard(&mut watch).await, changed(&["a", "c/b/one", "c/b/two"]));
    world.write("c/b/two", "more");
    assert_eq!(heard(&mut watch).await, changed(&["c/b/two"]));
    // Another one in its place, all at once.
    fs::rename(world.root.join("c"), world.root.join("d")).unwrap();
    fs::create_dir(world.root.join("c")).unwrap();
    assert_eq!(heard(&mut watch).await, changed(&["d/b/one", "d/b/two"]));
    world.write("c/four", "");
    assert_eq!(heard(&mut watch).await, changed(&["c/four"]));
    // And one of the old name.
    fs::create_dir(world.root.join("a")).unwrap();
    world.write("a/three", "");
    assert_eq!(heard(&mut watch).await, changed(&["a/three"]));
}

#[tokio::test]
async fn what_is_hidden_is_not_told_of_until_the_rules_change() {
    let world = World::new();
    world.write(".gitignore", "out/\n");
    for dir in ["out", "state"] {
        fs::create_dir(world.root.join(dir)).unwrap();
    }
    let mut watch = world.watch(false);
    for file in ["out/x", "state/x", "src/.main.c.swp", "src/4913", "src/main.c~"] {
        world.write(file, "");
    }
    fs::remove_file(world.root.join("src/4913")).unwrap();
    world.write("flake.nix", "{ } ");
    assert_eq!(heard(&mut watch).await, changed(&["flake.nix"]));
    world.write(".gitignore", "");
    assert_eq!(heard(&mut watch).await, changed(&[".gitignore"]));
    world.write("out/x", "more");
    assert_eq!(heard(&mut watch).await, changed(&["out/x"]));
}

#[tokio::test]
async fn a_storm_is_one_change() {
    let world = World::new();
    let mut watch = world.watch(false);
    for number in 0..6_000 {
        world.write(&format!("src/{number}"), "");
    }
    let Heard::Changed(change) = heard(&mut watch).await else { panic!("another") };
    assert!(change.paths.len() <= NAMED, "{change:?}");
    // Its last part may come by itself, but it comes to an end.
    while tokio::time::timeout(Duration::from_secs(1), watch.next()).await.is_ok() {}
    world.save("src/main.c", "more");
    assert_eq!(heard(&mut watch).await, changed(&["src/main.c"]));
}

#[tokio::test]
async fn in_a_git_tree_only_what_git_tracks_is_a_change() {
    let world = World::new();
    world.git(&["init", "-q"]);
    world.git(&["add", "."]);
    let mut watch = world.watch(false);
    world.write("src/new.c", "");
    assert_eq!(heard(&mut watch).await, Heard::Untracked(vec!["src/new.c".into()]));
    world.git(&["add", "."]);
    assert_eq!(heard(&mut watch).await, changed(&[".git"]));
    // git writes the index, and nothing of it changes.
    world.write("src/new.c", "");
    assert_eq!(heard(&mut watch).await, changed(&["src/new.c"]));
    world.git(&["update-index", "--force-write-index"]);
    world.write("flake.nix", "{ } ");
    assert_eq!(heard(&mut watch).await, changed(&["flake.nix"]));
}

#[tokio::test]
async fn a_tree_may_become_a_git_tree_and_cease_to_be_one() {
    for poll in [true, false] {
        let world = World::new();
        let mut watch = world.watch(poll);
        world.git(&["init", "-q"]);
        assert_eq!(heard(&mut watch).await, changed(&[".git"]));
        world.git(&["add", "."]);
        assert_eq!(heard(&mut watch).await, changed(&[".git"]));
        world.write("src/new.c", "");
        assert_eq!(heard(&mut watch).await, Heard::Untracked(vec!["src/new.c".into()]));
        world.git(&["add", "."]);
        assert_eq!(heard(&mut watch).await, changed(&[".git"]));
        fs::remove_dir_all(world.root.join(".git")).unwrap();
        assert_eq!(heard(&mut watch).await, changed(&[".git"]));
        world.write("src/other.c", "more");
        assert_eq!(heard(&mut watch).await, changed(&["src/other.c"]));
    }
}

#[tokio::test]
async fn what_git_tracks_is_told_of_though_it_is_ignored() {
    let world = World::new();
    world.write(".gitignore", "out/\nlate/\n");
    for dir in ["out", "late"] {
        fs::create_dir(world.root.join(dir)).unwrap();
        world.write(&format!("{dir}/kept"), "");
        world.write(&format!("{dir}/other"), "");
    }
    world.git(&["init", "-q"]);
    world.git(&["add", "."]);
    world.git(&["add", "--force", "out/kept"]);
    for poll in [true, false] {
        let mut watch = world.watch(poll);
        for file in ["out/other", "late/kept", "out/kept"] {
            world.write(file, "more");
        }
        assert_eq!(heard(&mut watch).await, changed(&["out/kept"]));
    }
    let mut watch = world.watch(false);
    world.git(&["add", "--force", "late/kept"]);
    assert_eq!(heard(&mut watch).await, changed(&[".git"]));
    world.write("late/kept", "more");
    assert_eq!(heard(&mut watch).await, changed(&["late/kept"]));
}

#[tokio::test]
async fn a_flake_that_vanishes_is_waited_for() {
    for poll in [true, false] {
        let world = World::new();
        let mut watch = world.watch(poll);
        let away = world.root.with_extension("away");
        // It is at rest when that happens.
        let (rename, gone) = (async { fs::rename(&world.root, &away).unwrap() }, heard(&mut watch));
        assert_eq!(tokio::join!(gone, rename).0, Heard::Gone);
        fs::rename(&away, &world.root).unwrap();
        assert_eq!(heard(&mut watch).await, changed(&[]));
        world.save("src/main.c", "more");
        assert_eq!(heard(&mut watch).await, changed(&["src/main.c"]));
    }
}

#[tokio::test]
async fn of_a_tree_that_is_meant_by_path_all_is_told_of() {
    let world = World::new();
    world.write(".gitignore", "local\n");
    world.git(&["init", "-q"]);
    let tree = Tree { git: false, by_path: true, ..Tree::find(&world.root).unwrap() };
    let mut watch = Watch::open(&tree, &[], false).unwrap();
    world.write("local", "");
    assert_eq!(heard(&mut watch).await, changed(&["local"]));
}

#[tokio::test]
async fn where_the_system_tells_nothing_changes_are_looked_for() {
    let world = World::new();
    let mut watch = world.watch(true);
    assert_eq!(watch.polls(), Some("as asked"));
    world.save("src/main.c", "more");
    assert_eq!(heard(&mut watch).await, changed(&["src/main.c"]));
    fs::create_dir(world.root.join("a")).unwrap();
    world.write("a/one", "");
    assert_eq!(heard(&mut watch).await, changed(&["a/one"]));
    world.write("a/one", "more");
    assert_eq!(heard(&mut watch).await, changed(&["a/one"]));
}

#[tokio::test]
async fn when_the_system_tells_no_more_that_is_said_and_changes_are_looked_for() {
    let world = World::new();
    let mut watch = world.watch(false);
    watch.unless_silent(Err(Silence::Limit("too many".into())));
    assert_eq!(heard(&mut watch).await, Heard::Looked("too many".into()));
    // Something may have been about to be told.
    assert_eq!(heard(&mut watch).await, changed(&[]));
    world.save("src/main.c", "more");
    assert_eq!(heard(&mut watch).await, changed(&["src/main.c"]));
}
