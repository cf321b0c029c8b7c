//! What a tenant uses of its quotas, and whether there is room for more.

use super::action::{Why, Wish};
use crate::fleet::desired::{Quotas, Resources, Subnet};
use crate::fleet::policy::Bucket;

const NAMES: [&str; 6] =
    ["max_vcpus", "max_mem_mib", "max_running", "max_warm", "max_disk_gib", "network.ipv4_subnet"];

/// CPUs, memory, running, warm, disk in MiB, addresses.
type Amounts = [u64; 6];

/// A tenant's quotas, and what is used of them.
#[derive(Debug)]
pub(in crate::fleet) struct Room {
    most: Amounts,
    used: Amounts,
}

/// A quota that is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::fleet) struct Short {
    quota: &'static str,
    used: u64,
    need: u64,
    most: u64,
}

impl std::fmt::Display for Short {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is {}, {} are used and {} needed", self.quota, self.most, self.used, self.need)
    }
}

impl Short {
    /// A quota that counts instances or pools.
    pub(super) fn count(quota: &'static str, used: u64, most: u64) -> Self {
        Self { quota, used, need: used + 1, most }
    }

    /// Whether stopped instances, of whatever pool, are in the way.
    pub(super) fn is_of_kept(&self) -> bool {
        ["max_disk_gib", "network.ipv4_subnet"].contains(&self.quota)
    }

    /// As a reason.
    pub(super) fn why(self, wish: Wish, times: u32) -> Why {
        let Self { quota, used, need, most } = self;
        Why::Quota { wish, times, quota, used, need, most }
    }
}

/// What an instance uses in its state.
fn live(bucket: Option<Bucket>, resources: &Resources) -> Amounts {
    let (vcpus, memory) = (resources.vcpus.into(), resources.mem_mib.into());
    match bucket {
        Some(Bucket::Running) => [vcpus, memory, 1, 0, 0, 0],
        Some(Bucket::Warm) => [vcpus, memory, 0, 1, 0, 0],
        Some(Bucket::Sleeping) | None => [0; 6],
    }
}

/// What an instance uses in every state.
fn kept(resources: &Resources) -> Amounts {
    [0, 0, 0, 0, resources.data_disk_mib, 1]
}

fn plus(a: Amounts, b: Amounts) -> Amounts {
    std::array::from_fn(|i| a[i].saturating_add(b[i]))
}

fn minus(a: Amounts, b: Amounts) -> Amounts {
    std::array::from_fn(|i| a[i].saturating_sub(b[i]))
}

impl Room {
    /// Nothing is used yet.
    pub(in crate::fleet) fn new(quotas: &Quotas, subnet: Subnet) -> Self {
        let most = [
            quotas.max_vcpus.into(),
            quotas.max_mem_mib,
            quotas.max_running.into(),
            quotas.max_warm.into(),
            quotas.max_disk_gib.saturating_mul(1024),
            subnet.instances(),
        ];
        Self { most, used: [0; 6] }
    }

    /// Counts an instance that there is.
    pub(in crate::fleet) fn count(&mut self, bucket: Option<Bucket>, resources: &Resources) {
        self.used = plus(self.used, plus(live(bucket, resources), kept(resources)));
    }

    /// Takes what an instance needs that goes from one bucket to another. It runs before it is
    /// anything else, unless it comes from running.
    pub(in crate::fleet) fn shift(
        &mut self,
        from: Option<Bucket>,
        to: Bucket,
        resources: &Resources,
    ) -> Result<(), Short> {
        let others = minus(self.used, live(from, resources));
        let after = plus(others, live(Some(to), resources));
        if from != Some(Bucket::Running) && (from, to) != (Some(Bucket::Warm), Bucket::Sleeping) {
            self.fits(plus(others, live(Some(Bucket::Running), resources)))?;
        }
        self.fits(after)?;
        self.used = after;
        Ok(())
    }

    /// Takes what a new instance needs.
    pub(super) fn create(&mut self, to: Bucket, resources: &Resources) -> Result<(), Short> {
        let others = plus(self.used, kept(resources));
        self.fits(plus(others, live(Some(Bucket::Running), resources)))?;
        let after = plus(others, live(Some(to), resources));
        self.fits(after)?;
        self.used = after;
        Ok(())
    }

    /// Takes what a new instance needs in the place of an old one in the same bucket. With `beside`
    /// both are there for a while.
    pub(super) fn replace(
        &mut self,
        bucket: Bucket,
        (old, new): (&Resources, &Resources),
        beside: bool,
    ) -> Result<(), Short> {
        let others = minus(self.used, plus(live(Some(bucket), old), kept(old)));
        let peak = plus(live(Some(Bucket::Running), new), kept(new));
        self.fits(plus(if beside { self.used } else { others }, peak))?;
        let after = plus(others, plus(live(Some(bucket), new), kept(new)));
        self.fits(after)?;
        self.used = after;
        Ok(())
    }

    /// What was over before may stay, but not grow.
    fn fits(&self, after: Amounts) -> Result<(), Short> {
        let over = (0..after.len()).find(|&i| after[i] > self.most[i] && after[i] > self.used[i]);
        over.map_or(Ok(()), |i| {
            let gib = |mib: u64| if NAMES[i] == "max_disk_gib" { mib.div_ceil(1024) } else { mib };
            let [used, need, most] = [self.used[i], after[i], self.most[i]].map(gib);
            Err(Short { quota: NAMES[i], used, need, most })
        })
    }
}
