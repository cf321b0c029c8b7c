//! The programs that run a microVM.

pub mod qemu;
pub mod qmp;
pub mod tsc;
