//! All that must be the same for a machine to go on from a snapshot.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::artifacts::{Artifacts, GUEST_CONTRACT};
use crate::host::files;
use crate::host::firecracker::{LOADS_WITH_ANOTHER_TAP, Version};
use crate::vm::network;
use crate::vm::spec::{HypervisorKind, Network, VmSpec};

/// Goes up when mvm arranges a machine's devices in another way.
const LAYOUT: u32 = 1;

/// All that must be the same for a machine to go on from a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fit {
    /// The build.
    pub build: String,
    /// Name and SHA-256 of each file of the build.
    pub files: Vec<(String, String)>,
    /// The guest contract.
    pub contract: u32,
    /// mvm's arrangement of devices.
    pub layout: u32,
    /// The hypervisor.
    pub hypervisor: HypervisorKind,
    /// What it says of its version.
    pub version: String,
    /// Whether KVM runs the guest.
    pub kvm: bool,
    /// The host's CPU.
    pub cpu: String,
    /// The host's kernel, where the hypervisor's snapshots depend on it.
    pub host_kernel: Option<String>,
    /// Number of CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Size of the VM's own disk in MiB.
    pub disk_mib: u64,
    /// Size of each volume in bytes.
    pub volumes: Vec<u64>,
    /// The network. Whether the TAP is a tenant's makes no difference to the guest.
    pub network: Network,
    /// The TAP, where the hypervisor's snapshots depend on its name and the VM is in its tenant's network.
    #[serde(default)]
    pub tap: Option<String>,
    /// Kernel arguments besides mvm's own.
    pub kernel_args: Vec<String>,
}

impl Fit {
    /// What a VM needs, with the version of its hypervisor and the sizes of its volumes in bytes.
    pub fn of(spec: &VmSpec, artifacts: &Artifacts, version: String, volumes: Vec<u64>) -> Self {
        let files = artifacts.manifest.files.iter().map(|file| (file.name.clone(), file.sha256.clone()));
        let host_kernel =
            || nix::sys::utsname::uname().ok().map(|name| name.release().to_string_lossy().into());
        let tap = tap_that_counts(spec, &version);
        Self {
            build: artifacts.manifest.build.clone(),
            files: files.collect(),
            contract: GUEST_CONTRACT,
            layout: LAYOUT,
            hypervisor: spec.hypervisor,
            version,
            kvm: spec.kvm,
            cpu: cpu(&std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
            host_kernel: (spec.hypervisor == HypervisorKind::Firecracker).then(host_kernel).flatten(),
            cpus: spec.cpus,
            memory_mib: spec.memory_mib,
            disk_mib: spec.disk_mib,
            volumes,
            network: spec.network,
            tap,
            kernel_args: spec.kernel_args.clone(),
        }
    }

    /// The name of snapshots that fit: 32 hexadecimal digits.
    pub fn key(&self) -> String {
        // Plain values in a fixed order: this cannot fail.
        let json = serde_json::to_vec(self).unwrap_or_default();
        files::hex(&Sha256::digest(json)[..16])
    }

    /// What differs in `saved`, for people; empty when it fits.
    pub fn differences(&self, saved: &Self) -> Vec<String> {
        let fields = |fit: &Self| match serde_json::to_value(fit) {
            Ok(serde_json::Value::Object(fields)) => fields,
            _ => Default::default(),
        };
        let (here, there) = (fields(self), fields(saved));
        let differs = here.into_iter().filter_map(|(name, here)| {
            let there = there.get(&name)?;
            let what = name.replace('_', " ");
            match name.as_str() {
                _ if here == *there => None,
                "files" => Some("the build's files are others".into()),
                _ => Some(format!("{what} was {there} and is {here}")),
            }
        });
        differs.collect()
    }
}

/// The TAP in a tenant's network, where a snapshot can be loaded with no other.
fn tap_that_counts(spec: &VmSpec, version: &str) -> Option<String> {
    let older = Version::parse(version).is_none_or(|version| version < LOADS_WITH_ANOTHER_TAP);
    let by_name = spec.hypervisor == HypervisorKind::Firecracker && older;
    network::tap_name(spec).filter(|_| by_name && spec.tenant().is_some())
}

/// Model and abilities of the first CPU.
fn cpu(cpuinfo: &str) -> String {
    let field = |names: &[&str]| {
        let line = cpuinfo.lines().find(|line| names.iter().any(|name| line.starts_with(name)))?;
        Some(line.split_once(':')?.1.trim().to_string())
    };
    let model = field(&["model name", "CPU part"]).unwrap_or_default();
    let flags = field(&["flags", "Features"]).unwrap_or_default();
    format!("{model} ({})", files::hex(&Sha256::digest(flags)[..4]))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Some machine's.
    pub fn fit() -> Fit {
        Fit {
            build: "b".into(),
            files: vec![("rootfs.ext4".into(), "00".into())],
            contract: 1,
            layout: 1,
            hypervisor: HypervisorKind::Qemu,
            version: "QEMU 7.2".into(),
            kvm: false,
            cpu: "some".into(),
            host_kernel: None,
            cpus: 1,
            memory_mib: 256,
            disk_mib: 64,
            volumes: vec![],
            network: Network::User,
            tap: None,
            kernel_args: vec![],
        }
    }

    #[test]
    fn whatever_differs_makes_another_key_and_is_named() {
        let fit = fit();
        assert_eq!(fit.key(), super::tests::fit().key());
        assert!(fit.differences(&fit).is_empty());
        let other = Fit { memory_mib: 512, version: "QEMU 8.0".into(), ..fit.clone() };
        assert_ne!(fit.key(), other.key());
        assert_eq!(
            fit.differences(&other),
            ["memory mib was 512 and is 256", "version was \"QEMU 8.0\" and is \"QEMU 7.2\""]
        );
        let other = Fit { files: vec![("rootfs.ext4".into(), "01".into())], ..fit.clone() };
        assert_eq!(fit.differences(&other), ["the build's files are others"]);
    }

    #[test]
    fn a_taps_name_counts_only_with_a_firecracker_that_cannot_load_with_another() {
        let name = |hypervisor: &str, version: &str, tenant: serde_json::Value| {
            let spec: VmSpec = serde_json::from_value(serde_json::json!({
                "id": "v-1", "name": "vm", "build_dir": "/", "cpus": 1, "memory_mib": 256, "disk_mib": 64,
                "kernel_args": [], "ports": [], "volumes": [], "network": "tap", "egress": true, "kvm": false,
                "role": null, "boot_timeout_secs": 60, "remove": false, "hypervisor": hypervisor,
                "tenant": tenant,
            }))
            .unwrap();
            tap_that_counts(&spec, version)
        };
        let tenant = serde_json::json!({ "net_id": 1, "subnet": "10.240.1.0/24", "address": "10.240.1.3" });
        assert_eq!(name("qemu", "QEMU 7.2", tenant.clone()), None);
        assert_eq!(name("firecracker", "Firecracker v1.12.0", tenant.clone()), None);
        assert_eq!(name("firecracker", "Firecracker v1.11.0", tenant).as_deref(), Some("tap-0af00103"));
        assert_eq!(name("firecracker", "Firecracker v1.11.0", serde_json::Value::Null), None);
    }

    #[test]
    fn the_cpu_is_its_model_and_its_abilities() {
        let one = cpu("model name\t: Some CPU\nflags\t\t: fpu sse\n");
        assert!(one.starts_with("Some CPU ("), "{one}");
        assert_ne!(one, cpu("model name\t: Some CPU\nflags\t\t: fpu sse avx\n"));
    }
}
