//! Real guests, driven by the command line as a user drives it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::mount::MsFlags;
use nix::sys::signal::Signal;
use serde_json::Value;
use support::{
    DEADLINE, Namespace, Running, World, http_get, in_own_mounts, is_root, mount_tmpfs, published, serve,
    stderr, stdout, wait_until,
};

/// Arguments of `mvm run` for a flake in user mode, which needs no rights.
fn run_user<'a>(flake: &'a Path, rest: &[&'a str]) -> Vec<&'a str> {
    run_in("user", flake, rest)
}

fn run_in<'a>(network: &'a str, flake: &'a Path, rest: &[&'a str]) -> Vec<&'a str> {
    [&["run", "--network", network, "--flake", flake.to_str().unwrap()], rest].concat()
}

/// Starts the gateway example and leaves it running.
fn start_gateway(world: &World, network: &str, more: &[&str]) -> Value {
    let flake = world.example("gateway");
    let args = [&["--detach", "-p", "0:8080"], more].concat();
    assert_eq!(world.ok(run_in(network, &flake, &args)), "gateway\n");
    world.vm("gateway")
}

#[test]
fn a_first_run_prepares_what_is_missing_and_prints_the_guests_kernel() {
    let world = World::new();
    let out = world.ok(run_user(&world.example("hello"), &["--setup", "--", "uname", "-a"]));
    assert!(out.starts_with("Linux hello "), "{out}");
    assert_eq!(world.vm("hello")["state"], "stopped");
    world.expect_nothing_left();
}

#[test]
fn the_exit_code_of_the_command_is_that_of_run() {
    let world = World::new();
    let output =
        world.mvm(run_user(&world.example("hello"), &["--", "sh", "-c", "exit 7"])).output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", stderr(&output));
    world.expect_nothing_left();
}

#[test]
fn standard_input_and_output_reach_through_to_the_command() {
    let world = World::new();
    let bytes: Vec<u8> = (0..300_000_u32).map(|number| (number * 7 % 251) as u8).collect();
    let input = world.path("input");
    fs::write(&input, &bytes).unwrap();
    let mut run = world.mvm(run_user(&world.example("hello"), &["--", "cat"]));
    let output = run.stdin(fs::File::open(&input).unwrap()).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(output.stdout == bytes, "{} bytes came back", output.stdout.len());
}

#[test]
fn a_command_that_is_not_there_ends_with_127() {
    let world = World::new();
    let output = world.mvm(run_user(&world.example("hello"), &["--", "no-such-program"])).output().unwrap();
    assert_eq!(output.status.code(), Some(127), "{}", stderr(&output));
}

/// What a user sees of a detached gateway from start to end.
fn a_gateway_is_published_shown_and_stopped(world: &World, network: &str) {
    let vm = start_gateway(world, network, &[]);
    assert_eq!((&vm["state"], &vm["spec"]["network"]), (&"running".into(), &network.into()));
    let address = published(&vm);
    assert!(address.ip().is_loopback());
    let answer = http_get(address);
    assert!(answer.starts_with("HTTP/1.") && answer.contains("200 OK"), "{answer}");

    let status = world.ok(["status"]);
    let port = format!("{}:8080", address.port());
    for word in ["gateway", "running", vm["id"].as_str().unwrap(), &port] {
        assert!(status.contains(word), "no {word} in {status}");
    }
    world.ok(["stop", "gateway"]);
    assert_eq!(world.vm("gateway")["state"], "stopped");
    assert!(world.ok(["status"]).contains("No VM is running"));
    world.expect_nothing_left();
    let again = TcpListener::bind(address);
    assert!(again.is_ok(), "{again:?}");
}

#[test]
fn a_detached_gateway_answers_until_it_is_stopped() {
    a_gateway_is_published_shown_and_stopped(&World::new(), "user");
}

#[test]
fn a_detached_gateway_in_tap_mode_leaves_neither_link_nor_table_behind() {
    let Some(namespace) = Namespace::new() else { return };
    let world = World::new();
    namespace.enter(|| a_gateway_is_published_shown_and_stopped(&world, "tap"));
    let links = namespace.ip(&["-o", "link"]);
    assert!(!links.contains("mvm-"), "{links}");
    assert_eq!(namespace.run("nft", &["list", "tables"]), "");
}

