//! Whether hardware virtualisation is there to be used.

mod guest;

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::fd::{FromRawFd, IntoRawFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kvm_ioctls::Kvm;
use nix::unistd::{Gid, Group};
use serde::{Deserialize, Serialize};

use super::child;
use super::files;
use super::identity::boot_id;
use super::paths::Paths;

/// The hidden command of mvm that runs [`try_guest`].
pub const COMMAND: &str = "probe-kvm";
/// What it prints when the guest ran.
const HALTED: &str = "halted";
/// How long a guest of one instruction may take: it takes a millisecond.
pub const DEADLINE: Duration = Duration::from_secs(2);
/// Pause between two looks whether it is done.
const POLL: Duration = Duration::from_millis(1);

const DEVICE: &str = "/dev/kvm";

/// Why KVM is not used.
#[derive(Debug, thiserror::Error)]
pub enum NoKvm {
    /// A processor without the extension, or a machine that hides it.
    #[error(
        "the CPU offers no hardware virtualisation (no vmx or svm in /proc/cpuinfo)\nhelp: guests run in software emulation, several times slower; use a machine with (nested) virtualisation for speed"
    )]
    NoExtension,
    /// No device.
    #[error(
        "there is no {DEVICE}\nhelp: load the kernel module `kvm_intel` or `kvm_amd`; mind that virtualisation can be off in the firmware"
    )]
    Absent,
    /// The device is for others.
    #[error("{DEVICE} may be opened by {owner} only\nhelp: {help}")]
    Denied {
        /// Whom its mode lets in.
        owner: String,
        /// How to get in.
        help: String,
    },
    /// The device does not open, or makes no VM.
    #[error(
        "{DEVICE} does not work: {0}\nhelp: see what `dmesg` says of kvm; is another hypervisor using it?"
    )]
    Broken(String),
    /// A guest of one instruction did not come to its end.
    #[error(
        "{DEVICE} opens but runs no guest: {0}\nhelp: guests run in software emulation, several times slower; use a machine with (nested) virtualisation for speed"
    )]
    NoGuest(String),
    /// It did not come to its end in time; the machine may only have been busy.
    #[error(
        "{DEVICE} opens but runs no guest: its first instruction took more than {0:?}\nhelp: guests run in software emulation, several times slower; if the machine was busy, try again, else use one with (nested) virtualisation for speed"
    )]
    Slow(Duration),
    /// The guest could not be tried.
    #[error("{DEVICE} could not be tried: {0}\nhelp: is the program `mvm` still where it was started from?")]
    Untried(io::Error),
}

impl NoKvm {
    /// What is wrong, in a line.
    pub fn reason(&self) -> String {
        self.to_string().lines().next().unwrap_or_default().into()
    }

    /// What to do about it.
    pub fn help(&self) -> String {
        self.to_string().split_once("\nhelp: ").map(|(_, help)| help.into()).unwrap_or_default()
    }
}

/// Whether KVM can be used, or why not.
///
/// Opening the device proves nothing: some machines emulate it in software, a hundred times
/// slower, and some only seem to have it. The CPU must have the extension, and a guest must run.
/// The latter is tried once a boot, unless it took too long.
pub fn usable(paths: &Paths) -> Result<(), NoKvm> {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if !has_extension(&info) {
        return Err(NoKvm::NoExtension);
    }
    let kvm = open(Path::new(DEVICE))?;
    kvm.create_vm().map_err(|error| NoKvm::Broken(format!("it makes no VM: {error}")))?;
    // On aarch64 the device alone decides.
    if cfg!(not(target_arch = "x86_64")) {
        return Ok(());
    }
    remembered(paths, || ask(Command::new(child::itself().map_err(NoKvm::Untried)?).arg(COMMAND), DEADLINE))
}

/// Whether KVM can be used, or why not, with the guest tried anew.
pub fn usable_now(paths: &Paths) -> Result<(), NoKvm> {
    // What stays is at worst still true.
    let _ = files::remove_file_if_there(&memory(paths));
    usable(paths)
}

