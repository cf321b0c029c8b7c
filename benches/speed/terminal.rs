//! Much output in a terminal pane.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mvm::terminal::Size;
use mvm::terminal::pty::Exit;
use mvm::terminal::screen::SCROLLBACK;
use mvm::terminal::session::Session;

use crate::claim::{Claim, Limit, in_turns};
use crate::place::Place;
use crate::process::run;

const BYTES: usize = 50_000_000;
const SIZE: (u16, u16) = (120, 40);
/// Bytes taken in between two looks at the rest of the console.
const BUDGET: usize = 64 * 1024;
/// Sixty frames a second.
const FRAME: Duration = Duration::from_micros(16_667);
/// A tmux server of our own.
const SERVER: &str = "mvm-bench";

/// `cat` of mixed text through a session that is drawn, against tmux's pane of the same size.
pub fn measure(place: &Place) -> Result<Claim> {
    let file = place.within("terminal")?.paths()?.state().join("mixed.txt");
    fs::write(&file, mixed())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut frames = Vec::new();
    let ours = || {
        let (spent, drawn) = runtime.block_on(through_session(&file))?;
        frames.push(drawn);
        Ok(spent)
    };
    let (ours, theirs) = in_turns(5, ours, || through_tmux(&file))?;
    fs::remove_file(&file)?;
    Ok(Claim {
        what: "cat of 50 MB of mixed text, 120x40",
        ours,
        limit: Limit::Share(0.5, "tmux", theirs),
        stated: vec![format!("{:<34} {frames:?}", "frames walked")],
    })
}

/// Lines as programs write them: plain, coloured, wide.
fn mixed() -> String {
    let mut text = String::with_capacity(BYTES + 256);
    for n in 0u32.. {
        if text.len() >= BYTES {
            break;
        }
        // A String takes everything.
        let _ = match n % 4 {
            0 => writeln!(text, "{n:>8} compiling a crate with a rather long name, v0.{}.{}", n % 9, n % 7),
            1 => writeln!(
                text,
                "\x1b[32m{n:>8}\x1b[0m \x1b[1;34mok\x1b[0m some/path/to/file_{n}.rs \x1b[2m({n} ms)\x1b[0m"
            ),
            2 => writeln!(text, "\x1b[38;5;{}m{n:>8} 漢字かな交じり文、幅の広い文字 ünïcödé\x1b[0m", n % 256),
            _ => writeln!(
                text,
                "\x1b[38;2;{};{};200m{n:>8} {}\x1b[0m",
                n % 256,
                n / 7 % 256,
                "lorem ipsum dolor sit amet ".repeat(3)
            ),
        };
    }
    text
}

/// From the start of `cat` to its last byte on the screen, and how many frames were walked meanwhile.
async fn through_session(file: &Path) -> Result<(Duration, usize)> {
    let began = Instant::now();
    let mut command = tokio::process::Command::new("cat");
    command.arg(file);
    let mut session = Session::spawn(command, Size::new(SIZE.0, SIZE.1), SCROLLBACK)?;
    let (mut drawn, mut at, mut frames) = (0, began, 0);
    let mut frame = String::new();
    let exit = loop {
        session.ready().await;
        let pumped = session.pump(BUDGET);
        if session.screen().revision() != drawn && (at.elapsed() >= FRAME || pumped.exit.is_some()) {
            (drawn, at, frames) = (session.screen().revision(), Instant::now(), frames + 1);
            let grid = session.screen().grid();
            frame.clear();
            for row in 0..grid.size().rows() {
                grid.row(row).for_each(|cell| cell.write_symbol(&mut frame));
            }
        }
        if let Some(exit) = pumped.exit {
            break exit;
        }
    };
    ensure!(exit == Exit::Code(0), "cat: {exit}");
    ensure!(frame.contains("lorem ipsum"), "the last of the text is not on the screen");
    Ok((began.elapsed(), frames))
}

/// From the start of `cat` in a detached session to its end.
fn through_tmux(file: &Path) -> Result<Duration> {
    let tmux = || {
        let mut tmux = Command::new("tmux");
        tmux.env_remove("TMUX").args(["-L", SERVER, "-f", "/dev/null"]).stdin(Stdio::null());
        tmux
    };
    let script = format!(
        "cat {}; tmux -L {SERVER} wait-for -S done",
        shlex::try_quote(file.to_str().context("UTF-8")?)?
    );
    let (columns, rows) = (SIZE.0.to_string(), SIZE.1.to_string());
    let began = Instant::now();
    run(tmux().args(["new-session", "-d", "-x", &columns, "-y", &rows, &script]))?;
    let waited = run(tmux().args(["wait-for", "done"]));
    let spent = began.elapsed();
    // It ends by itself once its only session has.
    let _ = tmux().arg("kill-server").stderr(Stdio::null()).status();
    waited?;
    Ok(spent)
}
