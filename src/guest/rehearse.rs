//! What a sealed guest goes through before it is saved, so that its copies have it behind them.
//!
//! Under software emulation a copy of a guest pays anew for all it does; what needs no identity is
//! better done before. The image's hook `rehearse` brings services up to where they need one, and
//! names them in [`PARKED`]: processes that stopped themselves, to be sent SIGCONT.

use std::io;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::frames::Personalise;
use super::hook;
use super::personalise::{self, StepError};
use super::system::System;

/// A directory of files with one process id each.
const PARKED: &str = "run/mvm/parked";
/// How long the hook may take when the host does not say.
pub const LIMIT: Duration = Duration::from_secs(5);

/// Rehearses; nothing of it is told from a guest that did not, but by the time it takes.
pub fn rehearse(root: &Path, system: &dyn System, limit: Duration) -> Result<(), StepError> {
    let step = |source| StepError { step: "rehearsal", source };
    // A request's way through the parser, for one.
    let words = serde_json::to_vec(&Personalise::default()).map_err(|error| step(error.into()))?;
    let _: Personalise = serde_json::from_slice(&words).map_err(|error| step(error.into()))?;
    personalise::touch(root, system)?;
    match hook::run(root, "rehearse", limit) {
        Ok(()) => Ok(()),
        Err(error) => Err(step(io::Error::other(error.to_string()))),
    }
}

/// Has the services that were parked go on; false when there are none. Called once in a guest's life.
pub fn go_on(root: &Path) -> bool {
    let Ok(parked) = std::fs::read_dir(root.join(PARKED)) else { return false };
    let pid = |file: &Path| std::fs::read_to_string(file).ok()?.trim().parse().ok();
    for pid in parked.flatten().filter_map(|entry| pid(&entry.path())) {
        // One that ended is not there any more, and its number not anybody else's yet: it is sealed.
        let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::system::Rehearsal;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    #[test]
    fn a_hook_that_is_too_slow_is_ended_at_the_hosts_deadline() {
        let root = tempfile::tempdir().unwrap();
        for dir in ["run/mvm", "etc/mvm"] {
            std::fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        let script = "printf '#!/bin/sh\nsleep 1000\n' >etc/mvm/rehearse; chmod 755 etc/mvm/rehearse";
        let written = Command::new("sh").args(["-c", script]).current_dir(root.path()).status().unwrap();
        assert!(written.success());
        let limit = Duration::from_millis(30);
        let error = rehearse(root.path(), &Rehearsal::default(), limit).unwrap_err();
        assert!(format!("{error:?}").contains("did not finish within 30 ms"), "{error:?}");
    }

    #[test]
    fn what_the_hook_parked_goes_on_once() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("run/mvm")).unwrap();
        std::fs::create_dir_all(root.path().join("etc/mvm")).unwrap();
        std::fs::write(root.path().join("etc/hosts"), "127.0.0.1 localhost\n").unwrap();
        rehearse(root.path(), &Rehearsal::default(), LIMIT).unwrap();
        assert!(!go_on(root.path()), "an image without the hook parks nothing");

        let mut parked = Command::new("sh").args(["-c", "kill -STOP $$; kill -9 $$"]).spawn().unwrap();
        let hook = root.path().join("etc/mvm/rehearse");
        let list = root.path().join(PARKED);
        let text = format!("#!/bin/sh\nmkdir {0}\necho {1} >{0}/web\n", list.display(), parked.id());
        std::fs::write(&hook, text).unwrap();
        std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
        rehearse(root.path(), &Rehearsal::default(), LIMIT).unwrap();
        assert!(go_on(root.path()));
        assert_eq!(parked.wait().unwrap().signal(), Some(9));
        let hosts = std::fs::read_to_string(root.path().join("etc/hosts")).unwrap();
        assert_eq!(hosts, "127.0.0.1 localhost\n");
    }
}
