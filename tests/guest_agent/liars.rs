//! The host's client against a guest that lies.

use tokio::io::AsyncWriteExt;

use super::*;

/// A client whose guest is the test's own hand.
fn pair() -> (AgentClient, tokio::io::DuplexStream) {
    let (host, guest) = tokio::io::duplex(1 << 20);
    let (client, driver) = AgentClient::start(host);
    tokio::spawn(driver);
    (client, guest)
}

async fn say(guest: &mut tokio::io::DuplexStream, frame: Frame) {
    guest.write_all(&frame.encode()).await.unwrap();
}

#[tokio::test]
async fn more_output_than_the_window_breaks_the_channel() {
    let (client, mut guest) = pair();
    let mut session = client.exec(sh("")).unwrap();
    for _ in 0..=WINDOW / MAX_PAYLOAD {
        say(&mut guest, Frame::new(1, FrameKind::Stdout, [0; MAX_PAYLOAD])).await;
    }
    tokio::task::yield_now().await;
    let error = loop {
        match timeout(LONG, session.next()).await.unwrap() {
            Ok(_) => tokio::task::yield_now().await,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, AgentError::Protocol(_)), "{error:?}");
    assert!(client.exec(sh("")).is_err());
}

#[tokio::test]
async fn garbage_empty_output_and_unlent_credit_break_it_too() {
    for bad in [
        vec![0xff; 16],
        Frame::new(1, FrameKind::Stdout, []).encode(),
        Frame::number(1, FrameKind::Credit, 1).encode(),
        Frame::number(1, FrameKind::Signal, 1).encode(),
        Frame::new(1, FrameKind::Exit, []).encode(),
        Frame::new(0, FrameKind::Hello, *b"?").encode(),
    ] {
        let (client, mut guest) = pair();
        let mut session = client.exec(sh("")).unwrap();
        guest.write_all(&bad).await.unwrap();
        let ended = timeout(LONG, session.next()).await.unwrap();
        assert!(matches!(ended, Err(AgentError::Protocol(_))), "{bad:?}: {ended:?}");
        assert!(client.hello().await.is_err());
    }
}

#[tokio::test]
async fn frames_of_unknown_sessions_are_ignored_and_a_restart_ends_sessions() {
    let (client, mut guest) = pair();
    let hello = Hello { contract: 1, version: "x".into(), sealed: true, answers: None };
    let hello = Frame::json(0, FrameKind::Hello, &hello).unwrap();
    say(&mut guest, hello.clone()).await;
    client.hello().await.unwrap();
    let mut session = client.exec(sh("")).unwrap();
    say(&mut guest, Frame::new(77, FrameKind::Stdout, *b"?")).await;
    say(&mut guest, Frame::new(1, FrameKind::Stderr, *b"!")).await;
    assert_eq!(session.next().await, Ok(Event::Stderr(b"!".to_vec())));
    say(&mut guest, hello).await;
    assert_eq!(session.next().await, Err(AgentError::Restarted));
    assert!(client.exec(sh("")).is_ok());
    drop(guest);
    assert!(session.next().await.is_err());
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused_here() {
    let (client, _guest) = pair();
    let exec = sh(&"x".repeat(MAX_PAYLOAD));
    assert!(matches!(client.exec(exec), Err(AgentError::TooLarge(_))));
}
