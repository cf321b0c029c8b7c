//! The guest of one instruction by which mvm finds out whether KVM works.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs::File;
use std::path::Path;
use std::process::Command;

use mvm::host::kvm;
use support::{World, is_root, stderr};

/// A user that is in no group but its own.
const STRANGER: u32 = 54321;

#[test]
fn a_guest_of_one_instruction_comes_to_its_end_where_there_is_kvm() {
    if let Err(error) = File::options().read(true).write(true).open("/dev/kvm") {
        println!("SKIPPED: /dev/kvm cannot be opened: {error}");
        return;
    }
    let mut child = Command::new(env!("CARGO_BIN_EXE_mvm"));
    kvm::ask(child.arg(kvm::COMMAND), kvm::DEADLINE).unwrap();
}

#[test]
fn a_user_whom_kvm_is_closed_to_is_told_which_group_to_join() {
    if !is_root() {
        return;
    }
    if !Path::new("/dev/kvm").exists() {
        println!("SKIPPED: there is no /dev/kvm");
        return;
    }
    let world = World::of_user(STRANGER);
    let output = world.mvm([kvm::COMMAND]).output().unwrap();
    if output.status.success() {
        println!("SKIPPED: /dev/kvm is open to everybody");
        return;
    }
    let said = stderr(&output);
    assert!(said.starts_with("error: /dev/kvm may be opened by root"), "{said}");
    assert!(said.contains("sudo usermod -aG "), "{said}");
}
