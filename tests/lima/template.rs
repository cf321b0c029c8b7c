//! The template: its keys are Lima's, and its scripts do what is left to do, and only once.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde::Deserialize;
use tempfile::TempDir;

use super::support::{stderr, stdout};

// The keys of Lima's own definition that the template uses, with their types there.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Template {
    minimum_lima_version: String,
    base: Vec<String>,
    vm_type: String,
    nested_virtualization: bool,
    cpus: u32,
    memory: String,
    disk: String,
    mounts: Vec<Mount>,
    containerd: BTreeMap<String, bool>,
    param: BTreeMap<String, String>,
    provision: Vec<Script>,
    probes: Vec<Probe>,
    message: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mount {
    location: String,
    writable: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Script {
    mode: String,
    script: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Probe {
    description: String,
    script: String,
    hint: String,
}

fn template() -> Template {
    serde_saphyr::from_str(mvm::host::lima::TEMPLATE).unwrap()
}

#[test]
fn the_template_has_limas_keys_and_says_what_the_vm_is() {
    let template = template();
    assert_eq!((template.vm_type.as_str(), template.nested_virtualization), ("vz", true));
    assert_eq!((template.mounts[0].location.as_str(), template.mounts[0].writable), ("~", true));
    assert!(template.minimum_lima_version.starts_with("2."));
    assert!(template.base.iter().all(|base| base.starts_with("template:")));
    assert!(template.cpus >= 2 && template.memory.ends_with("GiB") && template.disk.ends_with("GiB"));
    assert!(template.containerd.values().all(|on| !on));
    assert!(template.provision.iter().all(|part| ["system", "user"].contains(&part.mode.as_str())));
    assert!(!template.message.is_empty());
    assert!(template.probes.iter().all(|probe| !probe.description.is_empty() && !probe.hint.is_empty()));
    // Lima refuses parameters that no script uses.
    let scripts: String = template.provision.iter().map(|part| part.script.as_str()).collect();
    for name in template.param.keys() {
        assert!(scripts.contains(&format!("PARAM_{name}")), "{name}");
    }
}

#[test]
fn the_scripts_are_valid() {
    let template = template();
    let scripts = template.provision.iter().map(|part| &part.script);
    for script in scripts.chain(template.probes.iter().map(|probe| &probe.script)) {
        assert!(script.starts_with("#!/bin/bash\nset -eu -o pipefail\n"), "{script}");
        let checked = Command::new("bash").args(["-n", "-c", script]).output().unwrap();
        assert!(checked.status.success(), "{}", stderr(&checked));
    }
}

/// A place that stands for the VM's root, with programs that stand for those which would change a
/// machine: each writes its name and arguments into `calls`.
struct Vm(TempDir);

impl Vm {
    fn new() -> Self {
        let vm = Self(tempfile::tempdir().unwrap());
        for dir in ["bin", "etc/profile.d", "etc/udev/rules.d", "home"] {
            fs::create_dir_all(vm.path(dir)).unwrap();
        }
        for name in ["apt-get", "udevadm", "mvm"] {
            vm.program(name, "");
        }
        vm.program("dpkg-query", "[ -e \"$ROOT/installed\" ] && echo 'install ok installed'");
        vm.program("sudo", "exec \"$@\"");
        vm
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn program(&self, name: &str, then: &str) {
        self.program_at(&self.path("bin").join(name), then);
    }

    fn program_at(&self, file: &Path, then: &str) {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, format!("#!/bin/sh\necho \"${{0##*/}} $*\" >> \"$ROOT/calls\"\n{then}\n")).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Runs a provision script as Lima does, with the VM's root here.
    fn run(&self, index: usize, param: &[(&str, &str)]) -> Output {
        let root = self.0.path().to_str().unwrap();
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
        let mut script = template().provision[index].script.replace("{{.User}}", &user);
        for dir in ["/opt/mvm", "/etc/", "/nix"] {
            for before in [" ", "=", ":", "\""] {
                script = script.replace(&format!("{before}{dir}"), &format!("{before}{root}{dir}"));
            }
        }
        let mut bash = Command::new("bash");
        bash.args(["-c", &script]).env("ROOT", root).env("HOME", self.path("home"));
        bash.env("PATH", format!("{root}/bin:{}", std::env::var("PATH").unwrap())).stdin(Stdio::null());
        for name in ["source", "release"] {
            let value = param.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value);
            bash.env(format!("PARAM_{name}"), value);
        }
        bash.output().unwrap()
    }

    fn succeeds(&self, index: usize, param: &[(&str, &str)]) {
        let output = self.run(index, param);
        assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
    }

    /// What was called since the last time.
    fn calls(&self) -> String {
        let calls = fs::read_to_string(self.path("calls")).unwrap_or_default();
        // Looking changes nothing.
        let changes = calls.lines().filter(|line| !line.starts_with("dpkg-query"));
        let changes = changes.map(|line| format!("{line}\n")).collect();
        let _ = fs::remove_file(self.path("calls"));
        changes
    }
}

#[test]
fn packages_are_installed_once_and_the_profile_finds_mvm_and_nix() {
    let vm = Vm::new();
    vm.succeeds(0, &[]);
    let calls = vm.calls();
    assert!(calls.contains("apt-get install --yes --no-install-recommends nix-bin"), "{calls}");
    assert!(calls.contains("udevadm trigger"), "{calls}");
    fs::write(vm.path("installed"), "").unwrap();
    vm.succeeds(0, &[]);
    assert_eq!(vm.calls(), "");
    assert!(vm.path("nix").is_dir());

    let profile = ["mvm-tools.sh", "mvm-nix.sh"].map(|name| vm.path("etc/profile.d").join(name));
    let script = ". \"$1\"; . \"$2\"; . \"$1\"; . \"$2\"; echo \"$PATH\"; echo \"$NIX_CONFIG\"";
    let mut shell = Command::new("sh");
    shell.args(["-euc", script, "-"]).args(&profile).env("PATH", "/bin").env("HOME", "/home/me");
    let said = stdout(&shell.output().unwrap());
    let tools = format!("{}/opt/mvm/bin", vm.0.path().display());
    assert_eq!(
        said,
        format!("/bin:{tools}:/home/me/.nix-profile/bin\nextra-experimental-features = nix-command flakes\n")
    );
}

#[test]
fn firecracker_is_fetched_once_and_only_with_the_right_digest() {
    let vm = Vm::new();
    let arch = std::env::consts::ARCH;
    let version = mvm::host::firecracker::VERSION;
    let dir = vm.path(&format!("release-{version}-{arch}"));
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join(format!("firecracker-{version}-{arch}")), "program").unwrap();
    let packed = Command::new("tar")
        .arg("-czf")
        .arg(vm.path("release.tgz"))
        .arg("-C")
        .arg(vm.0.path())
        .arg(dir.file_name().unwrap())
        .status();
    assert!(packed.unwrap().success());
    fs::create_dir_all(vm.path("opt/mvm/bin")).unwrap();

    vm.program("curl", "exit 6");
    vm.succeeds(1, &[]);
    assert!(!vm.path("opt/mvm/bin/firecracker").exists());
    let fetch = "while [ \"$1\" != --output ]; do shift; done; cp \"$ROOT/release.tgz\" \"$2\"";
    vm.program("curl", fetch);
    assert!(!vm.run(1, &[]).status.success(), "this archive is not the release");
    assert!(!vm.path("opt/mvm/bin/firecracker").exists());
    vm.program("sha256sum", "cat > \"$ROOT/digest\"");
    vm.calls();
    vm.succeeds(1, &[]);
    assert_eq!(fs::read_to_string(vm.path("opt/mvm/bin/firecracker")).unwrap(), "program");
    assert!(vm.calls().contains("curl "));
    vm.succeeds(1, &[]);
    assert_eq!(vm.calls(), "");
}

#[test]
fn mvm_is_built_from_its_source_and_again_when_that_changed() {
    let vm = Vm::new();
    let source = vm.path("source");
    for dir in ["src", "assets", "nix", "lima"] {
        fs::create_dir_all(source.join(dir)).unwrap();
    }
    fs::write(source.join("Cargo.lock"), "").unwrap();
    fs::create_dir_all(vm.path("opt/mvm/bin")).unwrap();
    let build = "while [ \"$1\" != --root ]; do shift; done; mkdir -p \"$2/bin\"; touch \"$2/bin/mvm\" \"$2/bin/mvm-guest\"";
    vm.program_at(&vm.path("home/.cargo/bin/cargo"), build);
    let param = [("source", source.to_str().unwrap())];
    vm.succeeds(2, &param);
    let calls = vm.calls();
    assert!(
        calls.contains(&format!("cargo install --locked --force --path {}", source.display())),
        "{calls}"
    );
    assert!(calls.ends_with("mvm --no-tui setup --yes\n"), "{calls}");
    for file in ["mvm", "mvm-guest"] {
        assert!(vm.path("opt/mvm/bin").join(file).exists());
    }
    vm.succeeds(2, &param);
    assert_eq!(vm.calls(), "mvm --no-tui setup --yes\n");
    fs::write(source.join("src/new.rs"), "").unwrap();
    vm.succeeds(2, &param);
    assert!(vm.calls().contains("cargo install"));
}

#[test]
fn a_release_is_unpacked_once() {
    let vm = Vm::new();
    let dir = vm.path("mvm-linux");
    fs::create_dir(&dir).unwrap();
    for file in ["mvm", "mvm-guest"] {
        fs::write(dir.join(file), file).unwrap();
    }
    let archive = vm.path("mvm.tar.gz");
    let mut tar = Command::new("tar");
    tar.arg("-czf").arg(&archive).arg("-C").arg(vm.0.path()).arg("mvm-linux");
    assert!(tar.status().unwrap().success());
    fs::create_dir_all(vm.path("opt/mvm/bin")).unwrap();
    let param = [("release", archive.to_str().unwrap())];
    vm.succeeds(2, &param);
    assert_eq!(fs::read_to_string(vm.path("opt/mvm/bin/mvm-guest")).unwrap(), "mvm-guest");
    vm.calls();
    vm.succeeds(2, &param);
    assert_eq!(vm.calls(), "mvm --no-tui setup --yes\n");
    let output = vm.run(2, &[]);
    assert!(!output.status.success() && stderr(&output).contains("neither source nor release"));
}
