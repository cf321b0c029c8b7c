//! The files of a cluster, written from templates. What is there already is the user's.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::NAME;
use super::error::ClusterError;
use super::plan::{certificate, config_file, desired_file, flakes, name};
use crate::agent::pki::{self, DAYS, Role, Validity};
use crate::fleet::desired::TenantNetwork;
use crate::fleet::record;
use crate::fleet::tenant::free_network;
use crate::host::files;
use crate::host::paths::Paths;
use crate::store::Store;

/// Where the agent listens when nobody says otherwise.
pub const AGENT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4433);
/// Where the gateways' route listens when nobody says otherwise.
pub const GATEWAYS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8443);

const CONFIG: &str = include_str!("../../assets/cluster/coordinator.toml");
const DESIRED: &str = include_str!("../../assets/cluster/desired.json");

/// The flakes, each a directory and its files.
const FLAKES: [(&str, &[(&str, &str)]); 2] = [
    (
        "gateway",
        &[
            ("flake.nix", include_str!("../../nix/examples/gateway/flake.nix")),
            ("www/index.html", include_str!("../../nix/examples/gateway/www/index.html")),
        ],
    ),
    ("worker", &[("flake.nix", include_str!("../../nix/examples/hello/flake.nix"))]),
];

/// What is to be written.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Where the agent listens (UDP).
    pub agent: SocketAddr,
    /// Where the gateways' route listens (TCP).
    pub gateways: SocketAddr,
    /// Where the workers' route listens (TCP); the next port, unless given.
    pub workers: Option<SocketAddr>,
    /// Write files anew, and save those that are there under another name.
    pub recreate: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { agent: AGENT, gateways: GATEWAYS, workers: None, recreate: false }
    }
}

/// What became of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// It was not there.
    New,
    /// It is there as it would be written.
    Same,
    /// It is there, and is another: it was left alone.
    Kept,
    /// It was there, and lies under this name now.
    Replaced(PathBuf),
}

/// What `init` did: each file or directory, and what became of it.
pub type Init = Vec<(PathBuf, Written)>;

/// Writes what is missing.
pub fn init(options: &Options, paths: &Paths, store: &Store) -> Result<Init, ClusterError> {
    let workers = check(options)?;
    let network = network(store)?;
    let dir = paths.cluster();
    make(&dir)?;
    let mut done = Vec::new();
    certificates(paths, &mut done)?;
    let recreate = options.recreate;
    for (flake, content) in FLAKES {
        let root = flakes(paths).join(flake);
        let written = lay_out(&root, content, recreate)?;
        done.push((root, written));
    }
    let config = CONFIG
        .replace("@AGENT@", &options.agent.to_string())
        .replace("@GATEWAYS@", &options.gateways.to_string())
        .replace("@WORKERS@", &workers.to_string());
    put(config_file(paths), config.as_bytes(), recreate, &mut done)?;
    // Of a state inside a git work tree Nix would see nothing but what is tracked.
    let reference = |flake: &str| escaped(&format!("path:{}", flakes(paths).join(flake).display()));
    let desired = DESIRED
        .replace("@NUMBER@", &network.tenant_net_id.to_string())
        .replace("@SUBNET@", &network.ipv4_subnet.to_string())
        .replace("@GATEWAY_FLAKE@", &reference("gateway"))
        .replace("@WORKER_FLAKE@", &reference("worker"));
    put(desired_file(paths), desired.as_bytes(), recreate, &mut done)?;
    Ok(done)
}

