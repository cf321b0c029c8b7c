//! What is there, what is not, and how to mend it.

use std::path::Path;

use serde::Serialize;
use tokio::process::Command;

use super::child::find_program;
use super::firecracker::{OLDEST, Version};
use super::kernel;
use super::kvm;
use super::layout;
use super::lima;
use super::nix;
use super::packages::{MMDEBSTRAP, PACKAGES, Package, QEMU};
use super::paths::Paths;
use super::program;
use super::tools;
use super::{files, firecracker};

/// Below this many GiB of free space builds and VMs may fail.
const LOW_DISK_GIB: u64 = 5;

/// The state of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// One for each thing mvm needs or can use.
    pub checks: Vec<Check>,
}

/// One thing mvm needs or can use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What it is.
    pub name: &'static str,
    /// How it is.
    pub status: Status,
    /// What was found: a version, a path, a reason.
    pub found: String,
    /// How to mend it; empty when nothing is to be done.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub help: String,
}

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As it should be.
    Ok,
    /// mvm works without it, less well.
    Warning,
    /// Not there, and needed.
    Missing,
    /// There, but not usable.
    Broken,
}

impl Report {
    /// Whether mvm can build and boot here.
    pub fn is_ready(&self) -> bool {
        self.checks.iter().all(|check| matches!(check.status, Status::Ok | Status::Warning))
    }
}

/// Looks at this machine. Changes nothing.
pub async fn doctor(paths: &Paths) -> Report {
    let firecracker = firecracker::find(paths).map(|file| file.to_string_lossy().into_owned());
    let firecracker = firecracker.as_deref().unwrap_or("firecracker");
    let nix = nix::find().map_or("nix".into(), |file| file.to_string_lossy().into_owned());
    let (nix, qemu, firecracker, virtiofsd, mmdebstrap) = tokio::join!(
        version_of("Nix", &nix, Status::Missing, "run `mvm setup`"),
        version_of("QEMU", QEMU.provides, Status::Missing, "run `mvm setup`"),
        version_of(
            "Firecracker",
            firecracker,
            Status::Warning,
            "QEMU is used in its place; where KVM is usable, `mvm setup` fetches it"
        ),
        virtiofsd(),
        version_of(
            "mmdebstrap",
            MMDEBSTRAP.provides,
            Status::Warning,
            "`mvm setup --with mvmfile` installs it, to build from an Mvmfile.toml"
        ),
    );
    let firecracker = new_enough(firecracker);
    let checks = vec![
        nix,
        nix_store(),
        qemu,
        firecracker,
        hardware(paths),
        laid_out("kernel", kernel::version(paths)),
        laid_out("host tools", layout::stamp(&paths.host_tools()).map(|_| show(&paths.host_tools()))),
        laid_out(
            "offline flake",
            layout::stamp(&paths.offline_flake()).map(|_| show(&paths.offline_flake())),
        ),
        agent(),
        packages(),
        tap_network(),
        virtiofsd,
        mmdebstrap,
        lima().await,
        state(paths),
        disk(paths),
    ];
    Report { checks }
}

fn ok(name: &'static str, found: impl Into<String>) -> Check {
    Check { name, status: Status::Ok, found: found.into(), help: String::new() }
}

