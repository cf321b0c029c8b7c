//! What mvm needs of the system's packages, and how they are installed.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::child::find_program;
use super::nix;
use super::program::{self, ProgramError};
use super::setup::SetupError;
use super::tools;
use crate::event::EventSink;

/// A Debian package and a file of it that mvm needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Package {
    /// Debian's name for it.
    pub name: &'static str,
    /// A program of it, or the absolute path of a file.
    pub provides: &'static str,
}

/// The hypervisor for this architecture.
pub const QEMU: Package = if cfg!(target_arch = "aarch64") {
    Package { name: "qemu-system-arm", provides: "qemu-system-aarch64" }
} else {
    Package { name: "qemu-system-x86", provides: "qemu-system-x86_64" }
};

/// All of them.
pub const PACKAGES: [Package; 10] = [
    Package { name: "nix-bin", provides: "nix" },
    QEMU,
    Package { name: "busybox-static", provides: "busybox" },
    Package { name: "dropbear-bin", provides: "dropbear" },
    Package { name: "e2fsprogs", provides: "debugfs" },
    Package { name: "cpio", provides: "cpio" },
    Package { name: "openssh-client", provides: "ssh" },
    Package { name: "openssh-sftp-server", provides: "/usr/lib/openssh/sftp-server" },
    Package { name: "iproute2", provides: "ip" },
    Package { name: "nftables", provides: "nft" },
];

/// What makes a distribution's root directory, for images from an Mvmfile.
pub const MMDEBSTRAP: Package = Package { name: "mmdebstrap", provides: "mmdebstrap" };

/// Package lists older than this are fetched anew.
const STALE: Duration = Duration::from_secs(7 * 24 * 3600);

impl Package {
    /// The file it provides, where it is installed.
    pub fn installed(&self) -> Option<PathBuf> {
        let path = Path::new(self.provides);
        let file = if path.is_absolute() {
            path.exists().then(|| path.to_path_buf())
        } else {
            match self.provides {
                "nix" => nix::find(),
                program => find_program(program),
            }
        };
        // Package `busybox` has the same program, but one that guests could not run alone.
        file.filter(|file| self.name != "busybox-static" || tools::is_static(file))
    }
}

/// The packages that are not installed.
pub fn missing() -> Vec<Package> {
    PACKAGES.into_iter().filter(|package| package.installed().is_none()).collect()
}

/// Installs the packages with apt-get.
pub async fn install(
    packages: &[Package],
    sink: &EventSink,
    cancel: &CancellationToken,
) -> Result<(), SetupError> {
    let names: Vec<&str> = packages.iter().map(|package| package.name).collect();
    if find_program("apt-get").is_none() {
        let programs = packages.iter().map(|package| package.provides).collect::<Vec<_>>().join(", ");
        return Err(SetupError::NotDebian { programs });
    }
    let words = names.join(" ");
    sink.info(format!("installing {words}"));
    let updated = lists_are_stale();
    if updated {
        privileged("apt-get", &["update"], &words, sink, cancel).await?;
    }
    let mut install = vec!["-o", "DPkg::Lock::Timeout=120", "install", "--yes", "--no-install-recommends"];
    install.extend(&names);
    match privileged("apt-get", &install, &words, sink, cancel).await {
        Err(SetupError::Program(ProgramError::Failed { .. })) => {
            // Lists may be out of date, and an earlier installation may have been interrupted.
            sink.info("that failed; mending interrupted installations and fetching the lists anew");
            privileged("dpkg", &["--configure", "-a"], &words, sink, cancel).await?;
            if !updated {
                privileged("apt-get", &["update"], &words, sink, cancel).await?;
            }
            privileged("apt-get", &install, &words, sink, cancel).await
        }
        other => other,
    }
}

async fn privileged(
    name: &str,
    args: &[&str],
    packages: &str,
    sink: &EventSink,
    cancel: &CancellationToken,
) -> Result<(), SetupError> {
    let frontend = "DEBIAN_FRONTEND=noninteractive";
    let mut command = if ::nix::unistd::geteuid().is_root() {
        Command::new("env")
    } else {
        let refused = || SetupError::NotPrivileged { packages: packages.to_string() };
        let sudo = find_program("sudo").ok_or_else(refused)?;
        program::output(Command::new(&sudo).args(["-n", "true"])).await.map_err(|_| refused())?;
        let mut command = Command::new(sudo);
        command.args(["-n", "env"]);
        command
    };
    command.arg(frontend).arg(name).args(args);
    program::run(&mut command, sink, cancel).await?;
    Ok(())
}

fn lists_are_stale() -> bool {
    let Ok(entries) = std::fs::read_dir("/var/lib/apt/lists") else {
        return true;
    };
    let newest = entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
        .filter_map(|entry| entry.metadata().ok()?.modified().ok())
        .max();
    // A clock that went backwards makes the lists fresh.
    newest.is_none_or(|time| SystemTime::now().duration_since(time).unwrap_or_default() > STALE)
}
