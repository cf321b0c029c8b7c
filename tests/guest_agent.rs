//! The agent's real loop, driven by the host's client over a socket pair.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mvm::guest::agent::{self, MAX_SESSIONS};
use mvm::guest::channel::Line;
use mvm::guest::client::{AgentClient, AgentError};
use mvm::guest::frames::*;
use mvm::guest::session::{Event, Session};
use mvm::guest::system::Rehearsal;
use nix::unistd::{getegid, geteuid};
use tokio::time::timeout;

const LONG: Duration = Duration::from_secs(60);

/// A guest: an agent on a thread, over a directory that stands for its root.
struct Guest {
    root: tempfile::TempDir,
    system: Arc<Rehearsal>,
    agent: Option<JoinHandle<()>>,
}

impl Guest {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("etc/mvm")).unwrap();
        std::os::unix::fs::symlink("/proc", root.path().join("proc")).unwrap();
        let passwd = format!("root:x:{}:{}::/tmp:/bin/sh\n", geteuid(), getegid());
        std::fs::write(root.path().join("etc/passwd"), passwd).unwrap();
        Self { root, system: Arc::default(), agent: None }
    }

    fn boot(&mut self) -> UnixStream {
        let (host, guest) = UnixStream::pair().unwrap();
        let (root, system) = (self.root.path().to_path_buf(), self.system.clone());
        let serve = move || agent::serve(Line::Stream(guest.into()), root, system).unwrap();
        self.agent = Some(std::thread::spawn(serve));
        host
    }

    fn client(&mut self) -> AgentClient {
        let stream = self.boot();
        stream.set_nonblocking(true).unwrap();
        let stream = tokio::net::UnixStream::from_std(stream).unwrap();
        let (client, driver) = AgentClient::start(stream);
        tokio::spawn(driver);
        client
    }
}

fn sh(script: &str) -> Exec {
    Exec { argv: vec!["sh".into(), "-c".into(), script.into()], ..Exec::default() }
}

/// Everything a command says: stdout, stderr, exit code.
async fn collect(mut session: Session) -> (String, String, u32) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        match timeout(LONG, session.next()).await.expect("an event in time").unwrap() {
            Event::Stdout(bytes) => out.extend(bytes),
            Event::Stderr(bytes) => err.extend(bytes),
            Event::Exit(code) => return (text(out), text(err), code),
        }
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_command_has_its_output_its_error_output_and_its_code() {
    let client = Guest::new().client();
    let hello = client.hello().await.unwrap();
    assert!(hello.sealed);
    let ended = collect(client.exec(sh("echo out; echo err >&2; exit 7")).unwrap()).await;
    assert_eq!(ended, ("out\n".into(), "err\n".into(), 7));
    let ended = collect(client.exec(sh("kill -9 $$")).unwrap()).await;
    assert_eq!(ended.2, 137);
}

#[tokio::test]
async fn a_command_finds_a_login_like_environment() {
    let client = Guest::new().client();
    let mut exec = sh("echo $HOME $USER $LOGNAME $SHELL $TERM $EXTRA $PATH; pwd; env | wc -l");
    exec.env = vec![("EXTRA".into(), "more".into())];
    let (out, _, _) = collect(client.exec(exec).unwrap()).await;
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert!(out.starts_with(&format!("/tmp root root /bin/sh dumb more {path}\n/tmp\n")), "{out}");
    let mut exec = sh("pwd");
    exec.cwd = Some("/usr".into());
    assert_eq!(collect(client.exec(exec.clone()).unwrap()).await.0, "/usr\n");
    exec.cwd = Some("/no/such".into());
    assert_eq!(collect(client.exec(exec).unwrap()).await.2, 126);
}

