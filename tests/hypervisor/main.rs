//! One contract, several hypervisors: each item is a test of each backend.
//!
//! QEMU runs a real Linux. Firecracker runs a guest of bare machine code wherever a `firecracker` is on
//! PATH and `/dev/kvm` opens, emulated or not; and Linux too where KVM is real. So where it is not,
//! identity, network traffic and readiness are not proven with Firecracker.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod agent;
mod bare;
mod contract;
mod firecracker;
mod machine;

use std::path::Path;
use std::thread;

use machine::Backend;

/// Runs a test of a backend, if it can be had, in a directory and on a thread of its own: namespaces belong
/// to threads.
fn prove(
    backend: impl AsyncFnOnce(&Path) -> Option<Backend> + Send,
    item: impl AsyncFnOnce(Backend, &Path) + Send,
) {
    let work = || {
        let place = tempfile::Builder::new().prefix("mvm").tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            if let Some(backend) = backend(place.path()).await {
                item(backend, place.path()).await;
            }
        });
    };
    thread::scope(|scope| {
        scope.spawn(work).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

macro_rules! contract {
    ($($backend:ident: $items:tt)*) => { $(contract!(@of $backend $items);)* };
    (@of $backend:ident [$($item:ident)*]) => {
        mod $backend {
            $(#[test] fn $item() { crate::prove(crate::Backend::$backend, crate::contract::$item); })*
        }
    };
}

macro_rules! every_item {
    ($($backend:ident)*) => {
        $(contract! { $backend: [
            it_starts_and_its_console_speaks
            paused_it_stands_still_and_resumed_it_goes_on_as_if_nothing_had_been
            saved_it_goes_on_in_another_process_from_where_it_was_and_in_its_own_too
            a_snapshot_takes_no_space_for_memory_that_is_empty
            clones_of_one_snapshot_run_side_by_side_each_on_disks_of_its_own
            a_snapshot_that_was_cut_short_is_refused_in_words
            a_full_disk_fails_the_save_in_words_and_the_machine_goes_on
            a_program_or_a_kernel_that_is_not_there_is_named
            a_machine_it_cannot_be_is_refused_with_its_own_words
            one_that_dies_at_once_has_its_last_words_told
            one_that_never_speaks_is_given_up_and_ended
            one_that_hangs_later_is_not_waited_for_without_end
            one_that_was_killed_is_known_to_be_lost
            it_dies_with_who_started_it
            it_runs_below_a_path_that_is_too_long_for_a_socket
            its_power_button_ends_a_guest_that_heeds_it
            a_guest_that_nobody_serves_its_agent_from_leaves_the_deadline_to_the_caller
            it_takes_the_tap_of_its_network_namespace
        ] })*
    };
}

mod of {
    every_item! { qemu firecracker firecracker_linux }
}
