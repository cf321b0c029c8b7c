//! The network that all VMs of a tenant share: a namespace with a bridge, and each VM's TAP a port of it.
//!
//! The namespace has no name either. The first VM's shim makes it, later ones join it through a living
//! one, and when the last shim and hypervisor are gone, however they went, the kernel removes it with all
//! that is in it. One lock a tenant makes those who come and go do so one after the other. The bridge
//! bears its name only while the network is whole: a namespace that is half made, or about to be left by
//! its last VM, has none and is not joined.

use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::addresses::{TENANT_TAPS, hex, mac, tenant_tap};
use super::commands::{NetworkError, interfaces, ip, step};
use super::connecting::Connecting;
use super::device::Device;
use super::namespace::Namespace;
use super::subnet::Subnet;
use super::uplink;
use crate::host::identity::ProcessId;
use crate::host::paths::Paths;
use crate::store::vms::{VmRow, VmState};
use crate::store::{Store, StoreError};
use crate::vm::hypervisor::Tap;
use crate::vm::spec::{HypervisorKind, Network, TenantLink, VmSpec};

/// How long a VM waits for others of its tenant that come and go.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two looks at the lock.
const PAUSE: Duration = Duration::from_millis(3);
/// The bridge's name before the network is whole.
const UNFINISHED: &str = "br-new";

/// A VM in its tenant's network. The calling thread is inside its namespace.
#[derive(Debug)]
pub struct TenantNetwork {
    device: Device,
    place: Arc<Place>,
}

/// A tenant's namespace, as one VM has it.
#[derive(Debug)]
struct Place {
    paths: Paths,
    vm: String,
    net_id: u16,
    host: Namespace,
    own: Namespace,
    egress: bool,
}

/// A tenant's network with those of its VMs that have a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveNetwork {
    /// The tenant's number.
    pub net_id: u16,
    /// Its VMs; some may not be in the namespace yet, or any more.
    pub members: Vec<Member>,
}

/// A VM of a tenant that has a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub vm: String,
    /// Its name.
    pub name: String,
    /// Its place in the tenant's network.
    pub link: TenantLink,
    /// Its state.
    pub state: VmState,
    /// Its shim.
    pub process: ProcessId,
}

/// Name of a tenant's bridge.
pub fn bridge(net_id: u16) -> String {
    format!("br-tenant-{net_id}")
}

/// The networks of all tenants that have VMs with a process.
pub fn live(store: &Store) -> Result<Vec<LiveNetwork>, StoreError> {
    let mut networks: Vec<LiveNetwork> = Vec::new();
    for member in store.vms()?.into_iter().filter_map(member) {
        let net_id = member.link.net_id;
        match networks.iter_mut().find(|network| network.net_id == net_id) {
            Some(network) => network.members.push(member),
            None => networks.push(LiveNetwork { net_id, members: vec![member] }),
        }
    }
    networks.sort_by_key(|network| network.net_id);
    Ok(networks)
}

fn member(row: VmRow) -> Option<Member> {
    // While it is only recorded, its process is the command that starts it.
    let process = row.process.filter(|_| row.state.is_live() && row.state != VmState::Created)?;
    let spec: VmSpec = serde_json::from_str(&row.spec).ok()?;
    let link = spec.tenant.filter(|_| spec.network == Network::Tap)?;
    process.is_alive().then_some(Member { vm: row.id, name: row.name, link, state: row.state, process })
}

impl LiveNetwork {
    /// The namespace, once it is whole.
    pub(super) fn namespace(&self) -> Option<Namespace> {
        let bridge = bridge(self.net_id);
        self.members.iter().find_map(|member| {
            let namespace = Namespace::of(&member.process).ok()?;
            let has_bridge = || Ok(interfaces()?.contains(&bridge));
            namespace.inside(has_bridge, step("look into a namespace")).ok()?.then_some(namespace)
        })
    }
}