#[test]
fn a_run_in_tap_mode_passes_output_and_exit_code_through() {
    let Some(namespace) = Namespace::new() else { return };
    let world = World::new();
    let args = run_in("tap", &world.example("hello"), &["--", "sh", "-c", "uname; exit 7"]).join("\n");
    let output = namespace.enter(|| world.mvm(args.lines()).output().unwrap());
    assert_eq!((stdout(&output).as_str(), output.status.code()), ("Linux\n", Some(7)), "{}", stderr(&output));
    world.expect_nothing_left();
    assert_eq!(namespace.run("nft", &["list", "tables"]), "");
}

#[test]
fn a_second_build_says_cached_prints_the_same_path_and_starts_no_nix() {
    let mut world = World::new();
    let (bin, calls) = (world.path("bin"), world.path("calls"));
    fs::create_dir(&bin).unwrap();
    let path = std::env::var("PATH").unwrap();
    for name in ["nix", "nix-store", "nix-daemon"] {
        let real = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.exists()).unwrap();
        let script =
            format!("#!/bin/sh\necho $0 >> '{}'\nexec '{}' \"$@\"\n", calls.display(), real.display());
        fs::write(bin.join(name), script).unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    world.env("PATH", format!("{}:{path}", bin.display()));
    let flake = world.example("hello");
    let build = || {
        let before = fs::read_to_string(&calls).unwrap_or_default().lines().count();
        let output = world.mvm(["build", "--flake", flake.to_str().unwrap()]).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let started = fs::read_to_string(&calls).unwrap().lines().count() - before;
        (stdout(&output), stderr(&output), started)
    };
    let (first, said, started) = build();
    assert!(started > 0, "{said}");
    // A source so new that it may change unseen is not relied upon: that takes a moment.
    wait_until(DEADLINE, "a build without Nix", || build().2 == 0);
    let (second, said, started) = build();
    assert_eq!((&second, started), (&first, 0));
    assert!(said.contains("cached"), "{said}");
    assert!(Path::new(first.trim()).join("vmlinux").exists());
}

/// Whether a guest reaches a server in another namespace, and from which address it is seen.
fn reaches_the_outside(network: &str, more: &[&str], command: &str) -> Option<(String, Option<String>)> {
    let (host, outside) = (Namespace::new()?, Namespace::new()?);
    host.connect(&outside, "192.0.2.1", "192.0.2.2");
    let server = outside.enter(|| TcpListener::bind("192.0.2.2:8000").unwrap());
    let callers = serve(server, "from outside");
    let world = World::new();
    let flake = world.example("hello");
    let args = [more, &["--user", "root", "--", "sh", "-c", command]].concat();
    let args = run_in(network, &flake, &args);
    let output = host.enter(|| world.mvm(&args).output().unwrap());
    assert!(output.status.success(), "{}", stderr(&output));
    let caller = callers.try_recv().ok().map(|address| address.ip().to_string());
    Some((stdout(&output), caller))
}

const FETCH: &str = "timeout 20 wget -q -O - http://192.0.2.2:8000/ || echo none";

#[test]
fn a_guest_in_tap_mode_reaches_the_outside_behind_the_hosts_address() {
    let Some(seen) = reaches_the_outside("tap", &[], FETCH) else { return };
    assert_eq!(seen, ("from outside".into(), Some("192.0.2.1".into())));
}

#[test]
fn a_guest_in_user_mode_reaches_the_outside() {
    let Some(seen) = reaches_the_outside("user", &[], FETCH) else { return };
    assert_eq!(seen, ("from outside".into(), Some("192.0.2.1".into())));
}

/// The guest's root tries to get out by giving itself a route.
const BREAK_OUT: &str =
    "ip route add default via 172.16.0.1; timeout 3 wget -q -O - http://192.0.2.2:8000/ || echo none";

