//! The fleet as the database has it.

use serde::{Deserialize, Serialize};

use super::desired::{Pool, Quotas, Tenant, TenantNetwork};
use super::error::FleetError;
use super::ids::{InstanceId, InstancePath, PoolPath, TenantId};
use super::lease::Wakefulness;
use super::state::{Change, InstanceState};
use crate::store::Store;
use crate::store::fleet::{InstanceRow, PoolRow, TenantRow};

/// A tenant, with all that is its.
#[derive(Debug, Clone)]
pub struct TenantRecord {
    /// Its name.
    pub id: TenantId,
    /// Its network.
    pub network: TenantNetwork,
    /// What it may use.
    pub quotas: Quotas,
    /// Its pools.
    pub pools: Vec<PoolRecord>,
}

/// A pool, with its instances.
#[derive(Debug, Clone)]
pub struct PoolRecord {
    /// Its name.
    pub path: PoolPath,
    /// What it is to be.
    pub pool: Pool,
    /// What has become of it.
    pub row: PoolRow,
    /// Its instances, the oldest first.
    pub instances: Vec<Instance>,
}

/// An instance.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Its name.
    pub path: InstancePath,
    /// Its state.
    pub state: InstanceState,
    /// The rest.
    pub row: InstanceRow,
}

impl Instance {
    /// Who holds it awake, or held it.
    pub fn wakefulness(&self) -> Wakefulness {
        let written = self.row.lease.as_deref().and_then(|json| serde_json::from_str(json).ok());
        written.unwrap_or_else(|| Wakefulness::new(self.state))
    }
}

impl PoolRecord {
    /// A part of its record.
    pub fn read<T: for<'a> Deserialize<'a>>(&self, json: &str) -> Result<T, FleetError> {
        let of = format!("the pool `{}`", self.path);
        serde_json::from_str(json).map_err(|error| bad(of)(error.to_string()))
    }
}

/// A tenant without its pools, as it is written into its record.
#[derive(Debug, Serialize, Deserialize)]
struct TenantBody {
    network: TenantNetwork,
    quotas: Quotas,
}

/// All tenants, by name.
pub fn load(store: &Store) -> Result<Vec<TenantRecord>, FleetError> {
    let mut tenants = store.tenants()?.into_iter().map(tenant).collect::<Result<Vec<_>, _>>()?;
    let mut pools = store.pools()?.into_iter().map(pool).collect::<Result<Vec<_>, _>>()?;
    // All three are in the order of their names, and so are told apart in one pass.
    let mut instances = store.instances()?.into_iter().map(parse).peekable();
    for pool in &mut pools {
        let mine = |instance: &Result<Instance, FleetError>| {
            instance.as_ref().map_or(true, |instance| instance.path.pool == pool.path)
        };
        while let Some(instance) = instances.next_if(mine) {
            pool.instances.push(instance?);
        }
    }
    let mut pools = pools.into_iter().peekable();
    for tenant in &mut tenants {
        while let Some(pool) = pools.next_if(|pool| pool.path.tenant == tenant.id) {
            tenant.pools.push(pool);
        }
    }
    Ok(tenants)
}

/// The tenant of this name.
pub fn find_tenant(store: &Store, id: &TenantId) -> Result<TenantRecord, FleetError> {
    let found = load(store)?.into_iter().find(|tenant| tenant.id == *id);
    found.ok_or_else(|| FleetError::NoTenant(id.clone()))
}

/// The pool of this name, with its tenant's network and quotas.
pub fn find_pool(store: &Store, path: &PoolPath) -> Result<(TenantRecord, PoolRecord), FleetError> {
    let tenant = find_tenant(store, &path.tenant)?;
    let pool = tenant.pools.iter().find(|pool| pool.path == *path).cloned();
    let pool = pool.ok_or_else(|| FleetError::NoPool(path.clone()))?;
    Ok((tenant, pool))
}

/// The instance of this name.
pub fn find_instance(store: &Store, path: &InstancePath) -> Result<Instance, FleetError> {
    let row = store.instance(path.instance.as_str())?;
    let found = row.map(parse).transpose()?.filter(|instance| instance.path == *path);
    found.ok_or_else(|| FleetError::NoInstance(path.clone()))
}

/// Records a tenant, or what has changed of it.
pub fn put_tenant(store: &mut Store, tenant: &Tenant) -> Result<(), FleetError> {
    let body = TenantBody { network: tenant.network, quotas: tenant.quotas };
    let body = serde_json::to_string(&body).map_err(crate::store::StoreError::from)?;
    Ok(store.put_tenant(tenant.tenant_id.as_str(), &body)?)
}

/// Records a pool, or what has changed of it.
pub fn put_pool(store: &mut Store, tenant: &TenantId, pool: &Pool) -> Result<(), FleetError> {
    let body = serde_json::to_string(pool).map_err(crate::store::StoreError::from)?;
    Ok(store.put_pool(tenant.as_str(), pool.pool_id.as_str(), &body)?)
}

/// The one way by which an instance comes into another state; the audit trail keeps it.
pub fn change(
    store: &mut Store,
    instance: &mut Instance,
    change: Change,
    detail: Option<&str>,
) -> Result<(), FleetError> {
    let invalid = |source| FleetError::Change { path: instance.path.clone(), source };
    let next = instance.state.after(change).map_err(invalid)?;
    if !store.move_instance(&instance.row, next.as_str(), detail)? {
        return Err(FleetError::Raced(instance.path.clone()));
    }
    instance.state = next;
    instance.row.state = next.as_str().into();
    instance.row.detail = detail.map(Into::into);
    Ok(())
}

fn bad(of: String) -> impl FnOnce(String) -> FleetError {
    move |reason| FleetError::Record { of, reason }
}

fn tenant(row: TenantRow) -> Result<TenantRecord, FleetError> {
    let of = format!("the tenant `{}`", row.id);
    let body: TenantBody = serde_json::from_str(&row.body).map_err(|error| bad(of)(error.to_string()))?;
    Ok(TenantRecord { id: row.id.parse()?, network: body.network, quotas: body.quotas, pools: Vec::new() })
}

fn pool(row: PoolRow) -> Result<PoolRecord, FleetError> {
    let of = format!("the pool `{}/{}`", row.tenant, row.id);
    let pool = serde_json::from_str(&row.body).map_err(|error| bad(of)(error.to_string()))?;
    let path = PoolPath { tenant: row.tenant.parse()?, pool: row.id.parse()? };
    Ok(PoolRecord { path, pool, row, instances: Vec::new() })
}

/// An instance from its row.
pub fn parse(row: InstanceRow) -> Result<Instance, FleetError> {
    let pool = PoolPath { tenant: row.tenant.parse()?, pool: row.pool.parse()? };
    let path = pool.instance(row.id.parse::<InstanceId>()?);
    let state = InstanceState::ALL.into_iter().find(|state| state.as_str() == row.state);
    let unknown = || bad(format!("the instance `{path}`"))(format!("there is no state `{}`", row.state));
    Ok(Instance { state: state.ok_or_else(unknown)?, path, row })
}
