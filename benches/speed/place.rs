//! The state, the flakes and the commands that are measured.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use mvm::agent::pki::{self, PeerName, Role, Validity};
use mvm::host::inputs::FlakeInputs;
use mvm::host::nix::nix_command;
use mvm::host::paths::Paths;
use mvm::image::attribute;
use mvm::image::machines::Machines;
use mvm::image::request::BuildRequest;
use serde_json::Value;

use crate::process;

/// A prepared state.
pub struct Place {
    state: PathBuf,
}

impl Place {
    /// Has mvm prepare the machine and a state of its own.
    pub fn prepare() -> Result<Self> {
        let place = Self { state: Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench-state") };
        fs::create_dir_all(&place.state)?;
        let _ = fs::remove_file(place.log());
        process::run(&mut place.mvm(&["setup", "--yes"])?)?;
        // What an interrupted run left.
        process::run(&mut place.mvm(&["destroy", "--all", "--force"])?)?;
        Ok(place)
    }

    /// mvm in release mode; what it says goes into a log.
    pub fn mvm(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.release();
        command.arg("--no-tui").args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::options().create(true).append(true).open(self.log())?);
        Ok(command)
    }

    /// `mvm tui` in release mode, to be given a terminal; with the defaults of its configuration.
    pub fn tui(&self, arguments: &[&str]) -> tokio::process::Command {
        let mut command = self.release();
        command.arg("tui").args(arguments).env("XDG_CONFIG_HOME", self.state.join("no-config"));
        command.env("LC_ALL", "C.UTF-8").env_remove("NO_COLOR").env_remove("MVM_ASCII");
        command.into()
    }

    fn release(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mvm"));
        // Nothing here is in any binary cache.
        command.env("MVM_STATE_DIR", &self.state).env("NIX_CONFIG", "substituters =");
        command
    }

    fn log(&self) -> PathBuf {
        self.state.join("bench.log")
    }

    /// mvm's own view of the state. The sockets' directory is not that of the commands above.
    pub fn paths(&self) -> Result<Paths> {
        Ok(Paths::at(self.state.clone(), self.state.join("run"))?)
    }

    /// Has new certificates in the state, for these.
    pub fn certify(&self, roles: &[Role], name: &PeerName) -> Result<PathBuf> {
        let dir = self.paths()?.pki();
        pki::init(&dir)?;
        for role in roles {
            // One of an earlier run may be over.
            let _ = fs::remove_file(dir.join(pki::file_name(*role, name)));
            pki::issue(&dir, *role, name, Validity::days(1)?)?;
        }
        Ok(dir)
    }

    /// The state of another name inside of this one, new.
    pub fn within(&self, name: &str) -> Result<Self> {
        let state = self.state.join(name);
        empty(&state)?;
        Ok(Self { state })
    }

    /// Copies a flake into a git repository of its own, with all of it committed.
    pub fn flake(&self, from: &str, more: &[(&str, &str)]) -> Result<PathBuf> {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join(from);
        let name = from.file_name().context("a flake's directory has a name")?;
        let dir = self.state.join("flakes").join(name);
        empty(&dir)?;
        fs::copy(from.join("flake.nix"), dir.join("flake.nix"))?;
        for (file, text) in more {
            let file = dir.join(file);
            fs::create_dir_all(file.parent().context("a file is in a directory")?)?;
            fs::write(file, text)?;
        }
        let commit = ["-c", "user.name=bench", "-c", "user.email=", "commit", "-q", "-m", "All"];
        for arguments in [&["init", "-q"][..], &["add", "."], &commit] {
            process::run(Command::new("git").arg("-C").arg(&dir).args(arguments))?;
        }
        Ok(dir)
    }

    /// `nix build` with the arguments mvm gives it, its output sent to `/dev/null`.
    pub fn nix_build(&self, flake: &Path) -> Result<Command> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let request = BuildRequest {
            flake: flake.to_str().context("the path is not UTF-8")?.parse()?,
            profile: None,
            role: None,
            entry: None,
            rebuild: false,
            background: false,
            machines: Machines::default(),
            nix_args: Vec::new(),
            inputs: runtime.block_on(FlakeInputs::find(&self.paths()?))?,
        };
        let candidate = attribute::candidates(&request)?.pop().context("no attribute")?;
        let tame = nix_command();
        let mut command = Command::new(tame.as_std().get_program());
        command.args(tame.as_std().get_args()).env_remove("IN_SYSTEMD");
        command.args(["build", "--json", "--log-format", "internal-json", "--out-link"]);
        command.arg(self.state.join("result")).args(request.inputs.args()).arg("--");
        command.arg(request.flake.installable(&attribute::path(&request, &candidate)));
        if let Some(dir) = request.flake.nix_dir() {
            command.current_dir(dir);
        }
        command.env("NIX_CONFIG", "substituters =");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(command)
    }

    /// What `mvm status` says of the VM with this name.
    pub fn vm(&self, name: &str) -> Result<Value> {
        let output = self.mvm(&["status", "--json"])?.stdout(Stdio::piped()).output()?;
        let status: Value = serde_json::from_slice(&output.stdout)?;
        let vms = status["vms"].as_array().context("no list of VMs")?;
        vms.iter().find(|vm| vm["name"] == name).cloned().with_context(|| format!("no VM {name}"))
    }
}

fn empty(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    Ok(fs::create_dir_all(dir)?)
}
