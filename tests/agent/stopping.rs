//! The end of an agent.

use std::time::Duration;

use mvm::agent::client::ClientError;
use mvm::agent::limits::Limits;
use mvm::agent::pki::Role;
use mvm::agent::response::Response;

use crate::place::{Place, release, soon};

#[tokio::test]
async fn what_is_in_flight_is_answered_before_the_agent_ends() {
    let (place, mut requests) = Place::open(Limits::default());
    let client = place.operator().await;
    let asker = client.clone();
    let asking = tokio::spawn(async move { asker.ask(release()).await });
    let incoming = soon(requests.recv()).await.unwrap();
    place.stop.cancel();
    incoming.reply.send(Response::Released).unwrap();
    assert_eq!(soon(asking).await.unwrap().unwrap(), Response::Released);
    soon(place.run).await.unwrap();
    assert!(matches!(soon(client.closed()).await, ClientError::Stopping { .. }));
    let error = client.ask(release()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("the agent at {} ends\nhelp: try again when it is back", place.address)
    );
}

#[tokio::test]
async fn an_agent_that_ends_lets_nobody_in_and_ends_subscriptions() {
    let (place, mut requests) = Place::open(Limits::default());
    let client = place.operator().await;
    let mut events = client.subscribe().await.unwrap();
    let asking = tokio::spawn(async move { client.ask(release()).await });
    let incoming = soon(requests.recv()).await.unwrap();
    place.tell("last");
    place.stop.cancel();
    assert!(soon(events.next()).await.unwrap().is_ok());
    assert!(soon(events.next()).await.is_none());
    let late = place.connect(&place.cluster.identity(Role::Client, "operator")).await;
    assert!(late.is_err());
    incoming.reply.send(Response::Released).unwrap();
    assert!(soon(asking).await.unwrap().is_ok());
    soon(place.run).await.unwrap();
}

#[tokio::test]
async fn what_does_not_come_to_an_end_is_cut_off() {
    let (place, mut requests) =
        Place::open(Limits { drain: Duration::from_millis(100), ..Limits::default() });
    let client = place.operator().await;
    let asking = tokio::spawn(async move { client.ask(release()).await });
    let _incoming = soon(requests.recv()).await.unwrap();
    place.stop.cancel();
    soon(place.run).await.unwrap();
    let error = soon(asking).await.unwrap().unwrap_err();
    assert!(matches!(error, ClientError::Stopping { .. }), "{error:?}");
}
