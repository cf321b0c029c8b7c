//! Agents, guests and coordinators that break.

use std::io::{Read, Write};

use mvm::agent::pki::{self, AUTHORITY, Authority, Identity, Role, Validity};
use mvm::fleet::state::InstanceState;
use nix::sys::signal::Signal;

use crate::agent::Manner::{Echo, Reset};
use crate::agent::Say;
use crate::place::{Place, ask, free, is_closed, name};
use crate::support::{DEADLINE, wait_until};

#[test]
fn a_client_waits_for_an_agent_that_is_not_there_yet() {
    let mut place = Place::without_agent(&[Echo('a')], "", "");
    place.start();
    let mut client = place.connect();
    client.write_all(b"x").unwrap();
    place.until("it waits", |route| route["queued"] == 1);
    place.start_agent(InstanceState::Sleeping);
    assert_eq!(crate::place::hear(&mut client), "ax");
}

#[test]
fn a_node_that_stays_away_closes_the_client_in_time() {
    let mut place = Place::without_agent(&[Echo('a')], "wake_timeout_secs = 1", "");
    place.start();
    assert!(is_closed(&mut place.connect()).is_some());
    place.until("it is known", |route| route["state"] == "unreachable");
}

#[test]
fn an_agent_of_another_cluster_is_refused_and_said_to_be() {
    let mut place = Place::without_agent(&[Echo('a')], "", "");
    let other = place.world.path("other");
    pki::init(&other).unwrap();
    pki::issue(&other, Role::Node, &name(), Validity::days(1).unwrap()).unwrap();
    let identity = Identity::load(&other.join(pki::file_name(Role::Node, &name()))).unwrap();
    let authority = Authority::load(&other.join(AUTHORITY)).unwrap();
    place.start_agent_as(identity, authority, InstanceState::Sleeping);
    place.start();
    // Long before it would have waited long enough.
    assert!(is_closed(&mut place.connect()).is_some());
    place.coordinator().line("is of another cluster");
    let table = place.world.ok(["coordinator", "routes"]);
    assert!(table.contains("of another cluster"), "{table}");
}

#[test]
fn connections_outlive_their_agent_and_a_new_one_is_used() {
    let mut place = Place::new(&[Echo('a')], "idle_timeout_secs = 1", "");
    let mut client = place.connect();
    assert_eq!(ask(&mut client, "x"), "ax");
    place.agent = None;
    place.coordinator().line("the agent does not answer");
    assert_eq!(ask(&mut client, "y"), "ay");
    place.start_agent(InstanceState::Sleeping);
    place.coordinator().line("the agent answers");
    assert_eq!(ask(&mut client, "z"), "az");
    drop(client);
    assert_eq!(ask(&mut place.connect(), "x"), "ax");
}

#[test]
fn an_agent_that_stands_still_while_a_lease_is_renewed_is_given_up_and_found_again() {
    let mut place = Place::new(&[Echo('a')], "", "");
    let mut client = place.connect();
    assert_eq!(ask(&mut client, "x"), "ax");
    let (thaw, frozen) = std::sync::mpsc::channel();
    place.agent().say(Say::Freeze(frozen));
    place.coordinator().line("the agent does not answer");
    assert_eq!(place.status()["state"], "running", "the coordinator itself answers");
    let renewals = place.agent().asked.renewals();
    assert_eq!(ask(&mut client, "y"), "ay");
    drop(thaw);
    place.coordinator().line("the agent answers");
    wait_until(DEADLINE, "a renewal", || place.agent().asked.renewals() > renewals);
    assert_eq!(ask(&mut client, "z"), "az");
}

#[test]
fn an_order_to_sleep_while_the_agent_is_away_is_refused_and_leaves_the_route_as_it_is() {
    let mut place = Place::new(&[Echo('a')], "", "");
    assert_eq!(ask(&mut place.connect(), "x"), "ax");
    place.agent = None;
    place.coordinator().line("the agent does not answer");
    let refused = place.world.fails(["coordinator", "sleep", &place.route.to_string()]);
    assert!(refused.contains("the node `dev` does not answer"), "{refused}");
    assert_eq!(ask(&mut place.connect(), "y"), "ay");
}

#[test]
fn an_instance_that_is_given_up_and_runs_after_all_still_counts_its_connections() {
    let place = Place::new(&[Echo('a')], "idle_timeout_secs = 1", "max_connections_per_instance = 2");
    let mut first = place.connect();
    assert_eq!(ask(&mut first, "x"), "ax");
    place.agent().say(Say::State(0, InstanceState::Warm));
    place.until("it is given up", |route| route["instances"][0]["leased"] == false);
    assert_eq!(ask(&mut place.connect(), "x"), "ax");
    let counted = |route: &serde_json::Value| route["instances"][0]["connections"] == 1;
    place.until("only the first is connected", counted);
    // It is kept for longer than the idle time.
    let asked = std::sync::Arc::clone(&place.agent().asked);
    let before = asked.renewals();
    wait_until(DEADLINE, "a renewal", || asked.renewals() > before);
    assert!(counted(&place.status()), "it was let go under a connection");
    assert_eq!(ask(&mut first, "y"), "ay");
}

#[test]
fn an_instance_that_takes_no_connections_is_woken_again_for_the_client_who_found_out() {
    let place = Place::new(&[Echo('a')], "", "");
    let alive = place.guests.endpoints[0];
    place.agent().say(Say::Moved(0, free()));
    place.world.ok(["coordinator", "wake", &place.route.to_string()]);
    place.agent().say(Say::Moved(0, alive));
    assert_eq!(ask(&mut place.connect(), "x"), "ax");
}

#[test]
fn a_guest_that_takes_a_connection_and_resets_it_resets_the_client() {
    let place = Place::new(&[Reset], "", "");
    let mut client = place.connect();
    client.write_all(b"x").unwrap();
    let error = client.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    place.until("it is over", |route| route["connections"] == 0);
}

#[test]
fn a_coordinator_that_was_killed_is_followed_by_another() {
    let mut place = Place::new(&[Echo('a')], "", "");
    assert_eq!(ask(&mut place.connect(), "x"), "ax");
    let killed = place.coordinator.take().unwrap();
    killed.signal(Signal::SIGKILL);
    killed.end();
    let gone = place.world.fails(["coordinator", "routes"]);
    assert!(gone.contains("no coordinator"), "{gone}");
    place.start();
    assert_eq!(ask(&mut place.connect(), "y"), "ay");
}

#[test]
fn there_is_one_coordinator_a_state() {
    let place = Place::new(&[Echo('a')], "", "");
    let refused = place.world.fails(["coordinator", "serve"]);
    assert!(refused.contains("another coordinator serves the state"), "{refused}");
}

#[test]
fn a_port_that_is_taken_is_told_with_its_holder_and_nothing_starts() {
    let place = Place::without_agent(&[Echo('a')], "", "");
    let _held = std::net::TcpListener::bind(place.route).unwrap();
    let refused = place.world.fails(["coordinator", "serve"]);
    let holder = format!("(process {})", std::process::id());
    assert!(refused.contains("is taken by") && refused.contains(&holder), "{refused}");
}
