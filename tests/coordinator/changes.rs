//! A configuration that changes, and the end: connections go on.

use std::net::TcpStream;

use nix::sys::signal::Signal;

use crate::agent::Manner::Echo;
use crate::place::{Place, ask, free, is_closed};
use crate::support::{DEADLINE, wait_until};

#[test]
fn a_route_that_is_added_listens_and_one_that_is_removed_ends_without_its_connections() {
    let mut place = Place::new(&[Echo('a')], "", "");
    let mut client = place.connect();
    assert_eq!(ask(&mut client, "x"), "ax");
    let (old, new) = (place.route, free());
    place.route = new;
    place.configure("", "");
    place.coordinator().line("the configuration is in force");
    assert_eq!(ask(&mut place.connect(), "y"), "ay");
    assert_eq!(ask(&mut client, "z"), "az");
    wait_until(DEADLINE, "nobody listens there", || TcpStream::connect(old).is_err());
}

#[test]
fn a_route_that_leads_elsewhere_takes_new_connections_there_and_keeps_the_old_ones() {
    let mut place = Place::new(&[Echo('a')], "", "");
    let mut client = place.connect();
    assert_eq!(ask(&mut client, "x"), "ax");
    let text = std::fs::read_to_string(place.config()).unwrap();
    std::fs::write(place.config(), text.replace("pool_id = \"web\"", "pool_id = \"other\"")).unwrap();
    place.coordinator().line("the configuration is in force");
    place.until("it leads elsewhere", |route| route["pool"] == "other" && route["state"] != "closed");
    assert_eq!(ask(&mut place.connect(), "y"), "ay");
    assert_eq!(ask(&mut client, "z"), "az");
}

#[test]
fn a_configuration_that_is_not_valid_changes_nothing_and_is_told() {
    let mut place = Place::new(&[Echo('a')], "", "");
    let good = std::fs::read_to_string(place.config()).unwrap();
    std::fs::write(place.config(), good.replace("[[nodes]]", "[[knots]]")).unwrap();
    place.coordinator().signal(Signal::SIGHUP);
    place.coordinator().line("unknown key `knots`");
    assert_eq!(ask(&mut place.connect(), "x"), "ax");
    let table = place.world.ok(["coordinator", "routes"]);
    assert!(table.contains("unknown key `knots`"), "{table}");
    std::fs::write(place.config(), good).unwrap();
    place.world.ok(["coordinator", "reload"]);
    assert!(!place.world.ok(["coordinator", "routes"]).contains("knots"));
}

#[test]
fn a_limit_that_changes_holds_for_the_next_connection() {
    let mut place = Place::new(&[Echo('a')], "max_connections_per_tenant = 1", "");
    let mut first = place.connect();
    assert_eq!(ask(&mut first, "x"), "ax");
    assert!(is_closed(&mut place.connect()).is_some());
    place.configure("max_connections_per_tenant = 2", "");
    place.coordinator().line("the configuration is in force");
    assert_eq!(ask(&mut place.connect(), "y"), "ay");
    assert_eq!(ask(&mut first, "z"), "az");
}

#[test]
fn a_route_that_drains_takes_nothing_new_until_it_is_resumed() {
    let place = Place::new(&[Echo('a')], "", "");
    let listen = place.route.to_string();
    let mut client = place.connect();
    assert_eq!(ask(&mut client, "x"), "ax");
    place.world.ok(["coordinator", "drain", &listen]);
    assert!(is_closed(&mut place.connect()).is_some());
    assert_eq!(ask(&mut client, "y"), "ay");
    assert_eq!(place.status()["state"], "draining");
    place.world.ok(["coordinator", "resume", &listen]);
    assert_eq!(ask(&mut place.connect(), "z"), "az");
}

#[test]
fn a_coordinator_that_is_to_end_waits_for_what_is_open() {
    let mut place = Place::new(&[Echo('a')], "", "");
    let mut client = place.connect();
    assert_eq!(ask(&mut client, "x"), "ax");
    place.coordinator().signal(Signal::SIGTERM);
    place.coordinator().line("waiting for what is open");
    wait_until(DEADLINE, "nobody new is taken", || TcpStream::connect(place.route).is_err());
    assert_eq!(ask(&mut client, "y"), "ay");
    drop(client);
    let (status, _) = place.coordinator.take().unwrap().end();
    assert!(status.success());
    assert_eq!(place.agent().asked.releases(), 1);
}

#[test]
fn what_does_not_end_in_time_is_cut() {
    let mut place = Place::new(&[Echo('a')], "drain_timeout_secs = 1", "");
    let mut client = place.connect();
    assert_eq!(ask(&mut client, "x"), "ax");
    place.coordinator().signal(Signal::SIGTERM);
    let (status, lines) = place.coordinator.take().unwrap().end();
    assert!(status.success() && lines.contains("cut=1"), "{lines}");
    assert!(is_closed(&mut client).is_some());
}
