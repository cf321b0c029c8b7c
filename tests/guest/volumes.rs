//! Directories and disk images that a guest is given.

use std::fs;

use crate::run_user;
use crate::support::{World, is_root};

#[test]
fn a_directory_with_a_size_becomes_a_disk_and_the_original_stays_as_it_is() {
    let world = World::new();
    let data = world.path("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("file"), "from the host\n").unwrap();
    let volume = format!("{}:/srv/data:64M", data.display());
    let command = "cat /srv/data/file; echo changed > /srv/data/file; grep -c '/srv/data ext4' /proc/mounts";
    let flake = world.example("hello");
    let out = world.ok(run_user(&flake, &["-v", &volume, "--user", "root", "--", "sh", "-c", command]));
    assert_eq!(out, "from the host\n1\n");
    assert_eq!(fs::read_to_string(data.join("file")).unwrap(), "from the host\n");
}

#[test]
fn a_read_only_volume_stays_as_it_is_whatever_the_guest_tries() {
    let world = World::new();
    let flake = world.example("hello");
    let data = world.path("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("file"), "as it was\n").unwrap();
    let attempt = "mount -o remount,rw /data; echo changed > /data/file; cat /data/file";
    // Shared, where that can be, and copied onto a disk.
    for size in ["", ":64M"] {
        let volume = format!("{}:/data{size}:ro", data.display());
        let args = ["-v", &volume, "--user", "root", "--", "sh", "-c", attempt];
        assert_eq!(world.ok(run_user(&flake, &args)), "as it was\n");
    }
    assert_eq!(fs::read_to_string(data.join("file")).unwrap(), "as it was\n");
}

#[test]
fn a_directory_without_a_size_is_shared_and_writes_come_back() {
    if !is_root() {
        return;
    }
    if mvm::vm::virtiofs::program().is_none() {
        println!("SKIPPED: no virtiofsd is installed");
        return;
    }
    let world = World::new();
    let data = world.path("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("file"), "from the host\n").unwrap();
    let volume = format!("{}:/srv/data", data.display());
    let flake = world.example("hello");
    let command = "cat /srv/data/file; echo from the guest > /srv/data/other";
    let out = world.ok(run_user(&flake, &["-v", &volume, "--user", "root", "--", "sh", "-c", command]));
    assert_eq!(out, "from the host\n");
    assert_eq!(fs::read_to_string(data.join("other")).unwrap(), "from the guest\n");
    world.expect_nothing_left();
}

#[test]
fn a_volume_that_is_not_there_is_an_error_that_names_it() {
    let world = World::new();
    let volume = format!("{}:/srv/data", world.path("nowhere").display());
    let said = world.fails(run_user(&world.example("hello"), &["-v", &volume, "--", "true"]));
    assert!(said.contains("nowhere`") && said.contains("help: "), "{said}");
    world.expect_nothing_left();
}
