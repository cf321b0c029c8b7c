//! What a VM is to be: names, ports, volumes, sizes. Everything from outside is parsed here.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::network::subnet::Subnet;
use crate::event::words::{is_label, label};

/// Least memory a guest boots with, in MiB, where its image does not say.
pub const MIN_MEMORY_MIB: u32 = 96;
/// Largest disk or volume, in MiB: 64 TiB.
pub const MAX_DISK_MIB: u64 = 64 * 1024 * 1024;
/// Most CPUs a guest may have.
pub const MAX_CPUS: u32 = 64;

/// A value from outside that cannot be used: what it was and what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} `{value}` {why}\nhelp: {help}")]
pub struct SpecError {
    what: &'static str,
    value: String,
    why: String,
    help: &'static str,
}

impl SpecError {
    /// What is wrong.
    pub fn what(&self) -> String {
        format!("{} `{}` {}", self.what, self.value, self.why)
    }

    /// What it should be.
    pub fn help(&self) -> &'static str {
        self.help
    }
}

fn bad(what: &'static str, value: &str, why: impl Into<String>, help: &'static str) -> SpecError {
    SpecError { what, value: value.into(), why: why.into(), help }
}

/// A VM's name: a label of 1–63 of `[a-z0-9-]`, no leading dash.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VmName(String);

impl VmName {
    /// The nearest valid name to any text, e.g. a directory's.
    pub fn near(text: &str) -> Self {
        Self(label(text).unwrap_or_else(|| "vm".into()))
    }

    /// The name with `-<number>` behind it.
    pub fn numbered(&self, number: u32) -> Self {
        Self(format!("{}-{number}", self.0))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VmName {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        if is_label(text) {
            Ok(Self(text.into()))
        } else {
            Err(bad(
                "the name",
                text,
                "is not valid",
                "use 1 to 63 of a-z, 0-9 and `-`, not beginning with `-`",
            ))
        }
    }
}

impl TryFrom<String> for VmName {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Self, SpecError> {
        text.parse()
    }
}

impl From<VmName> for String {
    fn from(name: VmName) -> Self {
        name.0
    }
}

impl fmt::Display for VmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A host address that leads to a guest port: `[ADDR:]HOST:GUEST`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortMap {
    /// Where the host listens; loopback unless said otherwise. Port 0 lets the system choose.
    pub host: SocketAddr,
    /// Port in the guest.
    pub guest: u16,
}

impl FromStr for PortMap {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let parse = || {
            let (host, guest) = text.rsplit_once(':')?;
            let guest = guest.parse().ok().filter(|port| *port != 0)?;
            let host = match host.rsplit_once(':') {
                None => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), host.parse().ok()?),
                Some(_) => host.parse().ok()?,
            };
            Some(Self { host, guest })
        };
        parse().ok_or_else(|| {
            let help = "write HOST:GUEST, e.g. `8080:80`, or ADDR:HOST:GUEST, e.g. `127.0.0.1:8080:80`";
            bad("the port mapping", text, "is not valid", help)
        })
    }
}

impl TryFrom<String> for PortMap {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Self, SpecError> {
        text.parse()
    }
}

impl From<PortMap> for String {
    fn from(map: PortMap) -> Self {
        map.to_string()
    }
}

impl fmt::Display for PortMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.guest)
    }
}

/// A host directory or disk image in the guest: `HOST:GUEST[:SIZE][:ro]`.
///
/// A directory is shared by virtio-fs where the hypervisor and the user's rights allow it and no
/// size is given; otherwise it is copied into an ext4 image of that size. An image file
/// is attached as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct VolumeSpec {
    /// Absolute path on the host.
    pub host: PathBuf,
    /// Absolute directory in the guest.
    pub guest: String,
    /// Size of the ext4 image, MiB.
    pub size_mib: Option<u64>,
    /// Whether the guest cannot write in it.
    pub read_only: bool,
}

