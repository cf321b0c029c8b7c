//! Requests and malformed frames.

use std::io::{Read, Write};

use super::*;

#[tokio::test]
async fn a_guest_is_personalised_once_and_an_agent_that_comes_back_knows() {
    let mut guest = Guest::new();
    let started = guest.root.path().join("started");
    let script = format!("#!/bin/sh\\necho $PATH >> {}\\n", started.display());
    hook(guest.root.path(), "start", &script);
    let nobody = std::fs::read_to_string(guest.root.path().join("etc/passwd")).unwrap();
    let passwd = nobody.replace("/tmp", "/root");
    std::fs::write(guest.root.path().join("etc/passwd"), passwd).unwrap();
    let client = guest.client();
    assert!(client.hello().await.unwrap().sealed);
    let wish = Personalise {
        entropy: "A".repeat(64),
        hostname: "web".into(),
        role: Some("worker".into()),
        ..Personalise::default()
    };
    let ask = || client.request(Request::Personalise(Box::new(wish.clone())));
    assert_eq!(ask().await, Ok(Answer::Done));
    assert!(matches!(ask().await, Err(AgentError::Refused(why)) if why.contains("before")));
    let ready = client.request(Request::Ready { ports: vec![], wait_ms: 0 }).await.unwrap();
    assert!(matches!(ready, Answer::Ready { sealed: false, .. }));
    assert_eq!(guest.system.steps.lock().unwrap()[1], "entropy 48");
    // The stream's end is the agent's end; a new one starts over the same root.
    drop(client);
    let ended = guest.agent.take().unwrap();
    tokio::task::spawn_blocking(|| ended.join().unwrap()).await.unwrap();
    let client = guest.client();
    assert!(!client.hello().await.unwrap().sealed);
}

#[tokio::test]
async fn a_step_that_fails_is_named() {
    let mut guest = Guest::new();
    let client = guest.client();
    let wish = Personalise { entropy: "!".into(), ..Personalise::default() };
    let failed = client.request(Request::Personalise(Box::new(wish))).await;
    assert!(matches!(failed, Err(AgentError::Refused(why)) if why.starts_with("entropy: ")));
    assert!(client.request(Request::Stats).await.is_ok());
}

#[tokio::test]
async fn drain_and_poweroff_run_the_images_programs() {
    let mut guest = Guest::new();
    let log = guest.root.path().join("log");
    for name in ["drain", "stop"] {
        hook(guest.root.path(), name, &format!("#!/bin/sh\\necho {name} >> {}\\n", log.display()));
    }
    let client = guest.client();
    let drained = client.request(Request::Drain { deadline_ms: 20_000 }).await;
    assert_eq!(drained, Ok(Answer::Done));
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "drain\n");
    assert_eq!(client.request(Request::Poweroff).await, Ok(Answer::Done));
    let deadline = Instant::now() + LONG;
    while guest.system.steps.lock().unwrap().is_empty() && Instant::now() < deadline {
        tokio::task::yield_now().await;
    }
    assert_eq!(*guest.system.steps.lock().unwrap(), ["power off"]);
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "drain\nstop\n");
}

#[tokio::test]
async fn raw_frames_pass_with_any_session_number_but_only_within_the_rules() {
    let mut guest = Guest::new();
    let client = guest.client();
    let (sender, mut receiver) = client.open_raw(&Request::Exec(sh("cat"))).unwrap();
    sender.send(Frame::new(99, FrameKind::Stdin, *b"abc")).unwrap();
    sender.send(Frame::new(7, FrameKind::Stdin, [])).unwrap();
    let mut kinds = Vec::new();
    loop {
        let frame = receiver.recv().await.unwrap();
        kinds.push(frame.kind);
        if frame.kind == FrameKind::Exit {
            break;
        }
    }
    assert!(kinds.contains(&FrameKind::Stdout) && kinds.contains(&FrameKind::Credit));
    let (sender, _receiver) = client.open_raw(&Request::Exec(sh("sleep 1000"))).unwrap();
    let misuse = |frame| matches!(sender.send(frame), Err(AgentError::Misuse(_)));
    assert!(misuse(Frame::number(1, FrameKind::Exit, 0)));
    assert!(misuse(Frame::number(1, FrameKind::Credit, 1)));
    let four = [0; MAX_PAYLOAD];
    for _ in 0..WINDOW / MAX_PAYLOAD {
        sender.send(Frame::new(1, FrameKind::Stdin, four)).unwrap();
    }
    assert!(
        misuse(Frame::new(1, FrameKind::Stdin, vec![0; WINDOW]))
            || sender.send(Frame::new(1, FrameKind::Stdin, vec![0; MAX_PAYLOAD + 1])).is_err()
    );
}

