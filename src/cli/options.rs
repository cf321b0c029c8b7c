//! Options that several commands share.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use super::report::Usage;
use crate::host::paths::Paths;
use crate::image::flake::{FlakeRef, RefError};
use crate::image::machines::{Machines, MaxJobs, NixValue, StoreUri};
use crate::image::request::BuildRequest;
use crate::run::builder::MIN_MEMORY_MIB;
use crate::run::request::BuilderWish;
use crate::run::watch::{Manner, OnBusy};
use crate::run::wish::{self, BuildWish};
use crate::vm::config::RuntimeConfig;
use crate::vm::spec::{
    HypervisorChoice, NetworkChoice, PortMap, VolumeSpec, parse_cpus, parse_disk, parse_memory,
};

/// What to build.
#[derive(Debug, Args)]
pub struct FlakeArgs {
    /// Flake: a directory (with `#attribute` if wished) or any reference Nix knows
    #[arg(long, value_name = "REF", default_value = ".", allow_hyphen_values = true)]
    pub flake: String,
    /// Profile, e.g. `minimal` or `dev`
    #[arg(long)]
    pub profile: Option<String>,
    /// Role, e.g. `gateway` or `worker`
    #[arg(long)]
    pub role: Option<String>,
    /// Build even if nothing changed
    #[arg(long)]
    pub rebuild: bool,
    #[command(flatten)]
    machines: MachinesArgs,
}

impl FlakeArgs {
    /// Parses the reference.
    pub fn parse(&self) -> Result<FlakeRef> {
        self.flake.parse().map_err(|error: RefError| match error {
            RefError::NoDir { .. } | RefError::NoFlake { .. } => anyhow::Error::from(error),
            error => Usage(error.to_string()).into(),
        })
    }

    /// Whether nothing of it was asked for, but perhaps to build anew.
    pub fn is_usual(&self) -> bool {
        let Self { flake, profile, role, rebuild: _, machines } = self;
        flake == "." && profile.is_none() && role.is_none() && machines.get() == Machines::default()
    }

    /// Parses the reference and asks for mvm's own inputs.
    pub async fn request(&self, paths: &Paths, nix_args: &[String]) -> Result<BuildRequest> {
        self.parse()?;
        Ok(self.wish(nix_args).request(paths).await?)
    }

    /// What is wished, as it was written.
    pub fn wish(&self, nix_args: &[String]) -> BuildWish {
        BuildWish {
            flake: self.flake.clone(),
            profile: self.profile.clone(),
            role: self.role.clone(),
            rebuild: self.rebuild,
            background: false,
            machines: self.machines.get(),
            nix_args: nix_args.to_vec(),
        }
    }
}

/// Under what `--help` lists the options below.
const ELSEWHERE: &str = "Other machines";

/// Where to build.
#[derive(Debug, Clone, Args)]
pub struct BuilderArgs {
    /// Build on this machine, or in a VM of its own
    #[arg(long, value_enum, default_value_t)]
    builder: BuildPlace,
    /// CPUs of the builder VM [default: 2, and 1 without KVM]
    #[arg(long, value_name = "N", value_parser = parse_cpus)]
    builder_cpus: Option<u32>,
    /// Memory of the builder VM: MiB, or with a unit [default: 2G]
    #[arg(long, value_name = "SIZE", value_parser = parse_memory)]
    builder_mem: Option<u32>,
    /// Size of the builder VM's store: MiB, or with a unit; it is sparse; a smaller one is made anew [default: 32G]
    #[arg(long, value_name = "SIZE", value_parser = parse_disk)]
    builder_disk: Option<u64>,
}

/// Where a flake is built.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum BuildPlace {
    /// On this machine.
    #[default]
    Host,
    /// In a VM that is gone afterwards.
    Vm,
}

impl BuilderArgs {
    /// The VM that is wished for to build a flake.
    pub fn wish_for(&self, flake: &FlakeArgs) -> Result<Option<BuilderWish>> {
        let wish = self.wish()?;
        if wish.is_some() && flake.machines.get() != Machines::default() {
            let what = "the builder VM knows of no other machines and stores";
            let help = "leave out `--builder vm`, or the options under \"Other machines\"";
            return Err(Usage(format!("{what}\nhelp: {help}")).into());
        }
        Ok(wish)
    }

    /// The VM that is wished for.
    pub fn wish(&self) -> Result<Option<BuilderWish>> {
        let Self { builder, builder_cpus, builder_mem, builder_disk } = self;
        let usual = BuilderWish::default();
        let wish = BuilderWish {
            cpus: *builder_cpus,
            memory_mib: builder_mem.unwrap_or(usual.memory_mib),
            disk_mib: builder_disk.unwrap_or(usual.disk_mib),
        };
        match builder {
            BuildPlace::Vm if wish.memory_mib < MIN_MEMORY_MIB => Err(Usage(format!(
                "the builder VM needs {MIN_MEMORY_MIB} MiB of memory, and {} MiB are asked for\nhelp: give at least `--builder-mem {MIN_MEMORY_MIB}M`",
                wish.memory_mib
            ))
            .into()),
            BuildPlace::Vm => Ok(Some(wish)),
            BuildPlace::Host if wish == usual => Ok(None),
            BuildPlace::Host => Err(Usage(
                "--builder-cpus, --builder-mem and --builder-disk are of the builder VM\nhelp: add `--builder vm`".into(),
            )
            .into()),
        }
    }
}

