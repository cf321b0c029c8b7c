//! A VM in events: what it is, and what it uses.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A VM as the records have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmInfo {
    /// Its id.
    #[serde(rename = "vm")]
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its state, e.g. `running`.
    pub state: String,
    /// Whether it has, or is about to have, a process.
    pub live: bool,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The flake it was built from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flake: Option<String>,
    /// The directory of the artifacts it boots.
    pub artifacts: PathBuf,
    /// Their names and sizes in bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<(String, u64)>,
    /// `firecracker`, `qemu/kvm` or `qemu/tcg`.
    pub hypervisor: String,
    /// `tap` or `user`.
    pub network: String,
    /// CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Size of its own writable layer in MiB.
    pub disk_mib: u64,
    /// Published ports, `ADDR:HOST:GUEST`.
    pub ports: Vec<String>,
    /// Volumes, `HOST:GUEST[:SIZE][:ro]`.
    pub volumes: Vec<String>,
    /// Its shim's process id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// When it was created.
    pub created: Timestamp,
    /// When its state last changed.
    pub changed: Timestamp,
    /// The command it is owed to, `run` or `dev`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_by: Option<String>,
    /// Whether directories of this machine are shared with it, which keeps it from being saved.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shares: bool,
    /// Whether nothing of it stays once it is over.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removed_at_end: bool,
    /// Its own snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotInfo>,
    /// A ready snapshot of its build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<SnapshotInfo>,
}

/// A snapshot on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotInfo {
    /// Bytes it takes; holes do not count.
    pub bytes: u64,
    /// When it was taken.
    pub created: Timestamp,
}

/// What a running VM uses, as the host sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmSample {
    /// CPU in thousandths of one CPU.
    pub cpu_permille: u32,
    /// Memory that the hypervisor holds, in KiB.
    pub memory_kib: u64,
    /// Bytes a second the guest receives; absent where the host cannot tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rx_bps: Option<u64>,
    /// Bytes a second the guest sends; absent where the host cannot tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tx_bps: Option<u64>,
    /// Bytes a second read from disks.
    pub read_bps: u64,
    /// Bytes a second written to disks.
    pub write_bps: u64,
}

impl VmSample {
    /// Bytes a second over the network, both ways; absent where the host cannot tell.
    pub fn network_bps(&self) -> Option<u64> {
        self.rx_bps.zip(self.tx_bps).map(|(rx, tx)| rx.saturating_add(tx))
    }

    /// Bytes a second from and to disks.
    pub fn disk_bps(&self) -> u64 {
        self.read_bps.saturating_add(self.write_bps)
    }
}