#[test]
fn garbage_starts_the_agent_over_and_ends_what_ran() {
    let mut guest = Guest::new();
    let mut host = guest.boot();
    host.set_read_timeout(Some(LONG)).unwrap();
    let mut buffer = Vec::new();
    let mut next = |host: &mut UnixStream| loop {
        if let Some(frame) = Frame::decode(&mut buffer).unwrap() {
            return frame;
        }
        let mut chunk = [0; 4096];
        let count = host.read(&mut chunk).unwrap();
        assert!(count > 0, "the agent must stay");
        buffer.extend(&chunk[..count]);
    };
    let hello = |frame: Frame| serde_json::from_slice::<Hello>(&frame.payload).unwrap();
    assert_eq!(hello(next(&mut host)).answers, None);
    let exec = Frame::json(5, FrameKind::Request, &Request::Exec(sh("echo up; sleep 1000"))).unwrap();
    for garbage in [
        vec![0xff; 100],
        Frame::new(5, FrameKind::Stdout, *b"hosts do not say this").encode(),
        Frame::new(0, FrameKind::Request, *b"{}").encode(),
        Frame::new(5, FrameKind::Signal, *b"12345").encode(),
        Frame::number(5, FrameKind::Credit, u32::MAX).encode(),
        exec.encode(),
    ] {
        host.write_all(&exec.encode()).unwrap();
        let up = next(&mut host);
        assert_eq!((up.session, up.kind, up.payload.as_slice()), (5, FrameKind::Stdout, &b"up\n"[..]));
        host.write_all(&garbage).unwrap();
        assert_eq!(hello(next(&mut host)).answers, None);
    }
    // Frames of sessions that are over are no garbage.
    host.write_all(&Frame::number(5, FrameKind::Signal, 15).encode()).unwrap();
    host.write_all(&Frame::new(8, FrameKind::Request, *b"{\"request\":\"new\"}").encode()).unwrap();
    let reply = next(&mut host);
    assert_eq!((reply.session, reply.kind), (8, FrameKind::Reply));
    host.write_all(&Frame::number(0, FrameKind::Hello, 42).encode()).unwrap();
    assert_eq!(hello(next(&mut host)).answers, Some(42));
}

mod arbitrary_hosts {
    use super::*;
    use proptest::prelude::*;

    fn frames() -> impl Strategy<Value = Vec<u8>> {
        let kinds = vec![3u8, 6, 7, 9, 11, 2, 1, 99];
        let frame = (0u32..4, prop::sample::select(kinds), prop::collection::vec(any::<u8>(), 0..8));
        let wire = frame.prop_map(|(session, kind, payload)| {
            let mut wire = Frame::new(session, FrameKind::Stdin, payload).encode();
            wire[8] = kind;
            wire
        });
        prop_oneof![4 => wire, 1 => prop::collection::vec(any::<u8>(), 0..40)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn no_bytes_whatsoever_end_the_agent(script in prop::collection::vec(frames(), 0..30)) {
            let mut guest = Guest::new();
            let mut host = guest.boot();
            for bytes in script {
                host.write_all(&bytes).unwrap();
            }
            // Garbage may have left half a frame open, at most this long.
            host.write_all(&vec![0xff; MAX_PAYLOAD + 16]).unwrap();
            host.shutdown(std::net::Shutdown::Write).unwrap();
            guest.agent.take().unwrap().join().unwrap();
        }
    }
}
