//! This machine: paths, locks, child processes, what is installed.

pub mod child;
pub mod files;
pub mod identity;
pub mod paths;
