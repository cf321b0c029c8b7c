//! Subscribers: those who keep up, those who do not, and those who hang.

use std::time::Duration;

use mvm::agent::client::{ClientError, Events};
use mvm::agent::limits::Limits;
use mvm::agent::pki::Role;
use mvm::agent::request::Request;
use mvm::agent::response::{FaultCode, Notice, Response};
use mvm::agent::wire;
use mvm::event::Kind;

use crate::place::{KEPT, Place, Raw, read, soon};

async fn next(events: &mut Events) -> Notice {
    soon(events.next()).await.expect("the events have ended").unwrap()
}

fn phase(notice: &Notice) -> &str {
    match notice {
        Notice::Event { event } => match &event.kind {
            Kind::Phase { name } => name,
            other => panic!("{other:?}"),
        },
        Notice::Lost { .. } => "lost",
    }
}

#[tokio::test]
async fn subscribers_hear_what_happens_from_then_on_in_order() {
    let place = Place::open_answering(Limits::default());
    let client = place.client(Role::Coordinator, "front").await.unwrap();
    place.tell("before");
    let (mut one, mut two) = (client.subscribe().await.unwrap(), client.subscribe().await.unwrap());
    place.tell("first");
    place.tell("second");
    for events in [&mut one, &mut two] {
        assert_eq!(phase(&next(events).await), "first");
        assert_eq!(phase(&next(events).await), "second");
    }
}

#[tokio::test]
async fn who_is_too_slow_is_told_how_much_was_lost() {
    let place = Place::open_answering(Limits::default());
    let mut events = place.operator().await.subscribe().await.unwrap();
    // Nothing else runs meanwhile.
    for number in 0..KEPT + 5 {
        place.tell(&number.to_string());
    }
    assert_eq!(next(&mut events).await, Notice::Lost { events: 5 });
    assert_eq!(phase(&next(&mut events).await), "5");
    assert!(place.metrics.text().contains("mvm_agent_lost_events_total 5"));
}

#[tokio::test]
async fn who_hangs_is_cut_off_and_the_others_hear_on() {
    let place = Place::open_answering(Limits { write: Duration::from_millis(200), ..Limits::default() });
    let identity = Some(place.cluster.file(Role::Client, "operator"));
    let deaf = place.raw(Raw { identity, window: 512, ..Raw::default() }).await.unwrap();
    let (mut send, mut recv) = soon(deaf.open_bi()).await.unwrap();
    send.write_all(&wire::encode(&Request::Subscribe).unwrap()).await.unwrap();
    assert_eq!(soon(read(&mut recv)).await, Response::Subscribed);
    let mut events = place.operator().await.subscribe().await.unwrap();
    for number in 0..100 {
        place.tell(&number.to_string());
        assert_eq!(phase(&next(&mut events).await), number.to_string());
    }
    assert_eq!(soon(recv.received_reset()).await.unwrap(), Some(3u32.into()));
    place.tell("after");
    assert_eq!(phase(&next(&mut events).await), "after");
}

#[tokio::test]
async fn subscriptions_of_one_connection_are_bounded() {
    let place = Place::open_answering(Limits { subscriptions: 1, ..Limits::default() });
    let client = place.operator().await;
    let first = client.subscribe().await.unwrap();
    match client.subscribe().await {
        Err(ClientError::Refused(fault)) => assert_eq!(fault.code, FaultCode::Busy),
        other => panic!("{other:?}"),
    }
    drop(first);
    let mut again = place.operator().await.subscribe().await.unwrap();
    place.tell("heard");
    assert_eq!(phase(&next(&mut again).await), "heard");
}