impl TenantNetwork {
    /// Moves the calling thread into the namespace of the VM's tenant, which is made if there is none,
    /// makes the VM's TAP there, and begins to connect it.
    ///
    /// Must be called before other threads are started, or they stay outside.
    pub fn enter(
        paths: &Paths,
        spec: &VmSpec,
        link: &TenantLink,
    ) -> Result<(Self, Connecting), NetworkError> {
        check(link)?;
        let lock = lock(paths, link.net_id)?;
        let host = Namespace::current().map_err(step("open the host's namespace"))?;
        let others = others(paths, link.net_id, &spec.id)?;
        let (own, is_new) = match others.namespace() {
            Some(namespace) => (namespace, false),
            None => (Namespace::make().map_err(step("make a network namespace"))?, true),
        };
        own.enter().map_err(step("enter the tenant's namespace"))?;
        let (paths, vm) = (paths.clone(), spec.id.clone());
        let place = Arc::new(Place { paths, vm, net_id: link.net_id, host, own, egress: spec.egress });
        let fits = if is_new { Ok(()) } else { place.is_like(link.subnet) };
        let device = fits.and_then(|()| place.device(link.address, spec.hypervisor, &others));
        // What went wrong first is what is told.
        let device = device.inspect_err(|_| drop(place.leave()))?;
        let (new_in, address, its) = (is_new.then_some(link.subnet), link.address, place.clone());
        let connecting = Connecting::begin(move || {
            // Until it is done, nobody comes or goes.
            let _lock = lock;
            its.connect(address, new_in)
        })?;
        Ok((Self { device, place }, connecting))
    }

    /// The TAP device, for the hypervisor.
    pub fn device(&self) -> Tap<'_> {
        self.device.for_hypervisor()
    }

    /// Removes the VM's TAP, and the network if nobody is left in it. Called when the VM is over.
    pub fn leave(&self) -> Result<(), NetworkError> {
        let _lock = lock(&self.place.paths, self.place.net_id)?;
        let removed = ip(&[format!("link del {}", self.device.name())]);
        self.place.leave().and(removed)
    }
}

impl Place {
    /// Makes the VM's TAP a port of the bridge, which is made before if the namespace is `new_in` this
    /// network, and has its name from then on.
    fn connect(&self, address: Ipv4Addr, new_in: Option<Subnet>) -> Result<(), NetworkError> {
        let mut commands = new_in.map_or_else(Vec::new, |subnet| self.make(subnet));
        let (name, bridge, mac) = (tenant_tap(address), bridge(self.net_id), mac(&hex(address)));
        commands.extend([
            format!("link set {name} master {bridge} up"),
            format!("link set {bridge} up"),
            // Whoever has the address has this MAC: nobody need ask for it.
            format!("neigh replace {address} lladdr {mac} dev {bridge} nud permanent"),
        ]);
        match self.egress && new_in.is_some() {
            true => uplink::connect(&self.host, &self.vm, commands),
            false => ip(&commands),
        }
    }

    /// What makes the network in the namespace, which is new.
    fn make(&self, subnet: Subnet) -> Vec<String> {
        let (gateway, prefix) = (subnet.gateway(), subnet.prefix());
        let refused = uplink::refuse_other_namespaces().into_iter().filter(|_| self.egress);
        let made = [
            "link set lo up".to_string(),
            // With a MAC of its own it keeps it whoever comes and goes, and guests that slept know it.
            format!("link add {UNFINISHED} address {} type bridge", mac(&hex(gateway))),
            format!("addr add {gateway}/{prefix} dev {UNFINISHED}"),
            format!("link set {UNFINISHED} name {}", bridge(self.net_id)),
        ];
        refused.chain(made).collect()
    }

    /// Whether the network in the namespace is as this VM needs it.
    fn is_like(&self, subnet: Subnet) -> Result<(), NetworkError> {
        let bridge = bridge(self.net_id);
        let egress = interfaces()?.iter().any(|name| name == uplink::UPLINK);
        let addresses =
            nix::ifaddrs::getifaddrs().map_err(|errno| step("list the addresses")(errno.into()))?;
        let ip = |address: nix::sys::socket::SockaddrStorage| Some(address.as_sockaddr_in()?.ip());
        let on_bridge = addresses.filter(|address| address.interface_name == bridge);
        let mut found = on_bridge.filter_map(|one| Some((ip(one.address?)?, ip(one.netmask?)?)));
        let found = found.next().unwrap_or((Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED));
        if found == (subnet.gateway(), subnet.netmask()) && egress == self.egress {
            return Ok(());
        }
        let words = |gateway, egress| {
            let way = if egress { "with a way out" } else { "without a way out" };
            format!("{way} behind {gateway}")
        };
        let wished = words(format!("{}/{}", subnet.gateway(), subnet.netmask()), self.egress);
        Err(NetworkError::Differs { found: words(format!("{}/{}", found.0, found.1), egress), wished })
    }

