//! What a desired state of the right form may still get wrong.

use std::collections::HashMap;
use std::fmt::Display;
use std::net::Ipv4Addr;

use super::{DesiredState, Pool, SCHEMA_VERSION, Subnet, Tenant};
use crate::event::fault::{Fault, shown};
use crate::fleet::ids::TenantId;
use crate::vm::spec::{MAX_CPUS, MAX_DISK_MIB, MIN_MEMORY_MIB};

/// Where tenants' networks lie.
const SPACE: Subnet = Subnet { base: Ipv4Addr::new(10, 240, 0, 0), prefix: 12 };
/// Widest and narrowest tenant network.
const PREFIXES: std::ops::RangeInclusive<u8> = 16..=29;
/// Most memory of a guest, MiB: 1 TiB.
const MAX_MEMORY_MIB: u32 = 1024 * 1024;
/// Least writable disk, MiB.
const MIN_DISK_MIB: u64 = 16;
/// Longest time a policy may ask for: a year, in seconds.
const MAX_SECONDS: u64 = 365 * 24 * 60 * 60;

/// The faults so far.
#[derive(Default)]
struct Faults(Vec<Fault>);

impl Faults {
    fn put(&mut self, path: impl Into<String>, what: impl Into<String>, help: impl Into<String>) {
        self.0.push(Fault { path: path.into(), what: what.into(), help: help.into() });
    }

    /// Says so when `value` is not between the two.
    fn within<T: PartialOrd + Display>(&mut self, path: String, value: T, (least, most): (T, T)) {
        if value < least || value > most {
            let what = format!("{value} is outside of what can be");
            self.put(path, what, format!("write a number from {least} to {most}"));
        }
    }
}

impl DesiredState {
    /// All that is wrong with it, in the order of the file.
    pub(super) fn faults(&self) -> Vec<Fault> {
        let mut faults = Faults::default();
        if self.schema_version != SCHEMA_VERSION {
            let what = format!("version {} is not known", self.schema_version);
            faults.put("schema_version", what, format!("this mvm knows version {SCHEMA_VERSION}"));
        }
        if let Err(error) = self.node_id.parse::<TenantId>() {
            let text = error.to_string();
            let help = text.split_once("\nhelp: ").map_or("", |(_, help)| help);
            faults.put("node_id", format!("`{}` is no name of a node", shown(&self.node_id)), help);
        }
        let overlaps = self.overlaps();
        let (mut names, mut numbers) = (HashMap::new(), HashMap::new());
        for (index, tenant) in self.tenants.iter().enumerate() {
            let path = format!("tenants[{index}]");
            if let Some(first) = names.insert(&tenant.tenant_id, index) {
                let what = format!("`{}` is tenants[{first}] already", tenant.tenant_id);
                faults.put(format!("{path}.tenant_id"), what, "join the two, or rename one");
            }
            let number = tenant.network.tenant_net_id;
            let place = format!("{path}.network.tenant_net_id");
            if number == 0 {
                faults.put(place, "0 is no number of a network", "write a number from 1 to 65535");
            } else if let Some(first) = numbers.insert(number, &tenant.tenant_id) {
                let what = format!("{number} is the number of `{first}` already");
                faults.put(place, what, "give each tenant a number of its own");
            }
            check_subnet(&format!("{path}.network.ipv4_subnet"), tenant, overlaps.get(&index), &mut faults);
            tenant.check(&path, &mut faults);
        }
        faults.0
    }

    /// Each tenant whose network shares addresses with that of another, and that other; found in one
    /// pass in the order of the addresses.
    fn overlaps(&self) -> HashMap<usize, &Tenant> {
        let range = |index: usize| self.tenants[index].network.ipv4_subnet.range();
        let mut sorted: Vec<usize> = (0..self.tenants.len()).collect();
        sorted.sort_by_key(|index| (range(*index), *index));
        let mut found = HashMap::new();
        let mut furthest: Option<usize> = None;
        for index in sorted {
            let before = furthest.filter(|before| range(*before).1 >= range(index).0);
            if let Some(before) = before {
                found.insert(before.max(index), &self.tenants[before.min(index)]);
            }
            furthest = before.filter(|before| range(*before).1 >= range(index).1).or(Some(index));
        }
        found
    }
}

fn check_subnet(path: &str, tenant: &Tenant, overlapped: Option<&&Tenant>, faults: &mut Faults) {
    let subnet = tenant.network.ipv4_subnet;
    let ((first, last), (least, most)) = (subnet.range(), SPACE.range());
    if !PREFIXES.contains(&subnet.prefix) {
        let (widest, narrowest) = PREFIXES.into_inner();
        let what = format!("/{} is no length of a tenant's prefix", subnet.prefix);
        faults.put(path, what, format!("write /{widest} to /{narrowest}, e.g. `10.240.1.0/24`"));
    } else if first < least || last > most {
        faults.put(path, format!("{subnet} is outside of {SPACE}"), "write e.g. `10.240.1.0/24`");
    } else if u32::from(subnet.base) != first {
        let base = Ipv4Addr::from(first);
        let what = format!("{subnet} is no network: bits behind its prefix are set");
        faults.put(path, what, format!("write `{base}/{}`", subnet.prefix));
    }
    if let Some(other) = overlapped {
        let what = format!("{subnet} overlaps {} of `{}`", other.network.ipv4_subnet, other.tenant_id);
        faults.put(path, what, "give each tenant a network of its own");
    }
    let wished = tenant.sum(|pool| pool.desired_counts.total());
    if PREFIXES.contains(&subnet.prefix) && wished > subnet.instances() {
        let what = format!("{subnet} has addresses for {} instances, not {wished}", subnet.instances());
        faults.put(path, what, "lower the counts or widen the network");
    }
}

