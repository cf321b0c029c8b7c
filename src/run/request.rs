//! What is asked for: what to build, where, and how to run it.

use crate::image::request::BuildRequest;
use crate::vm::config::RuntimeConfig;
use crate::vm::spec::{StartedBy, VmName};

/// What to run.
#[derive(Debug)]
pub struct RunRequest {
    /// What to build first.
    pub build: BuildRequest,
    /// The VM that builds it, if it is not built on this machine.
    pub builder: Option<BuilderWish>,
    /// How to run it.
    pub config: RuntimeConfig,
    /// The VM's name; one near the flake's when absent.
    pub name: Option<VmName>,
    /// Whether nothing of the VM stays once it is over.
    pub remove: bool,
    /// Whether to boot even where a ready snapshot would do.
    pub cold: bool,
    /// The command the VM is owed to.
    pub started_by: StartedBy,
}

/// What the VM that builds is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuilderWish {
    /// CPUs; two when absent, one where they are emulated.
    pub cpus: Option<u32>,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Size of the disk with its store in MiB, sparse; a smaller one is made anew.
    pub disk_mib: u64,
}

impl Default for BuilderWish {
    fn default() -> Self {
        Self { cpus: None, memory_mib: 2048, disk_mib: 32 * 1024 }
    }
}
