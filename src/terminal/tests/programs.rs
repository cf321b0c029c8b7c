use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::kill;
use nix::unistd::Pid;
use tokio::process::Command;

use super::text;
use crate::terminal::Size;
use crate::terminal::pty::{Exit, PtyError};
use crate::terminal::screen::Effects;
use crate::terminal::session::Session;

/// Nothing here takes longer.
const DEADLINE: Duration = Duration::from_secs(20);
const BUDGET: usize = 64 * 1024;

fn sh(script: &str) -> Session {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    Session::spawn(command, Size::new(80, 24), 1000).unwrap()
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(test)
}

async fn ready(session: &Session) {
    let waited = tokio::time::timeout(DEADLINE, session.ready()).await;
    assert!(waited.is_ok(), "nothing more came after:\n{}", text(session.screen()));
}

/// Pumps until `done` says so.
async fn pump(session: &mut Session, mut done: impl FnMut(&Session, &Effects) -> bool) {
    loop {
        ready(session).await;
        let pumped = session.pump(BUDGET);
        if done(session, &pumped.effects) {
            return;
        }
        assert_eq!(pumped.exit, None, "{}", text(session.screen()));
    }
}

async fn shows(session: &mut Session, what: &str) {
    // It may have come together with what was waited for before.
    if !text(session.screen()).contains(what) {
        pump(session, |session, _| text(session.screen()).contains(what)).await;
    }
}

async fn exit(session: &mut Session) -> Exit {
    loop {
        ready(session).await;
        if let Some(exit) = session.pump(BUDGET).exit {
            assert_eq!(session.exit(), Some(exit));
            return exit;
        }
    }
}