/// Where else to build, store and look.
#[derive(Debug, Clone, Args)]
struct MachinesArgs {
    /// Machines that build for this one, as Nix writes them: `ssh://HOST [SYSTEM [KEY [JOBS]]]; …`,
    /// or `@FILE`; '' for none [default: as Nix is configured]
    #[arg(long, value_name = "MACHINES", value_parser = NixValue::of_builders, allow_hyphen_values = true, help_heading = ELSEWHERE)]
    builders: Option<NixValue>,
    /// How many builds this machine does at once: a number or `auto`; with 0, other machines do all
    #[arg(long, value_name = "N", allow_hyphen_values = true, help_heading = ELSEWHERE)]
    max_jobs: Option<MaxJobs>,
    /// Build in another store, e.g. `ssh-ng://HOST`; what comes out is copied here
    #[arg(long, value_name = "STORE", allow_hyphen_values = true, help_heading = ELSEWHERE)]
    store: Option<StoreUri>,
    /// Evaluate in another store [default: this machine's]
    #[arg(long, value_name = "STORE", allow_hyphen_values = true, help_heading = ELSEWHERE)]
    eval_store: Option<StoreUri>,
    /// Binary caches instead of those Nix is configured with, spaces between them; '' for none
    #[arg(long, value_name = "URIS", allow_hyphen_values = true, help_heading = ELSEWHERE)]
    substituters: Option<NixValue>,
}

impl MachinesArgs {
    /// As the library has it.
    fn get(&self) -> Machines {
        let Self { builders, max_jobs, store, eval_store, substituters } = self.clone();
        Machines { builders, max_jobs, store, eval_store, substituters }
    }
}

/// Whether to do it again with each change.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Do it again whenever the flake's sources change, until ^C
    #[arg(long)]
    pub watch: bool,
    /// What a change does to a build that is under way
    #[arg(long, value_enum, default_value_t, requires = "watch")]
    on_busy: OnBusy,
    /// Look at the files from time to time, where the system does not tell of changes
    #[arg(long, requires = "watch")]
    poll: bool,
}

impl WatchArgs {
    /// As the library has it.
    pub fn manner(&self) -> Manner {
        Manner { on_busy: self.on_busy, poll: self.poll }
    }
}

/// How to run it; these go over `mvm.toml`.
#[derive(Debug, Clone, Args)]
pub struct RuntimeArgs {
    /// Number of CPUs
    #[arg(long, value_parser = parse_cpus, allow_hyphen_values = true)]
    cpus: Option<u32>,
    /// Memory: MiB, or with a unit (`512M`, `2G`)
    #[arg(long, alias = "memory", value_name = "SIZE", value_parser = parse_memory, allow_hyphen_values = true)]
    mem: Option<u32>,
    /// Size of the VM's own writable layer: MiB, or with a unit; it is sparse
    #[arg(long, value_name = "SIZE", value_parser = parse_disk, allow_hyphen_values = true)]
    disk: Option<u64>,
    /// Publish a guest port on the host (loopback unless an address is given); may be repeated
    #[arg(short, long = "publish", value_name = "[ADDR:]HOST:GUEST")]
    ports: Vec<PortMap>,
    /// Put a directory or disk image into the guest; may be repeated
    #[arg(short, long = "volume", value_name = "HOST:GUEST[:SIZE][:ro]")]
    volumes: Vec<VolumeSpec>,
    /// How the VM is connected
    #[arg(long, value_enum)]
    network: Option<NetworkChoice>,
    /// The guest does not reach the outside
    #[arg(long)]
    no_egress: bool,
    /// Which hypervisor; by default Firecracker where it can be used, else QEMU
    #[arg(long, value_enum, env = "MVM_HYPERVISOR")]
    hypervisor: Option<HypervisorChoice>,
    /// How long the guest has until it is ready, in seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86400))]
    boot_timeout: Option<u64>,
    /// Configuration file [default: the `mvm.toml` beside the flake, if it is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl RuntimeArgs {
    /// The settings of the files beside the flake with the flags over them.
    pub fn config(&self, args: &FlakeArgs) -> Result<RuntimeConfig> {
        let flake = args.parse()?;
        let below = wish::defaults(&flake, args.role.as_deref(), args.profile.as_deref())?;
        Ok(below.overlaid(self.clone().over(flake.nix_dir())?))
    }

    /// Whether anything is asked for.
    pub fn is_any(&self) -> bool {
        let Self { cpus, mem, disk, ports, volumes, network, no_egress, boot_timeout, config, hypervisor: _ } =
            self;
        // The hypervisor can come from the environment.
        cpus.is_some()
            || mem.is_some()
            || disk.is_some()
            || !ports.is_empty()
            || !volumes.is_empty()
            || network.is_some()
            || *no_egress
            || boot_timeout.is_some()
            || config.is_some()
    }

    /// The settings of the file in `dir` with the flags over them.
    pub fn over(self, dir: Option<&Path>) -> Result<RuntimeConfig> {
        let file = match &self.config {
            Some(path) => RuntimeConfig::read(path)?,
            None => RuntimeConfig::beside(dir)?,
        };
        Ok(file.overlaid(RuntimeConfig {
            cpus: self.cpus,
            memory_mib: self.mem,
            disk_mib: self.disk,
            kernel_args: Vec::new(),
            ports: self.ports,
            volumes: self.volumes,
            network: self.network,
            egress: self.no_egress.then_some(false),
            hypervisor: self.hypervisor,
            boot_timeout_secs: self.boot_timeout,
        }))
    }
}
