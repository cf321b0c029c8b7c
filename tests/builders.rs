//! Builds on another machine: a second Nix store behind ssh on loopback. Nothing is booted here.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use insta::assert_snapshot;
use mvm::host::child::find_program;
use mvm::store::Store;
use serde_json::Value;
use support::{World, in_own_mounts, is_root, mount_over, stderr, stdout};

/// What only the far machine has, where its builders see it.
const MARK: &str = "from afar";

/// An ssh server whose Nix has a store of its own.
struct Far {
    dir: PathBuf,
}

impl Far {
    /// To be made in a mount namespace of the test's own: the server looks for keys in the user's home.
    fn new(world: &mut World) -> Self {
        let dir = world.path("far");
        let home = dir.join("home");
        fs::create_dir_all(home.join(".ssh")).unwrap();
        fs::write(dir.join("mark"), MARK).unwrap();
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(dir.join("id")));
        fs::copy(dir.join("id.pub"), home.join(".ssh/authorized_keys")).unwrap();
        for path in [&home, &home.join(".ssh"), &home.join(".ssh/authorized_keys")] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
        }
        let key = run(Command::new("dropbearkey").args(["-t", "ed25519", "-f"]).arg(dir.join("host")));
        let key = key.lines().find(|line| line.starts_with("ssh-ed25519 ")).unwrap().to_owned();
        fs::write(dir.join("passwd"), format!("root:x:0:0:root:{}:/bin/sh\n", home.display())).unwrap();
        mount_over(&dir.join("passwd"), Path::new("/etc/passwd"));
        // Whatever is asked for is run with the far machine's own settings.
        let script = format!(
            "#!/bin/sh\nexport NIX_CONFIG='substituters =\nbuild-users-group =\n\
             sandbox-paths = /bin /usr /lib /lib64? /mark={}/mark'\nexec /bin/sh -c \"$SSH_ORIGINAL_COMMAND\"\n",
            dir.display()
        );
        fs::write(dir.join("command"), script).unwrap();
        fs::set_permissions(dir.join("command"), fs::Permissions::from_mode(0o755)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        fs::write(dir.join("known"), format!("[127.0.0.1]:{port} {key}\n")).unwrap();
        let at = dir.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let at = at.clone();
                thread::spawn(move || serve(&at, stream));
            }
        });
        let options = "-o IdentitiesOnly=yes -o BatchMode=yes";
        let at = dir.display();
        let options = format!("-p {port} -i {at}/id -o UserKnownHostsFile={at}/known {options}");
        world.env("NIX_SSHOPTS", options);
        Self { dir }
    }

    /// The store, by `scheme`.
    fn store(&self, scheme: &str) -> String {
        format!("{scheme}://127.0.0.1?remote-store={}/{scheme}", self.dir.display())
    }

    /// The same as a machine that builds.
    fn machine(&self, scheme: &str) -> String {
        format!("{} {}-linux - 2", self.store(scheme), std::env::consts::ARCH)
    }
}

/// Serves one connection to its end.
fn serve(dir: &Path, stream: TcpStream) {
    let out = OwnedFd::from(stream.try_clone().unwrap());
    let mut server = Command::new(find_program("dropbear").unwrap());
    server.args(["-i", "-s", "-r"]).arg(dir.join("host")).arg("-c").arg(dir.join("command"));
    server.stdin(OwnedFd::from(stream)).stdout(out).stderr(Stdio::null());
    // It ends with the connection.
    let _ = server.status();
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", stderr(&output));
    stdout(&output)
}

/// Whether there is all that such a machine takes; says that the test is skipped if not.
fn has_all() -> bool {
    let missing = ["nix", "ssh", "ssh-keygen", "dropbear", "dropbearkey"]
        .into_iter()
        .find(|program| find_program(program).is_none());
    if let Some(program) = missing {
        println!("SKIPPED: there is no {program} (`mvm setup` installs what it comes with)");
    }
    let nix =
        find_program("nix").is_some_and(|nix| nix.canonicalize().is_ok_and(|nix| nix.starts_with("/nix")));
    if nix {
        println!("SKIPPED: Nix itself lies in the store, which the far machine's is another one of");
    }
    missing.is_none() && !nix && is_root()
}