/// Whether a process exists, not as a zombie.
fn lives(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

#[test]
fn a_program_reads_what_is_typed_and_shows_what_it_writes() {
    run(async {
        let mut session =
            sh("read line; echo \"got <$line>\"; stty size; echo $TERM $COLORTERM; tty; exec cat");
        assert!(session.write("hällo\r".as_bytes()));
        shows(&mut session, "got <hällo>").await;
        shows(&mut session, "24 80").await;
        shows(&mut session, "xterm-256color truecolor").await;
        shows(&mut session, "/dev/pts/").await;
        // Echoed by the terminal, then by cat, which is there then.
        assert!(session.write(b"more\r"));
        shows(&mut session, "more\nmore").await;
        // ^C reaches the program by its terminal.
        assert!(session.write(b"\x03"));
        assert_eq!(exit(&mut session).await, Exit::Signal(2));
    });
}

#[test]
fn a_program_is_told_when_its_terminal_changes_size() {
    run(async {
        let mut session = sh("trap 'stty size; exit 0' WINCH; echo ready; while :; do read line; done");
        shows(&mut session, "ready").await;
        session.resize(Size::new(100, 30));
        assert_eq!(exit(&mut session).await, Exit::Code(0));
        assert!(text(session.screen()).contains("30 100"));
        assert_eq!(session.screen().size(), Size::new(100, 30));
    });
}

#[test]
fn the_exit_comes_after_the_last_of_the_output() {
    run(async {
        for _ in 0..20 {
            let mut session = sh("printf 'a%.0s' $(seq 1500); echo the end; exit 7");
            assert_eq!(exit(&mut session).await, Exit::Code(7));
            assert!(text(session.screen()).ends_with("the end"));
        }
        let mut session = sh("kill -KILL $$");
        let exit = exit(&mut session).await;
        assert_eq!((exit, exit.to_string().as_str()), (Exit::Signal(9), "killed by SIGKILL"));
        // From now on there is nothing to wait for.
        let waited = tokio::time::timeout(Duration::from_millis(1), session.ready()).await;
        assert!(waited.is_err());
    });
}

#[test]
fn a_program_that_closes_its_terminal_is_waited_for() {
    run(async {
        let mut session = sh("read go; exec <&- >&- 2>&-; exec sleep 0.1");
        assert!(session.write(b"\r"));
        assert_eq!(exit(&mut session).await, Exit::Code(0));
    });
}

#[test]
fn a_program_that_does_not_exist_is_named() {
    run(async {
        let error = Session::spawn(Command::new("/no/such/program"), Size::new(80, 24), 0).err().unwrap();
        assert!(
            matches!(&error, PtyError::Spawn { program, .. } if program == "/no/such/program"),
            "{error}"
        );
        assert!(error.to_string().contains("\nhelp: "));
    });
}

#[test]
fn dropping_a_terminal_ends_even_those_who_will_not_hear_of_it() {
    run(async {
        // A polite one, a deaf one, and a deaf one behind a shell with job control.
        let scripts = [
            "echo pid $$ .; exec sleep 1000",
            "trap '' HUP INT TERM; echo pid $$ .; while :; do sleep 1000; done",
            "set -m; (trap '' HUP; echo pid $(exec sh -c 'echo $PPID') .; sleep 1000; sleep 1000); :",
        ];
        for script in scripts {
            let mut session = sh(script);
            shows(&mut session, " .").await;
            let shown = text(session.screen());
            let pid: i32 = shown.split_whitespace().nth(1).unwrap().parse().unwrap();
            let leader = session.id() as i32;
            assert!(lives(pid) && lives(leader));
            let began = Instant::now();
            drop(session);
            assert!(began.elapsed() < Duration::from_secs(5));
            assert!(kill(Pid::from_raw(leader), None).is_err(), "{script}: the leader is gone, not a zombie");
            while lives(pid) {
                assert!(began.elapsed() < DEADLINE, "{script}: somebody is left");
                tokio::task::yield_now().await;
            }
        }
    });
}

#[test]
fn answers_reach_the_program_that_asked() {
    run(async {
        // Each answer is read up to its last character.
        let script = "stty raw -echo
            ask() { printf \"$1\"; dd bs=1 count=$2 2>/dev/null | tr '\\033' E; printf '\\r\\n'; }
            ask '\\033[c' 5; ask '\\033[>c' 12; ask '\\033[5n' 4; ask '\\033[18t' 10; ask '\\033[?2026$p' 11";
        let mut session = sh(script);
        assert_eq!(exit(&mut session).await, Exit::Code(0));
        assert_eq!(text(session.screen()), "E[?6c\nE[>0;2600;1c\nE[0n\nE[8;24;80t\nE[?2026;2$y");
    });
}

#[test]
fn a_program_that_does_not_read_blocks_nobody() {
    run(async {
        let mut session = sh("stty raw -echo; echo ready; exec sleep 1000");
        shows(&mut session, "ready").await;
        let began = Instant::now();
        let taken = (0..100).take_while(|_| session.write(&[b'x'; 100_000])).count();
        assert!((40..45).contains(&taken), "{taken} pieces of 100 kB");
        assert!(began.elapsed() < DEADLINE);
    });
}

#[test]
fn much_pasted_text_arrives_whole() {
    run(async {
        let mut session = sh("stty raw -echo; echo ready; head -c 1000000 | sha256sum");
        shows(&mut session, "ready").await;
        let pasted: Vec<u8> = (0..1_000_000u32).map(|n| b'a' + (n % 23) as u8).collect();
        assert!(session.write(&pasted));
        assert_eq!(exit(&mut session).await, Exit::Code(0));
        use sha2::Digest as _;
        let sum: String = sha2::Sha256::digest(&pasted).iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(text(session.screen()).contains(&sum));
    });
}

#[test]
fn much_output_is_pumped_in_portions_and_kept_in_bounds() {
    // In a process of its own: other tests take memory too.
    const ALONE: &str = "MVM_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let name = "terminal::tests::programs::much_output_is_pumped_in_portions_and_kept_in_bounds";
        let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
        let output = alone.args(["--exact", name, "--nocapture"]).env(ALONE, "1").output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    run(async {
        let memory = || {
            let status = fs::read_to_string("/proc/self/statm").unwrap();
            status.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
        };
        let mut session = sh("yes 'some text that fills a line to its end, or nearly so' | head -c 20000000");
        let before = memory();
        let mut pumps = 0;
        pump(&mut session, |session, _| {
            pumps += 1;
            session.exit().is_some()
        })
        .await;
        assert!(pumps >= 20_000_000 / BUDGET, "{pumps} pumps");
        assert_eq!(session.screen().history(), 1000);
        // 1000 lines of 80 cells are 2 MB.
        let grown = memory().saturating_sub(before);
        assert!(grown < 16 << 20, "{grown} bytes");
    });
}

#[test]
fn hostile_output_leaves_the_terminal_usable() {
    run(async {
        let mut session = sh(
            "head -c 300000 /dev/urandom; printf '\\030\\033]0;'; head -c 3000000 /dev/zero | tr '\\0' x; \
             printf '\\030\\033[?2026l\\033c\\033(B\\017e\\314\\201 \\346\\274\\242 fine\\n'",
        );
        assert_eq!(exit(&mut session).await, Exit::Code(0));
        assert_eq!(text(session.screen()), "e\u{301} 漢 fine");
    });
}

#[test]
fn several_terminals_are_waited_for_at_once() {
    use futures_util::stream::{FuturesUnordered, StreamExt};
    run(async {
        let mut sessions: HashMap<u32, Session> =
            (0..5).map(|n| (n, sh(&format!("echo {n}; exit {n}")))).collect();
        let mut codes = Vec::new();
        while !sessions.is_empty() {
            let mut waiting: FuturesUnordered<_> = sessions
                .iter()
                .map(|(n, session)| async {
                    session.ready().await;
                    *n
                })
                .collect();
            let n = tokio::time::timeout(DEADLINE, waiting.next()).await.unwrap().unwrap();
            drop(waiting);
            if let Some(exit) = sessions.get_mut(&n).unwrap().pump(BUDGET).exit {
                assert_eq!(exit, Exit::Code(n as i32));
                codes.push(n);
                sessions.remove(&n);
            }
        }
        codes.sort_unstable();
        assert_eq!(codes, [0, 1, 2, 3, 4]);
    });
}
