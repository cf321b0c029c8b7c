//! Commands: their output, input, terminal, signals and end.

use super::*;

#[tokio::test]
async fn a_command_has_its_output_its_error_output_and_its_code() {
    let mut guest = Guest::new();
    let client = guest.client();
    let hello = client.hello().await.unwrap();
    assert!(hello.sealed);
    let ended = collect(client.exec(sh("echo out; echo err >&2; exit 7")).unwrap()).await;
    assert_eq!(ended, ("out\n".into(), "err\n".into(), 7));
    let ended = collect(client.exec(sh("kill -9 $$")).unwrap()).await;
    assert_eq!(ended.2, 137);
}

#[tokio::test]
async fn a_command_finds_a_login_like_environment() {
    let mut guest = Guest::new();
    let client = guest.client();
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
    let mut guest = Guest::new();
    let client = guest.client();
    let exec = Exec { argv: vec!["no-such-command".into()], ..Exec::default() };
    let ended = collect(client.exec(exec).unwrap()).await;
    assert_eq!(ended, (String::new(), "mvm-guest: no-such-command: not found\n".into(), 127));
}

#[tokio::test]
async fn ten_megabytes_pass_through_cat_while_other_sessions_are_answered() {
    const SIZE: usize = 10_000_000;
    let mut guest = Guest::new();
    let client = guest.client();
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
            timeout(LONG, client.request(Request::Ready { ports: vec![], wait_ms: 0 }))
                .await
                .unwrap()
                .unwrap();
            assert!(started.elapsed() < Duration::from_secs(5));
        }
    }
    writer.await.unwrap();
    assert!(received == expected, "what came back is not what was sent");
    drop(stalled);
}

#[tokio::test]
async fn a_reader_that_stops_holds_up_only_its_own_session() {
    let mut guest = Guest::new();
    let client = guest.client();
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
    let mut guest = Guest::new();
    let client = guest.client();
    let session = client.exec(sh("exec <&-; sleep 0.1; echo done")).unwrap();
    let input = session.input();
    let writer = tokio::spawn(async move { input.write(&vec![0; 3_000_000]).await });
    assert_eq!(collect(session).await.0, "done\n");
    // It may have been cut short by the end of the command; it does not hang.
    let _ = timeout(LONG, writer).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_terminal_has_its_size_and_follows_resizes() {
    let mut guest = Guest::new();
    let client = guest.client();
    let mut exec = sh("trap 'stty size; exit 3' WINCH; stty size; while :; do sleep 0.05; done");
    exec.tty = Some(TermSize { cols: 100, rows: 30 });
    let mut session = client.exec(exec).unwrap();
    assert_eq!(session.next().await.unwrap(), Event::Stdout(b"30 100\r\n".to_vec()));
    session.resize(TermSize { cols: 120, rows: 40 }).unwrap();
    assert_eq!(collect(session).await, ("40 120\r\n".into(), String::new(), 3));
}

#[tokio::test]
async fn a_terminal_passes_interrupts_and_the_end_of_input() {
    let mut guest = Guest::new();
    let client = guest.client();
    let mut exec = sh("echo up; cat; echo status $?");
    exec.tty = Some(TermSize { cols: 80, rows: 24 });
    let mut session = client.exec(exec.clone()).unwrap();
    assert_eq!(session.next().await.unwrap(), Event::Stdout(b"up\r\n".to_vec()));
    session.close_stdin().unwrap();
    assert!(collect(session).await.0.contains("status 0"));
    exec.argv[2] = "trap 'echo int; exit 5' INT; echo up; while :; do sleep 0.01; done".into();
    let mut session = client.exec(exec).unwrap();
    session.next().await.unwrap();
    session.write_stdin(b"\x03").await.unwrap();
    let (out, _, code) = collect(session).await;
    assert_eq!((out.contains("int"), code), (true, 5));
}

#[tokio::test]
async fn a_signal_reaches_the_whole_process_group() {
    let mut guest = Guest::new();
    let client = guest.client();
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
    let mut guest = Guest::new();
    let client = guest.client();
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
    let mut guest = Guest::new();
    let client = guest.client();
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
    let mut guest = Guest::new();
    let client = guest.client();
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
