//! Artifacts → running microVM.

pub mod config;
pub mod console;
pub mod disks;
pub mod forward;
pub mod hypervisor;
pub mod keys;
pub mod lifecycle;
pub mod network;
pub mod shim;
pub mod snapshot;
pub mod spec;
pub mod ssh;
pub mod usage;
pub mod virtiofs;