fn bad(name: &'static str, status: Status, found: impl Into<String>, help: impl Into<String>) -> Check {
    Check { name, status, found: found.into(), help: help.into() }
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

async fn version_of(name: &'static str, program: &str, absent: Status, help: &str) -> Check {
    let Some(file) = find_program(program) else {
        return bad(name, absent, "not on PATH", help);
    };
    match program::output(Command::new(&file).arg("--version")).await {
        Ok(text) => ok(name, format!("{} ({})", text.lines().next().unwrap_or_default(), file.display())),
        Err(error) => {
            let first = error.to_string().lines().next().unwrap_or_default().to_string();
            bad(name, Status::Broken, first, "reinstall it")
        }
    }
}

/// Firecracker is of use from a version on.
fn new_enough(firecracker: Check) -> Check {
    let version = firecracker.found.split(" (").next().and_then(Version::parse);
    match version.filter(|version| firecracker.status == Status::Ok && *version < OLDEST) {
        Some(version) => bad(
            firecracker.name,
            Status::Warning,
            format!("version {version} is older than {OLDEST}"),
            "QEMU is used in its place; install a newer one",
        ),
        None => firecracker,
    }
}

fn nix_store() -> Check {
    let name = "Nix store";
    if Path::new("/nix/var/nix/daemon-socket/socket").exists() {
        return ok(name, "served by the Nix daemon");
    }
    // Nix makes /nix by itself where it may.
    let root = Path::new("/nix");
    let writable = if root.exists() { root.join("store") } else { "/".into() };
    if files::is_writable(&writable) {
        ok(name, "written directly")
    } else {
        bad(
            name,
            Status::Broken,
            format!("no daemon, and `{}` cannot be written", writable.display()),
            "install the package nix-setup-systemd and join the group nix-users, or run mvm as root",
        )
    }
}

fn hardware(paths: &Paths) -> Check {
    match kvm::usable_now(paths) {
        Ok(()) => ok("KVM", "usable"),
        Err(why) => bad("KVM", Status::Warning, why.reason(), why.help()),
    }
}

fn laid_out(name: &'static str, found: Option<String>) -> Check {
    match found {
        Some(found) => ok(name, found),
        None => bad(name, Status::Missing, "not laid out", "run `mvm setup`"),
    }
}

fn agent() -> Check {
    match tools::guest_agent() {
        Ok(path) => ok("guest agent", show(&path)),
        Err(error) => {
            let text = error.to_string();
            let (found, help) = text.split_once("\nhelp: ").unwrap_or((&text, ""));
            bad("guest agent", Status::Missing, found, help)
        }
    }
}

fn packages() -> Check {
    let missing: Vec<&str> = PACKAGES
        .iter()
        .filter(|package| package.installed().is_none())
        .map(|Package { name, .. }| *name)
        .collect();
    if missing.is_empty() {
        return ok("packages", format!("all {} are installed", PACKAGES.len()));
    }
    bad("packages", Status::Missing, format!("missing: {}", missing.join(" ")), "run `mvm setup`")
}

fn tap_network() -> Check {
    let name = "tap network";
    let absent: Vec<&str> =
        ["ip", "nft"].into_iter().filter(|program| find_program(program).is_none()).collect();
    if !absent.is_empty() {
        return bad(
            name,
            Status::Warning,
            format!("not on PATH: {}", absent.join(", ")),
            "run `mvm setup`; user-mode networking works without",
        );
    }
    if !Path::new("/dev/net/tun").exists() {
        return bad(
            name,
            Status::Warning,
            "no /dev/net/tun",
            "load the kernel module `tun`; user-mode networking works without",
        );
    }
    if !::nix::unistd::geteuid().is_root() {
        return bad(
            name,
            Status::Warning,
            "needs root",
            "run mvm as root for it; user-mode networking works without",
        );
    }
    ok(name, "ip, nft and /dev/net/tun are there")
}

async fn lima() -> Check {
    let name = "Lima";
    if let Some(version) = lima::outside() {
        return ok(name, format!("this is the VM of Lima {version}"));
    }
    match find_program(lima::PROGRAM) {
        None => ok(name, "not on PATH; Linux needs none"),
        Some(_) => version_of(name, lima::PROGRAM, Status::Warning, "").await,
    }
}

async fn virtiofsd() -> Check {
    let places = ["/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd"];
    let elsewhere = places.iter().map(|place| Path::new(place).to_path_buf()).find(|file| file.exists());
    match find_program("virtiofsd").or(elsewhere) {
        Some(file) => ok("virtiofsd", show(&file)),
        None => bad(
            "virtiofsd",
            Status::Warning,
            "not found",
            "install it to share directories with guests (`-v`): package virtiofsd",
        ),
    }
}

fn state(paths: &Paths) -> Check {
    if files::is_writable(paths.state()) {
        ok("state", show(paths.state()))
    } else {
        bad(
            "state",
            Status::Broken,
            format!("`{}` cannot be written", paths.state().display()),
            "mend its permissions, or set MVM_STATE_DIR",
        )
    }
}

fn disk(paths: &Paths) -> Check {
    match files::free_space(paths.state()) {
        Ok(bytes) => {
            let free = bytes >> 30;
            let found = format!("{free} GiB free for `{}`", paths.state().display());
            if free >= LOW_DISK_GIB {
                ok("disk space", found)
            } else {
                bad("disk space", Status::Warning, found, "run `mvm gc`, or free some space")
            }
        }
        Err(error) => bad("disk space", Status::Broken, error.to_string(), "is the state directory there?"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_firecracker_that_is_too_old_is_of_no_use() {
        let found = |text: &str| new_enough(ok("Firecracker", text)).status;
        assert_eq!(found("Firecracker v1.16.1 (/bin/firecracker)"), Status::Ok);
        assert_eq!(found("Firecracker v1.6.0 (/bin/firecracker)"), Status::Warning);
    }

    #[tokio::test]
    async fn an_empty_state_misses_its_layouts_and_each_problem_has_its_help() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::at(dir.path().join("s"), dir.path().join("r")).unwrap();
        let report = doctor(&paths).await;
        let kernel = report.checks.iter().find(|check| check.name == "kernel").unwrap();
        assert_eq!(kernel.status, Status::Missing);
        assert!(!report.is_ready());
        for check in &report.checks {
            assert_eq!(check.status == Status::Ok, check.help.is_empty(), "{check:?}");
        }
    }
}
