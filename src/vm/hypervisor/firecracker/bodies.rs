//! What Firecracker is told. It refuses fields it does not know, so some depend on its version.

use serde_json::{Value, json};

use super::vsock;
use crate::host::firecracker::{LOADS_WITH_ANOTHER_TAP, Version};
use crate::vm::hypervisor::{MEMORY_FILE, Machine, STATE_FILE, Tap};

/// The kernel's name in the VM's directory.
pub const KERNEL: &str = "kernel";
/// The initial RAM disk's name in the VM's directory.
pub const INITRD: &str = "initrd";
/// The name, in the VM's directory, of a snapshot's while it is written or read.
pub const SNAPSHOT: &str = "snapshot-link";
/// The number every guest has on its own vsock device.
const GUEST_CID: u32 = 3;
/// Since this version dirty pages are named after what is tracked of them, as in the machine's
/// configuration.
const TRACKS_DIRTY_PAGES: Version = Version::new(1, 13, 0);

/// The only network interface's name for Firecracker.
const INTERFACE: &str = "eth0";

/// A disk's name in the VM's directory. A snapshot holds it as it stands, so that each VM that goes on
/// from it has the disk of this name in its own.
pub fn drive_name(index: usize) -> String {
    format!("drive-{index}")
}

/// Everything a machine is made from, in order.
pub fn machine(machine: &Machine<'_>) -> Vec<(String, Value)> {
    let spec = machine.spec;
    let config = json!({
        "vcpu_count": spec.cpus,
        "mem_size_mib": spec.memory_mib,
        "smt": false,
        "track_dirty_pages": false,
    });
    let mut source = json!({ "kernel_image_path": KERNEL, "boot_args": machine.command_line });
    if machine.initrd.is_some() {
        source["initrd_path"] = INITRD.into();
    }
    let mut told = vec![("/machine-config".into(), config), ("/boot-source".into(), source)];
    for (index, disk) in machine.disks.iter().enumerate() {
        let drive = json!({
            "drive_id": format!("d{index}"),
            "path_on_host": drive_name(index),
            // The kernel's command line says where the root is.
            "is_root_device": false,
            "is_read_only": disk.read_only,
            "cache_type": "Unsafe",
        });
        told.push((format!("/drives/d{index}"), drive));
    }
    if let Some(Tap::Named(name)) = machine.tap {
        let interface = json!({ "iface_id": INTERFACE, "host_dev_name": name, "guest_mac": machine.mac });
        told.push((format!("/network-interfaces/{INTERFACE}"), interface));
    }
    told.push(("/vsock".into(), json!({ "guest_cid": GUEST_CID, "uds_path": vsock::SOCKET })));
    told
}

/// To save a paused machine.
pub fn create() -> Value {
    json!({
        "snapshot_type": "Full",
        "snapshot_path": format!("{SNAPSHOT}/{STATE_FILE}"),
        "mem_file_path": format!("{SNAPSHOT}/{MEMORY_FILE}"),
    })
}

/// To load a machine, which stays paused, with this TAP.
pub fn load(version: Version, tap: Option<&str>) -> Value {
    let mut load = json!({
        "snapshot_path": format!("{SNAPSHOT}/{STATE_FILE}"),
        "mem_backend": { "backend_type": "File", "backend_path": format!("{SNAPSHOT}/{MEMORY_FILE}") },
        "resume_vm": false,
    });
    let tracking = if version < TRACKS_DIRTY_PAGES { "enable_diff_snapshots" } else { "track_dirty_pages" };
    load[tracking] = false.into();
    if let Some(name) = tap.filter(|_| version >= LOADS_WITH_ANOTHER_TAP) {
        load["network_overrides"] = json!([{ "iface_id": INTERFACE, "host_dev_name": name }]);
    }
    load
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_has_the_fields_that_its_version_knows() {
        let fields = |minor| load(Version::new(1, minor, 0), Some("tap1"));
        for (minor, has, has_not) in [
            (7, "enable_diff_snapshots", "track_dirty_pages"),
            (12, "enable_diff_snapshots", "track_dirty_pages"),
            (13, "track_dirty_pages", "enable_diff_snapshots"),
            (17, "track_dirty_pages", "enable_diff_snapshots"),
        ] {
            let load = fields(minor);
            assert_eq!((&load[has], &load[has_not]), (&Value::Bool(false), &Value::Null), "1.{minor}");
            assert_eq!(load["mem_backend"]["backend_type"], "File");
            assert_eq!(load["network_overrides"].is_array(), minor >= 12, "1.{minor}");
        }
    }
}