#[test]
fn a_guest_in_tap_mode_without_egress_does_not_get_out_even_with_a_route_of_its_own() {
    let Some(seen) = reaches_the_outside("tap", &["--no-egress"], BREAK_OUT) else { return };
    assert_eq!(seen, ("none\n".into(), None));
}

#[test]
fn a_guest_in_user_mode_without_egress_does_not_get_out_even_with_a_route_of_its_own() {
    let Some(seen) = reaches_the_outside("user", &["--no-egress"], BREAK_OUT) else { return };
    assert_eq!(seen, ("none\n".into(), None));
}

#[test]
fn a_guest_without_egress_is_still_reached_from_the_host() {
    let world = World::new();
    let vm = start_gateway(&world, "user", &["--no-egress"]);
    assert!(http_get(published(&vm)).contains("200 OK"));
}

#[test]
fn two_runs_of_a_flake_at_once_have_names_and_ports_of_their_own() {
    let world = World::new();
    let flake = world.example("gateway");
    let args = run_user(&flake, &["-p", "0:8080", "--", "cat", "/etc/hostname", "-"]);
    let mut runs = [Running::start(world.mvm(&args)), Running::start(world.mvm(&args))];
    for run in &mut runs {
        run.line(" ready ");
    }
    let vms = world.vms();
    let mut names: Vec<_> = vms.iter().map(|vm| vm["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["gateway", "gateway-2"]);
    assert_ne!(published(&vms[0]), published(&vms[1]));
    for vm in &vms {
        assert!(http_get(published(vm)).contains("200 OK"));
    }
    let mut hosts = Vec::new();
    for mut run in runs {
        hosts.push(run.line("gateway"));
        run.close();
        let (status, said) = run.end();
        assert!(status.success(), "{said}");
    }
    world.expect_nothing_left();
}

#[test]
fn a_directory_with_a_size_becomes_a_disk_and_the_original_stays_as_it_is() {
    let world = World::new();
    let data = world.path("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("file"), "from the host\n").unwrap();
    let volume = format!("{}:/srv/data:64M", data.display());
    let command = "cat /srv/data/file; echo changed > /srv/data/file; grep -c '/srv/data ext4' /proc/mounts";
    let flake = world.example("hello");
    let out = world.ok(run_user(&flake, &["-v", &volume, "--user", "root", "--", "sh", "-c", command]));
    assert_eq!(out, "from the host\n1\n");
    assert_eq!(fs::read_to_string(data.join("file")).unwrap(), "from the host\n");
}

#[test]
fn a_read_only_volume_stays_as_it_is_whatever_the_guest_tries() {
    let world = World::new();
    let flake = world.example("hello");
    let data = world.path("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("file"), "as it was\n").unwrap();
    let attempt = "mount -o remount,rw /data; echo changed > /data/file; cat /data/file";
    // Shared, where that can be, and copied onto a disk.
    for size in ["", ":64M"] {
        let volume = format!("{}:/data{size}:ro", data.display());
        let args = ["-v", &volume, "--user", "root", "--", "sh", "-c", attempt];
        assert_eq!(world.ok(run_user(&flake, &args)), "as it was\n");
    }
    assert_eq!(fs::read_to_string(data.join("file")).unwrap(), "as it was\n");
}

#[test]
fn a_directory_without_a_size_is_shared_and_writes_come_back() {
    if !is_root() {
        return;
    }
    if mvm::vm::virtiofs::program().is_none() {
        println!("SKIPPED: no virtiofsd is installed");
        return;
    }
    let world = World::new();
    let data = world.path("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("file"), "from the host\n").unwrap();
    let volume = format!("{}:/srv/data", data.display());
    let flake = world.example("hello");
    let command = "cat /srv/data/file; echo from the guest > /srv/data/other";
    let out = world.ok(run_user(&flake, &["-v", &volume, "--user", "root", "--", "sh", "-c", command]));
    assert_eq!(out, "from the host\n");
    assert_eq!(fs::read_to_string(data.join("other")).unwrap(), "from the guest\n");
    world.expect_nothing_left();
}

#[test]
fn a_volume_that_is_not_there_is_an_error_that_names_it() {
    let world = World::new();
    let volume = format!("{}:/srv/data", world.path("nowhere").display());
    let said = world.fails(run_user(&world.example("hello"), &["-v", &volume, "--", "true"]));
    assert!(said.contains("nowhere`") && said.contains("help: "), "{said}");
    world.expect_nothing_left();
}

#[test]
fn ssh_opens_as_mvm_or_as_root_and_passes_the_exit_code() {
    let world = World::new();
    start_gateway(&world, "user", &[]);
    assert_eq!(world.ok(["ssh", "gateway", "--", "whoami"]), "mvm\n");
    assert_eq!(world.ok(["ssh", "gateway", "--user", "root", "--", "id", "-u"]), "0\n");
    // Words stay words on their way through ssh's shell.
    assert_eq!(world.ok(["ssh", "gateway", "--", "echo", "a  b", "$HOME", "'"]), "a  b $HOME '\n");
    let output = world.mvm(["ssh", "gateway", "--", "sh", "-c", "exit 9"]).output().unwrap();
    assert_eq!(output.status.code(), Some(9), "{}", stderr(&output));
}

#[test]
fn exec_runs_as_the_user_in_the_directory_and_with_the_variables_asked_for() {
    let world = World::new();
    start_gateway(&world, "user", &[]);
    assert_eq!(world.ok(["exec", "gateway", "--", "sh", "-c", "whoami; pwd"]), "mvm\n/home/mvm\n");
    assert_eq!(world.ok(["exec", "gateway", "--", "sudo", "-n", "id", "-u"]), "0\n");
    let args = ["exec", "gateway", "--user", "root", "--workdir", "/srv", "-e", "A=1 2", "--", "sh", "-c"];
    let out = world.ok(args.iter().chain(&["whoami; pwd; echo \"$A\""]));
    assert_eq!(out, "root\n/srv\n1 2\n");
    let mut cat = world.mvm(["exec", "gateway", "--", "cat"]);
    let mut cat = Running::start({
        cat.stdin(Stdio::piped());
        cat
    });
    cat.write("through\n");
    cat.line("through");
    cat.close();
    assert!(cat.end().0.success());
    let output = world.mvm(["exec", "gateway", "--", "sh", "-c", "echo oops >&2; exit 5"]).output().unwrap();
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(5), "oops\n"));
}

#[test]
fn logs_show_the_console_from_a_time_on_and_follow_it_to_its_end() {
    let world = World::new();
    start_gateway(&world, "user", &[]);
    let mut follow = Running::start(world.mvm(["logs", "--follow", "gateway"]));
    world.ok(["exec", "gateway", "--user", "root", "--", "sh", "-c", "echo marker > /dev/console"]);
    follow.line("marker");
    assert!(world.ok(["logs", "gateway"]).contains("marker\n"));
    assert!(world.ok(["logs", "--since", "1h", "gateway"]).contains("marker\n"));
    assert_eq!(world.ok(["logs", "--since", "0s", "gateway"]), "");
    let json: Value = serde_json::from_str(
        world.ok(["logs", "--json", "gateway"]).lines().find(|line| line.contains("marker")).unwrap(),
    )
    .unwrap();
    assert_eq!((&json["v"], &json["vm"], &json["text"]), (&1.into(), &"gateway".into(), &"marker".into()));
    world.ok(["stop", "gateway"]);
    let (status, said) = follow.end();
    assert!(status.success(), "{said}");
    assert!(world.ok(["logs", "gateway"]).contains("marker\n"), "the log stays when the VM is over");
}

#[test]
fn forward_opens_one_more_port_until_it_is_interrupted() {
    let world = World::new();
    start_gateway(&world, "user", &[]);
    let mut forward = Running::start(world.mvm(["forward", "gateway", "0:8080"]));
    let line = forward.line(" -> gateway:8080");
    let address = line.split(' ').next().unwrap().parse().unwrap();
    assert!(http_get(address).contains("200 OK"));
    forward.signal(Signal::SIGINT);
    let (status, said) = forward.end();
    assert!(status.success(), "{said}");
    assert!(TcpListener::bind(address).is_ok());
}

#[test]
fn a_guest_that_never_seals_ends_with_124_at_the_deadline_with_its_last_lines() {
    let world = World::new();
    let flake =
        world.odd_guest("odd", "echo waiting for a bus > /dev/console; exec /bin/busybox sleep 2147483647");
    let said = world.exits(124, run_user(&flake, &["--boot-timeout", "8", "--", "true"]));
    assert!(said.contains("the guest `odd` did not start its agent within 8 s"), "{said}");
    assert!(said.contains("waiting for a bus") && said.contains("help: "), "{said}");
    assert_eq!(world.vm("odd")["state"], "failed");
    world.expect_nothing_left();
}

#[test]
fn a_guest_that_dies_at_boot_fails_at_once_with_its_last_lines() {
    let world = World::new();
    let flake = world.odd_guest("odd", "echo no more > /dev/console; exit 1");
    let said = world.fails(run_user(&flake, &["--", "true"]));
    assert!(said.contains("the hypervisor ended before the guest was ready"), "{said}");
    assert!(said.contains("no more"), "{said}");
    world.expect_nothing_left();
}

#[test]
fn what_a_guest_writes_on_its_console_does_not_steer_the_terminal() {
    let world = World::new();
    let flake = world.odd_guest("odd", "printf 'a\\033]0;title\\007b\\033[2Jc\\n' > /dev/console; exit 1");
    let said = world.fails(run_user(&flake, &["--", "true"]));
    assert!(said.contains("abc") && !said.contains('\x1b'), "{said:?}");
    let log = world.ok(["logs", "odd"]);
    assert!(log.contains("abc") && !log.contains('\x1b'), "{log:?}");
}

#[test]
fn a_guest_whose_port_stays_closed_ends_with_124_at_the_deadline_and_names_the_port() {
    let world = World::new();
    let flake = world.flake(
        "shut",
        "{ inputs.mvm.url = \"flake:mvm-offline\"; outputs = { mvm, ... }: { packages = mvm.lib.mkGuests {
             name = \"shut\"; default = \"worker\"; roles.worker.ports = [ 9999 ]; }; }; }",
    );
    let said = world.exits(124, run_user(&flake, &["--boot-timeout", "10", "--", "true"]));
    assert!(
        said.contains("the guest `shut` did not listen on port 9999 of its addresses within 10 s"),
        "{said}"
    );
    world.expect_nothing_left();
}

#[test]
fn less_memory_than_the_image_needs_is_refused_before_anything_boots() {
    let world = World::new();
    let flake = world.flake(
        "big",
        "{ inputs.mvm.url = \"flake:mvm-offline\"; outputs = { mvm, ... }: { packages = mvm.lib.mkGuests {
             name = \"big\"; default = \"worker\"; roles.worker.minMemMib = 512; }; }; }",
    );
    let said = world.fails(run_user(&flake, &["--mem", "256", "--", "true"]));
    assert!(said.contains("the image needs 512 MiB of memory, and 256 MiB are asked for"), "{said}");
    assert!(said.contains("help: give at least `--mem 512`"), "{said}");
    assert_eq!(world.vms(), [Value::Null; 0]);
}

#[test]
fn more_memory_than_the_machine_has_is_refused() {
    let world = World::new();
    let said = world.fails(run_user(&world.example("hello"), &["--mem", "1023G", "--", "true"]));
    assert!(said.contains("1047552 MiB of memory are more than this machine's"), "{said}");
    assert_eq!(world.vm("hello")["state"], "failed");
    world.expect_nothing_left();
}

#[test]
fn the_least_memory_mvm_accepts_is_enough_to_boot() {
    let world = World::new();
    assert_eq!(world.ok(run_user(&world.example("hello"), &["--mem", "96", "--", "echo", "up"])), "up\n");
}

#[test]
fn a_taken_port_is_an_error_that_names_its_holder() {
    let world = World::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let map = format!("{}:8080", taken.local_addr().unwrap().port());
    let flake = world.example("gateway");
    let said = world.fails(run_user(&flake, &["-p", &map, "--", "true"]));
    let holder = format!("(process {})", std::process::id());
    assert!(said.contains("is taken by") && said.contains(&holder), "{said}");
    world.expect_nothing_left();

    let vm = start_gateway(&world, "user", &[]);
    let map = format!("{}:8080", published(&vm).port());
    let said = world.fails(run_user(&flake, &["-p", &map, "--", "true"]));
    assert!(said.contains("is taken by the VM `gateway`"), "{said}");
}

#[test]
fn a_name_in_use_is_refused_and_free_again_once_its_vm_is_over() {
    let world = World::new();
    let flake = world.example("hello");
    world.ok(run_user(&flake, &["--name", "mine", "--detach"]));
    let said = world.fails(run_user(&flake, &["--name", "mine", "--detach"]));
    assert!(said.contains("a VM named `mine` is running already"), "{said}");
    world.ok(["stop", "--all"]);
    world.ok(run_user(&flake, &["--name", "mine", "--detach"]));
}

#[test]
fn a_vm_run_with_rm_leaves_no_record() {
    let world = World::new();
    world.ok(run_user(&world.example("hello"), &["--rm", "--", "true"]));
    assert_eq!(world.vms(), [Value::Null; 0]);
    assert_eq!(fs::read_dir(world.state().join("vms")).unwrap().count(), 0);
}

#[test]
fn a_guest_that_powers_off_by_itself_is_stopped() {
    let world = World::new();
    start_gateway(&world, "user", &[]);
    // The connection may end before the command does.
    let _ = world.mvm(["exec", "gateway", "--user", "root", "--", "poweroff"]).output().unwrap();
    wait_until(DEADLINE, "the end of the VM", || world.vm("gateway")["state"] == "stopped");
    world.expect_nothing_left();
}

/// A flake whose build begins and does not end; its builder's command line bears a mark.
fn endless(world: &World) -> std::path::PathBuf {
    world.flake(
        "endless",
        &format!(
            "{{ inputs.tools = {{ url = \"flake:mvm-host-tools\"; flake = false; }};
                outputs = {{ tools, ... }}: {{ packages.x86_64-linux.default = derivation {{
                  name = \"endless\"; system = \"x86_64-linux\"; builder = \"${{tools}}/build/bin/busybox\";
                  args = [ \"sh\" \"-c\" \"${{tools}}/build/bin/busybox sleep 2147483647; : {}\" ]; }}; }}; }}",
            world.path("mark").display()
        ),
    )
}

#[test]
fn an_interrupt_during_the_build_ends_nix_and_its_builder() {
    let world = World::new();
    let mut run = Running::start(world.mvm(run_user(&endless(&world), &["--", "true"])));
    run.line("build endless");
    wait_until(DEADLINE, "the builder", || {
        world.processes().iter().any(|line| line.contains("sleep 2147483647;"))
    });
    run.signal(Signal::SIGINT);
    let (status, said) = run.end();
    assert_eq!(status.code(), Some(130), "{said}");
    world.expect_nothing_left();
    assert_eq!(fs::read_dir(world.state().join("dev/builds")).unwrap().count(), 0);
}

#[test]
fn an_interrupt_during_the_boot_ends_the_guest() {
    let world = World::new();
    let flake = world.odd_guest("odd", "exec /bin/busybox sleep 2147483647");
    let mut run = Running::start(world.mvm(run_user(&flake, &["--", "true"])));
    run.line("boot odd");
    run.signal(Signal::SIGINT);
    let (status, said) = run.end();
    assert_eq!(status.code(), Some(130), "{said}");
    world.expect_nothing_left();
    assert!(world.vms().is_empty(), "{:?}", world.vms());
}

#[test]
fn an_interrupt_during_the_command_reaches_the_command_and_ends_the_guest() {
    let world = World::new();
    let flake = world.example("hello");
    let mut run =
        Running::start(world.mvm(run_user(&flake, &["--", "sh", "-c", "echo begun; exec sleep 1000"])));
    run.line("begun");
    run.signal(Signal::SIGINT);
    let (status, said) = run.end();
    assert_eq!(status.code(), Some(130), "{said}");
    world.expect_nothing_left();
}

/// Kills the shim of a running gateway and looks at what the next command makes of it.
fn a_killed_shim_is_noticed(world: &World, network: &str) {
    let vm = start_gateway(world, network, &[]);
    support::kill_process(&vm["pid"]);
    // Its hypervisor takes a moment to follow.
    wait_until(DEADLINE, "a word about the killed VM", || {
        let output = world.mvm(["status"]).output().unwrap();
        stderr(&output).contains("the VM `gateway` had ended without a word")
    });
    assert_eq!(world.vm("gateway")["state"], "failed");
    world.expect_nothing_left();
    world.ok(["gc"]);
    assert_eq!(world.vms(), [Value::Null; 0]);
}

#[test]
fn a_killed_shim_takes_its_guest_along_and_the_next_command_says_so() {
    a_killed_shim_is_noticed(&World::new(), "user");
}

#[test]
fn a_killed_shim_in_tap_mode_leaves_neither_link_nor_table_behind() {
    let Some(namespace) = Namespace::new() else { return };
    let world = World::new();
    namespace.enter(|| a_killed_shim_is_noticed(&world, "tap"));
    let links = namespace.ip(&["-o", "link"]);
    assert!(!links.contains("mvm-"), "{links}");
    assert_eq!(namespace.run("nft", &["list", "tables"]), "");
}

#[test]
fn a_vm_ends_by_itself_when_the_run_that_holds_it_is_killed() {
    let world = World::new();
    let flake = world.example("hello");
    let mut run =
        Running::start(world.mvm(run_user(&flake, &["--", "sh", "-c", "echo begun; exec sleep 1000"])));
    run.line("begun");
    run.signal(Signal::SIGKILL);
    drop(run);
    wait_until(DEADLINE, "the end of the VM", || world.vm("hello")["state"] == "stopped");
    world.expect_nothing_left();
}

#[test]
fn a_user_without_rights_runs_a_guest_with_nix_through_its_daemon() {
    if !is_root() {
        return;
    }
    let mut world = World::of_user(61_234);
    let socket = world.path("nix.sock");
    let mut daemon = Command::new("nix-daemon");
    // No build users: the test's daemon builds as itself.
    daemon.args(["--option", "build-users-group", "", "--option", "sandbox", "false"]);
    daemon.env("NIX_DAEMON_SOCKET_PATH", &socket);
    let _daemon = Running::start(daemon);
    wait_until(DEADLINE, "the daemon's socket", || socket.exists());
    world.env("NIX_DAEMON_SOCKET_PATH", socket);
    let flake = world.example("hello");
    let out = world.ok([
        "run",
        "--setup",
        "--flake",
        flake.to_str().unwrap(),
        "--",
        "sh",
        "-c",
        "uname; sudo -n id -u",
    ]);
    assert_eq!(out, "Linux\n0\n");
    assert_eq!(world.vm("hello")["spec"]["network"], "user");
    let said = world.fails(run_in("tap", &flake, &["--", "true"]));
    assert!(said.contains("tap networking needs root"), "{said}");
}

#[test]
fn a_full_disk_is_an_error_and_space_is_all_it_takes_to_go_on() {
    if !is_root() {
        return;
    }
    let world = World::empty();
    let flake = world.example("hello");
    in_own_mounts(|| {
        mount_tmpfs(&world.state(), "size=48M", MsFlags::empty());
        world.prepare();
        let ballast = world.state().join("ballast");
        let fill = || {
            let mut file = fs::File::create(&ballast).unwrap();
            // Until the disk says no.
            let _ = std::io::copy(&mut std::io::repeat(0), &mut file);
        };
        world.ok(["status"]);
        fill();
        let said = world.fails(["build", "--flake", flake.to_str().unwrap()]);
        assert!(
            said.contains("disk is full") || said.contains("No space left") || said.contains("disk full"),
            "{said}"
        );
        fs::remove_file(&ballast).unwrap();
        world.ok(["build", "--flake", flake.to_str().unwrap()]);
        fill();
        let said = world.fails(run_user(&flake, &["--", "true"]));
        assert!(said.contains("help: ") && said.contains("full"), "{said}");
        fs::remove_file(&ballast).unwrap();
        assert_eq!(world.ok(run_user(&flake, &["--", "echo", "up"])), "up\n");
        world.expect_nothing_left();
    });
}

#[test]
fn a_stop_that_the_guest_ignores_is_enforced_at_its_deadline() {
    let world = World::new();
    start_gateway(&world, "user", &[]);
    let mut follow = Running::start(world.mvm(["logs", "--follow", "gateway"]));
    let freeze = "kill -STOP $(pidof mvm-guest); echo frozen > /dev/console";
    let _frozen = Running::start(world.mvm(["exec", "gateway", "--user", "root", "--", "sh", "-c", freeze]));
    follow.line("frozen");
    let begun = Instant::now();
    world.ok(["stop", "--timeout", "1", "gateway"]);
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert_eq!(world.vm("gateway")["state"], "stopped");
}

#[test]
fn an_image_without_the_agent_is_reached_by_ssh_and_mvm_says_so() {
    let world = World::new();
    let flake = world.flake("agentless", include_str!("support/agentless.nix"));
    let (_, key) = mvm::vm::keys::user_key(&world.state()).unwrap();
    fs::write(flake.join("key.pub"), key + "\n").unwrap();
    let output = world.mvm(run_user(&flake, &["--", "sh", "-c", "uname; exit 6"])).output().unwrap();
    let said = stderr(&output);
    assert_eq!((stdout(&output).as_str(), output.status.code()), ("Linux\n", Some(6)), "{said}");
    assert!(said.contains("the image has no guest agent"), "{said}");
    world.expect_nothing_left();
}

/// What a console hears of a guest that another process started.
fn a_console_sees_a_detached_guest_and_its_end(world: &World, network: &str) {
    use mvm::console::source::{Interest, watch};
    use mvm::event::{EventSink, Kind, Source, TaskId};
    use mvm::host::paths::Paths;
    use tokio::sync::watch::channel;

    let gateway = start_gateway(world, network, &[]);
    let id = gateway["id"].as_str().unwrap().to_owned();
    let paths = Paths::at(world.state(), world.path("run/console")).unwrap();
    let (sink, mut events) = EventSink::new(TaskId::machine());
    let (_interest, interest) = channel(Interest { console: Some(id.clone()), sources: None });
    let watching = watch(paths, interest, sink, Default::default());
    let seeing = async {
        let (mut sampled, mut console, mut task, mut received) = (false, false, false, network == "user");
        let mut states = Vec::new();
        let mut killed = false;
        while states.len() < 2 {
            let event = events.next().await.unwrap();
            match event.kind {
                Kind::VmSample { vm, sample } if vm == id && !killed => {
                    sampled |= sample.cpu_permille > 0 && sample.memory_kib > 10_000;
                    assert_eq!(sample.rx_bps.is_some(), network == "tap");
                    received |= sample.rx_bps.is_some_and(|rate| rate > 0);
                    // Something for it to do.
                    http_get(published(&gateway));
                }
                Kind::Log { source: Source::Console { .. }, text } => console |= !text.is_empty(),
                Kind::TaskEnded { .. } => task |= event.task.as_str().starts_with("r-"),
                // It is told of again when the ready snapshot of its build is there.
                Kind::VmSeen { info } if states.last() != Some(&info.state) => states.push(info.state),
                _ => {}
            }
            if sampled && console && task && received && !killed {
                support::kill_process(&gateway["pid"]);
                killed = true;
            }
        }
        assert_eq!(states, ["running", "failed"]);
        assert!(killed, "it failed by itself");
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::select! {
            () = watching => panic!("the watcher ended"),
            seen = tokio::time::timeout(DEADLINE, seeing) => seen.expect("all to be seen in time"),
        }
    });
}

#[test]
fn a_console_sees_a_guest_of_another_process_work_and_die() {
    a_console_sees_a_detached_guest_and_its_end(&World::new(), "user");
}

#[test]
fn a_console_sees_the_traffic_of_a_guest_in_tap_mode() {
    let Some(namespace) = Namespace::new() else { return };
    let world = World::new();
    namespace.enter(|| a_console_sees_a_detached_guest_and_its_end(&world, "tap"));
}
