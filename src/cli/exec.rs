//! A command in the guest with this terminal's input and output.

use std::io::{IsTerminal, Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use anyhow::Result;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::report::INTERRUPTED;
use super::task::exit_code;
use crate::guest::client::AgentClient;
use crate::guest::frames::{Exec, TermSize};
use crate::guest::session::{Event, SessionInput};

/// What to run and how.
#[derive(Debug, Default)]
pub struct Wish {
    /// Program and arguments.
    pub command: Vec<String>,
    /// User in the guest.
    pub user: Option<String>,
    /// Directory in the guest.
    pub dir: Option<String>,
    /// Environment added to the user's.
    pub env: Vec<(String, String)>,
    /// Whether the command gets a terminal.
    pub tty: bool,
}

/// Runs a command and returns its exit code.
pub async fn exec(agent: &AgentClient, wish: Wish) -> Result<ExitCode> {
    let mut env = wish.env;
    let size = wish.tty.then(terminal_size);
    if let (Some(_), Ok(term)) = (size, std::env::var("TERM")) {
        env.push(("TERM".into(), term));
    }
    let mut signals = Signals::new()?;
    let _raw = if wish.tty { Some(Raw::enter()?) } else { None };
    let exec = Exec { argv: wish.command, env, cwd: wish.dir, user: wish.user, tty: size };
    let mut session = agent.exec(exec)?;
    let input = session.input();
    let feeding = tokio::spawn(feed(session.input()));
    let mut interrupted = false;
    let code = loop {
        tokio::select! {
            event = session.next() => match event? {
                Event::Stdout(bytes) => put(std::io::stdout(), &bytes)?,
                Event::Stderr(bytes) => put(std::io::stderr(), &bytes)?,
                Event::Exit(code) => break code,
            },
            said = signals.next() => match said {
                // The second ^C does not ask: leaving ends the command.
                Said::Signal(_) if interrupted => break u32::from(INTERRUPTED),
                Said::Signal(number) => {
                    interrupted = true;
                    input.signal(number)?;
                }
                Said::Resized => if wish.tty { input.resize(terminal_size())? },
            },
        }
    };
    feeding.abort();
    Ok(exit_code(code as i32))
}

fn put(mut out: impl Write, bytes: &[u8]) -> std::io::Result<()> {
    out.write_all(bytes)?;
    out.flush()
}

/// Passes standard input on. Terminals and files cannot be read without blocking, so a thread reads.
async fn feed(input: SessionInput) {
    let (sender, mut chunks) = mpsc::channel::<Vec<u8>>(4);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = [0; 16 * 1024];
        while let Ok(count) = stdin.read(&mut buffer) {
            if count == 0 || sender.blocking_send(buffer[..count].to_vec()).is_err() {
                break;
            }
        }
    });
    while let Some(chunk) = chunks.recv().await {
        if input.write(&chunk).await.is_err() {
            return;
        }
    }
    // The command may be over.
    let _ = input.close();
}

/// What a signal to this process means for the command.
enum Said {
    Signal(u32),
    Resized,
}

/// Signals passed on to the command.
struct Signals {
    passed: [(Signal, u32); 3],
    resized: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let passed = |kind: SignalKind| Ok::<_, std::io::Error>((signal(kind)?, kind.as_raw_value() as u32));
        Ok(Self {
            passed: [
                passed(SignalKind::interrupt())?,
                passed(SignalKind::terminate())?,
                passed(SignalKind::hangup())?,
            ],
            resized: signal(SignalKind::window_change())?,
        })
    }

    async fn next(&mut self) -> Said {
        let [(interrupt, a), (terminate, b), (hangup, c)] = &mut self.passed;
        tokio::select! {
            _ = interrupt.recv() => Said::Signal(*a),
            _ = terminate.recv() => Said::Signal(*b),
            _ = hangup.recv() => Said::Signal(*c),
            _ = self.resized.recv() => Said::Resized,
        }
    }
}

fn terminal_size() -> TermSize {
    let (cols, rows) = crossterm::terminal::size().unwrap_or((80, 24));
    TermSize { cols, rows }
}

/// The terminal in raw mode; restored when dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> Result<Self> {
        let stdin = std::io::stdin();
        let before = tcgetattr(stdin.as_fd())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _ = tcsetattr(std::io::stdin().as_fd(), SetArg::TCSANOW, &self.0);
    }
}

/// Whether both ends of a conversation are a terminal.
pub fn is_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}
