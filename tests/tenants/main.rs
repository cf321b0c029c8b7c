//! VMs that share the network of the tenant they belong to.
//!
//! Nothing on the command line makes such VMs by themselves, so they are started through the library.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod guests;
mod races;
#[path = "../support/mod.rs"]
mod support;

use std::process::ExitCode;

use support::shims::{self, Test};

const TESTS: [Test; 3] = [
    (
        "guests_reach_their_own_tenants_and_no_others_and_verify_notices_a_leak",
        guests::guests_reach_their_own_tenants_and_no_others_and_verify_notices_a_leak,
    ),
    (
        "shims_that_come_go_and_are_killed_share_one_network_and_leave_nothing",
        races::shims_that_come_go_and_are_killed_share_one_network_and_leave_nothing,
    ),
    (
        "a_vm_that_does_not_fit_into_its_tenants_network_is_refused",
        races::a_vm_that_does_not_fit_into_its_tenants_network_is_refused,
    ),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["member", state, runtime, vm] => races::member(state, runtime, vm),
        _ => shims::main(&TESTS),
    }
}
