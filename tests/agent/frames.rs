//! What is no request, and what comes of it.

use std::time::Duration;

use mvm::agent::limits::Limits;
use mvm::agent::response::{FaultCode, Response};
use mvm::agent::wire;
use quinn::Connection;

use crate::place::{Place, exchange, fault, release, soon};

fn hasty() -> Limits {
    Limits { read: Duration::from_millis(100), ..Limits::default() }
}

fn framed(json: &[u8]) -> Vec<u8> {
    [&(json.len() as u32).to_be_bytes(), json].concat()
}

/// Whatever came before, the connection serves.
async fn serves(connection: &Connection) {
    let frame = wire::encode(&release()).unwrap();
    assert_eq!(exchange(connection, &frame, true).await, Response::Released);
}

#[tokio::test]
async fn lengths_of_0_and_of_4_gib_are_refused_at_once() {
    let place = Place::open_answering(Limits::default());
    let connection = place.raw_operator().await;
    // Without an end: it is the length that is refused.
    for (bytes, words) in [([0; 4], "is empty"), ([0xff; 4], "has 4294967295 bytes")] {
        let fault = fault(exchange(&connection, &bytes, false).await);
        assert_eq!(fault.code, FaultCode::BadFrame);
        assert!(fault.message.contains(words) && fault.message.contains("\nhelp: "), "{}", fault.message);
    }
    serves(&connection).await;
}

#[tokio::test]
async fn half_a_frame_then_silence_is_cut_off() {
    let place = Place::open_answering(hasty());
    let connection = place.raw_operator().await;
    let whole = wire::encode(&release()).unwrap();
    for half in [&whole[..2], &whole[..whole.len() / 2]] {
        let (mut send, mut recv) = soon(connection.open_bi()).await.unwrap();
        send.write_all(half).await.unwrap();
        assert_eq!(fault(soon(crate::place::read(&mut recv)).await).code, FaultCode::TooSlow);
        assert!(soon(send.stopped()).await.unwrap().is_some(), "the stream is not stopped");
    }
    serves(&connection).await;
}

#[tokio::test]
async fn a_frame_that_ends_too_soon_is_refused_without_a_wait() {
    let place = Place::open_answering(Limits::default());
    let connection = place.raw_operator().await;
    let whole = wire::encode(&release()).unwrap();
    for part in [&whole[..0], &whole[..3], &whole[..whole.len() - 1]] {
        assert_eq!(fault(exchange(&connection, part, true).await).code, FaultCode::BadFrame);
    }
    serves(&connection).await;
}

#[tokio::test]
async fn garbage_is_answered_with_what_is_wrong_with_it() {
    let place = Place::open_answering(hasty());
    let connection = place.raw_operator().await;
    let mut noise = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..200 {
        let bytes: Vec<u8> = (0..64)
            .map(|_| {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                noise as u8
            })
            .collect();
        fault(exchange(&connection, &bytes, true).await);
        let fault = fault(exchange(&connection, &framed(&bytes), true).await);
        assert_eq!(fault.code, FaultCode::BadRequest);
    }
    serves(&connection).await;
}

#[tokio::test]
async fn a_request_that_is_not_known_is_answered_with_those_that_are() {
    let place = Place::open_answering(Limits::default());
    let connection = place.raw_operator().await;
    let fault = fault(exchange(&connection, &framed(br#"{"request":"dance","tempo":120}"#), true).await);
    assert_eq!(fault.code, FaultCode::UnknownRequest);
    assert!(fault.message.contains("`dance`") && fault.message.contains("node_info"), "{}", fault.message);
    serves(&connection).await;
}

#[tokio::test]
async fn deep_and_large_json_is_refused() {
    let place = Place::open_answering(Limits::default());
    let connection = place.raw_operator().await;
    let deep = framed("[".repeat(200_000).as_bytes());
    assert_eq!(fault(exchange(&connection, &deep, true).await).code, FaultCode::BadRequest);
    let large = framed(format!(r#"{{"request":"{}"}}"#, "x".repeat(1_000_000)).as_bytes());
    let fault = fault(exchange(&connection, &large, true).await);
    assert_eq!(fault.code, FaultCode::UnknownRequest);
    assert!(fault.message.len() < 1000, "{} bytes", fault.message.len());
    serves(&connection).await;
}

#[tokio::test]
async fn what_follows_a_request_is_not_read() {
    let place = Place::open_answering(Limits::default());
    let connection = place.raw_operator().await;
    let frame = wire::encode(&release()).unwrap();
    let twice = [frame.clone(), frame].concat();
    assert_eq!(exchange(&connection, &twice, false).await, Response::Released);
    serves(&connection).await;
}

#[tokio::test]
async fn an_answer_that_fits_no_frame_becomes_an_error() {
    let place = Place::open_answering(Limits::default());
    let connection = place.raw_operator().await;
    let fault = fault(exchange(&connection, &framed(br#"{"request":"node_info"}"#), true).await);
    assert_eq!(fault.code, FaultCode::TooLarge);
}

#[tokio::test]
async fn datagrams_that_are_no_quic_change_nothing() {
    let place = Place::open_answering(Limits::default());
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for length in 0..1200 {
        let bytes: Vec<u8> = (0..length).map(|at| (at * 31 + length) as u8).collect();
        socket.send_to(&bytes, place.address).await.unwrap();
    }
    serves(&place.raw_operator().await).await;
}
