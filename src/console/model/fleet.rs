//! Tenants, pools and instances as they stand. What has to be counted is counted when it changes, so
//! that drawing a few rows of many thousand stays cheap.

use jiff::Timestamp;

use crate::event::cluster::{CountInfo, InstanceInfo, PoolInfo, TenantInfo};

/// Tenants with all that is theirs, sorted by name.
#[derive(Debug, Default)]
pub struct Fleet {
    /// What the path of a tenant begins with; empty for those of this state.
    before: String,
    tenants: Vec<Tenant>,
}

/// A tenant.
#[derive(Debug)]
pub struct Tenant {
    /// What it is selected and folded by.
    pub path: String,
    /// What is known of it.
    pub info: TenantInfo,
    /// Its pools, sorted by name.
    pub pools: Vec<Pool>,
}

/// A pool.
#[derive(Debug)]
pub struct Pool {
    /// What it is selected and folded by; `TENANT/POOL` in this state.
    pub path: String,
    /// What is known of it.
    pub info: PoolInfo,
    /// Its instances, the oldest first.
    pub instances: Vec<Instance>,
    /// What they are in sum.
    pub sum: Sum,
}

/// An instance.
#[derive(Debug)]
pub struct Instance {
    /// What it is selected by; `TENANT/POOL/INSTANCE` in this state.
    pub path: String,
    /// What is known of it.
    pub info: InstanceInfo,
}

/// What some instances are in sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    /// How many are in which state.
    pub is: CountInfo,
    /// How many failed.
    pub failed: u32,
    /// How many there are.
    pub all: u32,
    /// CPUs of running and warm ones.
    pub cpus: u64,
    /// Memory of running and warm ones in MiB.
    pub memory_mib: u64,
}

/// Something of a fleet.
#[derive(Debug, Clone, Copy)]
pub enum Item<'a> {
    /// A tenant.
    Tenant(&'a Tenant),
    /// A pool.
    Pool(&'a Pool),
    /// An instance and its pool.
    Instance(&'a Pool, &'a Instance),
}

impl Fleet {
    /// The tenants of a node, whose paths begin with `before`.
    pub fn of(tenants: &[TenantInfo], before: String) -> Self {
        let mut fleet = Self { before, tenants: Vec::new() };
        for tenant in tenants {
            fleet.see_tenant(tenant);
            for pool in &tenant.pools {
                fleet.see_pool(&tenant.name, pool);
                for instance in &pool.instances {
                    fleet.see_instance(&tenant.name, &pool.name, instance);
                }
            }
        }
        fleet
    }

    /// The tenants, by name.
    pub fn tenants(&self) -> &[Tenant] {
        &self.tenants
    }

    /// What has this path.
    pub fn find(&self, path: &str) -> Option<Item<'_>> {
        let mut names = path.strip_prefix(&self.before)?.splitn(3, '/');
        let tenant = &self.tenants[place(&self.tenants, names.next()?, |one| &one.info.name).ok()?];
        let Some(name) = names.next() else { return Some(Item::Tenant(tenant)) };
        let pool = &tenant.pools[place(&tenant.pools, name, |one| &one.info.name).ok()?];
        let Some(name) = names.next() else { return Some(Item::Pool(pool)) };
        let instance = pool.instances.iter().find(|one| one.info.name == name)?;
        Some(Item::Instance(pool, instance))
    }

    /// Takes a tenant in; its pools stay.
    pub(super) fn see_tenant(&mut self, info: &TenantInfo) -> bool {
        let info = TenantInfo { pools: Vec::new(), ..info.clone() };
        let known = place(&self.tenants, &info.name, |one| &one.info.name).is_ok();
        let tenant = self.tenant(&info.name);
        let changed = !known || tenant.info != info;
        tenant.info = info;
        changed
    }

    /// Takes a pool in; its instances stay.
    pub(super) fn see_pool(&mut self, tenant: &str, info: &PoolInfo) -> bool {
        let info = PoolInfo { instances: Vec::new(), ..info.clone() };
        let tenant = self.tenant(tenant);
        let known = place(&tenant.pools, &info.name, |one| &one.info.name).is_ok();
        let pool = tenant.pool(&info.name);
        let changed = !known || pool.info != info;
        pool.info = info;
        changed
    }

    /// Takes an instance in.
    pub(super) fn see_instance(&mut self, tenant: &str, pool: &str, info: &InstanceInfo) -> bool {
        self.tenant(tenant).pool(pool).see(info)
    }

    /// Takes in that something is no more.
    pub(super) fn lose(&mut self, path: &str) -> bool {
        let mut names = path.splitn(3, '/');
        let tenant = names.next().unwrap_or_default();
        let Ok(at) = place(&self.tenants, tenant, |one| &one.info.name) else { return false };
        let Some(pool) = names.next() else {
            self.tenants.remove(at);
            return true;
        };
        let tenant = &mut self.tenants[at];
        let Ok(at) = place(&tenant.pools, pool, |one| &one.info.name) else { return false };
        match names.next() {
            Some(instance) => tenant.pools[at].lose(instance),
            None => {
                tenant.pools.remove(at);
                true
            }
        }
    }

    fn tenant(&mut self, name: &str) -> &mut Tenant {
        let at = place(&self.tenants, name, |one| &one.info.name).unwrap_or_else(|at| {
            let (path, info) = (format!("{}{name}", self.before), TenantInfo::default());
            let info = TenantInfo { name: name.into(), ..info };
            self.tenants.insert(at, Tenant { path, info, pools: Vec::new() });
            at
        });
        &mut self.tenants[at]
    }
}

