//! Flakes, their profiles, and settings beside them.

use std::fs;

use crate::support::{World, stderr, stdout};
use crate::{FLAKE, has_nix, said, world};
use insta::assert_snapshot;
use serde_json::Value;

#[test]
fn a_directory_without_a_flake_is_an_error() {
    let world = world();
    fs::create_dir(world.path("empty")).unwrap();
    assert_snapshot!(said(&world, &["build", "--flake", "empty"]), @"
    exit 1
    error: `[DIR]/empty` has no flake.nix
    help: run `mvm init` there, or give another directory
    ");
}

#[test]
fn a_directory_that_is_not_there_is_an_error() {
    assert_snapshot!(said(&world(), &["build", "--flake", "nowhere"]), @"
    exit 1
    error: no directory `nowhere`: No such file or directory (os error 2)
    help: give a directory with a flake.nix, or a URL such as github:OWNER/REPO
    ");
}

#[test]
fn a_missing_attribute_lists_what_there_is_the_nearest_first() {
    if !has_nix() {
        return;
    }
    assert_snapshot!(said(&world(), &["build", "--flake", "./flake#mini"]), @"
    exit 1
    error: `[DIR]/flake` has no `mini`
    help: it offers minimal, dev
    ");
}

#[test]
fn an_unknown_key_of_the_configuration_names_the_file_and_the_nearest_key() {
    let world = world();
    fs::write(world.path("flake/mvm.toml"), "memroy = 256\n").unwrap();
    assert_snapshot!(said(&world, &["run", "--flake", "flake"]), @"
    exit 1
    error: the configuration `[DIR]/flake/mvm.toml` has an unknown key `memroy`
    help: did you mean `memory`?
    ");
}

#[test]
fn an_unknown_key_of_the_profiles_names_the_file_and_the_nearest_key() {
    let world = world();
    fs::write(world.path("flake/mvm-profiles.toml"), "[[profile]]\natribute = \"dev\"\n").unwrap();
    let build = said(&world, &["build", "--flake", "flake"]);
    assert_snapshot!(build, @"
    exit 1
    error: the profiles in `[DIR]/flake/mvm-profiles.toml` have an unknown key `atribute`
    help: did you mean `attribute`?
    ");
    assert_eq!(said(&world, &["run", "--flake", "flake"]), build);
}

#[test]
fn a_size_in_the_profiles_that_no_guest_can_have_is_an_error_of_build_too() {
    let world = world();
    let text = "[[profile]]\nrole = \"web\"\nname = \"big\"\ncpus = 2\n[[profile]]\ncpus = 0\n";
    fs::write(world.path("flake/mvm-profiles.toml"), text).unwrap();
    assert_snapshot!(said(&world, &["build", "--flake", "flake"]), @"
    exit 1
    error: the profiles in `[DIR]/flake/mvm-profiles.toml` are not valid: of no role and no profile, the number of CPUs `0` is not valid
    help: give 1 to 64
    ");
}

#[test]
fn an_attribute_of_the_profiles_that_the_flake_lacks_is_an_error_that_lists_what_there_is() {
    if !has_nix() {
        return;
    }
    let world = world();
    let text = "[[profile]]\nrole = \"web\"\nname = \"dev\"\nattribute = \"minimum\"\n";
    fs::write(world.path("flake/mvm-profiles.toml"), text).unwrap();
    assert_snapshot!(said(&world, &["build", "--flake", "flake", "--role", "web", "--profile", "dev"]), @"
    exit 1
    error: `[DIR]/flake` has no `packages.x86_64-linux.minimum`
    help: it offers minimal, dev
    ");
}

#[test]
fn the_list_of_what_a_flake_offers_has_its_names_and_the_entries_of_its_profiles() {
    if !has_nix() {
        return;
    }
    let world = world();
    let text = "[[profile]]\nrole = \"web\"\nname = \"big\"\nattribute = \"dev\"\ncpus = 2\nmemory = \"1G\"\n\
                [[profile]]\nattribute = \"minimal\"\n[[profile]]\nname = \"lost\"\n";
    fs::write(world.path("flake/mvm-profiles.toml"), text).unwrap();
    assert_snapshot!(world.ok(["build", "--flake", "flake", "--list"]), @"
     ATTRIBUTE  ROLE  PROFILE  CPUS  MEM  DISK  MODULES  STATE
     dev        web   big      2     1G   -     -        -
     lost       -     lost     -     -    -     -        not offered
     minimal *  -     -        -     -    -     -        -

    * is what is built when nothing is asked for.
    Sizes and modules are those of mvm-profiles.toml.
    ");
    let json: Value =
        serde_json::from_str(&world.ok(["build", "--flake", "flake", "--list", "--json"])).unwrap();
    let first = &json["attributes"][0];
    assert_eq!(
        (&first["attribute"], &first["memory_mib"], &first["default"]),
        (&"dev".into(), &1024.into(), &false.into())
    );
    assert_eq!(json["attributes"][1]["offered"], false);
}

#[test]
fn a_flake_that_offers_nothing_or_is_broken_is_told_by_the_list() {
    if !has_nix() {
        return;
    }
    let world = World::empty();
    world.flake("none", "{ outputs = _: { packages.x86_64-linux = { }; }; }");
    assert!(
        world.ok(["build", "--flake", "none", "--list"]).contains("offers nothing in packages.x86_64-linux.")
    );
    world.flake("broken", "{ outputs = _: { packages.x86_64-linux = throw \"no such luck\"; }; }");
    let error = world.fails(["build", "--flake", "broken", "--list"]);
    assert!(error.contains("no such luck") && error.contains("help: mend the flake"), "{error}");
    world.flake("part", "{ outputs = _: { packages.x86_64-linux = { good = 1; bad = abort \"x\"; }; }; }");
    let list = world.ok(["build", "--flake", "part", "--list"]);
    assert!(list.contains(" bad ") && list.contains(" good "), "{list}");
}

#[test]
fn a_configuration_that_is_not_there_is_named() {
    assert_snapshot!(said(&world(), &["run", "--flake", "flake", "--config", "nofile"]), @"
    exit 1
    error: cannot read the configuration `nofile`: No such file or directory (os error 2)
    help: check the path given to --config
    ");
}

#[test]
fn init_writes_a_flake_and_says_how_to_go_on() {
    let world = World::empty();
    let output = world.mvm(["init", "my web", "--template", "gateway"]).output().unwrap();
    assert_snapshot!(stdout(&output), @"
    mvm run --setup --flake 'my web' --detach
    curl http://127.0.0.1:8080/
    ");
    assert_snapshot!(stderr(&output), @"
    wrote my web/flake.nix
    wrote my web/mvm.toml
    wrote my web/mvm-profiles.toml
    wrote my web/modules/status.nix
    wrote my web/www/index.html
    wrote my web/.gitignore

    next:
    ");
    assert!(world.path("my web/www/index.html").exists());
}

#[test]
fn init_leaves_alone_what_is_there_unless_it_is_forced() {
    let world = world();
    assert_snapshot!(said(&world, &["init", "flake"]), @"
    exit 1
    error: `flake` has `flake.nix` already; nothing was written
    help: give another directory, or --force to write over files
    ");
    assert!(!world.path("flake/.gitignore").exists());
    world.ok(["init", "flake", "--force"]);
    assert_ne!(fs::read_to_string(world.path("flake/flake.nix")).unwrap(), FLAKE);
}

#[test]
fn init_in_a_git_tree_says_that_the_files_have_to_be_added() {
    let world = World::empty();
    fs::create_dir_all(world.path("repo/.git")).unwrap();
    assert!(world.ok(["init", "repo/x"]).starts_with("git add repo/x\nmvm build --flake repo/x --list\n"));
}
