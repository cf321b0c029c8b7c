//! How Nix is called.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::child::find_program;

/// Where Nix's daemon listens.
const DAEMON_SOCKET: &str = "/nix/var/nix/daemon-socket/socket";

/// Where Nix is: on PATH, else where its own installers put it.
pub fn find() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".nix-profile/bin/nix"));
    let places = [Some(PathBuf::from("/nix/var/nix/profiles/default/bin/nix")), home];
    find_program("nix").or_else(|| places.into_iter().flatten().find(|file| file.is_file()))
}

/// `nix` with what every call of mvm's needs; the caller adds the subcommand.
pub fn nix_command() -> Command {
    let mut command = Command::new(find().unwrap_or_else(|| "nix".into()));
    command.args(["--extra-experimental-features", "nix-command flakes"]);
    common(&mut command);
    command
}

/// `nix-store` with what every call of mvm's needs.
pub fn nix_store_command() -> Command {
    let beside = find().map(|nix| nix.with_file_name("nix-store")).filter(|file| file.is_file());
    let mut command = Command::new(beside.unwrap_or_else(|| "nix-store".into()));
    common(&mut command);
    command
}

fn common(command: &mut Command) {
    // systemd's marks would be put before each line of the log.
    command.env_remove("IN_SYSTEMD");
    // A flake's own configuration can run programs as whoever builds it.
    command.args(["--option", "accept-flake-config", "false"]);
    // Work in progress is what mvm is for.
    command.args(["--option", "warn-dirty", "false"]);
    if is_alone() {
        // Root without a daemon builds by itself: there are no build users to hand work to.
        command.args(["--option", "build-users-group", "", "--option", "sandbox", "false"]);
    }
}

/// Whether Nix builds in its own process: root without a daemon.
pub fn is_alone() -> bool {
    ::nix::unistd::geteuid().is_root() && !has_daemon()
}

/// Whether a daemon builds for all users.
pub fn has_daemon() -> bool {
    Path::new(DAEMON_SOCKET).exists()
}
