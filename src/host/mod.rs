//! This machine: paths, locks, child processes, what is installed, and how to install it.

pub mod child;
pub mod doctor;
pub mod files;
pub mod firecracker;
pub mod growing;
pub mod identity;
pub mod inputs;
pub mod kernel;
pub mod kvm;
pub mod layout;
pub mod nix;
pub mod offline;
pub mod packages;
pub mod paths;
pub mod process;
pub mod program;
pub mod setup;
pub mod sparse;
pub mod tools;
pub mod versions;