impl Tenant {
    /// What its instances are in sum.
    pub fn sum(&self) -> Sum {
        self.pools.iter().fold(Sum::default(), |sum, pool| Sum {
            is: CountInfo {
                running: sum.is.running + pool.sum.is.running,
                warm: sum.is.warm + pool.sum.is.warm,
                sleeping: sum.is.sleeping + pool.sum.is.sleeping,
            },
            failed: sum.failed + pool.sum.failed,
            all: sum.all + pool.sum.all,
            cpus: sum.cpus + pool.sum.cpus,
            memory_mib: sum.memory_mib + pool.sum.memory_mib,
        })
    }

    fn pool(&mut self, name: &str) -> &mut Pool {
        let at = place(&self.pools, name, |one| &one.info.name).unwrap_or_else(|at| {
            let info = PoolInfo { name: name.into(), ..PoolInfo::default() };
            let path = format!("{}/{name}", self.path);
            self.pools.insert(at, Pool { path, info, instances: Vec::new(), sum: Sum::default() });
            at
        });
        &mut self.pools[at]
    }
}

impl Pool {
    fn see(&mut self, info: &InstanceInfo) -> bool {
        let found = self.instances.binary_search_by(|one| key(&one.info).cmp(&key(info)));
        match found {
            Ok(at) if self.instances[at].info == *info => return false,
            Ok(at) => {
                self.sum.count(&self.instances[at].info, false);
                self.instances[at].info = info.clone();
            }
            Err(_) => {
                // A recording that is played may tell of another time than before.
                self.lose(&info.name);
                let at = self.instances.partition_point(|one| key(&one.info) < key(info));
                let path = format!("{}/{}", self.path, info.name);
                self.instances.insert(at, Instance { path, info: info.clone() });
            }
        }
        self.sum.count(info, true);
        true
    }

    fn lose(&mut self, name: &str) -> bool {
        let before = self.instances.len();
        self.instances.retain(|one| {
            let goes = one.info.name == name;
            if goes {
                self.sum.count(&one.info, false);
            }
            !goes
        });
        before != self.instances.len()
    }
}

impl Sum {
    /// Counts an instance, or no more.
    fn count(&mut self, info: &InstanceInfo, more: bool) {
        let by = |counter: &mut u32, yes: bool| {
            let by = u32::from(yes);
            *counter = if more { *counter + by } else { *counter - by };
        };
        let state = info.state.as_str();
        by(&mut self.is.running, state == "running");
        by(&mut self.is.warm, state == "warm");
        by(&mut self.is.sleeping, state == "sleeping");
        by(&mut self.failed, state == "failed");
        by(&mut self.all, true);
        if matches!(state, "running" | "warm") {
            let (cpus, memory) = (u64::from(info.cpus), u64::from(info.memory_mib));
            (self.cpus, self.memory_mib) = match more {
                true => (self.cpus + cpus, self.memory_mib + memory),
                false => (self.cpus - cpus, self.memory_mib - memory),
            };
        }
    }
}

/// What instances are sorted by.
fn key(info: &InstanceInfo) -> (Timestamp, &str) {
    (info.created.unwrap_or(Timestamp::MIN), &info.name)
}

fn place<T>(sorted: &[T], name: &str, of: impl Fn(&T) -> &String) -> Result<usize, usize> {
    sorted.binary_search_by(|one| of(one).as_str().cmp(name))
}

#[cfg(test)]
mod tests;