/// A flake of an image and a part of it; `script` makes the part.
fn flake(world: &World, name: &str, script: &str) -> PathBuf {
    let system = format!("{}-linux", std::env::consts::ARCH);
    let salt = world.path("").display().to_string();
    let common = format!(
        "system = \"{system}\"; salt = \"{salt}{name}\"; builder = \"/bin/sh\"; PATH = \"/usr/bin:/bin\";"
    );
    let text = format!(
        "{{ outputs = _: {{ packages.{system} = rec {{
            part = derivation {{ name = \"part\"; {common} args = [ \"-c\" \"{script}\" ]; }};
            default = derivation {{ name = \"image\"; inherit part; {common} args = [ \"-c\"
                \"mkdir $out; printf '\\\\177ELFxx' > $out/vmlinux; cat $part > $out/rootfs.ext4; echo made\" ]; }};
        }}; }}; }}"
    );
    world.flake(name, &text)
}

/// The events of a build that succeeds.
fn build(world: &World, flake: &Path, args: &[&str]) -> Vec<Value> {
    let output =
        world.mvm(["--json", "build", "--flake", flake.to_str().unwrap()]).args(args).output().unwrap();
    assert!(output.status.success(), "{}\n{}", stdout(&output), stderr(&output));
    stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Name and host of each derivation that was built.
fn built(events: &[Value]) -> Vec<(String, String)> {
    let what = events.iter().map(|event| &event["what"]).filter(|what| what["kind"] == "build");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    what.map(|what| (text(&what["drv"])[44..].to_owned(), text(&what["host"]))).collect()
}

fn artifacts(events: &[Value]) -> PathBuf {
    let ready = events.iter().find(|event| event["event"] == "artifacts_ready").unwrap();
    ready["path"].as_str().unwrap().into()
}

/// Expects the image there and here, and the second build of it to do nothing.
fn expect_sound(world: &World, flake: &Path, events: &[Value], store: &Path, args: &[&str]) {
    let dir = artifacts(events);
    assert_eq!(fs::read_to_string(dir.join("rootfs.ext4")).unwrap(), MARK);
    let manifest: Value = serde_json::from_slice(&fs::read(dir.join("manifest.json")).unwrap()).unwrap();
    let out = manifest["store_path"].as_str().unwrap();
    assert!(store.join(out.trim_start_matches('/')).exists(), "{out} is not in {}", store.display());
    run(Command::new("nix-store").args(["--verify-path", out]));
    let again = build(world, flake, args);
    assert!(built(&again).is_empty());
    assert_eq!(artifacts(&again), dir);
}

#[test]
fn another_machine_builds_and_what_it_built_comes_here() {
    if !has_all() {
        return;
    }
    in_own_mounts(|| {
        let mut world = World::empty();
        let far = Far::new(&mut world);
        for scheme in ["ssh", "ssh-ng"] {
            let flake = flake(&world, scheme, "echo hello; cat /mark > $out");
            let (host, machine) = (far.store(scheme), far.machine(scheme));
            let args = ["--max-jobs", "0", "--builders", &machine];
            let events = build(&world, &flake, &args);
            let expected = ["part.drv", "image.drv"].map(|name| (name.to_owned(), host.clone()));
            assert_eq!(built(&events), expected, "each once, with its host");
            expect_sound(&world, &flake, &events, &far.dir.join(scheme), &args);
            let store = Store::open(&world.state().join("state.db")).unwrap().store;
            let times = store.median_build_times().unwrap();
            assert!(times.contains_key(&("part".into(), host)), "{times:?}");
            assert_eq!(world.ok(["log", flake.to_str().unwrap(), "--drv", "part"]), "hello\n");
            let log = world.ok(["log", artifacts(&events).to_str().unwrap()]);
            assert!(log.contains("build part on 127.0.0.1\npart> hello\n"), "{log}");
        }
        // It fails there, and the report says so.
        let bad = flake(&world, "bad", "echo oh; exit 7");
        let machine = far.machine("ssh");
        let bad = bad.to_str().unwrap();
        let said = world.fails(["build", "--flake", bad, "--max-jobs", "0", "--builders", &machine]);
        assert!(said.contains("\npart failed on 127.0.0.1 after 1 line of log\n"), "{said}");
    });
}

#[test]
fn another_store_builds_and_the_image_is_copied_from_it() {
    if !has_all() {
        return;
    }
    in_own_mounts(|| {
        let mut world = World::empty();
        let far = Far::new(&mut world);
        let flake = flake(&world, "f", "echo hello; cat /mark > $out");
        let store = far.store("ssh-ng");
        let events = build(&world, &flake, &["--store", &store]);
        let hosts: Vec<String> = built(&events).into_iter().map(|(_, host)| host).collect();
        assert_eq!(hosts, [store.clone(), store.clone()]);
        let copied = |event: &&Value| {
            let path = event["what"]["path"].as_str().unwrap_or_default();
            event["what"]["kind"] == "copy" && path.ends_with("-image")
        };
        assert!(events.iter().any(|event| copied(&event)), "{events:?}");
        expect_sound(&world, &flake, &events, &far.dir.join("ssh-ng"), &["--store", &store]);
        // That Nix cannot tell its log is no reason not to show it.
        let log = world.mvm(["log", flake.to_str().unwrap(), "--drv", "part"]).output().unwrap();
        assert_eq!(stdout(&log), "hello\n", "{}", stderr(&log));
        let error = world.fails([
            "build",
            "--rebuild",
            "--flake",
            flake.to_str().unwrap(),
            "--store",
            "ssh://127.0.0.1",
        ]);
        assert!(error.contains("`--store 'ssh-ng://127.0.0.1'`"), "{error}");
    });
}

#[test]
fn a_machine_out_of_reach_is_a_warning_or_an_error_that_names_it() {
    if find_program("nix").is_none() || find_program("ssh").is_none() {
        println!("SKIPPED: nix and ssh are not on PATH");
        return;
    }
    let mut world = World::empty();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    world.env("NIX_SSHOPTS", format!("-p {port} -o BatchMode=yes"));
    let flake = flake(&world, "f", "echo near > $out");
    let flake = flake.to_str().unwrap();
    let refused =
        format!("`127.0.0.1` cannot be used: ssh: connect to host 127.0.0.1 port {port}: Connection refused");
    for scheme in ["ssh", "ssh-ng"] {
        let machine = format!("{scheme}://127.0.0.1 {}-linux", std::env::consts::ARCH);
        let build = |jobs| {
            world.mvm(["build", "--flake", flake, "--rebuild", "--builders", &machine, "--max-jobs", jobs])
        };
        let nobody = stderr(&build("0").output().unwrap());
        assert!(nobody.contains(&format!("no builder can be used\nthe builder {refused}")), "{nobody}");
        assert!(nobody.contains("ssh 127.0.0.1 nix-store --version`"), "{nobody}");
        assert!(nobody.ends_with("help: `--max-jobs 1` builds on this machine meanwhile\n"), "{nobody}");
        if scheme == "ssh" {
            let here = build("1").output().unwrap();
            assert!(here.status.success(), "{}", stderr(&here));
            assert!(stderr(&here).contains(&format!("warning the builder {refused}")), "{}", stderr(&here));
            // What follows is not to be there.
            let out = fs::read_link(Path::new(stdout(&here).trim()).join("root")).unwrap();
            fs::remove_dir_all(stdout(&here).trim()).unwrap();
            run(Command::new("nix-store").arg("--delete").arg(out));
        }
    }
    let error = world.fails(["build", "--flake", flake, "--store", "ssh-ng://127.0.0.1"]);
    assert!(error.contains("Connection refused") && error.contains("ssh 127.0.0.1 nix-store"), "{error}");
}

#[test]
fn what_could_be_taken_for_an_option_is_refused_with_what_to_give() {
    let world = World::empty();
    let dir = flake(&world, "f", "exit 1");
    let said = |code, args: &[&str]| {
        let said = world.exits(code, ["build", "--flake", dir.to_str().unwrap()].iter().chain(args));
        said.lines().take(2).collect::<Vec<_>>().join("\n")
    };
    assert_snapshot!(said(2, &["--builders", "--impure"]), @"
    error: invalid value '--impure' for '--builders <MACHINES>': the value `--impure` begins with `-`
    help: give a list of machines or caches, or '' for none; options for Nix go after `--`
    ");
    assert_snapshot!(said(2, &["--max-jobs", "-1"]), @"
    error: invalid value '-1' for '--max-jobs <N>': `-1` is no number of builds
    help: give a number, 0 to build on other machines only, or `auto`
    ");
    assert_snapshot!(said(2, &["--store", ""]), @"
    error: invalid value '' for '--store <STORE>': `` is no store
    help: give one that Nix knows, e.g. `ssh-ng://HOST` or a directory
    ");
    assert_snapshot!(said(1, &["--", "--store", "ssh-ng://far"]), @"
    error: the Nix argument `--store` cannot be used
    help: give `--store` to mvm, before the `--`: what comes out is copied here then
    ");
}
