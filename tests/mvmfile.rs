//! Mvmfiles built with a real Debian, and apps run by themselves: no Nix in any of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;
use support::{Running, World, http_get, is_root, published, stderr, wait_until};

/// A state that shares its layers with the other tests here; none, and a word about it, where none can be made.
fn world() -> Option<World> {
    if !is_root() {
        println!("SKIPPED: building from an Mvmfile takes root");
        return None;
    }
    let world = World::new();
    world.ok(["setup", "--yes", "--with", "mvmfile"]);
    let shared = Path::new(env!("CARGO_TARGET_TMPDIR")).join("layers");
    fs::create_dir_all(&shared).unwrap();
    fs::create_dir_all(world.state().join("dev")).unwrap();
    std::os::unix::fs::symlink(shared, world.state().join("dev/layers")).unwrap();
    Some(world)
}

/// A project with this Mvmfile.
fn project(world: &World, name: &str, text: &str) -> PathBuf {
    let dir = world.path(name);
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("Mvmfile.toml"), text).unwrap();
    dir
}

/// Builds a project; gives the app, and what was said.
fn build(world: &World, dir: &Path, more: &[&str]) -> (PathBuf, String) {
    let mut command = world.mvm([&["build", dir.to_str().unwrap()], more].concat());
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(half_layers(world, pid).is_empty());
    (support::stdout(&output).trim().into(), stderr(&output))
}

/// An app by itself, on a machine whose PATH has no mvm, in a state of its own.
fn alone(world: &World, app: &Path, args: &[&str]) -> Command {
    let mut command = world.program(app);
    command.env("MVM_STATE_DIR", world.path("alone")).env("PATH", "/usr/bin:/bin").args(args);
    command
}

