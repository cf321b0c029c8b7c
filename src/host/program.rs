//! Programs run to their end: what they print becomes log events, what fails becomes an error.

use std::collections::VecDeque;
use std::io;
use std::process::Stdio;

use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::child::{self, LastWords};
use crate::event::EventSink;
use crate::event::pieces::Pieces;
use crate::event::text::{clean, strip};

/// How many of a program's last lines an error keeps.
const TAIL: usize = 12;
/// How much is read at once.
const PIECE: usize = 64 * 1024;
/// How much of what it answers is kept, in bytes.
const MOST: usize = 16 << 20;

/// Why a program's run came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It could not be started.
    #[error("cannot run `{program}`: {source}\nhelp: is it installed? `mvm doctor` tells")]
    Start {
        /// Its name.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// It ended with a failure.
    #[error("`{command}` failed ({status})\n{tail}\nhelp: run it by hand to see more")]
    Failed {
        /// The program and its arguments.
        command: String,
        /// How it ended.
        status: String,
        /// Its exit code, unless a signal ended it.
        code: Option<i32>,
        /// Its last lines.
        tail: String,
    },
    /// It says more than it has any reason to.
    #[error("`{program}` answers with more than {MOST} bytes\nhelp: run it by hand to see what")]
    TooMuch {
        /// Its name.
        program: String,
    },
    /// The user wanted no more of it.
    #[error("cancelled\nhelp: run the command again; it goes on where it stopped")]
    Cancelled,
}

/// Runs the command with its output as log lines in `sink`; returns what it wrote on stdout.
pub async fn run(
    command: &mut Command,
    sink: &EventSink,
    cancel: &CancellationToken,
) -> Result<String, ProgramError> {
    let mut answer = Vec::new();
    run_with(command, Stdio::null(), cancel, Some(&mut answer), |line| sink.info(line)).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Runs the command silently; returns what it wrote on stdout.
pub async fn output(command: &mut Command) -> Result<String, ProgramError> {
    let mut answer = Vec::new();
    run_with(command, Stdio::null(), &CancellationToken::new(), Some(&mut answer), |_| {}).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Runs the command and gives `each` line of its output, whichever of the two it comes from.
pub async fn stream(
    command: &mut Command,
    input: Stdio,
    cancel: &CancellationToken,
    each: impl FnMut(&str),
) -> Result<(), ProgramError> {
    run_with(command, input, cancel, None, each).await
}

/// What it writes on stdout goes into `answer` too.
async fn run_with(
    command: &mut Command,
    input: Stdio,
    cancel: &CancellationToken,
    mut answer: Option<&mut Vec<u8>>,
    mut each: impl FnMut(&str),
) -> Result<(), ProgramError> {
    child::tame(command).stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let start = |source| ProgramError::Start { program: program.clone(), source };
    let mut child = command.spawn().map_err(start)?;
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let [mut out, mut err] = [(); 2].map(|()| vec![0; PIECE]);
    let [mut out_lines, mut err_lines] = [(); 2].map(|()| Pieces::default());
    let mut tail = VecDeque::new();
    let mut line = |line: &[u8]| {
        // Of a progress display only the last state is worth a line.
        let line = String::from_utf8_lossy(line);
        let line = clean(line.trim_end());
        each(&line);
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(strip(&line));
    };
    let (mut status, mut last) = (None, LastWords::default());
    let status = loop {
        if let Some(status) = status.filter(|_| stdout.is_none() && stderr.is_none()) {
            break status;
        }
        tokio::select! {
            () = cancel.cancelled() => {
                // The child is over either way; how it ended says nothing more.
                let _ = child::end(&mut child).await;
                return Err(ProgramError::Cancelled);
            }
            piece = child::piece(&mut stdout, &mut out) => {
                let piece = &out[..piece.map_err(start)?];
                if let Some(answer) = &mut answer {
                    if answer.len() + piece.len() > MOST {
                        let _ = child::end(&mut child).await;
                        return Err(ProgramError::TooMuch { program });
                    }
                    answer.extend_from_slice(piece);
                }
                out_lines.take(piece, &mut line);
            }
            piece = child::piece(&mut stderr, &mut err) => err_lines.take(&err[..piece.map_err(start)?], &mut line),
            ended = child.wait(), if status.is_none() => status = Some(ended.map_err(start)?),
            () = last.spoken(), if status.is_some() => (stdout, stderr) = (None, None),
        }
    };
    out_lines.end(&mut line);
    err_lines.end(line);
    if status.success() {
        return Ok(());
    }
    let words = std::iter::once(command.as_std().get_program()).chain(command.as_std().get_args());
    let command = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let tail = Vec::from(tail).join("\n");
    Err(ProgramError::Failed { command, status: status.to_string(), code: status.code(), tail })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failure_tells_the_command_and_its_last_lines() {
        let error = output(Command::new("ls").arg("/no/such/place")).await.unwrap_err().to_string();
        assert!(error.contains("`ls /no/such/place` failed"), "{error}");
        assert!(error.contains("No such file"), "{error}");
    }

    #[tokio::test]
    async fn what_a_program_leaves_running_does_not_hold_up_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let mut sh = Command::new("sh");
        sh.current_dir(dir.path()).args(["-c", "(sleep 3; touch over) & printf 'one\n\\303\\244'"]);
        assert_eq!(output(&mut sh).await.unwrap(), "one\n\u{e4}");
        assert!(!dir.path().join("over").exists());
    }

    #[tokio::test]
    async fn cancelling_ends_the_program() {
        let cancel = CancellationToken::new();
        cancel.cancel();
        let (sink, _stream) = EventSink::new(crate::event::TaskId::new('t'));
        let ended = run(Command::new("sleep").arg("1000"), &sink, &cancel).await;
        assert!(matches!(ended, Err(ProgramError::Cancelled)));
    }
}