    /// Makes the VM's TAP.
    fn device(
        &self,
        address: Ipv4Addr,
        hypervisor: HypervisorKind,
        others: &LiveNetwork,
    ) -> Result<Device, NetworkError> {
        let inside = self.inside(others);
        if let Some(holder) = inside.iter().find(|member| member.link.address == address) {
            return Err(NetworkError::AddressTaken { address, holder: holder.name.clone() });
        }
        // Firecracker's TAPs outlive a VM that was killed.
        let taps: Vec<String> = inside.iter().map(|member| tenant_tap(member.link.address)).collect();
        let stale = |name: &String| name.starts_with(TENANT_TAPS) && !taps.contains(name);
        for name in interfaces()?.into_iter().filter(stale) {
            ip(&[format!("link del {name}")])?;
        }
        Device::make(&tenant_tap(address), hypervisor).map_err(step("make a TAP device"))
    }

    /// Those of `others` whose shims are in this namespace.
    fn inside<'a>(&self, others: &'a LiveNetwork) -> Vec<&'a Member> {
        let is_here = |member: &&Member| {
            Namespace::of(&member.process).and_then(|theirs| theirs.is(&self.own)).unwrap_or(false)
        };
        others.members.iter().filter(is_here).collect()
    }

    /// Takes the network apart when no other VM is in it. The caller has the lock.
    fn leave(&self) -> Result<(), NetworkError> {
        let others = others(&self.paths, self.net_id, &self.vm)?;
        if !self.inside(&others).is_empty() {
            return Ok(());
        }
        // From here on nobody joins.
        let removed = ip(&[format!("link del {}", bridge(self.net_id))]);
        if self.egress {
            uplink::disconnect(&self.host)?;
        }
        removed
    }
}

fn others(paths: &Paths, net_id: u16, vm: &str) -> Result<LiveNetwork, NetworkError> {
    let store = Store::open(&paths.database())?.store;
    let network = live(&store)?.into_iter().find(|network| network.net_id == net_id);
    let members = network.map_or_else(Vec::new, |network| network.members);
    Ok(LiveNetwork { net_id, members: members.into_iter().filter(|member| member.vm != vm).collect() })
}

fn check(link: &TenantLink) -> Result<(), NetworkError> {
    let TenantLink { subnet, address, .. } = *link;
    let tenants: Result<Subnet, _> = uplink::TENANTS.parse();
    match tenants.is_ok_and(|all| all.contains(subnet)) && subnet.is_for_guests(address) {
        true => Ok(()),
        false => Err(NetworkError::Address { subnet, address }),
    }
}

/// Waits for the tenant's lock, which its holder has for the time of a few commands.
fn lock(paths: &Paths, net_id: u16) -> Result<Flock<File>, NetworkError> {
    let path = paths.tenant_lock(net_id);
    let failed = step("lock the tenant's network");
    let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
    let mut file = made.and_then(|()| File::create(&path)).map_err(&failed)?;
    let begun = Instant::now();
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((_, errno)) if errno != Errno::EWOULDBLOCK => return Err(failed(errno.into())),
            Err(_) if begun.elapsed() > PATIENCE => {
                let reason = "another VM of the tenant is being connected, and does not come to an end";
                return Err(failed(io::Error::other(reason)));
            }
            Err((held, _)) => file = held,
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_the_kernels_fifteen_bytes() {
        assert_eq!(bridge(u16::MAX).len(), 15);
        assert_eq!(tenant_tap(Ipv4Addr::new(10, 240, 1, 3)), "tap-0af00103");
    }

    #[test]
    fn a_tenants_vm_has_an_address_of_its_network_below_all_tenants() {
        let check = |subnet: &str, address: &str| {
            let (subnet, address) = (subnet.parse().unwrap(), address.parse().unwrap());
            check(&TenantLink { net_id: 1, subnet, address }).is_ok()
        };
        assert!(check("10.240.1.0/24", "10.240.1.3"));
        for (subnet, address) in [
            ("10.240.1.0/24", "10.240.1.1"),
            ("10.240.1.0/24", "10.240.1.255"),
            ("10.240.1.0/24", "10.240.2.3"),
            ("192.168.1.0/24", "192.168.1.3"),
        ] {
            assert!(!check(subnet, address), "{subnet} {address}");
        }
    }
}
