//! What can be done with one tenant.

use std::net::Ipv4Addr;

use super::desired::{Subnet, Tenant, TenantNetwork};
use super::error::FleetError;
use super::ids::TenantId;
use super::pool::remove_dir;
use super::record::{self, TenantRecord};
use super::work::Work;

/// Where tenants' networks begin.
const FIRST_NETWORK: Ipv4Addr = Ipv4Addr::new(10, 240, 0, 0);
/// Most networks of the usual size, a /24 each below 10.240.0.0/12.
const MOST_NETWORKS: u16 = 4095;

impl Subnet {
    /// Whether a tenant may have it.
    pub fn check(self) -> Result<(), String> {
        let host_bits = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
        match () {
            () if !(16..=29).contains(&self.prefix) => Err(format!("`{self}` is no /16 to /29")),
            () if u32::from(self.base) & host_bits != 0 => {
                Err(format!("`{self}` has an address where a network belongs"))
            }
            () if u32::from(self.base) >> 20 != u32::from(FIRST_NETWORK) >> 20 => {
                Err(format!("`{self}` is not below 10.240.0.0/12"))
            }
            () => Ok(()),
        }
    }
}

/// A network that no tenant has yet.
pub fn free_network(tenants: &[TenantRecord]) -> Option<TenantNetwork> {
    (1..=MOST_NETWORKS)
        .map(|number| TenantNetwork {
            tenant_net_id: number,
            ipv4_subnet: Subnet {
                base: Ipv4Addr::from(u32::from(FIRST_NETWORK) + (u32::from(number) << 8)),
                prefix: 24,
            },
        })
        .find(|network| collision(tenants, network, None).is_none())
}

/// Another tenant with the number of a network, or an address of it.
pub fn collision<'a>(
    tenants: &'a [TenantRecord],
    network: &TenantNetwork,
    but: Option<&TenantId>,
) -> Option<&'a TenantRecord> {
    tenants.iter().filter(|tenant| Some(&tenant.id) != but).find(|tenant| {
        tenant.network.tenant_net_id == network.tenant_net_id
            || tenant.network.ipv4_subnet.overlaps(&network.ipv4_subnet)
    })
}

impl Work<'_> {
    /// Makes a tenant, or changes its network or quotas.
    pub fn set_tenant(&mut self, tenant: &Tenant) -> Result<(), FleetError> {
        let all = record::load(self.store)?;
        if let Some(other) = collision(&all, &tenant.network, Some(&tenant.tenant_id)) {
            return Err(FleetError::Refused {
                what: format!(
                    "the network {} (number {}) collides with that of the tenant `{}`: {} (number {})",
                    tenant.network.ipv4_subnet,
                    tenant.network.tenant_net_id,
                    other.id,
                    other.network.ipv4_subnet,
                    other.network.tenant_net_id
                ),
                help: "choose another, or leave it to mvm".into(),
            });
        }
        let old = all.iter().find(|old| old.id == tenant.tenant_id);
        let has_instances = |old: &&TenantRecord| old.pools.iter().any(|pool| !pool.instances.is_empty());
        if let Some(old) = old.filter(|old| old.network != tenant.network).filter(has_instances) {
            return Err(FleetError::Refused {
                what: format!(
                    "the tenant `{}` has instances in its network {}",
                    old.id, old.network.ipv4_subnet
                ),
                help: "destroy its instances first".into(),
            });
        }
        record::put_tenant(self.store, tenant)
    }

    /// Removes a tenant with its pools, their instances and its secrets.
    pub async fn remove_tenant(&mut self, id: &TenantId) -> Result<(), FleetError> {
        let tenant = record::find_tenant(self.store, id)?;
        for pool in &tenant.pools {
            self.remove_pool(&pool.path).await?;
        }
        self.store.remove_tenant(id.as_str())?;
        remove_dir(self.paths.tenant(id.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::desired::Quotas;

    fn tenant(id: &str, number: u16, subnet: &str) -> TenantRecord {
        let ipv4_subnet = subnet.to_string().try_into().unwrap();
        let network = TenantNetwork { tenant_net_id: number, ipv4_subnet };
        TenantRecord { id: id.parse().unwrap(), network, quotas: Quotas::default(), pools: Vec::new() }
    }

    #[test]
    fn a_new_tenant_gets_the_first_network_that_is_free() {
        assert_eq!(free_network(&[]).unwrap().ipv4_subnet.to_string(), "10.240.1.0/24");
        let tenants = [tenant("a", 1, "10.240.1.0/24"), tenant("b", 9, "10.240.2.128/25")];
        let free = free_network(&tenants).unwrap();
        assert_eq!((free.tenant_net_id, free.ipv4_subnet.to_string().as_str()), (3, "10.240.3.0/24"));
    }
}