/// Refuses addresses that are not for a dev cluster; where the workers' route listens.
fn check(options: &Options) -> Result<SocketAddr, ClusterError> {
    let next = || {
        let port = options.gateways.port();
        SocketAddr::new(options.gateways.ip(), port.checked_add(1).unwrap_or(u16::MAX - 1))
    };
    let workers = options.workers.unwrap_or_else(next);
    for (what, address, like) in [
        ("the agent's address", options.agent, "127.0.0.1:4433"),
        ("the gateways' address", options.gateways, "127.0.0.1:8443"),
        ("the workers' address", workers, "127.0.0.1:8444"),
    ] {
        let why = match () {
            () if !address.ip().is_loopback() => "a dev cluster is for this machine only",
            () if address.port() == 0 => "clients could not know the port",
            () => continue,
        };
        return Err(ClusterError::Address { what, address, why, like });
    }
    if workers == options.gateways {
        let (what, why) = ("the workers' address", "the gateways' route listens there");
        return Err(ClusterError::Address { what, address: workers, why, like: "127.0.0.1:8444" });
    }
    Ok(workers)
}

/// The tenant's network: the one it has, else the first that is free.
fn network(store: &Store) -> Result<TenantNetwork, ClusterError> {
    let tenants = record::load(store)?;
    let had = tenants.iter().find(|tenant| tenant.id.as_str() == NAME).map(|tenant| tenant.network);
    had.or_else(|| free_network(&tenants)).ok_or(ClusterError::NoNetwork)
}

fn certificates(paths: &Paths, done: &mut Init) -> Result<(), ClusterError> {
    let founded = pki::init(&paths.pki())?;
    done.push((founded.path, if founded.new { Written::New } else { Written::Same }));
    for role in Role::ALL {
        let file = certificate(paths, role)?;
        let written = match file.exists() {
            true => Written::Same,
            false => {
                pki::issue(&paths.pki(), role, &name()?, Validity::days(DAYS)?)?;
                Written::New
            }
        };
        done.push((file, written));
    }
    Ok(())
}

/// Lays a flake out. One that is there is the user's, whatever is in it.
fn lay_out(root: &Path, content: &[(&str, &str)], recreate: bool) -> Result<Written, ClusterError> {
    let is_same = |(name, text): &(&str, &str)| {
        std::fs::read(root.join(name)).is_ok_and(|there| there == text.as_bytes())
    };
    let written = match root.join("flake.nix").exists() {
        true if content.iter().all(is_same) => return Ok(Written::Same),
        true if !recreate => return Ok(Written::Kept),
        true => Written::Replaced(save(root)?),
        false => Written::New,
    };
    for (name, text) in content {
        let file = root.join(name);
        make(file.parent().unwrap_or(root))?;
        // Half a flake may have been left by a write that was cut short, or by the user.
        if !file.exists() {
            write(&file, text.as_bytes())?;
        }
    }
    Ok(written)
}

fn put(file: PathBuf, content: &[u8], recreate: bool, done: &mut Init) -> Result<(), ClusterError> {
    let written = match std::fs::read(&file) {
        Ok(there) if there == content => Written::Same,
        Ok(_) if !recreate => Written::Kept,
        Ok(_) => Written::Replaced(save(&file)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Written::New,
        Err(source) => return Err(ClusterError::Read { path: file, source }),
    };
    if matches!(written, Written::New | Written::Replaced(_)) {
        write(&file, content)?;
    }
    done.push((file, written));
    Ok(())
}

/// Gives what is there another name, which says when.
fn save(path: &Path) -> Result<PathBuf, ClusterError> {
    let mut to = path.as_os_str().to_owned();
    to.push(format!(".before-{}", Timestamp::now().as_millisecond()));
    let to = PathBuf::from(to);
    std::fs::rename(path, &to).map_err(|source| ClusterError::Write { path: path.into(), source })?;
    Ok(to)
}

fn make(dir: &Path) -> Result<(), ClusterError> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|source| ClusterError::Write { path: dir.into(), source })
}

fn write(file: &Path, content: &[u8]) -> Result<(), ClusterError> {
    files::write_atomic(file, content, 0o600)
        .map_err(|source| ClusterError::Write { path: file.into(), source })
}

/// A text as it stands between the quotes of JSON.
fn escaped(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

#[cfg(test)]
mod tests;