#[tokio::test]
async fn commands_run_as_mvm_with_its_groups_where_there_is_such_a_user() {
    if !geteuid().is_root() {
        eprintln!("SKIPPED: changing users needs root");
        return;
    }
    let mut guest = Guest::new();
    let passwd = "root:x:0:0::/root:/bin/sh\nmvm:x:54321:54322::/:/bin/sh\n";
    std::fs::write(guest.root.path().join("etc/passwd"), passwd).unwrap();
    std::fs::write(guest.root.path().join("etc/group"), "kvm:x:54323:mvm\n").unwrap();
    let client = guest.client();
    let mut exec = sh("id -u; id -G; tty >/dev/null && echo $HOME");
    assert_eq!(collect(client.exec(exec.clone()).unwrap()).await.0, "54321\n54322 54323\n");
    exec.tty = Some(TermSize { cols: 80, rows: 24 });
    assert_eq!(collect(client.exec(exec.clone()).unwrap()).await.0, "54321\r\n54322 54323\r\n/\r\n");
    exec.user = Some("root".into());
    assert!(collect(client.exec(exec.clone()).unwrap()).await.0.starts_with("0\r\n"));
    exec.user = Some("nobody-here".into());
    assert_eq!(collect(client.exec(exec).unwrap()).await.2, 126);
}

#[tokio::test]
async fn a_command_that_is_not_there_is_127() {
    let client = Guest::new().client();
    let exec = Exec { argv: vec!["no-such-command".into()], ..Exec::default() };
    let ended = collect(client.exec(exec).unwrap()).await;
    assert_eq!(ended, (String::new(), "mvm-guest: no-such-command: not found\n".into(), 127));
}

#[tokio::test]
async fn ten_megabytes_pass_through_cat_while_other_sessions_are_answered() {
    const SIZE: usize = 10_000_000;
    let client = Guest::new().client();
    let mut cat = client.exec(sh("cat")).unwrap();
    let input = cat.input();
    let sent: Vec<u8> = (0..SIZE).map(|index| (index % 251) as u8).collect();
    let expected = sent.clone();
    let writer = tokio::spawn(async move {
        input.write(&sent).await.unwrap();
        input.close().unwrap();
    });
    // Nobody reads what cat says, so it stands still with full windows.
    let stalled = client.exec(sh("yes")).unwrap();
    let mut received = Vec::new();
    loop {
        match timeout(LONG, cat.next()).await.unwrap().unwrap() {
            Event::Stdout(bytes) => received.extend(bytes),
            Event::Stderr(bytes) => panic!("{}", text(bytes)),
            Event::Exit(code) => break assert_eq!(code, 0),
        }
        if received.len() / 2_000_000 != (received.len() + 16_384) / 2_000_000 {
            let started = Instant::now();
            timeout(LONG, client.request(Request::Ready)).await.unwrap().unwrap();
            assert!(started.elapsed() < Duration::from_secs(5));
        }
    }
    writer.await.unwrap();
    assert!(received == expected, "what came back is not what was sent");
    drop(stalled);
}

#[tokio::test]
async fn a_reader_that_stops_holds_up_only_its_own_session() {
    let client = Guest::new().client();
    let mut stalled = client.exec(sh("yes | head -c 1000000")).unwrap();
    assert!(matches!(stalled.next().await, Ok(Event::Stdout(_))));
    for _ in 0..20 {
        assert_eq!(collect(client.exec(sh("echo hi")).unwrap()).await.0, "hi\n");
    }
    let (out, _, code) = collect(stalled).await;
    assert_eq!((out.len() > 900_000, code), (true, 0));
}