/// Where a line says that a port of the guest is.
fn address(line: &str) -> SocketAddr {
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// What the build of this process has left half-done among the layers; other tests are at work there too.
fn half_layers(world: &World, pid: u32) -> Vec<PathBuf> {
    let entries = fs::read_dir(world.state().join("dev/layers")).unwrap().flatten();
    let begin = format!(".new-{pid}-");
    let is_left = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(&begin);
    entries.map(|entry| entry.path()).filter(is_left).collect()
}

#[test]
fn the_debian_template_becomes_an_app_that_serves_by_itself_and_under_mvm() {
    let Some(world) = world() else { return };
    world.ok(["init", "web", "--template", "debian"]);
    let dir = world.path("web");
    let (app, _) = build(&world, &dir, &[]);
    assert_eq!(app, world.path("web.elf"));

    // By itself, where there is nothing of mvm's, until it is interrupted.
    let elsewhere = world.path("elsewhere/app");
    fs::create_dir(world.path("elsewhere")).unwrap();
    fs::copy(&app, &elsewhere).unwrap();
    let mut running = Running::start(alone(&world, &elsewhere, &["-p", "0:80"]));
    let port = address(&running.line("port 80 of the guest is"));
    assert!(http_get(port).contains("Hello from a microVM."));
    running.signal(Signal::SIGINT);
    let (status, said) = running.end();
    assert!(status.success(), "{said}");
    assert!(!world.path("alone/vms").exists() || fs::read_dir(world.path("alone/vms")).unwrap().count() == 0);

    // Killed, it takes its VM with it.
    let mut running = Running::start(alone(&world, &elsewhere, &["-p", "0:80"]));
    let line = running.line("web restored in");
    assert!(line.contains("restored"), "{line}");
    running.signal(Signal::SIGKILL);
    running.end();
    world.expect_no_process();

    // What it has unpacked can be had back.
    let removed = support::stdout(&alone(&world, &elsewhere, &["--forget"]).output().unwrap());
    assert!(removed.starts_with("removed ") && !removed.starts_with("removed 0"), "{removed}");
    assert_eq!(fs::read_dir(world.path("alone/dev/builds")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(world.path("alone/dev/snapshots")).unwrap().count(), 0);

    // Under mvm, with other settings than its own.
    fs::create_dir(world.path("data")).unwrap();
    fs::write(world.path("data/note"), "from the host").unwrap();
    fs::write(world.path("more.toml"), "cpus = 2\nmemory = \"320M\"\nports = [\"0:80\"]\n").unwrap();
    let args =
        ["start", "web.elf", "--config", "more.toml", "--memory", "288M", "--volume", "data:/mnt/data:16M"];
    let name = world.ok(args);
    let vm = world.vm(name.trim());
    assert_eq!((vm["name"].as_str(), vm["spec"]["cpus"].as_u64()), (Some("web"), Some(2)));
    assert_eq!(vm["spec"]["memory_mib"], 288);
    assert!(http_get(published(&vm)).contains("Hello from a microVM."));
    let script = "cat /mnt/data/note; echo; stat -c %U /home/keeper/now.txt; id -u; sudo id -u; ls /etc/nginx/sites-enabled";
    assert_eq!(world.ok(["ssh", "web", "--", "sh", "-c", script]), "from the host\nkeeper\n1000\n0\n");
    world.ok(["stop", "web"]);

    // Another service is one layer; and nothing changed is no work at all.
    let text = fs::read_to_string(dir.join("Mvmfile.toml")).unwrap();
    fs::write(
        dir.join("Mvmfile.toml"),
        text.replace("done\"", &format!("done # {}\"", world.path("").display())),
    )
    .unwrap();
    let (_, said) = build(&world, &dir, &[]);
    let begun: Vec<&str> = said.lines().filter_map(|line| line.trim().strip_prefix("build ")).collect();
    assert_eq!(begun, ["guest"], "{said}");
    assert!(build(&world, &dir, &[]).1.contains("(nothing changed)"));
}

#[test]
fn a_failing_command_shows_its_output_and_its_layer_is_there_to_look_at() {
    let Some(world) = world() else { return };
    let text = |last: &str| format!("run = ['echo {} >/srv/first', '{last}']", world.path("").display());
    let dir = project(&world, "app", &text("cat /srv/first; echo half >/srv/half; echo so wrong; exit 3"));
    let dir = dir.to_str().unwrap();
    let said = world.fails(["build", dir]);
    assert!(said.contains("so wrong\nerror: `cat /srv/first; echo half"), "{said}");
    assert!(said.contains("failed (exit status: 3) in ") && said.contains("mvm build"), "{said}");
    assert!(!world.path("app.elf").exists());

    let mut shell = Running::start(world.mvm(["build", dir, "--shell"]));
    shell.write("cat /srv/half; exit 5\n");
    let (status, said) = shell.end();
    assert!(status.code() == Some(5) && said.ends_with("half"), "{said}");
    assert!(world.ok(["log", "--drv", "run-2"]).ends_with("so wrong\n"));
    assert!(world.ok(["log", dir]).contains("failed `cat"));

    project(&world, "app", &text("test -e /srv/first && ! test -e /srv/half"));
    let (_, said) = build(&world, Path::new(dir), &[]);
    assert!(said.contains("as they were: packages, users, run-1"), "{said}");
    let said = world.fails(["build", dir, "--shell"]);
    assert!(said.contains("no command of"), "{said}");
}

#[test]
fn what_a_build_cannot_get_is_told_by_name() {
    let Some(world) = world() else { return };
    let unreachable = project(&world, "far", "sources = ['http://127.0.0.1:1/debian']");
    let said = world.fails(["build", unreachable.to_str().unwrap()]);
    assert!(
        said.contains("error: cannot install the packages of debian:bookworm: Failed to fetch"),
        "{said}"
    );
    let unknown = project(&world, "unknown", "packages = ['no-such-thing']");
    let said = world.fails(["build", unknown.to_str().unwrap()]);
    assert!(said.contains("error: debian:bookworm has no package `no-such-thing`"), "{said}");
    let nobody = project(&world, "nobody", "[services.web]\nrun = 'true'\nuser = 'ghost'");
    let said = world.fails(["build", nobody.to_str().unwrap()]);
    assert!(said.contains("there is no user `ghost`"), "{said}");
    let wrong = project(&world, "wrong", "[resources]\nmemory = '1'");
    let said = world.fails(["build", wrong.to_str().unwrap()]);
    assert!(said.contains("the memory size `1` is outside"), "{said}");
}

#[test]
fn a_build_that_is_killed_or_interrupted_leaves_nothing_that_runs_and_the_next_one_goes_on() {
    let Some(world) = world() else { return };
    let text = format!("run = ['echo {}; exec sleep 1000']", world.path("").display());
    let dir = project(&world, "app", &text);
    let mut pids = Vec::new();
    for (signal, code) in [(Signal::SIGKILL, None), (Signal::SIGINT, Some(130))] {
        let mut running = Running::start(world.mvm(["--verbose", "build", dir.to_str().unwrap()]));
        running.line("run-1> ");
        pids.push(running.id());
        running.signal(signal);
        assert_eq!(running.end().0.code(), code);
        world.expect_no_process();
        assert!(!fs::read_to_string("/proc/mounts").unwrap().contains(world.path("").to_str().unwrap()));
    }
    project(&world, "app", "run = ['true']");
    let (app, said) = build(&world, &dir, &[]);
    assert!(said.contains("as they were: packages"), "{said}");
    assert!(app.exists() && pids.into_iter().all(|pid| half_layers(&world, pid).is_empty()));
}

#[test]
fn packages_that_are_being_installed_when_a_build_is_killed_leave_nothing_anywhere() {
    let Some(world) = world() else { return };
    let (dir, tmp) = (project(&world, "app", ""), world.path("tmp"));
    fs::create_dir(&tmp).unwrap();
    let mut command = world.mvm(["--verbose", "build", "--rebuild", dir.to_str().unwrap()]);
    command.env("TMPDIR", &tmp);
    let mut running = Running::start(command);
    running.line("packages> ");
    let pid = running.id();
    running.signal(Signal::SIGKILL);
    running.end();
    world.expect_no_process();
    assert_eq!(fs::read_dir(tmp).unwrap().count(), 0);
    project(&world, "other", "run = ['exit 1']");
    world.fails(["build", "other"]);
    assert!(half_layers(&world, pid).is_empty());
}

#[test]
fn an_app_that_was_cut_or_altered_is_not_run_by_mvm_nor_by_itself() {
    let Some(world) = world() else { return };
    let (app, _) = build(&world, &project(&world, "app", ""), &[]);
    let whole = fs::read(&app).unwrap();
    let info: Value = serde_json::from_str(&world.ok(["start", "app.elf", "--info", "--json"])).unwrap();
    let parts = info["parts"].as_array().unwrap();
    let at = |index: usize| parts[index]["offset"].as_u64().unwrap() as usize;
    let mut altered = whole.clone();
    altered[at(3) + 100_000] ^= 1;
    let cut = &whole[..whole.len() - 100];
    for (bytes, said) in
        [(altered.as_slice(), "digest of its part `rootfs.ext4` does not fit"), (cut, "is no app of mvm's")]
    {
        fs::write(&app, bytes).unwrap();
        for output in [world.mvm(["start", "app.elf"]).output(), alone(&world, &app, &[]).output()] {
            let output = output.unwrap();
            let text = stderr(&output);
            assert!(output.status.code() == Some(1) && text.contains(said), "{text}");
        }
    }
    assert!(world.vms().is_empty());
    // What is there is not taken for built: it is made whole again.
    let (_, said) = build(&world, &world.path("app"), &[]);
    assert!(said.contains("(built)"), "{said}");
    assert_eq!(fs::read(&app).unwrap().len(), whole.len());
}

#[test]
fn what_the_image_is_given_is_there_in_the_guest_with_its_owners_and_rights() {
    let Some(world) = world() else { return };
    let dir = project(
        &world,
        "app",
        r#"
        packages = ["iputils-ping"]
        run = [
            "printf '#!/bin/sh\\nexec sleep 1000\\n' >/usr/local/bin/waiter; chmod +x /usr/local/bin/waiter",
            "ln /etc/hostname.own /etc/hostname.hard; cp -p /bin/true /srv/true; chmod 4711 /srv/true",
        ]
        [users.web]
        uid = 1000
        [files]
        "/etc/hostname.own" = { text = "x", mode = "640", owner = "web:www-data" }
        "/srv/tool" = { source = "tool", mode = "4755", owner = "mvm" }
        "/srv/tree" = { source = "tree", owner = "web" }
        [services.waiter]
        run = "exec waiter"
        user = "mvm"
        [services.dying]
        run = "echo $GREETING >>/srv/tree/said; cat <(echo through /dev/fd) >>/srv/tree/said; exit 3"
        env = { GREETING = "it's me" }
        user = "web"
        "#,
    );
    let bash = fs::read_to_string(dir.join("Mvmfile.toml"))
        .unwrap()
        .replace("run = \"echo", "run = \"#!/bin/bash\\necho");
    fs::write(dir.join("Mvmfile.toml"), bash).unwrap();
    fs::create_dir_all(dir.join("tree/deep")).unwrap();
    fs::write(dir.join("tree/deep/file with space"), "1").unwrap();
    fs::write(dir.join("tool"), "#!/bin/sh\n").unwrap();
    build(&world, &dir, &[]);
    world.ok(["start", "app.elf", "--network", "user"]);
    let stat = "cd /srv; stat -c '%a %U:%G %n' /etc/hostname.own tool tree 'tree/deep/file with space' true; \
        stat -c %h /etc/hostname.own; ping -c1 127.0.0.1 >/dev/null && echo pings";
    assert_eq!(
        world.ok(["exec", "app", "--", "sh", "-c", stat]),
        "640 web:www-data /etc/hostname.own\n4755 mvm:root tool\n755 web:root tree\n\
         644 web:root tree/deep/file with space\n4711 root:root true\n2\npings\n"
            .replace("mvm:root", "mvm:mvm")
            .replace("web:root", "web:web")
    );
    // One that ends is started again.
    let said = ["exec", "app", "--", "sh", "-c", "cat /srv/tree/said 2>/dev/null || true"];
    wait_until(support::DEADLINE, "a service's second start", || {
        world.ok(said).starts_with("it's me\nthrough /dev/fd\nit's me\n")
    });
    let waiter = "for d in /proc/[0-9]*; do read -r name <$d/comm; [ $name != sleep ] || stat -c %U $d; done";
    assert!(world.ok(["exec", "app", "--", "sh", "-c", waiter]).contains("mvm\n"));
}

#[test]
fn commands_in_an_image_leave_this_machine_as_it_is() {
    let Some(world) = world() else { return };
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let before = (read("/etc/hosts"), read("/etc/resolv.conf"), read("/proc/sys/kernel/hostname"));
    let mark = world.path("mark");
    let text = format!(
        r#"run = [
            "echo 127.0.0.9 there >>/etc/hosts; ! hostname elsewhere; ! echo x >/proc/sys/kernel/hostname",
            "! mknod /srv/disk b 8 0; ! mount -t tmpfs none /mnt; ! test -e {0}; chmod 600 /dev/null",
            "! grep there /etc/hosts",
        ]"#,
        mark.display()
    );
    fs::write(&mark, "").unwrap();
    build(&world, &project(&world, "app", &text), &[]);
    assert_eq!((read("/etc/hosts"), read("/etc/resolv.conf"), read("/proc/sys/kernel/hostname")), before);
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata("/dev/null").unwrap().permissions());
    assert_eq!(mode & 0o777, 0o666);
}

