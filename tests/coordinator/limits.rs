//! Too many, too long, too little: what is refused, and that nothing else suffers from it.

use std::io::Write;
use std::net::TcpStream;
use std::os::unix::process::CommandExt;

use nix::sys::resource::{Resource, setrlimit};

use crate::agent::Manner::Echo;
use crate::place::{Place, ask, hear, is_closed};
use crate::support::Running;

#[test]
fn of_five_thousand_connections_against_a_limit_of_a_thousand_a_thousand_are_carried() {
    let mut place = Place::new(&[Echo('a')], "max_connections_per_tenant = 1000", "");
    assert_eq!(ask(&mut place.connect(), "x"), "ax");
    place.until("the first is over", |route| route["connections"] == 0);
    let mut clients: Vec<TcpStream> = (0..5000).map(|_| place.connect()).collect();
    place.until("all have come", |route| route["accepted"] == 5001);
    assert_eq!(place.status()["refused"], 4000);
    place.coordinator().line("the tenant has as many connections as it may");
    let mut carried = 0;
    for client in &mut clients {
        // One that was refused may not be written to any more.
        let heard = client.write_all(b"x").map(|()| client);
        carried += usize::from(heard.is_ok_and(answers));
    }
    assert_eq!(carried, 1000);
    drop(clients);
    place.until("all are over", |route| route["connections"] == 0);
    assert_eq!(ask(&mut place.connect(), "y"), "ay");
}

fn answers(client: &mut TcpStream) -> bool {
    std::io::Read::read(client, &mut [0; 16]).is_ok_and(|length| length > 0)
}

#[test]
fn a_queue_has_an_end_and_those_in_it_are_served_in_order() {
    let route = "max_connections_per_instance = 1";
    let place = Place::new(&[Echo('a')], "max_queued_per_route = 2", route);
    let mut first = place.connect();
    assert_eq!(ask(&mut first, "x"), "ax");
    let mut second = place.connect();
    place.until("one waits", |route| route["queued"] == 1);
    let mut third = place.connect();
    place.until("two wait", |route| route["queued"] == 2);
    assert!(is_closed(&mut place.connect()).is_some());
    second.write_all(b"2").unwrap();
    third.write_all(b"3").unwrap();
    drop(first);
    assert_eq!(hear(&mut second), "a2");
    assert_eq!(place.status()["queued"], 1);
    drop(second);
    assert_eq!(hear(&mut third), "a3");
}

#[test]
fn a_connection_that_says_nothing_is_ended_after_its_time() {
    let place = Place::new(&[Echo('a')], "connection_idle_timeout_secs = 1", "");
    let mut client = place.connect();
    assert_eq!(ask(&mut client, "x"), "ax");
    assert!(is_closed(&mut client).is_some());
    place.until("it is over", |route| route["connections"] == 0);
}

#[test]
fn without_descriptors_connections_are_refused_and_the_coordinator_still_answers() {
    let mut place = Place::without_agent(&[Echo('a')], "", "");
    place.start_agent(mvm::fleet::state::InstanceState::Sleeping);
    let mut command = place.world.mvm(["coordinator", "serve"]);
    // SAFETY: between fork and exec, and only a system call.
    unsafe { command.pre_exec(|| Ok(setrlimit(Resource::RLIMIT_NOFILE, 300, 300)?)) };
    let mut coordinator = Running::start(command);
    coordinator.line("coordinator listens on");
    let mut first = place.connect();
    assert_eq!(ask(&mut first, "x"), "ax");
    let clients: Vec<TcpStream> = (0..400).map(|_| place.connect()).collect();
    place.until("some were refused", |route| {
        route["accepted"] == 401 && route["refused"].as_u64() >= Some(300)
    });
    assert_eq!(ask(&mut first, "y"), "ay");
    drop(clients);
    place.until("there is room again", |route| route["connections"] == 1);
    assert_eq!(ask(&mut place.connect(), "z"), "az");
}