/// Runs the guest here and tells how it went: the command [`COMMAND`].
///
/// This process may hang in it; the caller ends it.
pub fn try_guest() -> Result<(), NoKvm> {
    // Should the caller be gone, nobody else would.
    nix::unistd::alarm::set(2 * DEADLINE.as_secs() as u32);
    guest::halt(&open(Path::new(DEVICE))?).map_err(NoKvm::NoGuest)?;
    println!("{HALTED}");
    Ok(())
}

/// Has a child try the guest, and ends it at the deadline.
pub fn ask(child: &mut Command, deadline: Duration) -> Result<(), NoKvm> {
    let child = child.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().map_err(NoKvm::Untried)?;
    let begun = Instant::now();
    while child.try_wait().map_err(NoKvm::Untried)?.is_none() {
        if begun.elapsed() > deadline {
            // It may just have ended.
            let _ = child.kill();
            child.wait().map_err(NoKvm::Untried)?;
            return Err(NoKvm::Slow(deadline));
        }
        std::thread::sleep(POLL);
    }
    let mut said = String::new();
    if let Some(mut out) = child.stdout.take() {
        out.read_to_string(&mut said).map_err(NoKvm::Untried)?;
    }
    if said.trim() == HALTED {
        return Ok(());
    }
    let mut complaint = String::new();
    if let Some(mut err) = child.stderr.take() {
        err.read_to_string(&mut complaint).map_err(NoKvm::Untried)?;
    }
    let complaint = complaint.lines().next().unwrap_or("it ended without a word");
    Err(NoKvm::NoGuest(complaint.trim_start_matches("error: ").into()))
}

/// What was found out in this boot of the machine.
#[derive(Serialize, Deserialize)]
struct Known {
    boot: String,
    /// Why no guest ran; `None` when it did.
    wrong: Option<String>,
}

fn memory(paths: &Paths) -> PathBuf {
    paths.state().join("kvm.json")
}

fn remembered(paths: &Paths, find_out: impl FnOnce() -> Result<(), NoKvm>) -> Result<(), NoKvm> {
    let file = memory(paths);
    // What cannot be read is found out anew.
    let known = std::fs::read(&file).ok().and_then(|json| serde_json::from_slice::<Known>(&json).ok());
    if let Some(known) = known.filter(|known| known.boot == boot_id()) {
        return known.wrong.map_or(Ok(()), |wrong| Err(NoKvm::NoGuest(wrong)));
    }
    let found = find_out();
    let wrong = match &found {
        Ok(()) => None,
        Err(NoKvm::NoGuest(wrong)) => Some(wrong.clone()),
        // That says nothing about the device, or not for long.
        Err(_) => return found,
    };
    if let Ok(json) = serde_json::to_vec(&Known { boot: boot_id(), wrong }) {
        // It is tried again where it cannot be remembered.
        let _ = files::write_atomic(&file, &json, 0o600);
    }
    found
}

fn open(device: &Path) -> Result<Kvm, NoKvm> {
    let file =
        OpenOptions::new().read(true).write(true).open(device).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => NoKvm::Absent,
            io::ErrorKind::PermissionDenied => denied(device),
            _ => NoKvm::Broken(error.to_string()),
        })?;
    // SAFETY: the descriptor is that of the device, and handed over.
    let kvm = unsafe { Kvm::from_raw_fd(file.into_raw_fd()) };
    match kvm.get_api_version() {
        12 => Ok(kvm),
        version => Err(NoKvm::Broken(format!("it speaks version {version} and not 12"))),
    }
}

/// Who may open the device, and how to become one of them.
fn denied(device: &Path) -> NoKvm {
    let meta = std::fs::metadata(device);
    let group = meta.ok().filter(|meta| meta.permissions().mode() & 0o060 == 0o060).map(|meta| meta.gid());
    let Some(group) = group else {
        let help = format!(
            "let the group kvm in: sudo chown root:kvm {DEVICE} && sudo chmod 660 {DEVICE}, then join it: sudo usermod -aG kvm $USER, and log in again"
        );
        return NoKvm::Denied { owner: "root".into(), help };
    };
    let name = Group::from_gid(Gid::from_raw(group)).ok().flatten();
    let name = name.map_or_else(|| group.to_string(), |group| group.name);
    let help = format!("join the group: sudo usermod -aG {name} $USER, then log in again");
    NoKvm::Denied { owner: format!("root and the group `{name}`"), help }
}