#[test]
fn a_rebuild_makes_every_layer_anew_and_uses_it() {
    let Some(world) = world() else { return };
    // Its layers are no other test's: those build upon theirs meanwhile.
    let text = format!("packages = ['less']\nrun = ['date +%s%N >/srv/made # {}']", world.path("").display());
    let dir = project(&world, "app", &text);
    let made = |more: &[&str]| {
        build(&world, &dir, more);
        world.ok(["start", "app.elf", "--name", "app", "--rm", "--network", "user"]);
        let made = world.ok(["exec", "app", "--", "cat", "/srv/made"]);
        world.ok(["stop", "app"]);
        made
    };
    let first = made(&[]);
    assert_eq!(made(&[]), first);
    assert_ne!(made(&["--rebuild"]), first);
    // Of the apps that were at this place only the last is unpacked.
    assert_eq!(fs::read_dir(world.state().join("dev/builds")).unwrap().count(), 1);
}

#[test]
fn two_builds_of_a_project_at_once_both_end_well() {
    let Some(world) = world() else { return };
    let text = format!("run = ['sleep 0.2 # {}']", world.path("").display());
    let dir = project(&world, "app", &text);
    let dir = dir.to_str().unwrap();
    let both =
        ["one.elf", "two.elf"].map(|output| Running::start(world.mvm(["build", dir, "--output", output])));
    for running in both {
        let (status, said) = running.end();
        assert!(status.success(), "{said}");
    }
    let parts = |name: &str| {
        serde_json::from_str::<Value>(&world.ok(["start", name, "--info", "--json"])).unwrap()["parts"]
            .clone()
    };
    assert_eq!(parts("one.elf"), parts("two.elf"));
    // An app in its own project is not part of itself.
    project(&world, "app", "[files]\n'/srv' = '.'");
    let inside = format!("{dir}/own.elf");
    build(&world, Path::new(dir), &["--output", &inside]);
    let (_, said) = build(&world, Path::new(dir), &["--output", &inside]);
    assert!(said.contains("(nothing changed)"), "{said}");
}

