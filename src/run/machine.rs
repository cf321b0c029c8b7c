//! Which machine a guest gets: what was asked for, as far as this host offers it.

use std::path::Path;

use super::boot::RunError;
use crate::host::child::find_program;
use crate::host::firecracker::{self, OLDEST, Version};
use crate::host::kvm;
use crate::host::paths::Paths;
use crate::host::versions;
use crate::vm::config::RuntimeConfig;
use crate::vm::hypervisor::qemu;
use crate::vm::spec::{HypervisorChoice, HypervisorKind, Network, NetworkChoice};
use crate::vm::virtiofs;

/// Most CPUs Firecracker gives a guest.
const FIRECRACKER_CPUS: u32 = 32;

/// What this host offers for what was asked.
#[derive(Debug, PartialEq)]
pub struct MachineChoice {
    /// The hypervisor.
    pub hypervisor: HypervisorKind,
    /// The network.
    pub network: Network,
    /// Whether KVM runs the guest.
    pub kvm: bool,
    /// What the user may want to know of it.
    pub notes: Vec<String>,
}

/// What this host has, and what is wished of it.
struct Offer {
    /// Whether QEMU is installed.
    qemu: bool,
    /// What Firecracker says of itself, where it is installed.
    firecracker: Option<String>,
    /// Whether KVM can be used, or why not.
    kvm: Result<(), String>,
    /// Whether a VM can have a TAP, or why not.
    tap: Result<(), String>,
    /// Whether a directory is to be shared as it is.
    shares: bool,
    /// CPUs the guest is to have.
    cpus: u32,
}

impl MachineChoice {
    /// Looks at this host.
    pub async fn new(config: &RuntimeConfig, paths: &Paths) -> Result<Self, RunError> {
        let firecracker = match firecracker::find(paths) {
            Some(program) => Some(versions::version(paths, &program).await.unwrap_or_default()),
            None => None,
        };
        let offer = Offer {
            qemu: find_program(qemu::PROGRAM).is_some(),
            firecracker,
            kvm: kvm::usable(paths).map_err(|why| why.reason()),
            tap: tap(),
            shares: config.volumes.iter().any(|volume| virtiofs::program_for(volume).is_some()),
            cpus: config.cpus.unwrap_or(1),
        };
        choose(config.hypervisor.unwrap_or_default(), config.network.unwrap_or_default(), offer)
    }
}

fn tap() -> Result<(), String> {
    let missing = |what: &str| Err(format!("tap networking needs {what}"));
    match () {
        () if !nix::unistd::geteuid().is_root() => missing("root"),
        () if find_program("ip").is_none() => missing("the program `ip`"),
        () if find_program("nft").is_none() => missing("the program `nft`"),
        () if !Path::new("/dev/net/tun").exists() => missing("/dev/net/tun"),
        () => Ok(()),
    }
}

/// Why Firecracker cannot run the guest, and what to do.
fn obstacle(network: NetworkChoice, offer: &Offer) -> Option<(String, &'static str)> {
    let other = "use `--hypervisor qemu` or `auto`";
    let Some(said) = &offer.firecracker else {
        return Some((
            "Firecracker is not installed".into(),
            "`mvm setup` fetches it; or use `--hypervisor qemu`",
        ));
    };
    match Version::parse(said) {
        None => {
            return Some((format!("Firecracker does not tell its version, but `{said}`"), "install it anew"));
        }
        Some(version) if version < OLDEST => {
            let what = format!("Firecracker is version {version}, and mvm needs {OLDEST} or newer");
            return Some((what, "install a newer one, or use `--hypervisor qemu`"));
        }
        Some(_) => {}
    }
    if let Err(why) = &offer.kvm {
        return Some((
            format!("Firecracker needs KVM: {why}"),
            "see `mvm doctor`, or use `--hypervisor qemu`",
        ));
    }
    if network == NetworkChoice::User {
        return Some((
            "Firecracker has no user-mode networking".into(),
            "leave out `--network user`, or use `--hypervisor qemu`",
        ));
    }
    if let Err(why) = &offer.tap {
        return Some((
            format!("Firecracker needs tap networking: {why}"),
            "run mvm as root, or use `--hypervisor qemu`",
        ));
    }
    (offer.cpus > FIRECRACKER_CPUS).then(|| {
        (
            format!(
                "Firecracker gives a guest at most {FIRECRACKER_CPUS} CPUs, and {} are asked for",
                offer.cpus
            ),
            other,
        )
    })
}