fn has_extension(cpuinfo: &str) -> bool {
    // On aarch64 no flag tells.
    cfg!(target_arch = "aarch64")
        || cpuinfo
            .lines()
            .filter(|line| line.starts_with("flags"))
            .any(|line| line.split_ascii_whitespace().any(|flag| flag == "vmx" || flag == "svm"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn only_the_whole_flag_counts() {
        assert!(has_extension("processor\t: 0\nflags\t\t: fpu vmx sse\n"));
        assert!(has_extension("flags\t\t: fpu svm"));
        assert!(!has_extension("flags\t\t: fpu svm_lock vmxoff\nvmx flags\t: vnmi"));
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_guest_that_hangs_is_ended_at_the_deadline() {
        let begun = Instant::now();
        let error = ask(&mut shell("exec sleep 1000"), Duration::from_millis(50)).unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(60));
        assert!(
            error.reason().contains("opens but runs no guest: its first instruction took more"),
            "{error}"
        );
    }

    #[test]
    fn a_child_counts_by_what_it_says_and_not_by_its_exit_code() {
        assert!(ask(&mut shell("echo halted; exit 3"), DEADLINE).is_ok());
        let error = ask(&mut shell("exit 0"), DEADLINE).unwrap_err();
        assert!(error.reason().ends_with("it ended without a word"), "{error}");
        let error = ask(&mut shell("echo 'error: it aborts' >&2; exit 1"), DEADLINE).unwrap_err();
        assert!(error.reason().ends_with("runs no guest: it aborts"), "{error}");
    }

    #[test]
    fn the_device_is_tried_once_a_boot() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::at(dir.path().join("s"), dir.path().join("r")).unwrap();
        let broken = || Err(NoKvm::NoGuest("it aborts".into()));
        assert!(matches!(remembered(&paths, broken), Err(NoKvm::NoGuest(_))));
        let again = remembered(&paths, || panic!("it is known"));
        assert!(matches!(again, Err(NoKvm::NoGuest(wrong)) if wrong == "it aborts"));
        std::fs::write(memory(&paths), r#"{ "boot": "another", "wrong": "it aborts" }"#).unwrap();
        assert!(remembered(&paths, || Ok(())).is_ok());
        assert!(remembered(&paths, || panic!("it is known")).is_ok());
    }

    #[test]
    fn one_slow_answer_is_not_the_last_word() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::at(dir.path().join("s"), dir.path().join("r")).unwrap();
        let slow = remembered(&paths, || Err(NoKvm::Slow(DEADLINE)));
        assert!(matches!(slow, Err(NoKvm::Slow(_))));
        assert!(remembered(&paths, || Ok(())).is_ok());
    }

    #[test]
    fn a_device_for_others_names_the_group_to_join() {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("kvm");
        std::fs::write(&device, "").unwrap();
        let group = Group::from_gid(nix::unistd::getegid()).unwrap().unwrap().name;
        let mode = |mode| {
            std::fs::set_permissions(&device, std::fs::Permissions::from_mode(mode)).unwrap();
            denied(&device)
        };
        let denied = mode(0o660);
        assert!(denied.reason().contains(&format!("the group `{group}` only")), "{denied}");
        assert!(denied.help().contains(&format!("sudo usermod -aG {group} $USER")), "{denied}");
        assert!(mode(0o600).help().contains("sudo usermod -aG kvm $USER"), "{denied}");
    }

    #[test]
    fn what_is_no_such_device_is_not_used() {
        assert!(matches!(open(Path::new("/no/such/device")), Err(NoKvm::Absent)));
        assert!(matches!(open(Path::new("/dev/null")), Err(NoKvm::Broken(_))));
    }
}