impl FromStr for VolumeSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let fail = |why: &str| {
            let help = "write HOST:GUEST[:SIZE][:ro], e.g. `./data:/srv/data` or `./data:/srv/data:512M`";
            Err(bad("the volume", text, why, help))
        };
        let mut parts: Vec<&str> = text.split(':').collect();
        let read_only = parts.len() > 2 && parts.pop_if(|last| *last == "ro").is_some();
        let size = match parts.as_slice() {
            [_, _] => None,
            [_, _, size] => match parse_mib(size) {
                Some(mib) if (1..=MAX_DISK_MIB).contains(&mib) => Some(mib),
                Some(_) => return fail("has a size outside of 1 MiB to 64 TiB"),
                None => return fail("has a size that is not a number of bytes such as `512M` or `2G`"),
            },
            _ => return fail("is not HOST:GUEST[:SIZE][:ro]"),
        };
        parts.truncate(2);
        let (host, guest) = (parts[0], parts[1]);
        if host.is_empty() {
            return fail("names no host path");
        }
        if !guest.starts_with('/') || guest == "/" || guest.split('/').any(|part| part == "..") {
            return fail("has a guest path that is not an absolute directory below /");
        }
        let host = match std::path::absolute(host) {
            Ok(host) => host,
            Err(_) => return fail("has a host path that cannot be made absolute"),
        };
        Ok(Self { host, guest: guest.into(), size_mib: size, read_only })
    }
}

impl TryFrom<String> for VolumeSpec {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Self, SpecError> {
        text.parse()
    }
}

impl From<VolumeSpec> for String {
    fn from(volume: VolumeSpec) -> Self {
        volume.to_string()
    }
}

impl fmt::Display for VolumeSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host.display(), self.guest)?;
        self.size_mib.map_or(Ok(()), |mib| write!(f, ":{mib}M"))?;
        if self.read_only { f.write_str(":ro") } else { Ok(()) }
    }
}

/// Memory in MiB from `256`, `256M` or `2G`.
pub fn parse_memory(text: &str) -> Result<u32, SpecError> {
    let help = "give MiB as a number, or with a unit: `256`, `512M`, `2G`";
    let mib = parse_mib(text).ok_or_else(|| bad("the memory size", text, "is not a size", help))?;
    u32::try_from(mib).ok().filter(|mib| (MIN_MEMORY_MIB..=1024 * 1024).contains(mib)).ok_or_else(|| {
        let why = format!("is outside what a guest boots with ({MIN_MEMORY_MIB} MiB to 1 TiB)");
        bad("the memory size", text, why, help)
    })
}

/// Size of a disk in MiB.
pub fn parse_disk(text: &str) -> Result<u64, SpecError> {
    let help = "give MiB as a number, or with a unit, from 16M to 64T: `512M`, `8G`";
    let mib = parse_mib(text).filter(|mib| (16..=MAX_DISK_MIB).contains(mib));
    mib.ok_or_else(|| bad("the disk size", text, "is not valid", help))
}

/// Number of CPUs.
pub fn parse_cpus(text: &str) -> Result<u32, SpecError> {
    text.parse()
        .ok()
        .filter(|cpus| (1..=MAX_CPUS).contains(cpus))
        .ok_or_else(|| bad("the number of CPUs", text, "is not valid", "give 1 to 64"))
}

/// Size in MiB from `256` (MiB), `256M` or `2G`.
pub fn parse_mib(text: &str) -> Option<u64> {
    let upper = text.trim().to_ascii_uppercase();
    let digits = upper.trim_end_matches("IB").trim_end_matches('B');
    let (number, factor) = match digits.strip_suffix('G') {
        Some(number) => (number, 1024),
        None => (digits.strip_suffix('M').unwrap_or(digits), 1),
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// Which hypervisor runs a VM.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum HypervisorChoice {
    /// The best that works here.
    #[default]
    Auto,
    /// Firecracker.
    Firecracker,
    /// QEMU's microvm machine.
    Qemu,
}

/// The hypervisor a VM really has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HypervisorKind {
    /// QEMU's microvm machine.
    #[default]
    Qemu,
    /// Firecracker.
    Firecracker,
}

impl HypervisorKind {
    /// Its name as people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Qemu => "QEMU",
            Self::Firecracker => "Firecracker",
        }
    }
}

/// Which command a VM is owed to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartedBy {
    /// `mvm run`, of a flake.
    #[default]
    Run,
    /// `mvm dev`: the VM to work in.
    Dev,
    /// The fleet: it is an instance of a pool.
    Fleet,
    /// A build, of which it is the place.
    Builder,
}

impl StartedBy {
    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Dev => "dev",
            Self::Fleet => "fleet",
            Self::Builder => "builder",
        }
    }
}

/// How a VM is connected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum NetworkChoice {
    /// `tap` when privileged, else `user`.
    #[default]
    Auto,
    /// A TAP device in a network namespace of the VM's own (needs root).
    Tap,
    /// User-mode networking by QEMU (needs no rights).
    User,
}

/// The network a VM really has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// A TAP device in a network namespace of its own, or of its tenant's.
    Tap,
    /// User-mode networking by QEMU.
    User,
}

