//! Many at once, and those who do not do their part.

use std::time::{Duration, Instant};

use mvm::agent::client::ClientError;
use mvm::agent::limits::Limits;
use mvm::agent::pki::Role;
use mvm::agent::request::Request;
use mvm::agent::response::{FaultCode, Response};
use mvm::agent::wire;
use tokio::task::JoinSet;

use crate::place::{DEADLINE, Place, Raw, refused, release, soon};

const MANY: usize = 10_000;

/// Resident memory of this process, in MiB.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096 / (1 << 20)
}

/// Asks so often at once; how many were answered, and how many told to wait.
async fn flood(place: &Place, times: usize) -> (usize, usize) {
    let client = place.operator().await;
    let mut asking = JoinSet::new();
    for _ in 0..times {
        let client = client.clone();
        asking.spawn(async move { client.ask(release()).await });
    }
    let (mut answered, mut busy) = (0, 0);
    while let Some(result) = soon(asking.join_next()).await {
        match result.unwrap() {
            Ok(Response::Released) => answered += 1,
            Err(ClientError::Refused(fault)) if fault.code == FaultCode::Busy => {
                assert!(fault.retry_ms.is_some_and(|wait| wait > 0), "{fault:?}");
                busy += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    (answered, busy)
}

#[tokio::test]
async fn ten_thousand_requests_at_once_are_answered_or_told_to_wait_and_memory_stays_bounded() {
    let place = Place::open_answering(Limits::default());
    let before = resident();
    let (answered, busy) = flood(&place, MANY).await;
    assert_eq!(answered + busy, MANY);
    assert!(answered > 0);
    // The client's part, ten thousand tasks, is in there too.
    let grown = resident().saturating_sub(before);
    println!("{answered} answered, {busy} told to wait, {grown} MiB more");
    assert!(grown < 100, "{grown} MiB");
    assert_eq!(place.operator().await.ask(release()).await.unwrap(), Response::Released);
}

#[tokio::test]
async fn what_is_over_the_rate_is_told_to_wait_and_served_later() {
    let place = Place::open_answering(Limits { rate: 1, burst: 100, ..Limits::default() });
    let began = Instant::now();
    let (answered, busy) = flood(&place, 1000).await;
    assert_eq!(answered + busy, 1000);
    // The greeting was one of the hundred.
    let most = 99 + began.elapsed().as_secs() as usize + 1;
    assert!((99..=most).contains(&answered), "{answered}");
    let text = place.metrics.text();
    assert!(text.contains(r#"requests_total{kind="unread",outcome="busy"}"#), "{text}");
}

#[tokio::test]
async fn a_fleet_that_takes_nothing_makes_the_server_say_busy() {
    let limits = Limits { queue: Duration::from_millis(50), ..Limits::default() };
    let (place, requests) = Place::open(limits);
    // The channel takes 64 that nobody reads.
    let client = place.operator().await;
    let mut asking = JoinSet::new();
    for _ in 0..80 {
        let client = client.clone();
        asking.spawn(async move { client.ask(release()).await });
    }
    for _ in 0..16 {
        let fault = refused(soon(asking.join_next()).await.unwrap().unwrap());
        assert_eq!((fault.code, fault.retry_ms), (FaultCode::Busy, Some(250)));
    }
    // Those that it has taken, and dropped, are told so.
    drop(requests);
    for _ in 0..64 {
        let fault = refused(soon(asking.join_next()).await.unwrap().unwrap());
        assert_eq!(fault.code, FaultCode::Internal);
    }
    assert_eq!(refused(client.ask(release()).await).code, FaultCode::Stopping);
}

#[tokio::test]
async fn a_client_that_never_reads_its_answers_is_cut_off_and_holds_up_nobody() {
    let place = Place::open_answering(Limits { write: Duration::from_millis(200), ..Limits::default() });
    let identity = Some(place.cluster.file(Role::Client, "operator"));
    let deaf = place.raw(Raw { identity, window: 1024, ..Raw::default() }).await.unwrap();
    let frame = wire::encode(&Request::NodeStats).unwrap();
    let mut streams = Vec::new();
    for _ in 0..32 {
        let (mut send, recv) = soon(deaf.open_bi()).await.unwrap();
        send.write_all(&frame).await.unwrap();
        send.finish().unwrap();
        streams.push(recv);
    }
    let other = place.operator().await;
    assert_eq!(other.ask(release()).await.unwrap(), Response::Released);
    for mut recv in streams {
        // 3: who does not read.
        assert_eq!(soon(recv.received_reset()).await.unwrap(), Some(3u32.into()));
    }
    assert_eq!(other.ask(release()).await.unwrap(), Response::Released);
}

#[tokio::test]
async fn a_client_that_goes_is_no_longer_waited_for() {
    let (place, mut requests) = Place::open(Limits::default());
    let client = place.operator().await;
    let asking = tokio::spawn(async move { client.ask(release()).await });
    let mut incoming = soon(requests.recv()).await.unwrap();
    asking.abort();
    soon(incoming.reply.closed()).await;
}

#[tokio::test]
async fn large_requests_share_a_bounded_room_and_all_are_answered() {
    let place = Place::open_answering(Limits { bytes: 2 << 20, ..Limits::default() });
    let connection = place.raw_operator().await;
    let json = format!(r#"{{"request":"{}"}}"#, "x".repeat((1 << 20) - 20));
    let frame = [&(json.len() as u32).to_be_bytes(), json.as_bytes()].concat();
    let mut asking = JoinSet::new();
    for _ in 0..16 {
        let (connection, frame) = (connection.clone(), frame.clone());
        asking.spawn(async move { crate::place::exchange(&connection, &frame, true).await });
    }
    while let Some(answer) = soon(asking.join_next()).await {
        assert_eq!(crate::place::fault(answer.unwrap()).code, FaultCode::UnknownRequest);
    }
}

#[tokio::test]
async fn connections_are_bounded_and_a_place_that_is_left_is_given_again() {
    for limits in [
        Limits { connections: 2, ..Limits::default() },
        Limits { connections_per_address: 2, ..Limits::default() },
    ] {
        let place = Place::open_answering(limits);
        let (one, two) = (place.operator().await, place.operator().await);
        let identity = place.cluster.identity(Role::Client, "operator");
        let third = place.connect(&identity).await;
        assert!(matches!(third, Err(ClientError::Full { .. })), "{third:?}");
        assert_eq!(two.ask(release()).await.unwrap(), Response::Released);
        one.close().await;
        let began = Instant::now();
        while let Err(error) = place.connect(&identity).await {
            assert!(began.elapsed() < DEADLINE, "{error}");
        }
    }
}

#[tokio::test]
async fn a_silent_connection_is_closed() {
    let place = Place::open_answering(Limits { idle: Duration::from_millis(200), ..Limits::default() });
    let connection = place.raw_operator().await;
    let error = soon(connection.closed()).await;
    assert_eq!(error, quinn::ConnectionError::TimedOut);
}
