//! The offline flake, built for real with the Nix and the tools of this machine.
//!
//! The kernel is a stand-in: these tests boot nothing, and the real one is a download.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use mvm::artifacts::{GUEST_CONTRACT, ImageInfo};
use mvm::event::{EventSink, TaskId};
use mvm::host::child::find_program;
use mvm::host::paths::Paths;
use mvm::host::{inputs, kernel, layout, nix, offline, packages, tools};

/// A machine of its own for one test; `None` where Nix or a tool is missing.
async fn machine(root: &Path) -> Option<Paths> {
    let missing: Vec<_> = packages::missing().iter().map(|package| package.name).collect();
    let wanted = ["nix-bin", "busybox-static", "dropbear-bin", "e2fsprogs", "cpio"];
    if let Some(name) = wanted.iter().find(|name| missing.contains(name)) {
        println!("SKIPPED: package {name} is not installed");
        return None;
    }
    let paths = Paths::at(root.join("state"), root.join("run")).unwrap();
    let next = layout::begin(&paths.kernel()).unwrap();
    std::fs::create_dir(next.join("modules")).unwrap();
    std::fs::write(next.join("vmlinux"), "\x7fELF, or so it says").unwrap();
    for module in kernel::MODULES {
        std::fs::write(next.join(format!("modules/{module}.ko")), module).unwrap();
    }
    layout::finish(&next, &paths.kernel(), "stand-in").unwrap();
    let (sink, _stream) = EventSink::new(TaskId::new('t'));
    assert!(tools::lay_out(&paths, false, &sink).await.unwrap());
    assert!(!tools::lay_out(&paths, false, &sink).await.unwrap(), "nothing changed since");
    assert!(offline::lay_out(&paths, false).unwrap());
    assert!(!offline::lay_out(&paths, false).unwrap(), "nothing changed since");
    Some(paths)
}