#[tokio::test]
async fn input_a_command_does_not_read_is_taken_from_the_writers_hands() {
    let client = Guest::new().client();
    let session = client.exec(sh("exec <&-; sleep 0.1; echo done")).unwrap();
    let input = session.input();
    let writer = tokio::spawn(async move { input.write(&vec![0; 3_000_000]).await });
    assert_eq!(collect(session).await.0, "done\n");
    // It may have been cut short by the end of the command; it does not hang.
    let _ = timeout(LONG, writer).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_terminal_has_its_size_and_follows_resizes() {
    let client = Guest::new().client();
    let mut exec = sh("trap 'stty size; exit 3' WINCH; stty size; while :; do sleep 0.05; done");
    exec.tty = Some(TermSize { cols: 100, rows: 30 });
    let mut session = client.exec(exec).unwrap();
    assert_eq!(session.next().await.unwrap(), Event::Stdout(b"30 100\r\n".to_vec()));
    session.resize(TermSize { cols: 120, rows: 40 }).unwrap();
    assert_eq!(collect(session).await, ("40 120\r\n".into(), String::new(), 3));
}

#[tokio::test]
async fn a_terminal_passes_interrupts_and_the_end_of_input() {
    let client = Guest::new().client();
    let mut exec = sh("trap 'echo int' INT; echo up; cat; echo status $?");
    exec.tty = Some(TermSize { cols: 80, rows: 24 });
    let mut session = client.exec(exec.clone()).unwrap();
    assert_eq!(session.next().await.unwrap(), Event::Stdout(b"up\r\n".to_vec()));
    session.close_stdin().unwrap();
    assert!(collect(session).await.0.contains("status 0"));
    let mut session = client.exec(exec).unwrap();
    session.next().await.unwrap();
    session.write_stdin(b"\x03").await.unwrap();
    assert!(collect(session).await.0.contains("int"));
}

#[tokio::test]
async fn a_signal_reaches_the_whole_process_group() {
    let client = Guest::new().client();
    let mut session = client
        .exec(sh("(trap 'echo child; exit' TERM; echo up; sleep 1000 & wait) & wait; echo no"))
        .unwrap();
    assert_eq!(session.next().await.unwrap(), Event::Stdout(b"up\n".to_vec()));
    session.signal(15).unwrap();
    let (out, _, code) = collect(session).await;
    assert_eq!((out.as_str(), code), ("child\n", 143));
}

#[tokio::test]
async fn a_session_that_is_dropped_takes_its_processes_with_it() {
    let client = Guest::new().client();
    // Deaf to the hang-up, so the kill after it is what counts. The pipe tells when all are gone.
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("alive");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let script = format!("exec 3>{}; trap '' HUP; echo up; sleep 1000 & sleep 1000", fifo.display());
    let mut session = client.exec(sh(&script)).unwrap();
    let reader = tokio::task::spawn_blocking(move || std::fs::read(fifo).unwrap());
    assert_eq!(session.next().await.unwrap(), Event::Stdout(b"up\n".to_vec()));
    drop(session);
    assert!(timeout(LONG, reader).await.expect("all writers end").unwrap().is_empty());
}

#[tokio::test]
async fn a_daemon_that_keeps_the_pipe_does_not_keep_the_session() {
    let client = Guest::new().client();
    let started = Instant::now();
    let session = client.exec(sh("sleep 30 & echo $!")).unwrap();
    let (out, _, code) = collect(session).await;
    assert_eq!(code, 0);
    assert!(started.elapsed() < Duration::from_secs(20));
    // And it lives on.
    let pid: i32 = out.trim().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}

#[tokio::test]
async fn many_sessions_run_at_once_and_one_too_many_is_refused() {
    let client = Guest::new().client();
    let sessions: Vec<_> = (0..MAX_SESSIONS).map(|_| client.exec(sh("cat")).unwrap()).collect();
    let refused = client.exec(sh("echo")).unwrap().next().await;
    assert!(matches!(refused, Err(AgentError::Refused(_))), "{refused:?}");
    for (index, session) in sessions.iter().enumerate() {
        session.write_stdin(format!("hello {index}").as_bytes()).await.unwrap();
        session.close_stdin().unwrap();
    }
    for (index, session) in sessions.into_iter().enumerate() {
        assert_eq!(collect(session).await.0, format!("hello {index}"));
    }
    assert_eq!(collect(client.exec(sh("echo again")).unwrap()).await.0, "again\n");
}

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
    let ready = client.request(Request::Ready).await.unwrap();
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
    let client = Guest::new().client();
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

/// Written by a child, lest another test's fork hold the file open for writing when it is run.
fn hook(root: &Path, name: &str, script: &str) {
    let path = root.join("etc/mvm").join(name);
    let write = "printf \"$2\" > \"$1\" && chmod 755 \"$1\"";
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", write, "sh"]).arg(path).arg(script);
    assert!(shell.status().unwrap().success());
}

#[tokio::test]
async fn raw_frames_pass_with_any_session_number_but_only_within_the_rules() {
    let client = Guest::new().client();
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
    let mut host = Guest::new().boot();
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

mod hostile_guest {
    use super::*;
    use tokio::io::AsyncWriteExt;

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