/// A VM's place in the network of the tenant that it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantLink {
    /// The tenant's number on this machine, in the name of its bridge.
    pub net_id: u16,
    /// The tenant's network, below 10.240.0.0/12; its first address is the gateway's.
    pub subnet: Subnet,
    /// The VM's address in it, which no other VM has.
    pub address: Ipv4Addr,
}

/// All a shim needs to know to run a VM; `vms/<id>/spec.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VmSpec {
    /// The VM's id, `v-<8 hex>`.
    pub id: String,
    /// Its name.
    pub name: VmName,
    /// The build's directory.
    pub build_dir: PathBuf,
    /// Number of CPUs.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Size of the upper disk in MiB (sparse).
    pub disk_mib: u64,
    /// Kernel arguments besides mvm's own.
    pub kernel_args: Vec<String>,
    /// Published ports.
    pub ports: Vec<PortMap>,
    /// Volumes.
    pub volumes: Vec<VolumeSpec>,
    /// Its network.
    pub network: Network,
    /// Whether the guest reaches the outside.
    pub egress: bool,
    /// Whether KVM is used; software emulation otherwise.
    pub kvm: bool,
    /// Role told to the guest.
    pub role: Option<String>,
    /// How long the guest has until it is ready, in seconds.
    pub boot_timeout_secs: u64,
    /// Whether nothing of it stays once it is over.
    pub remove: bool,
    /// The hypervisor.
    #[serde(default)]
    pub hypervisor: HypervisorKind,
    /// Whether it boots even where a ready snapshot would do.
    #[serde(default)]
    pub cold: bool,
    /// The command it is owed to.
    #[serde(default)]
    pub started_by: StartedBy,
    /// The snapshot to go on from, with its disks; booted otherwise.
    #[serde(default)]
    pub restore_from: Option<PathBuf>,
    /// The running VM whose place it is about to take: it has the same name, and hands over its ports.
    #[serde(default)]
    pub takes_over: Option<String>,
    /// The instance it is, `TENANT/POOL/INSTANCE`.
    #[serde(default)]
    pub instance: Option<String>,
    /// A directory of small files for `/run/secrets` of the guest, read when it becomes this VM.
    #[serde(default)]
    pub secrets: Option<PathBuf>,
    /// The tenant whose network it shares, if it has a TAP; in user mode it is on its own.
    #[serde(default)]
    pub tenant: Option<TenantLink>,
}

impl VmSpec {
    /// The tenant's network that it is really in.
    pub fn tenant(&self) -> Option<&TenantLink> {
        self.tenant.as_ref().filter(|_| self.network == Network::Tap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_port_mapping_listens_on_loopback_unless_it_says_otherwise() {
        let map: PortMap = "8080:80".parse().unwrap();
        assert_eq!((map.host.to_string().as_str(), map.guest), ("127.0.0.1:8080", 80));
        let map: PortMap = "0.0.0.0:1:2".parse().unwrap();
        assert_eq!(map.host.to_string(), "0.0.0.0:1");
        let map: PortMap = "[::1]:1:2".parse().unwrap();
        assert_eq!(map.host.to_string(), "[::1]:1");
        for text in ["", "80", "80:", ":80", "80:0", "80:99999", "x:1", "1:2:3:4", "-1:2"] {
            assert!(text.parse::<PortMap>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_volume_needs_a_host_path_and_an_absolute_guest_directory() {
        let volume: VolumeSpec = "/a b:/data:2G".parse().unwrap();
        assert_eq!(volume.size_mib, Some(2048));
        assert_eq!(volume.to_string(), "/a b:/data:2048M");
        for text in ["/a", ":/b", "/a:b", "/a:/", "/a:/../b", "/a:/b:0", "/a:/b:x", "/a:/b:1M:z"] {
            assert!(text.parse::<VolumeSpec>().is_err(), "{text}");
        }
    }

    #[test]
    fn memory_below_what_boots_is_refused() {
        assert_eq!(parse_memory("2G"), Ok(2048));
        assert_eq!(parse_memory("256"), Ok(256));
        for text in ["0", "64", "-1", "x", "", "9999999999G"] {
            assert!(parse_memory(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_name_near_any_text_is_a_valid_name(text: String) {
            let name = VmName::near(&text);
            prop_assert!(name.as_str().parse::<VmName>().is_ok());
            prop_assert!(name.numbered(4_000_000_000).as_str().parse::<VmName>().is_ok());
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text: String) {
            let _ = (text.parse::<PortMap>(), text.parse::<VolumeSpec>(), parse_memory(&text), parse_cpus(&text));
        }
    }
}