#[test]
fn a_step_that_exits_like_mvm_itself_is_a_failing_step() {
    let Some(world) = world() else { return };
    let dir = project(&world, "app", "run = ['exit 125']");
    let said = world.fails(["build", dir.to_str().unwrap()]);
    assert!(said.contains("`exit 125` failed (exit status: 125)"), "{said}");
}

#[test]
fn an_app_serves_a_user_without_rights_and_goes_on_when_its_file_is_gone() {
    let Some(world) = world() else { return };
    let text =
        "packages = ['nginx-light']\nports = [80]\n[services.nginx]\nrun = \"exec nginx -g 'daemon off;'\"";
    let (app, _) = build(&world, &project(&world, "app", text), &[]);
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let own = home.path().join("app.elf");
    fs::copy(app, &own).unwrap();
    let mut command = Command::new(&own);
    std::os::unix::process::CommandExt::uid(&mut command, 65_534);
    std::os::unix::process::CommandExt::gid(&mut command, 65_534);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", home.path());
    command
        .env("MVM_STATE_DIR", home.path().join("state"))
        .env("XDG_RUNTIME_DIR", home.path())
        .args(["-p", "0:80"]);
    let mut running = Running::start(command);
    let port = address(&running.line("port 80 of the guest is"));
    fs::remove_file(&own).unwrap();
    assert!(http_get(port).contains("nginx"));
    running.signal(Signal::SIGTERM);
    let (status, said) = running.end();
    assert!(status.success(), "{said}");
}

#[test]
fn without_root_it_is_said_that_building_takes_it() {
    if !is_root() {
        println!("SKIPPED: becoming another user takes root");
        return;
    }
    let world = World::of_user(65_534);
    let dir = project(&world, "app", "");
    let said = world.fails(["build", dir.to_str().unwrap()]);
    assert!(said.contains("takes root") && said.contains("help: run `sudo mvm build`"), "{said}");
}