impl Tenant {
    fn check(&self, path: &str, faults: &mut Faults) {
        self.check_quotas(path, faults);
        let mut names = HashMap::new();
        for (index, pool) in self.pools.iter().enumerate() {
            let path = format!("{path}.pools[{index}]");
            if let Some(first) = names.insert(&pool.pool_id, index) {
                let what = format!("`{}` is pools[{first}] already", pool.pool_id);
                faults.put(format!("{path}.pool_id"), what, "join the two, or rename one");
            }
            pool.check(&path, faults);
            let (wished, most) = (pool.desired_counts.total(), self.quotas.max_instances_per_pool);
            if wished > u64::from(most) {
                let what = format!("{wished} instances are more than quotas.max_instances_per_pool, {most}");
                faults.put(format!("{path}.desired_counts"), what, "lower the counts or raise the quota");
            }
        }
    }

    fn sum(&self, of: impl Fn(&Pool) -> u64) -> u64 {
        self.pools.iter().fold(0, |sum, pool| sum.saturating_add(of(pool)))
    }

    /// What the counts need. An instance runs before it is warm or sleeps: room for that is needed too.
    fn check_quotas(&self, path: &str, faults: &mut Faults) {
        let quotas = &self.quotas;
        let running = self.sum(|pool| pool.desired_counts.running.into());
        let warm = self.sum(|pool| pool.desired_counts.warm.into());
        let sleeping = self.sum(|pool| pool.desired_counts.sleeping.into());
        let live = |of: fn(&Pool) -> u64| {
            let counts =
                |pool: &Pool| u64::from(pool.desired_counts.running) + u64::from(pool.desired_counts.warm);
            let sleepers = self.pools.iter().filter(|pool| pool.desired_counts.sleeping > 0);
            let one_more = sleepers.map(of).max().unwrap_or(0);
            self.sum(|pool| counts(pool).saturating_mul(of(pool))).saturating_add(one_more)
        };
        let disk =
            |pool: &Pool| pool.desired_counts.total().saturating_mul(pool.instance_resources.data_disk_mib);
        let asleep = ["", ", one more on its way to sleep among them"][usize::from(sleeping > 0)];
        let idle =
            ["", ", one more on its way to be warm or asleep among them"][usize::from(warm + sleeping > 0)];
        let vcpus = live(|pool| pool.instance_resources.vcpus.into());
        let memory = live(|pool| pool.instance_resources.mem_mib.into());
        let needs = [
            ("max_vcpus", vcpus, quotas.max_vcpus.into(), asleep),
            ("max_mem_mib", memory, quotas.max_mem_mib, asleep),
            ("max_running", running + (warm + sleeping).min(1), quotas.max_running.into(), idle),
            ("max_warm", warm, quotas.max_warm.into(), ""),
            ("max_pools", self.pools.len() as u64, quotas.max_pools.into(), ""),
            ("max_disk_gib", self.sum(disk).div_ceil(1024), quotas.max_disk_gib, ""),
        ];
        for (quota, need, most, which) in needs.into_iter().filter(|(_, need, most, _)| need > most) {
            faults.put(
                format!("{path}.quotas.{quota}"),
                format!("{most} is below the {need} that the pools need{which}"),
                format!("raise it to {need} or ask for less"),
            );
        }
    }
}

impl Pool {
    fn check(&self, path: &str, faults: &mut Faults) {
        let flake = &self.flake_ref;
        let help = "write a flake such as `github:owner/repository` or an absolute path";
        if flake.trim().is_empty() {
            faults.put(format!("{path}.flake_ref"), "no flake is named", help);
        } else if flake.starts_with('-') || flake.chars().any(char::is_control) {
            faults.put(format!("{path}.flake_ref"), format!("`{}` is no flake", shown(flake)), help);
        }
        for (field, value) in [("profile", &self.profile), ("role", &self.role)] {
            if value.as_ref().is_some_and(|value| value.is_empty() || value.chars().any(char::is_control)) {
                let help = "name one of the flake's, or leave it out";
                faults.put(format!("{path}.{field}"), "this is no name", help);
            }
        }
        let resources = &self.instance_resources;
        let place = |field: &str| format!("{path}.instance_resources.{field}");
        faults.within(place("vcpus"), resources.vcpus, (1, MAX_CPUS));
        faults.within(place("mem_mib"), resources.mem_mib, (MIN_MEMORY_MIB, MAX_MEMORY_MIB));
        faults.within(place("data_disk_mib"), resources.data_disk_mib, (MIN_DISK_MIB, MAX_DISK_MIB));
        let policy = &self.runtime_policy;
        for (field, seconds) in [
            ("min_running_seconds", policy.min_running_seconds),
            ("min_warm_seconds", policy.min_warm_seconds),
            ("drain_timeout_seconds", policy.drain_timeout_seconds),
            ("graceful_shutdown_seconds", policy.graceful_shutdown_seconds),
        ] {
            faults.within(format!("{path}.runtime_policy.{field}"), seconds, (0, MAX_SECONDS));
        }
    }
}
