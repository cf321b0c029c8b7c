//! What a guest reaches, and what reaches it.

use std::net::TcpListener;

use crate::support::{Namespace, Running, World, http_get, published, serve, stderr, stdout};
use crate::{run_in, run_user, start_gateway};
use nix::sys::signal::Signal;

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
