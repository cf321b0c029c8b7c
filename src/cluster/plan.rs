//! What the cluster's files say.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::NAME;
use super::error::ClusterError;
use crate::agent::owner::watch;
use crate::agent::pki::{Authority, Identity, PeerName, PkiError, Role, file_name};
use crate::coordinator::config::{Config, Route};
use crate::fleet::desired::{DesiredState, Pool};
use crate::fleet::ids::PoolPath;
use crate::host::paths::Paths;

/// The pool whose route `up` waits for.
pub const GATEWAYS: &str = "gateways";

/// The coordinator's configuration.
pub fn config_file(paths: &Paths) -> PathBuf {
    paths.cluster().join("coordinator.toml")
}

/// The desired state.
pub fn desired_file(paths: &Paths) -> PathBuf {
    paths.cluster().join("desired.json")
}

/// The flakes that `init` lays out.
pub fn flakes(paths: &Paths) -> PathBuf {
    paths.cluster().join("flakes")
}

/// The certificate of a role, with its key.
pub fn certificate(paths: &Paths, role: Role) -> Result<PathBuf, PkiError> {
    Ok(paths.pki().join(file_name(role, &name()?)))
}

/// The node's name, as certificates have it.
pub fn name() -> Result<PeerName, PkiError> {
    NAME.parse()
}

/// What the cluster's files say.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The coordinator's configuration.
    pub config: Config,
    /// The desired state.
    pub desired: DesiredState,
    /// Where the agent of this machine listens.
    pub agent: SocketAddr,
}

impl Plan {
    /// Reads the files. What is wrong with them is told before anything is started.
    pub fn read(paths: &Paths) -> Result<Self, ClusterError> {
        let (config_file, desired_file) = (config_file(paths), desired_file(paths));
        let mut needed = vec![config_file.clone(), desired_file.clone()];
        for role in Role::ALL {
            needed.push(certificate(paths, role)?);
        }
        if let Some(missing) = needed.into_iter().find(|file| !file.exists()) {
            return Err(ClusterError::Missing(missing));
        }
        let config = Config::read(&config_file)?;
        let desired = watch::read(&desired_file).map_err(ClusterError::Desired)?;
        let here = config.nodes.iter().find(|node| node.name.as_str() == NAME);
        let agent = here.ok_or(ClusterError::NoNode(config_file))?.address;
        Ok(Self { config, desired, agent })
    }

    /// The pools that there are to be.
    pub fn pools(&self) -> Vec<PoolPath> {
        pools(&self.desired)
    }

    /// The route that `up` waits for: the gateways', else the first that an application answers over
    /// HTTP. None where there is neither, or its pool is to have no instances.
    pub fn front(&self) -> Option<(&Route, &Pool)> {
        let routes = &self.config.routes;
        let front = routes.iter().find(|route| route.pool_id.as_str() == GATEWAYS);
        let front = front.or_else(|| routes.iter().find(|route| route.health_path.is_some()))?;
        let tenant = self.desired.tenants.iter().find(|tenant| tenant.tenant_id == front.tenant_id)?;
        let pool = tenant.pools.iter().find(|pool| pool.pool_id == front.pool_id)?;
        (pool.desired_counts.total() > 0).then_some((front, pool))
    }
}

/// The pools that a desired state names.
pub fn pools(desired: &DesiredState) -> Vec<PoolPath> {
    let of = |tenant: &crate::fleet::desired::Tenant| {
        let id = tenant.tenant_id.clone();
        let path = move |pool: &Pool| PoolPath { tenant: id.clone(), pool: pool.pool_id.clone() };
        tenant.pools.iter().map(path).collect::<Vec<_>>()
    };
    desired.tenants.iter().flat_map(of).collect()
}

/// As whom this machine's commands ask its agent.
pub fn operator(paths: &Paths) -> Result<(Identity, Authority), PkiError> {
    let file = certificate(paths, Role::Client)?;
    let authority = paths.pki().join(crate::agent::pki::AUTHORITY);
    Ok((Identity::load(&file)?, Authority::load(&authority)?))
}
