//! An instance is kept awake while it is used, and let go after that.

use std::sync::Arc;

use mvm::fleet::state::InstanceState;

use crate::agent::Manner::{Echo, Unwell};
use crate::agent::Say;
use crate::place::{Place, ask};
use crate::support::{DEADLINE, wait_until};

#[test]
fn an_instance_is_let_go_when_nobody_has_been_connected_for_the_idle_time() {
    let place = Place::new(&[Echo('a')], "idle_timeout_secs = 1", "");
    let mut client = place.connect();
    assert_eq!(ask(&mut client, "x"), "ax");
    assert_eq!(place.status()["state"], "running");
    drop(client);
    place.until("it is let go", |route| route["state"] == "sleeping");
    let asked = Arc::clone(&place.agent().asked);
    wait_until(DEADLINE, "the lease is given back", || asked.releases() == 1);
    assert_eq!(ask(&mut place.connect(), "y"), "ay");
    assert_eq!(asked.wakes(), 2);
}

#[test]
fn a_route_whose_instance_runs_anyway_is_idle_and_not_asleep() {
    let mut place = Place::without_agent(&[Echo('a')], "idle_timeout_secs = 1", "");
    place.start_agent(InstanceState::Running);
    place.start();
    place.until("it is seen", |route| route["state"] == "idle" && route["instances"][0]["leased"] == false);
}

#[test]
fn a_lease_is_renewed_as_long_as_somebody_is_connected() {
    let place = Place::new(&[Echo('a')], "idle_timeout_secs = 1", "");
    let mut client = place.connect();
    assert_eq!(ask(&mut client, "x"), "ax");
    let asked = Arc::clone(&place.agent().asked);
    wait_until(DEADLINE, "two renewals", || asked.renewals() >= 2);
    assert_eq!(asked.releases(), 0);
    assert_eq!(ask(&mut client, "y"), "ay");
}

#[test]
fn a_lease_that_the_agent_has_forgotten_is_asked_for_anew_and_the_connection_goes_on() {
    let place = Place::new(&[Echo('a')], "", "");
    let mut client = place.connect();
    assert_eq!(ask(&mut client, "x"), "ax");
    place.agent().say(Say::ForgetLeases);
    let asked = Arc::clone(&place.agent().asked);
    wait_until(DEADLINE, "another lease", || asked.wakes() == 2);
    assert_eq!(ask(&mut client, "y"), "ay");
}

#[test]
fn an_instance_that_no_longer_runs_is_given_up_and_the_next_client_wakes_another() {
    let place = Place::new(&[Echo('a'), Echo('b')], "", "");
    assert_eq!(ask(&mut place.connect(), "x"), "ax");
    place.agent().say(Say::State(0, InstanceState::Failed));
    place.until("it is given up", |route| route["instances"][0]["leased"] == false);
    assert_eq!(ask(&mut place.connect(), "x"), "bx");
}

#[test]
fn an_application_that_does_not_answer_gets_connections_last() {
    let mut place = Place::without_agent(&[Unwell, Echo('b')], "", "health_path = \"/\"");
    place.start_agent(InstanceState::Running);
    place.start();
    let _awake = place.connect();
    place.until("one is known to be unwell", |route| {
        route["instances"][0]["healthy"] == false && route["instances"][1]["leased"] == true
    });
    let mut clients: Vec<_> = (0..3).map(|_| place.connect()).collect();
    assert!(clients.iter_mut().all(|client| ask(client, "x") == "bx"));
}