fn choose(wish: HypervisorChoice, network: NetworkChoice, offer: Offer) -> Result<MachineChoice, RunError> {
    let unavailable = |what: String, help: &str| Err(RunError::Unavailable { what, help: help.into() });
    let obstacle = obstacle(network, &offer);
    let mut notes = Vec::new();
    let hypervisor = match (wish, obstacle) {
        (HypervisorChoice::Firecracker, Some((what, help))) => return unavailable(what, help),
        (HypervisorChoice::Firecracker, None) => HypervisorKind::Firecracker,
        (HypervisorChoice::Auto, None) if !offer.shares => HypervisorKind::Firecracker,
        (HypervisorChoice::Auto, None) => {
            notes.push("QEMU is used: Firecracker shares no directories, it would copy them".into());
            HypervisorKind::Qemu
        }
        (HypervisorChoice::Auto, Some((why, _))) if offer.firecracker.is_some() && offer.kvm.is_ok() => {
            notes.push(format!("QEMU is used: {why}"));
            HypervisorKind::Qemu
        }
        (HypervisorChoice::Auto | HypervisorChoice::Qemu, _) => HypervisorKind::Qemu,
    };
    if hypervisor == HypervisorKind::Qemu && !offer.qemu {
        return unavailable(
            format!("`{}` is not installed", qemu::PROGRAM),
            "run `mvm setup`, or add --setup",
        );
    }
    let network = match (network, offer.tap) {
        (NetworkChoice::Tap, Err(why)) => {
            return unavailable(why, "run mvm as root after `mvm setup`, or use `--network user`");
        }
        (NetworkChoice::Tap | NetworkChoice::Auto, Ok(())) => Network::Tap,
        (NetworkChoice::Auto, Err(_)) | (NetworkChoice::User, _) => Network::User,
    };
    let kvm = offer.kvm.is_ok();
    if let Err(why) = offer.kvm {
        notes.push(format!("software emulation: {why}"));
    }
    Ok(MachineChoice { hypervisor, network, kvm, notes })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host that has everything.
    fn offer() -> Offer {
        let firecracker = Some("Firecracker v1.16.1".into());
        Offer { qemu: true, firecracker, kvm: Ok(()), tap: Ok(()), shares: false, cpus: 1 }
    }

    fn chosen(offer: Offer) -> (HypervisorKind, Network, Vec<String>) {
        let choice = choose(HypervisorChoice::Auto, NetworkChoice::Auto, offer).unwrap();
        (choice.hypervisor, choice.network, choice.notes)
    }

    #[test]
    fn firecracker_is_chosen_where_it_can_do_all_that_is_asked() {
        assert_eq!(chosen(offer()), (HypervisorKind::Firecracker, Network::Tap, vec![]));
        assert_eq!(chosen(Offer { qemu: false, ..offer() }).0, HypervisorKind::Firecracker);
    }

    #[test]
    fn otherwise_qemu_is_and_what_stands_in_firecrackers_way_is_said_where_it_is_there() {
        let qemu = HypervisorKind::Qemu;
        assert_eq!(chosen(Offer { firecracker: None, ..offer() }), (qemu, Network::Tap, vec![]));
        let (kind, _, notes) = chosen(Offer { shares: true, ..offer() });
        assert_eq!(kind, qemu);
        assert_eq!(notes, ["QEMU is used: Firecracker shares no directories, it would copy them"]);
        let (kind, _, notes) = chosen(Offer { kvm: Err("no vmx".into()), ..offer() });
        assert_eq!((kind, notes), (qemu, vec!["software emulation: no vmx".to_string()]));
        let (kind, network, notes) =
            chosen(Offer { tap: Err("tap networking needs root".into()), ..offer() });
        assert_eq!((kind, network), (qemu, Network::User));
        assert_eq!(notes, ["QEMU is used: Firecracker needs tap networking: tap networking needs root"]);
        let (kind, _, notes) = chosen(Offer { firecracker: Some("Firecracker v1.6.0".into()), ..offer() });
        assert_eq!(kind, qemu);
        assert_eq!(notes, ["QEMU is used: Firecracker is version 1.6.0, and mvm needs 1.7.0 or newer"]);
    }

    #[test]
    fn what_is_asked_for_by_name_is_had_or_refused_with_the_reason() {
        let asked = |network, offer| choose(HypervisorChoice::Firecracker, network, offer);
        let auto = NetworkChoice::Auto;
        // A directory is copied onto a disk then.
        let choice = asked(auto, Offer { shares: true, ..offer() }).unwrap();
        assert_eq!(choice.hypervisor, HypervisorKind::Firecracker);
        for (network, offer, said) in [
            (auto, Offer { firecracker: None, ..offer() }, "is not installed"),
            (auto, Offer { firecracker: Some("what?".into()), ..offer() }, "`what?`"),
            (auto, Offer { firecracker: Some("Firecracker v1.2.0".into()), ..offer() }, "is version 1.2.0"),
            (auto, Offer { kvm: Err("no vmx".into()), ..offer() }, "needs KVM: no vmx"),
            (auto, Offer { tap: Err("tap networking needs root".into()), ..offer() }, "needs root"),
            (auto, Offer { cpus: 33, ..offer() }, "at most 32 CPUs"),
            (NetworkChoice::User, offer(), "no user-mode networking"),
        ] {
            let error = asked(network, offer).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains("\nhelp: "), "{error}");
        }
        let without = Offer { qemu: false, ..offer() };
        let error = choose(HypervisorChoice::Qemu, auto, without).unwrap_err().to_string();
        assert!(error.contains("is not installed\nhelp: run `mvm setup`"), "{error}");
        let choice = choose(HypervisorChoice::Qemu, NetworkChoice::User, offer()).unwrap();
        assert_eq!((choice.hypervisor, choice.network), (HypervisorKind::Qemu, Network::User));
    }
}