async fn nix(paths: &Paths, args: &[&str], flake: &Path, attribute: &str) -> Output {
    let mut command = nix::nix_command();
    command.args(args).args(inputs::FlakeInputs::find(paths).await.unwrap().args());
    // Nothing here may ask a server.
    command.args(["--option", "substituters", ""]).arg(format!(".#{attribute}"));
    let output = command.current_dir(flake).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

async fn build(paths: &Paths, flake: &Path, attribute: &str) -> PathBuf {
    let output = nix(paths, &["build", "--no-link", "--json"], flake, attribute).await;
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    json[0]["outputs"]["out"].as_str().unwrap().into()
}

/// A copy of an example: Nix takes no path below a git work tree for a flake of its own.
fn example(root: &Path, name: &str) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("nix/examples").join(name);
    let to = root.join(name);
    for entry in ignore::WalkBuilder::new(&from).standard_filters(false).build() {
        let entry = entry.unwrap();
        let target = to.join(entry.path().strip_prefix(&from).unwrap());
        if entry.path().is_dir() {
            std::fs::create_dir_all(target).unwrap();
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
    to
}

/// What debugfs says about a path in the image.
async fn stat(image: &Path, path: &str) -> String {
    let debugfs = find_program("debugfs").unwrap();
    let mut command = tokio::process::Command::new(debugfs);
    let output = command.args(["-R", &format!("stat {path}")]).arg(image).output().await.unwrap();
    // Columns are padded to fit, so only words count.
    String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn hello_builds_an_image_that_keeps_the_contract() {
    let root = tempfile::tempdir().unwrap();
    let Some(paths) = machine(root.path()).await else { return };
    let hello = example(root.path(), "hello");
    let out = build(&paths, &hello, "minimal").await;
    let names: BTreeSet<_> = std::fs::read_dir(&out)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(names, ["initrd", "mvm.json", "rootfs.ext4", "vmlinux"].map(String::from).into());
    let info: ImageInfo = serde_json::from_slice(&std::fs::read(out.join("mvm.json")).unwrap()).unwrap();
    assert_eq!((info.contract, info.ports), (GUEST_CONTRACT, vec![22]));

    let rootfs = out.join("rootfs.ext4");
    let mut label = [0; 16];
    std::fs::File::open(&rootfs).unwrap().read_exact_at(&mut label, 1024 + 120).unwrap();
    assert_eq!(&label[..9], b"mvm-root\0");
    let su = stat(&rootfs, "/bin/su").await;
    assert!(su.contains("Mode: 04750") && su.contains("User: 0 Group: 10"), "{su}");
    for path in ["/usr/bin/mvm-guest", "/etc/mvm/start", "/etc/mvm/stop", "/etc/service/sshd/run"] {
        let stat = stat(&rootfs, path).await;
        assert!(stat.contains("Mode: 0755") && stat.contains("User: 0 Group: 0"), "{path}: {stat}");
    }

    // Built again, without the host in sight where the kernel allows it: the same bytes.
    let again = ["build", "--no-link", "--json", "--rebuild", "--option", "sandbox", "true"];
    nix(&paths, &again, &hello, "minimal").await;
}

#[tokio::test]
async fn another_service_makes_another_root_and_leaves_the_initrd() {
    let root = tempfile::tempdir().unwrap();
    let Some(paths) = machine(root.path()).await else { return };
    let gateway = example(root.path(), "gateway");
    let one = build(&paths, &gateway, "gateway-minimal").await;
    let other = build(&paths, &gateway, "worker-minimal").await;
    let target = |out: &Path, name: &str| std::fs::read_link(out.join(name)).unwrap();
    assert_eq!(target(&one, "initrd"), target(&other, "initrd"));
    assert_ne!(target(&one, "rootfs.ext4"), target(&other, "rootfs.ext4"));
    let info: ImageInfo = serde_json::from_slice(&std::fs::read(one.join("mvm.json")).unwrap()).unwrap();
    assert_eq!(info.ports, [22, 8080]);
}

#[tokio::test]
async fn the_flake_offers_each_role_in_each_profile_for_both_systems() {
    let root = tempfile::tempdir().unwrap();
    let Some(paths) = machine(root.path()).await else { return };
    let gateway = example(root.path(), "gateway");
    for system in ["x86_64-linux", "aarch64-linux"] {
        let args = ["eval", "--json", "--apply", "builtins.mapAttrs (name: guest: guest.drvPath)"];
        let output = nix(&paths, &args, &gateway, &format!("packages.{system}")).await;
        let offered: std::collections::BTreeMap<String, String> =
            serde_json::from_slice(&output.stdout).unwrap();
        let names: Vec<&str> = offered.keys().map(String::as_str).collect();
        let gateway = ["gateway", "gateway-dev", "gateway-minimal"];
        let worker = ["worker", "worker-dev", "worker-minimal"];
        assert_eq!(names, [&["default", "dev"][..], &gateway, &["minimal"], &worker].concat());
        assert_eq!(offered["default"], offered["gateway-minimal"]);
        assert_eq!(offered["worker"], offered["worker-minimal"]);
    }
}

#[tokio::test]
async fn inputs_are_added_once_and_again_when_the_store_lost_them() {
    let root = tempfile::tempdir().unwrap();
    let Some(paths) = machine(root.path()).await else { return };
    let first = inputs::flake_overrides(&paths).await.unwrap();
    let names: Vec<&str> = first.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["mvm-host-tools", "mvm-kernel", "mvm-offline"]);
    assert!(first.iter().all(|(_, reference)| reference.ends_with("-source")));
    assert_eq!(inputs::flake_overrides(&paths).await.unwrap(), first);

    let memory = paths.state().join("nix/inputs.json");
    let lost = std::fs::read_to_string(&memory).unwrap().replace("-source", "-gone");
    std::fs::write(&memory, lost).unwrap();
    assert_eq!(inputs::flake_overrides(&paths).await.unwrap(), first);

    std::fs::remove_dir_all(paths.kernel()).unwrap();
    assert_eq!(inputs::flake_overrides(&paths).await.unwrap().len(), 2, "what is not laid out is left out");
}
