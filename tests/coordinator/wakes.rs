//! One wake for whoever comes, whatever comes of it.

use std::sync::Arc;
use std::time::Duration;

use mvm::fleet::state::InstanceState;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::agent::Manner::Echo;
use crate::agent::{Say, Wakes};
use crate::place::{Place, ask, is_closed};
use crate::support::{DEADLINE, wait_until};

const MANY: &str = "max_connections_per_tenant = 1000\nmax_queued_per_route = 1000";

/// What each of many clients who come at once hears; none when it is closed without a word.
fn all_at_once(place: &Place, count: usize) -> Vec<Option<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let route = place.route;
    runtime.block_on(async move {
        let clients: Vec<_> = (0..count)
            .map(|number| {
                tokio::spawn(async move {
                    let mut client = TcpStream::connect(route).await.ok()?;
                    client.write_all(format!("{number}\n").as_bytes()).await.ok()?;
                    let mut heard = [0; 32];
                    let length = client.read(&mut heard).await.unwrap_or(0);
                    (length > 0).then(|| String::from_utf8_lossy(&heard[..length]).into_owned())
                })
            })
            .collect();
        let mut heard = Vec::new();
        for client in clients {
            heard.push(tokio::time::timeout(DEADLINE, client).await.unwrap().unwrap());
        }
        heard
    })
}

#[test]
fn a_thousand_who_come_at_once_are_one_wake_and_all_are_answered() {
    let place = Place::new(&[Echo('a')], MANY, "max_connections_per_instance = 64");
    place.agent().say(Say::Wakes(Wakes::Work(Duration::from_millis(300))));
    let heard = all_at_once(&place, 1000);
    for (number, heard) in heard.into_iter().enumerate() {
        assert_eq!(heard, Some(format!("a{number}\n")));
    }
    assert_eq!(place.agent().asked.wakes(), 1);
    let status = place.status();
    assert_eq!((&status["wakes"], &status["accepted"]), (&1.into(), &1000.into()));
    let steps = status["last_wake"]["steps"].as_array().unwrap();
    let names: Vec<_> = steps.iter().map(|step| step[0].as_str().unwrap()).collect();
    assert_eq!(names, ["queue", "agent", "restore"]);
}

#[test]
fn a_wake_that_fails_closes_all_who_wait_and_the_next_one_tries_again() {
    let mut place = Place::new(&[Echo('a')], MANY, "");
    place.agent().say(Say::Wakes(Wakes::Fail("the disk is full")));
    assert!(all_at_once(&place, 1000).iter().all(Option::is_none));
    place.coordinator().line("the disk is full");
    let status = place.status();
    assert!(status["failed_wakes"].as_u64() >= Some(1) && status["connections"] == 0, "{status}");
    assert!(status["last_wake"]["error"].as_str().unwrap().contains("the disk is full"));
    place.agent().say(Say::Wakes(Wakes::Work(Duration::ZERO)));
    assert_eq!(ask(&mut place.connect(), "x"), "ax");
}

#[test]
fn a_wake_that_hangs_closes_the_client_in_time_and_the_log_says_why() {
    let mut place = Place::new(&[Echo('a')], "wake_timeout_secs = 1", "");
    place.agent().say(Say::Wakes(Wakes::Hang));
    let took = is_closed(&mut place.connect()).unwrap();
    assert!((Duration::from_millis(900)..Duration::from_secs(10)).contains(&took), "{took:?}");
    place.coordinator().line("no instance had a place for it in time");
}

#[test]
fn a_first_client_who_goes_strands_nobody() {
    let place = Place::new(&[Echo('a')], "", "");
    place.agent().say(Say::Wakes(Wakes::Work(Duration::from_millis(500))));
    let first = place.connect();
    let mut second = place.connect();
    place.until("both wait", |route| route["queued"] == 2);
    socket2::SockRef::from(&first).set_linger(Some(Duration::ZERO)).unwrap();
    drop(first);
    assert_eq!(ask(&mut second, "x"), "ax");
    assert_eq!(place.agent().asked.wakes(), 1);
}

#[test]
fn who_has_said_all_before_the_guest_is_awake_is_answered_all_the_same() {
    let place = Place::new(&[Echo('a')], "", "");
    place.agent().say(Say::Wakes(Wakes::Work(Duration::from_millis(300))));
    let mut client = place.connect();
    std::io::Write::write_all(&mut client, b"x").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(crate::place::hear(&mut client), "ax");
}

#[test]
fn connections_go_to_the_instance_with_the_fewest_and_another_is_woken_when_all_are_full() {
    let place = Place::new(&[Echo('a'), Echo('b')], "", "max_connections_per_instance = 2");
    let mut clients: Vec<_> = (0..4).map(|_| place.connect()).collect();
    let mut heard: Vec<_> = clients.iter_mut().map(|client| ask(client, "x")).collect();
    heard.sort();
    assert_eq!(heard, ["ax", "ax", "bx", "bx"]);
    assert_eq!(place.agent().asked.wakes(), 2);
    // Full: the next one waits for a place, in order.
    let mut fifth = place.connect();
    place.until("one waits", |route| route["queued"] == 1);
    drop(clients.pop());
    let heard = ask(&mut fifth, "y");
    assert!(heard == "ay" || heard == "by", "{heard}");
}

#[test]
fn instances_that_run_anyway_share_the_connections() {
    let mut place = Place::without_agent(&[Echo('a'), Echo('b')], "", "");
    place.start_agent(InstanceState::Running);
    place.start();
    let mut first = place.connect();
    assert_eq!(ask(&mut first, "x"), "ax");
    place.until("both are leased", |route| {
        route["instances"].as_array().unwrap().iter().all(|one| one["leased"] == true)
    });
    assert_eq!(ask(&mut place.connect(), "x"), "bx");
}

#[test]
fn an_order_wakes_without_a_connection_and_another_lets_sleep() {
    let place = Place::new(&[Echo('a')], "", "");
    let listen = place.route.to_string();
    place.world.ok(["coordinator", "wake", &listen]);
    place.until("it is awake", |route| route["state"] == "idle" && route["idle_secs"].is_u64());
    let mut client = place.connect();
    assert_eq!(ask(&mut client, "x"), "ax");
    let refused = place.world.fails(["coordinator", "sleep", &listen]);
    assert!(refused.contains("1 connections are open"), "{refused}");
    drop(client);
    place.until("nobody is connected", |route| route["connections"] == 0);
    place.world.ok(["coordinator", "sleep", &listen]);
    place.until("it sleeps", |route| route["state"] == "sleeping");
    let asked = Arc::clone(&place.agent().asked);
    wait_until(DEADLINE, "the lease is given back", || asked.releases() >= 1);
}
