//! Where mvm keeps its things.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::files;

/// Longest path of a Unix socket, in bytes (`sun_path` less its NUL).
pub const MAX_SOCKET_PATH: usize = 107;

/// The state root and the runtime directory of this user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    state: PathBuf,
    runtime: PathBuf,
}

/// Why the paths cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PathsError {
    /// No home to put the state in.
    #[error(
        "no place for mvm's state: neither MVM_STATE_DIR, XDG_STATE_HOME nor HOME is set\nhelp: set MVM_STATE_DIR to a directory you can write"
    )]
    NoHome,
    /// A relative path was given.
    #[error("MVM_STATE_DIR is `{0}`, which is not absolute\nhelp: give the whole path")]
    Relative(PathBuf),
    /// A directory cannot be made or written.
    #[error(
        "cannot write mvm's state in `{path}`: {source}\nhelp: mend its permissions, or set MVM_STATE_DIR to a directory you can write"
    )]
    Unwritable {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A socket in the runtime directory would be too long.
    #[error(
        "the runtime directory `{0}` is too long for sockets (a socket's path has at most {MAX_SOCKET_PATH} bytes)\nhelp: set XDG_RUNTIME_DIR to a shorter path"
    )]
    TooLong(PathBuf),
}

impl Paths {
    /// Finds the directories from the environment and makes them.
    pub fn find() -> Result<Self, PathsError> {
        let state = state_root()?;
        let runtime = runtime_root(&state);
        Self::at(state, runtime)
    }

    /// Uses these directories; makes them.
    pub fn at(state: PathBuf, runtime: PathBuf) -> Result<Self, PathsError> {
        for dir in [&state, &runtime] {
            make_private(dir).map_err(|source| PathsError::Unwritable { path: dir.clone(), source })?;
        }
        // The longest name below the runtime directory is that of a VM's shared directory.
        if runtime.as_os_str().len() + "/v-00000000-000.sock".len() > MAX_SOCKET_PATH {
            return Err(PathsError::TooLong(runtime));
        }
        Ok(Self { state, runtime })
    }

    /// The state root.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The directory of sockets.
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.state.join("state.db")
    }

    /// All builds' directories.
    pub fn builds(&self) -> PathBuf {
        self.state.join("dev/builds")
    }

    /// Layers of images from an Mvmfile.
    pub fn layers(&self) -> PathBuf {
        self.state.join("dev/layers")
    }

    /// The flake of `mvm dev`.
    pub fn dev_flake(&self) -> PathBuf {
        self.state.join("dev/flake")
    }

    /// What belongs to the builder VM.
    pub fn builder(&self) -> PathBuf {
        self.state.join("builder")
    }

    /// The flake of the builder VM.
    pub fn builder_flake(&self) -> PathBuf {
        self.builder().join("mvm-builder")
    }

    /// One VM's directory.
    pub fn vm(&self, id: &str) -> PathBuf {
        self.state.join("vms").join(id)
    }

    /// The lock of a tenant's network.
    pub fn tenant_lock(&self, net_id: u16) -> PathBuf {
        self.state.join("network").join(format!("{net_id}.lock"))
    }

    /// All VMs' directories.
    pub fn vms(&self) -> PathBuf {
        self.state.join("vms")
    }

    /// The snapshot of one VM.
    pub fn vm_snapshot(&self, id: &str) -> PathBuf {
        self.vm(id).join("snapshot")
    }

    /// Ready snapshots.
    pub fn snapshots(&self) -> PathBuf {
        self.state.join("dev/snapshots")
    }

    /// What belongs to one tenant.
    pub fn tenant(&self, id: &str) -> PathBuf {
        self.state.join("tenants").join(id)
    }

    /// Held by who reconciles.
    pub fn reconcile_lock(&self) -> PathBuf {
        self.state.join("reconcile.lock")
    }

    /// Held by who works on an instance.
    pub fn instance_lock(&self, id: &str) -> PathBuf {
        self.runtime.join(format!("{id}.lock"))
    }

    /// Events of tasks.
    pub fn tasks(&self) -> PathBuf {
        self.state.join("tasks")
    }

    /// The default kernel, laid out by `mvm setup`.
    pub fn kernel(&self) -> PathBuf {
        self.state.join("kernel")
    }

    /// Tools for images, laid out by `mvm setup`.
    pub fn host_tools(&self) -> PathBuf {
        self.state.join("host-tools")
    }

    /// A language for guests, laid out by `mvm setup --with`.
    pub fn language(&self, name: &str) -> PathBuf {
        self.state.join("languages").join(name)
    }

    /// mvm's own offline flake, laid out by `mvm setup`.
    pub fn offline_flake(&self) -> PathBuf {
        self.state.join("nix/offline")
    }

    /// What belongs to the cluster on this machine.
    pub fn cluster(&self) -> PathBuf {
        self.state.join("cluster")
    }

    /// The cluster's certificates.
    pub fn pki(&self) -> PathBuf {
        self.cluster().join("pki")
    }

    /// The socket of the coordinator's status API.
    pub fn coordinator_socket(&self) -> PathBuf {
        self.runtime.join("coordinator.sock")
    }

    /// The socket of a VM's shim.
    pub fn shim_socket(&self, id: &str) -> PathBuf {
        self.runtime.join(format!("{id}.sock"))
    }

    /// The socket of a directory shared with a VM; gone once the hypervisor has connected.
    pub fn share_socket(&self, id: &str, index: usize) -> PathBuf {
        self.runtime.join(format!("{id}-{index}.sock"))
    }
}

fn state_root() -> Result<PathBuf, PathsError> {
    if let Some(dir) = set("MVM_STATE_DIR") {
        return if dir.is_absolute() { Ok(dir) } else { Err(PathsError::Relative(dir)) };
    }
    let system = PathBuf::from("/var/lib/mvm");
    if files::is_writable(&system) || (!system.exists() && files::is_writable(Path::new("/var/lib"))) {
        return Ok(system);
    }
    let home = || set("HOME").map(|home| home.join(".local/state"));
    let base = set("XDG_STATE_HOME").or_else(home).ok_or(PathsError::NoHome)?;
    Ok(base.join("mvm"))
}

/// A state of one's own gets sockets of its own, so that two states never meet.
fn runtime_root(state: &Path) -> PathBuf {
    let base = match set("XDG_RUNTIME_DIR").filter(|dir| dir.is_dir()) {
        Some(dir) => dir.join("mvm"),
        None if files::is_writable(Path::new("/run")) => PathBuf::from("/run/mvm"),
        None => return state.join("run"),
    };
    if set("MVM_STATE_DIR").is_some() {
        use sha2::Digest;
        let digest = sha2::Sha256::digest(state.as_os_str().as_encoded_bytes());
        return base.join(files::hex(&digest[..4]));
    }
    base
}

fn set(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn make_private(dir: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    if files::is_writable(dir) { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}
